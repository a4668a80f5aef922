package session

import (
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// plan is what one run is like. Every run draws its own; much of it is off in most runs, so that what is on meets
// little else.
type plan struct {
	maxPayload           uint32
	sendBuffer           uint64
	minWindow, maxWindow uint64
	consumed             [2]bool // by role
	ackDelay             time.Duration
	answerTimeout        time.Duration
	expiry               time.Duration
	start                Position
	exporter             bool
	token                []byte

	messages            int // at most, for each application
	exactly             bool
	sizes               int
	batch               int
	sendPace, takePace  time.Duration
	ages, stops, late   bool
	latency, writeDelay time.Duration
	shortWrites, yields bool
	silent              bool // who closes a connection may say nothing
	refuseUntil         time.Duration

	faults  time.Duration // how long there are faults
	every   time.Duration // between two of them, about
	weights [numFaults]int
	total   int
}

func (m *sim) draw() {
	p := &m.plan
	*p = plan{
		maxPayload:    200_000,
		sendBuffer:    pick[uint64](m, 1000, 16<<10, 64<<10, 256<<10, 1<<20),
		minWindow:     pick[uint64](m, InitialCredit, InitialCredit, 64<<10),
		ackDelay:      pick(m, time.Millisecond, 25*time.Millisecond, 25*time.Millisecond, 300*time.Millisecond),
		answerTimeout: pick(m, 500*time.Millisecond, 5*time.Second),
		expiry:        pick(m, 3*time.Second, 20*time.Second, 60*time.Second),
		exporter:      m.odds(2),
		messages:      pick(m, 3, 30, 100, 300),
		sizes:         m.rng.IntN(4),
		batch:         pick(m, 1, 4, 30),
		sendPace:      pick(m, time.Millisecond, 20*time.Millisecond, 300*time.Millisecond),
		takePace:      pick(m, 0, time.Millisecond, 50*time.Millisecond, 500*time.Millisecond),
		ages:          m.odds(2),
		stops:         m.odds(10),
		late:          m.odds(2),
		latency:       pick(m, 0, time.Millisecond, 30*time.Millisecond, 300*time.Millisecond),
		writeDelay:    pick(m, 0, 0, time.Millisecond, 100*time.Millisecond, time.Second),
		shortWrites:   m.odds(3),
		yields:        m.odds(2),
		silent:        m.odds(3),
		faults:        m.between(time.Second, 20*time.Second),
	}
	p.maxWindow = p.minWindow << m.rng.IntN(5)
	p.consumed = [2]bool{m.odds(3), m.odds(3)}
	if m.odds(2) {
		p.token = []byte("token")
	}
	switch m.rng.IntN(8) {
	case 0:
		p.start = Position{1<<32 - uint64(m.rng.IntN(40)), 1<<32 - uint64(m.rng.IntN(40_000))}
	case 1:
		p.start = Position{math.MaxUint64 - uint64(2+m.rng.IntN(20)), math.MaxUint64 - uint64(100+m.rng.IntN(40_000))}
	}
	p.every = p.faults / time.Duration(1+m.rng.IntN(40))
	for f := range p.weights {
		if m.odds(2) {
			p.weights[f] = 1 + m.rng.IntN(10)
		}
	}
	if !m.odds(8) {
		p.weights[faultFlip] = 0
	}
	if !m.odds(3) {
		p.weights[faultRestart] = 0
	}
	for _, w := range p.weights {
		p.total += w
	}
}

// size draws the length of a payload.
func (p *plan) size(m *sim) int {
	switch n := m.rng.IntN(100); {
	case n < 10:
		return 0
	case n < 40 || p.sizes == 0:
		return m.rng.IntN(60)
	case n < 80 || p.sizes == 1:
		return m.rng.IntN(1500)
	case n < 99 || p.sizes == 2:
		return m.rng.IntN(20_000)
	}
	return m.rng.IntN(int(p.maxPayload) + 1)
}

func (m *sim) config(role Role) Config {
	p := &m.plan
	return Config{
		MaxPayload: p.maxPayload, SendBuffer: p.sendBuffer, MinWindow: p.minWindow, MaxWindow: p.maxWindow,
		Consumed: p.consumed[role], PingAfter: 5 * time.Second, AckDelay: p.ackDelay, AnswerTimeout: p.answerTimeout,
		Expiry: p.expiry, Memory: &m.mem, Start: p.start,
	}
}

// fault is a kind of fault.
type fault int

const (
	faultReset       fault = iota // a connection breaks now
	faultCut                      // it breaks when some more bytes have arrived
	faultFin                      // the stream ends when some more bytes have arrived
	faultHole                     // nothing passes any more, one way or both
	faultFreeze                   // nothing passes for a while
	faultLeave                    // the dialer gives its connection up, and dials again
	faultRefuse                   // for a while, nobody answers dials
	faultPause                    // a process stops for a while
	faultPauseBoth                // both do
	faultClock                    // a clock jumps ahead
	faultReplay                   // somebody repeats a greeting that he has seen
	faultRestart                  // the listener's process is killed, and another begins
	faultExpire                   // nobody can dial for longer than the listener waits
	faultRestore                  // one side's session goes on from its value
	faultFlip                     // a byte changes on the way
	faultStopReading              // an application reads nothing for a while
	faultGoaway                   // the listener asks to be left
	faultFlush                    // an application flushes
	numFaults
)

// live returns the connections that may still carry something.
func (m *sim) live() (live []*conn) {
	for _, c := range m.conns {
		if !c.dead && (!c.ends[0].closed || !c.ends[1].closed) {
			live = append(live, c)
		}
	}
	return live
}

// disturb makes one fault, and arranges for the next.
func (m *sim) disturb() {
	p := &m.plan
	if m.healed || p.total == 0 {
		return
	}
	m.after(m.between(0, 2*p.every), m.disturb)
	n, f := m.rng.IntN(p.total), fault(0)
	for n >= p.weights[f] {
		n -= p.weights[f]
		f++
	}
	m.faults++
	var c *conn
	if live := m.live(); len(live) > 0 {
		c = live[m.rng.IntN(len(live))]
	}
	l := m.rng.IntN(2)
	m.note("--- fault %d", f)
	switch f {
	case faultReset, faultCut, faultFin, faultHole, faultFreeze, faultFlip:
		if c != nil {
			m.disturbConn(f, c, c.lanes[l])
		}
	case faultLeave:
		m.dialer.leave()
	case faultRefuse:
		p.refuseUntil = m.now + m.between(0, 2*time.Second)
	case faultExpire:
		p.refuseUntil = m.now + p.expiry + m.between(0, 2*time.Second)
		for _, c := range m.live() {
			c.reset()
		}
	case faultPause:
		m.pause(l, m.between(0, 6*time.Second))
	case faultPauseBoth:
		d := m.between(0, 30*time.Second)
		m.pause(0, d)
		m.pause(1, d)
	case faultClock:
		m.jump(l, pick(m, m.between(0, 2*time.Second), m.between(0, 40*time.Second)))
	case faultReplay:
		m.replay()
	case faultRestart:
		m.hit(restarted)
		for _, c := range m.live() {
			c.reset()
		}
		m.server.restart()
	case faultRestore:
		if l == dialing {
			m.restore(m.dialer.end)
		} else if n := len(m.server.ends); n > 0 {
			m.restore(m.server.ends[n-1])
		}
	case faultStopReading:
		a := m.dialer.app
		if n := len(m.server.ends); l == listening && n > 0 {
			a = m.server.ends[n-1].app
		}
		a.pausedUntil = m.now + m.between(0, 5*time.Second)
	case faultGoaway:
		if n := len(m.server.ends); n > 0 && !m.server.ends[n-1].gone {
			e := m.server.ends[n-1]
			e.s.Goaway(m.between(0, 100*time.Millisecond), m.between(0, 100*time.Millisecond))
			e.after("Goaway")
		}
		m.server.draining = !m.server.draining
	case faultFlush:
		m.dialer.s.Flush()
		m.dialer.after("Flush")
	}
}

func (m *sim) disturbConn(f fault, c *conn, l *lane) {
	soon := pick(m, 0, m.rng.IntN(10), m.rng.IntN(300), m.rng.IntN(5000))
	switch f {
	case faultReset:
		m.hit(reset)
		c.reset()
	case faultCut:
		l.cutAt = l.delivered + soon
	case faultFin:
		l.finAt = l.delivered + soon
	case faultHole:
		l.hole = true
		if m.odds(2) {
			c.lanes[1-l.from].hole = true
			m.hit(blackHole)
		} else {
			m.hit(blackHoleOneWay)
		}
	case faultFreeze:
		l.frozen = m.now + m.between(0, 8*time.Second)
		if m.odds(2) {
			c.lanes[1-l.from].frozen = l.frozen
		}
	case faultFlip:
		l.flipAt = l.delivered + soon
	}
}

// pause stops a process.
func (m *sim) pause(side int, d time.Duration) {
	until := m.now + d
	if side == dialing {
		m.dialer.frozen = max(m.dialer.frozen, until)
		m.at(until, m.dialer.kick)
		return
	}
	m.server.frozen = max(m.server.frozen, until)
	for _, e := range m.server.ends {
		e.frozen = max(e.frozen, until)
		m.at(until, e.kick)
	}
}

// jump sets a clock ahead.
func (m *sim) jump(side int, d time.Duration) {
	m.hit(clockJumped)
	if side == dialing {
		m.dialer.skew += d
		m.at(m.now, m.dialer.rearm)
		return
	}
	m.server.skew += d
	for _, e := range m.server.ends {
		e.skew += d
		m.at(m.now, e.rearm)
	}
}

func (e *end) rearm() {
	if !e.gone {
		e.armed = 0
		e.arm()
	}
}

// replay is an attacker's connection that begins with a greeting which the listener has taken before.
func (m *sim) replay() {
	v := m.server
	if len(v.seen) == 0 {
		return
	}
	g := v.seen[m.rng.IntN(len(v.seen))]
	v.due()
	e, ok := v.table.Get(g.id)
	if _, _, dead := v.table.Tombstone(g.id); !ok && !dead {
		return // a listener that has lost all cannot know that it is not new
	}
	c := m.newConn()
	c.exporter = g.exporter
	m.newConnEnd(c, dialing, nil).held = true
	ce := v.accept(c)
	run := datagram.Run{Raw: g.frame, N: 1, Version: datagram.ControlVersion}
	m.note("conn %d: somebody repeats a %v", c.n, KindOf(g.frame))
	if m.now < v.frozen {
		return
	}
	var state State
	var epoch uint64
	var cur *connEnd
	if ok {
		state, epoch, cur = e.s.state, e.s.epoch, e.cur
	}
	v.first(ce, run)
	m.hitIf(helloReplayed, KindOf(g.frame) == KindHello)
	m.hitIf(resumeReplayed, KindOf(g.frame) == KindResume)
	if !ce.closed || ok && (e.s.state != state || e.s.epoch != epoch || e.cur != cur) {
		m.failf("a repeated %v was taken", KindOf(g.frame))
	}
}

// restore lets a session go on from its value, as after a crash that lost nothing, or on another machine.
func (m *sim) restore(e *end) {
	if e.gone || e.s.state == Ended || e.writers > 0 || e.coming != nil {
		return
	}
	v, err := e.s.Export(e.clock())
	if err != nil {
		m.failf("%s: Export: %v", e.name, err)
	}
	e.drain()
	old := e.s
	s, err := Restore(e.clock(), old.cfg, v)
	if err != nil {
		m.failf("%s: Restore: %v", e.name, err)
	}
	m.note("%s: restored", e.name)
	m.hitIf(restoredDialer, s.role == Dialer)
	m.hitIf(restoredListener, s.role == Listener)
	m.hitIf(restoredLog, s.log.size() > 0)
	if ce := e.cur; ce != nil {
		ce.close()
	}
	if old.state == Ended { // of the end of its connection, it cannot have: but it may have expired
		s.log.drop()
		return
	}
	old.log.drop()
	e.s = s
	e.after("Restore")
}

// heal ends the faults: from now on everything works, but what is broken stays so until somebody notices.
func (m *sim) heal() {
	m.healed = true
	m.note("--- healed")
	m.plan.refuseUntil = 0
	m.plan.writeDelay = 0
	m.plan.latency = min(m.plan.latency, 50*time.Millisecond)
	m.plan.takePace, m.plan.sendPace = min(m.plan.takePace, 10*time.Millisecond), min(m.plan.sendPace, 10*time.Millisecond)
	m.server.draining = false
	for _, c := range m.conns {
		for _, l := range c.lanes {
			l.cutAt, l.finAt = -1, -1
			l.latency, l.perByte = min(l.latency, 100*time.Millisecond), 0
			l.readSize, l.capacity = 64<<10, 256<<10
			if l.flipAt >= 0 {
				c.reset()
			}
		}
	}
	m.dialer.app.wake()
	for _, e := range m.server.ends {
		e.app.wake()
	}
}
