package session

import (
	"bytes"
	"errors"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// message is a datagram that an application has handed to its Session.
type message struct {
	recipient uint16
	payload   []byte // a slice of sim.noise
	deadline  time.Duration
	at        time.Duration // when it was accepted
	ahead     uint64        // how many bytes were unconfirmed then, it included
	expired   bool
	delivered bool
	unmarked  bool // as one that was not delivered before
	acked     bool // in a session that was lost
}

// app is an application: what it sends, and what it must see. Together with the other one's it is the reference model,
// two queues without an end.
type app struct {
	m    *sim
	e    *end
	sent []message
	left int // datagrams that are still to be sent

	base        uint64 // of the peer's datagrams was the first of this session
	next        int    // of them is expected
	peer        *end   // whose datagrams those are, for the dialer
	outstanding int    // taken, and not consumed
	pausedUntil time.Duration
	stopAt      int // it takes no more after so many; -1: never
	taken       int

	sending, taking, consuming bool // a step of it is on its way
	done                       bool // it has said Finish
	blocked                    bool
	foreign                    bool // it is nobody's whom the model knows

	sends, takes, consumes func()
}

func (a *app) init() { a.sends, a.takes, a.consumes = a.send, a.take, a.consume }

func (m *sim) newApp(e *end) *app {
	a := &app{m: m, e: e, left: m.rng.IntN(m.plan.messages + 1), stopAt: -1}
	a.init()
	if m.plan.exactly {
		a.left = m.plan.messages
	}
	if m.plan.stops && m.odds(3) {
		a.stopAt = m.rng.IntN(m.plan.messages + 1)
	}
	return a
}

// wake sees to it that the application does what it can do.
func (a *app) wake() {
	if a.e.gone {
		return
	}
	s := a.e.s
	waits := a.blocked && !s.Room() && !s.stopped || a.left == 0 && a.m.plan.late && !a.m.healed
	if !a.sending && !a.done && !waits && s.state != Ended {
		a.sending = true
		a.m.after(a.m.between(0, a.m.plan.sendPace), a.sends)
	}
	if !a.taking && s.Readable() {
		a.taking = true
		a.m.at(max(a.pausedUntil, a.m.now+a.m.between(0, a.m.plan.takePace)), a.takes)
	}
	if !a.consuming && a.outstanding > 0 && s.cfg.Consumed {
		a.consuming = true
		a.m.after(a.m.between(0, a.m.plan.takePace), a.consumes)
	}
}

// send sends some datagrams, and ends the stream behind the last.
func (a *app) send() {
	m, s := a.m, a.e.s
	if a.e.gone || a.e.wait(a.sends) {
		return
	}
	a.sending, a.blocked = false, false
	for range 1 + m.rng.IntN(m.plan.batch) {
		if a.foreign {
			break
		}
		if a.left == 0 || s.Accepting() != nil {
			break
		}
		if !s.Room() {
			a.blocked = true
			break
		}
		a.append()
	}
	if !a.done && s.state != Ended && (a.left == 0 || s.stopped) && (m.healed || !m.plan.late && m.odds(4)) {
		a.done = true
		s.Finish(a.e.clock())
		m.note("%s: finishes after %d", a.e.name, len(a.sent))
		a.e.checked("Finish")
	}
	if m.odds(8) {
		n := s.Flush()
		if n < s.Accepted() {
			m.failf("%s: Flush waits for %d, %d are accepted", a.e.name, n, s.Accepted())
		}
		m.hit(flushed)
	}
	a.e.after("Append")
}

func (a *app) append() {
	m, s := a.m, a.e.s
	n := m.plan.size(m)
	at := m.rng.IntN(len(m.noise) - n)
	payload := m.noise[at : at+n]
	d := datagram.Datagram{Recipient: uint16(at), Payload: append(m.buffer[:0], payload...)}
	var deadline time.Duration
	if m.plan.ages && m.odds(4) {
		deadline = max(1, a.e.clock()+m.between(0, 3*time.Second))
	}
	err := s.Append(a.e.clock(), d, deadline)
	a.e.checked("Append")
	switch {
	case errors.Is(err, ErrExhausted):
		m.hit(exhausted)
		a.left = 0
		return
	case err != nil:
		m.failf("%s: Append: %v", a.e.name, err)
	}
	a.left--
	a.sent = append(a.sent, message{
		recipient: d.Recipient, payload: payload, deadline: deadline, at: m.now, ahead: s.log.size(),
	})
	spoil(d.Payload) // it was copied
}

// expire takes the report that a datagram was skipped.
func (a *app) expire(number uint64) {
	if a.foreign {
		return
	}
	i := number - a.e.s.cfg.Start.N - 1
	if i >= uint64(len(a.sent)) {
		a.m.failf("%s: %d has expired, sent are %d", a.e.name, number, len(a.sent))
	}
	msg := &a.sent[i]
	if msg.expired || msg.delivered || msg.deadline == 0 || a.e.clock() < msg.deadline {
		a.m.failf("%s: %d has expired: before %v, delivered %v, limit %v", a.e.name, number, msg.expired, msg.delivered, msg.deadline)
	}
	msg.expired = true
	a.m.hit(ageExceeded)
}

// take takes a run and compares it.
func (a *app) take() {
	m, e := a.m, a.e
	if e.gone || e.wait(a.takes) {
		return
	}
	a.taking = false
	if m.now < a.pausedUntil {
		a.wake()
		return
	}
	for a.takeRun() {
		if a.stopAt >= 0 && a.taken >= a.stopAt {
			m.hitIf(stopDropsQueue, e.s.Readable())
			e.s.Stop()
			m.note("%s: stops", e.name)
			e.checked("Stop")
		}
		if m.odds(4) && !m.healed {
			break
		}
	}
	e.after("Take")
}

// takeRun takes one run.
func (a *app) takeRun() bool {
	m, e, s := a.m, a.e, a.e.s
	run, ok := s.Take()
	e.checked("Take")
	if !ok {
		return false
	}
	n := run.N
	a.taken += n
	a.outstanding += n
	if e.d.tainted || a.foreign {
		return true
	}
	// In whose stream it is, and where in it, by its number alone.
	first := s.recv.taken.N - uint64(n)
	from, at := e.d.app, a.base+first-s.cfg.Start.N
	if e == e.d.end {
		eras := e.d.eras
		i := len(eras) - 1
		for i > 0 && first < eras[i].from {
			i--
		}
		if i < 0 {
			m.failf("%s: datagrams of nobody", e.name)
		}
		if a.peer != eras[i].l {
			a.peer, a.next = eras[i].l, 0
		}
		from, at = a.peer.app, first-eras[i].from
	}
	for i := range n {
		d, ok := run.Next()
		if !ok {
			m.failf("%s: a run of %d has %d", e.name, n, i)
		}
		for a.next < len(from.sent) && from.sent[a.next].expired {
			a.next++
		}
		if a.next >= len(from.sent) || uint64(a.next) != at {
			m.failf("%s: datagram %d is delivered, expected %d of %d", e.name, at, a.next, len(from.sent))
		}
		msg := &from.sent[a.next]
		marked := i < run.Redelivered
		switch {
		case d.Recipient != msg.recipient || !bytes.Equal(d.Payload, msg.payload):
			m.failf("%s: datagram %d is not what was sent", e.name, at)
		case msg.unmarked && !marked:
			m.failf("%s: datagram %d is delivered twice, and not marked", e.name, at)
		}
		m.hitIf(redelivered, marked && msg.delivered)
		if m.healed && !msg.delivered {
			m.inTime(a, msg)
		}
		msg.delivered, msg.unmarked = true, msg.unmarked || !marked
		a.next++
		at++
	}
	return true
}

// consume finishes with some of what was taken.
func (a *app) consume() {
	m, e := a.m, a.e
	if e.gone || e.wait(a.consumes) {
		return
	}
	a.consuming = false
	if e.s.Consume(e.clock(), a.outstanding+1) {
		m.failf("%s: more is consumed than was taken", e.name)
	}
	n := m.rng.IntN(a.outstanding + 1)
	if m.healed {
		n = a.outstanding
	}
	if !e.s.Consume(e.clock(), n) {
		m.failf("%s: %d of %d cannot be consumed", e.name, n, a.outstanding)
	}
	a.outstanding -= n
	m.hitIf(consumedInPart, a.outstanding > 0)
	e.after("Consume")
}
