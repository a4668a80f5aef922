package session

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"time"
)

// dialer is what has a dialer's session: a process that dials again for as long as it lives.
type dialer struct {
	*end
	token    []byte
	pending  bool
	hangs    time.Duration // until when a dial hangs
	race     bool          // the next dial's first bytes come late
	backoff  time.Duration
	notUntil time.Duration
	dials    int
	lives    int
	wasLive  bool // since the last dial
	eras     []era
	past     []past
	renewing bool // as soon as the last write has ended
	lost     bool // the session is lost for good

	of      *dialer // whose session this is a copy of, if it is one
	tainted bool    // what arrives need not be right any more: a byte was changed, or a copy was taken for the original
	aborted bool    // the session need not end in good order

	since  time.Duration // from when on D2 holds
	notice time.Duration // how long it may take to find that the connection is dead
}

// era is from which number on the dialer's stream from the peer is that of which listener's session.
type era struct {
	from uint64
	l    *end
}

// past is a session that was lost, and which of the dialer's datagrams was its first.
type past struct {
	id    [16]byte
	first uint64
}

// The tokens of dialers, and of others. Who dials without has the principal "".
var (
	token        = []byte("token")
	otherToken   = []byte("other")
	expiredToken = []byte("expired")
)

func (m *sim) newDialer(name string) *dialer {
	d := &dialer{end: &end{m: m, name: name}}
	d.d = d
	d.idle, d.ticks = d.idleFunc, d.tick
	if m.plan.token {
		d.token = token
	}
	return d
}

func (d *dialer) redial() {
	if d.pending || d.gone || d.s.state == Ended {
		return
	}
	d.pending = true
	wait := d.m.between(0, d.backoff)
	d.backoff = min(max(2*d.backoff, 50*time.Millisecond), max(d.m.plan.maxWait, 50*time.Millisecond))
	d.m.at(max(d.m.now+wait, d.notUntil), d.dial)
}

// dial makes a connection, if there is none.
func (d *dialer) dial() {
	m := d.m
	if d.wait(d.dial) {
		return
	}
	switch {
	case d.gone || d.s.state == Ended || d.cur != nil:
		d.pending = false
		return
	case d.writers > 0:
		m.hit(dialWaited)
		return // idle comes back
	case m.now < d.hangs:
		m.at(d.hangs, d.dial)
		return
	case !m.healed && m.now < m.plan.refuseUntil:
		m.hit(dialRefused)
		d.pending = false
		d.redial()
		return
	case !m.healed && m.now < m.plan.hangUntil:
		m.hit(dialHung)
		if m.odds(2) { // it works, but late
			d.hangs = m.now + m.between(0, m.plan.dialTimeout)
			m.hit(dialLate)
			m.at(d.hangs, d.connect)
			return
		}
		d.hangs = m.now + m.plan.dialTimeout
		m.at(d.hangs, func() {
			d.pending = false
			d.redial()
		})
		return
	}
	d.connect()
}

func (d *dialer) connect() {
	if d.wait(d.connect) {
		return
	}
	d.pending = false
	if d.gone || d.s.state == Ended || d.cur != nil || d.writers > 0 {
		return
	}
	d.attach(d.m.newConn(d))
}

func (d *dialer) attach(c *conn) {
	m, s := d.m, d.s
	d.dials++
	ce := m.newConnEnd(c, dialing, d.end)
	m.server.accept(c)
	d.cur = ce
	m.hitIf(attachedAnew, d.wasLive)
	if s.state == Detached && !d.wasLive && m.server.knows(s.id, s.epoch) {
		m.hit(resumedLost)
	}
	if d.race && !m.healed {
		d.race = false
		c.lanes[dialing].frozen = m.now + m.between(200*time.Millisecond, 3*time.Second)
		m.after(m.between(0, 500*time.Millisecond), func() {
			if d.cur == ce {
				d.leave()
			}
		})
	}
	d.wasLive = false
	s.Dial(d.clock(), c.exporter, d.token)
	ce.epoch = s.epoch
	if m.tracing {
		m.note("%s: conn %d, epoch %d, %v, base %v", d.name, c.n, s.epoch, s.state, s.log.base)
	}
	d.after("Dial")
}

// leave gives the connection up.
func (d *dialer) leave() bool {
	if d.cur == nil {
		return false
	}
	d.m.hit(leftByDialer)
	d.cur.close()
	return true
}

func (d *dialer) live() {
	d.wasLive = true
	d.lives++
	d.backoff = 0
	if d.of != nil || d.tainted {
		return
	}
	if n := len(d.eras); n == 0 || d.eras[n-1].l.s.id != d.s.id {
		d.eras = append(d.eras, era{d.s.recv.origin.N + d.s.cfg.Start.N, d.m.server.latest(d.s.id)})
	}
}

// began returns which of the dialer's datagrams is the first of a session, and whether the dialer needs no HELLO of it any
// more: it has had an answer, or has gone on in another session.
func (d *dialer) began(id [16]byte) (first uint64, late bool) {
	for _, x := range d.past {
		if x.id == id {
			return x.first, true
		}
	}
	if id != d.s.id {
		return 0, false // a copy's
	}
	late = slices.ContainsFunc(d.eras, func(x era) bool { return x.l.s.id == id })
	return d.s.log.origin.N, late
}

// rejected sees to a REJECT.
func (e *end) rejected(r *RejectError) {
	m, d := e.m, e.d
	e.checked("REJECT")
	m.note("%s: %v", d.name, r)
	m.hitIf(restartSeen, r.Restarted)
	if e.s.state != Ended {
		if r.Reason != ReasonDraining && r.Reason != ReasonBusy { // above all two holders must not kick each other for ever
			m.failf("%s: goes on after a REJECT that is final: %v", d.name, r)
		}
		m.hit(rejectedAgain)
		d.notUntil = m.now + ms(r.Delay) + m.between(0, ms(r.Spread))
		d.since = d.notUntil // a listener that is full, or drains, is no fault
		if e.cur != nil {
			e.cur.close()
		}
		return
	}
	m.hitIf(lostWithCount, r.Flags&FlagReceivedKnown != 0)
	e.after("REJECT")
}

// ended sees to a dialer's session that has ended, and reports whether it goes on with another.
func (d *dialer) ended() bool {
	var r *RejectError
	taken := errors.As(d.s.err, &r) && r.Reason == ReasonTakenOver
	switch {
	case d.of != nil:
		d.m.hitIf(copyRefused, taken && d.lives == 0)
		return false
	case taken:
		d.m.hit(takenFromOriginal)
		if !d.tainted {
			d.m.failf("%s: taken over, and nobody else has had the session", d.name)
		}
	case isLost(d.s.err):
		d.gaveUp()
		return true
	}
	return false
}

// gaveUp sees to a session that is lost: what is unconfirmed goes on in a new one, when nobody writes it any more.
func (d *dialer) gaveUp() {
	d.m.hit(sessionLost)
	since := time.Duration(math.MaxInt64) // what has begun since the REJECT began by an earlier HELLO, which came late
	if d.cur != nil && d.cur.c.rejected > 0 {
		since = d.cur.c.rejected
	}
	for _, e := range d.m.server.alive() {
		if e.s.id == d.s.id && !e.late && e.begun < since && !d.tainted && d.s.epoch <= MaxHellos { // after so many HELLOs it begins anew by itself
			d.m.failf("%s: lost, while the listener has it: %v", d.name, d.s.err)
		}
	}
	d.unconfirmed()
	if ce := d.cur; ce != nil {
		d.cur = nil
		ce.close()
	}
	if d.writers == 0 {
		d.renew()
		return
	}
	d.renewing = true
	d.idle = func() {
		d.idle, d.renewing = d.idleFunc, false
		d.renew()
	}
}

// isLost reports whether err is the loss of a session, after which a dialer goes on with another.
func isLost(err error) bool {
	var r *RejectError
	var l *LostError
	var c *ClosedError
	return errors.As(err, &r) && r.Reason.Lost() || errors.As(err, &l) || errors.As(err, &c) && c.Reason == CloseShutdown
}

// unconfirmed checks the list that a user gets of a lost session.
func (d *dialer) unconfirmed() {
	a := d.app
	d.drain()
	i := min(int(d.s.Acked()-d.s.cfg.Start.N), len(a.sent))
	for dg := range d.s.Unconfirmed {
		for i < len(a.sent) && a.sent[i].expired {
			i++
		}
		if i >= len(a.sent) || !bytes.Equal(dg.Payload, a.sent[i].payload) {
			d.m.failf("the list of what is unconfirmed is wrong at %d", i)
		}
		i++
	}
	for i < len(a.sent) && a.sent[i].expired {
		i++
	}
	if i != len(a.sent) {
		d.m.failf("the list of what is unconfirmed ends at %d of %d", i, len(a.sent))
	}
}

// renew goes on with a new session, if it can.
func (d *dialer) renew() {
	m := d.m
	d.kept = d.s.recv.waiting
	d.past = append(d.past, past{d.s.id, d.s.log.origin.N})
	ok, err := d.s.Renew(m.secret)
	if err != nil {
		m.failf("Renew: %v", err)
	}
	d.checked("Renew")
	if !ok {
		m.hit(cannotRenew)
		d.lost = true
		return
	}
	m.hit(renewed)
	d.since = m.now
	for i := range d.s.log.origin.N {
		// It was acknowledged: only a process that was killed takes it with it, or the application can still have it.
		if msg := &d.app.sent[i]; !msg.delivered && !msg.expired {
			msg.acked = true
		}
	}
	m.void = m.void || m.plan.start.N > 1<<63
	m.note("%s: renewed, %d redelivered, origin %v %v", d.name, d.s.redelivered, d.s.log.origin, d.s.recv.origin)
	d.over, d.lingers = false, false
	d.redial()
	d.app.wake()
}

func (d *dialer) idleFunc() {
	if d.pending && d.cur == nil {
		d.m.after(0, d.dial)
	}
}

// copied makes a second holder of the session, who dials as the first one does; or somebody else, who has all but the
// first one's principal.
func (d *dialer) copied() bool {
	m := d.m
	if d.s.state == Ended || d.renewing || d.tainted || d.dials == 0 {
		return false
	}
	if e, ok := m.server.table.Get(d.s.id); !ok || e.gone {
		return false
	}
	v, err := d.s.Export(d.clock())
	if err != nil {
		m.failf("%s: Export: %v", d.name, err)
	}
	c := m.newDialer("copy      ")
	c.of, c.aborted, c.skew, c.frozen, c.kept = d, true, d.skew, d.frozen, d.kept
	s, err := Restore(c.clock(), d.s.cfg, v)
	if err != nil {
		m.failf("%s: Restore: %v", d.name, err)
	}
	c.s = s
	c.app = &app{m: m, e: c.end, stopAt: -1, foreign: true, outstanding: s.recv.stale + s.recv.open}
	c.app.init()
	if m.odds(2) {
		c.token = otherToken
	}
	m.copies = append(m.copies, c)
	m.note("%s: copied, principal %q", d.name, c.token)
	m.after(m.between(0, 3*time.Second), func() {
		if old := d.s.epoch; old == s.epoch && m.odds(2) {
			d.leave() // both dial at once
		}
		c.redial()
	})
	return true
}

// endCopies ends the copies, for they would go on dialling.
func (m *sim) endCopies() {
	for _, c := range m.copies {
		if c.s.state != Ended {
			c.s.Abort()
			c.after("Abort")
		}
	}
}
