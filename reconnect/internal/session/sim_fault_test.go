package session

import (
	"math"
	"slices"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// plan is what one run is like. Every run draws its own; much of it is off in most runs, so that what is on meets
// little else.
type plan struct {
	maxPayload           uint32
	sendBuffer           uint64
	minWindow, maxWindow uint64
	memory               uint64  // of the listener, for windows; 0: without a limit
	consumed             [2]bool // by role
	ackDelay             time.Duration
	answerTimeout        time.Duration
	dialTimeout          time.Duration
	maxWait              time.Duration // between dials
	expiry               time.Duration
	start                Position
	exporter             bool
	token                bool

	dialers                  int
	maxSessions, maxDetached int
	messages                 int // at most, for each application
	exactly                  bool
	sizes                    int
	batch                    int
	sendPace, takePace       time.Duration
	ages, stops, late        bool
	latency, writeDelay      time.Duration
	shortWrites, yields      bool
	silent                   bool // who closes a connection may say nothing
	walk                     int  // between two checks of all that is in memory, events at most
	refuseUntil, hangUntil   time.Duration

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
		dialTimeout:   pick(m, 500*time.Millisecond, 10*time.Second),
		maxWait:       pick(m, 100*time.Millisecond, time.Second, 5*time.Second),
		expiry:        pick(m, 3*time.Second, 20*time.Second, 60*time.Second),
		exporter:      m.odds(2),
		token:         m.odds(2),
		dialers:       1,
		messages:      pick(m, 3, 100, 1000, 1500, 2500),
		sizes:         m.rng.IntN(4),
		batch:         pick(m, 1, 4, 30),
		takePace:      pick(m, 0, time.Millisecond, 50*time.Millisecond, 500*time.Millisecond),
		ages:          m.odds(2),
		stops:         m.odds(10),
		late:          m.odds(2),
		latency:       pick(m, 0, time.Millisecond, 30*time.Millisecond, 300*time.Millisecond),
		writeDelay:    pick(m, 0, 0, time.Millisecond, 100*time.Millisecond, time.Second),
		shortWrites:   m.odds(3),
		yields:        m.odds(2),
		silent:        m.odds(3),
		walk:          pick(m, 1, 10, 100, 100, 100),
		faults:        m.between(time.Second, 20*time.Second),
	}
	// About as fast as the faults last; or all at once.
	p.sendPace = min(p.faults*time.Duration(1+p.batch)/time.Duration(p.messages), 300*time.Millisecond)
	if m.odds(4) {
		p.sendPace = time.Millisecond
	}
	p.maxWindow = p.minWindow << m.rng.IntN(5)
	p.consumed = [2]bool{m.odds(3), m.odds(3)}
	if m.odds(4) {
		p.dialers = 2 + m.rng.IntN(3)
		p.messages = max(p.messages/p.dialers, 3)
	}
	p.maxSessions, p.maxDetached = p.dialers+m.rng.IntN(4), 1+m.rng.IntN(4)
	if p.dialers > 1 && m.odds(4) {
		p.maxSessions = p.dialers - 1 // one has to wait
	}
	if m.odds(2) {
		p.memory = p.minWindow * uint64(1+m.rng.IntN(8))
	}
	switch m.rng.IntN(8) {
	case 0:
		p.start = Position{1<<32 - uint64(m.rng.IntN(300)), 1<<32 - uint64(m.rng.IntN(400_000))}
	case 1:
		p.start = Position{math.MaxUint64 - uint64(2+m.rng.IntN(200)), math.MaxUint64 - uint64(100+m.rng.IntN(400_000))}
	}
	if p.start == (Position{}) {
		// From a source of its own: so what else a seed does is what it did before there were these.
		switch rng := newRand(m.seed, 2); rng.IntN(6) {
		case 0:
			p.start = Position{1<<31 - uint64(rng.IntN(300)), 1<<31 - uint64(rng.IntN(400_000))}
		case 1:
			p.start = Position{1<<63 - uint64(rng.IntN(300)), 1<<63 - uint64(rng.IntN(400_000))}
		}
	}
	p.every = p.faults / time.Duration(1+m.rng.IntN(90))
	for f := range p.weights {
		if m.odds(2) {
			p.weights[f] = 1 + m.rng.IntN(10)
		}
	}
	for _, rare := range [...]struct {
		f fault
		n int
	}{{faultFlip, 8}, {faultRestart, 3}, {faultAbort, 8}, {faultShutdown, 4}, {faultCopy, 4}} {
		if !m.odds(rare.n) {
			p.weights[rare.f] = 0
		}
	}
	for f := faultAbort; f <= faultCopy; f++ {
		p.weights[f] = min(p.weights[f], 2)
	}
	for _, w := range p.weights {
		p.total += w
	}
}

// size draws the length of a payload.
func (p *plan) size(m *sim) int {
	switch n := m.rng.IntN(200); {
	case n < 20:
		return 0
	case n < 80 || p.sizes == 0:
		return m.rng.IntN(60)
	case n < 160 || p.sizes == 1:
		return m.rng.IntN(1000)
	case n < 199 || p.sizes == 2:
		return m.rng.IntN(6000)
	case m.odds(10):
		return int(p.maxPayload)
	}
	return m.rng.IntN(int(p.maxPayload) + 1)
}

func (m *sim) config(role Role) Config {
	p := &m.plan
	return Config{
		MaxPayload: p.maxPayload, SendBuffer: p.sendBuffer, MinWindow: p.minWindow, MaxWindow: p.maxWindow,
		Consumed: p.consumed[role], PingAfter: pingAfter, AckDelay: p.ackDelay, AnswerTimeout: p.answerTimeout,
		Expiry: p.expiry, Memory: m.mem, Start: p.start,
	}
}

const pingAfter = 5 * time.Second

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
	faultHang                     // for a while, dials hang
	faultRace                     // the next dial's first bytes come late, when another has been made
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
	faultAbort                    // an application gives its session up, or its token runs out
	faultShutdown                 // the listener drains, and begins anew
	faultCopy                     // somebody else has a session's value, and dials too
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

// disturb makes one fault, and arranges for the next. Each fault draws from a source of its own, so that leaving one out
// changes little of the others.
func (m *sim) disturb() {
	p := &m.plan
	if m.healed || p.total == 0 {
		return
	}
	usual := m.rng
	m.rng = newRand(m.seed, 1000+uint64(m.ordinal))
	defer func() { m.rng = usual }()
	m.after(m.between(0, 2*p.every), m.disturb)
	n, f := m.rng.IntN(p.total), fault(0)
	for n >= p.weights[f] {
		n -= p.weights[f]
		f++
	}
	m.ordinal++
	if m.less.leavesOut(m.ordinal - 1) {
		return
	}
	if m.tracing {
		m.note("--- fault %d: %v", m.ordinal-1, faultNames[f])
	}
	if m.make(f) {
		m.faults++
	}
}

var faultNames = [numFaults]string{
	"reset", "cut", "end of the stream", "black hole", "freeze", "the dialer leaves", "dials are refused", "dials hang",
	"two dials race", "pause", "pause of both", "a clock jumps", "a greeting is repeated", "restart", "expiry", "restore",
	"a byte changes", "an application stops reading", "GOAWAY", "flush", "abort", "shutdown", "a copy of a session",
}

// make makes a fault, and reports whether there was anything that it could meet.
func (m *sim) make(f fault) bool {
	p := &m.plan
	var c *conn
	if live := m.live(); len(live) > 0 {
		c = live[m.rng.IntN(len(live))]
	}
	l := m.rng.IntN(2)
	d := m.dialers[m.rng.IntN(len(m.dialers))]
	e := m.server.last(d)
	switch f {
	case faultReset, faultCut, faultFin, faultHole, faultFreeze, faultFlip:
		if c == nil {
			return false
		}
		m.disturbConn(f, c, c.lanes[l])
	case faultLeave:
		return d.leave()
	case faultRefuse:
		p.refuseUntil = m.now + m.between(0, 2*time.Second)
	case faultHang:
		p.hangUntil = m.now + m.between(0, 4*time.Second)
	case faultRace:
		d.race = true
		return d.leave() || d.s.state != Ended
	case faultExpire:
		p.refuseUntil = m.now + p.expiry + m.between(0, 2*time.Second)
		for _, c := range m.live() {
			c.reset()
		}
	case faultPause:
		m.hit(processPaused)
		m.pause(l, m.between(0, 6*time.Second))
	case faultPauseBoth:
		d := m.between(0, 30*time.Second)
		m.pause(0, d)
		m.pause(1, d)
	case faultClock:
		m.jump(l, pick(m, m.between(0, 2*time.Second), m.between(0, 40*time.Second)))
	case faultReplay:
		return m.replay()
	case faultRestart:
		m.hit(restarted)
		for _, c := range m.live() {
			c.reset()
		}
		m.server.restart()
	case faultRestore:
		if l == dialing {
			return m.restore(d.end)
		}
		return e != nil && m.restore(e)
	case faultStopReading:
		a := d.app
		if l == listening {
			if e == nil {
				return false
			}
			a = e.app
		}
		a.pausedUntil = max(a.pausedUntil, m.now+m.between(0, 5*time.Second))
	case faultGoaway:
		m.server.draining = !m.server.draining
		if e == nil || e.gone {
			return false
		}
		e.s.Goaway(m.between(0, 100*time.Millisecond), m.between(0, 100*time.Millisecond))
		e.after("Goaway")
	case faultFlush:
		d.s.Flush()
		d.after("Flush")
	case faultAbort:
		return m.abort(d, e)
	case faultShutdown:
		return m.server.drain(m.between(0, 3*time.Second))
	case faultCopy:
		return d.copied()
	}
	return true
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

// abort ends a session, by one of its applications, or by a token that is not taken any more.
func (m *sim) abort(d *dialer, e *end) bool {
	switch m.rng.IntN(3) {
	case 0:
		if d.s.state == Ended || d.renewing {
			return false
		}
		m.hit(abortedDialer)
		d.aborted = true
		d.s.Abort()
		d.after("Abort")
	case 1:
		if e == nil || e.gone || e.s.state == Ended {
			return false
		}
		m.hit(abortedListener)
		d.aborted = true
		e.s.Abort()
		e.after("Abort")
	default:
		d.token = expiredToken
		d.leave()
	}
	return true
}

// pause stops a process.
func (m *sim) pause(side int, d time.Duration) {
	until := m.now + d
	if side == dialing {
		for _, d := range append(slices.Clone(m.dialers), m.copies...) {
			d.frozen = max(d.frozen, until)
			d.stood = d.frozen
			m.at(until, d.kick)
		}
		return
	}
	m.server.frozen = max(m.server.frozen, until)
	for _, e := range m.server.ends {
		e.frozen = max(e.frozen, until)
		e.stood = e.frozen
		m.at(until, e.kick)
	}
}

// jump sets a clock ahead.
func (m *sim) jump(side int, d time.Duration) {
	m.hit(clockJumped)
	if side == dialing {
		for _, x := range append(slices.Clone(m.dialers), m.copies...) {
			x.skew += d
			x.stood = max(x.stood, m.now, 1)
			m.at(m.now, x.rearm)
		}
		return
	}
	m.server.skew += d
	for _, e := range m.server.ends {
		e.skew += d
		e.stood = max(e.stood, m.now, 1)
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
func (m *sim) replay() bool {
	v := m.server
	if len(v.seen) == 0 {
		return false
	}
	g := v.seen[m.rng.IntN(len(v.seen))]
	v.due()
	e, ok := v.table.Get(g.id)
	if _, _, dead := v.table.Tombstone(g.id); !ok && !dead {
		return false // a listener that has lost all cannot know that it is not new
	}
	if h, err := ParseHello(g.frame); err == nil && ok && e != g.e && !e.s.Confirmed() && h.Epoch > e.s.epoch {
		return false // likewise, and an older one has come since, which was late, or of another holder
	}
	if m.now < v.frozen {
		return false
	}
	c := m.newConn(g.d)
	c.exporter = g.exporter
	m.newConnEnd(c, dialing, nil).held = true
	ce := v.accept(c)
	run := datagram.Run{Raw: g.frame, N: 1, Version: datagram.ControlVersion}
	m.note("conn %d: somebody repeats a %v", c.n, KindOf(g.frame))
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
	return true
}

// restore lets a session go on from its value, as after a crash that lost nothing, or on another machine.
func (m *sim) restore(e *end) bool {
	if e.gone || e.s.state == Ended || e.writers > 0 || e.coming != nil {
		return false
	}
	v, err := e.s.Export(e.clock())
	if err != nil {
		m.failf("%s: Export: %v", e.name, err)
	}
	e.drain()
	old := e.s
	if e.budget != nil { // a crash gives its part of the budget back
		e.budget.Release(old.recv.reserved)
		e.budget.Floor(old.cfg.MinWindow)
	}
	s, err := Restore(e.clock(), old.cfg, v)
	if err != nil {
		m.failf("%s: Restore: %v", e.name, err)
	}
	m.note("%s: restored", e.name)
	m.hitIf(restoredDialer, s.role == Dialer)
	m.hitIf(restoredListener, s.role == Listener)
	m.hitIf(restoredLog, s.log.size() > 0)
	promised := s.recv.credit - min(s.recv.credit, s.recv.taken.B)
	e.overdrawn = e.overdrawn || promised > s.recv.reserved // what was promised holds, budget or not
	old.log.drop()                                          // nobody uses it any more
	e.s = s
	if ce := e.cur; ce != nil {
		ce.close() // it has no say in s, but s may have to make room now
	}
	e.after("Restore")
	return true
}

// heal ends the faults: from now on everything works, but what is broken stays so until somebody notices.
func (m *sim) heal() {
	m.healed = true
	m.note("--- healed")
	p := &m.plan
	p.refuseUntil, p.hangUntil = 0, 0
	m.calm = m.now
	m.server.draining = false
	for _, c := range m.conns {
		for _, l := range c.lanes {
			l.cutAt, l.finAt = -1, -1
			l.latency, l.perByte = min(l.latency, 100*time.Millisecond), 0
			l.readSize, l.capacity = 64<<10, 256<<10
			if l.flipAt >= 0 {
				c.reset()
			}
			if !c.dead && !l.hole {
				m.calm = max(m.calm, l.frozen)
			}
			// What is on its way on a slow link is there as soon as it would be on a fast one.
			for i := range l.parts {
				l.parts[i].at = min(l.parts[i].at, m.now+l.latency)
			}
			l.last = min(l.last, m.now+l.latency)
			m.at(m.now+l.latency, l.come)
			m.at(m.now+l.latency, l.end)
		}
	}
	m.claimD2()
	p.writeDelay = 0
	p.latency = min(p.latency, 50*time.Millisecond)
	p.takePace, p.sendPace = min(p.takePace, 10*time.Millisecond), min(p.sendPace, 10*time.Millisecond)
	for _, d := range m.dialers {
		d.race = false
		d.app.wake()
	}
	for _, e := range m.server.ends {
		e.app.wake()
	}
}
