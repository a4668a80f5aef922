package session

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// server is a listener, with all that it ever had.
type server struct {
	m        *sim
	table    *Table[*end]
	budget   *Budget
	instance [16]byte
	ends     []*end // all that there ever were
	frozen   time.Duration
	skew     time.Duration
	draining bool
	leaves   bool // it is about to shut down
	armed    time.Duration

	seen []greeted // greetings that were taken, for who replays them
}

type greeted struct {
	frame, exporter []byte
	id              [16]byte
	d               *dialer
	e               *end // whose session it has begun, or gone on with
}

func (m *sim) newServer() *server {
	v := &server{m: m}
	v.begin()
	return v
}

// restart kills the process, and begins with a new one. The old one's sessions are gone.
func (v *server) restart() {
	for _, e := range v.ends {
		if !e.gone {
			e.gone = true
			e.forget()
		}
	}
	v.begin()
}

// begin is a new process.
func (v *server) begin() {
	p := &v.m.plan
	v.table = NewTable[*end](TableConfig{
		MaxSessions: max(p.maxSessions, 1), MaxDetached: max(p.maxDetached, 1), MaxTombstones: 10 * max(p.maxSessions, 1),
		Expiry: p.expiry, UnconfirmedExpiry: p.expiry / 2,
	})
	v.armed = 0
	b := NewBudget(p.memory)
	v.budget = &b
	v.m.secret.Read(v.instance[:])
}

// drain asks all dialers to be left, and shuts down some time later.
func (v *server) drain(grace time.Duration) bool {
	if v.leaves {
		return false
	}
	v.leaves, v.draining = true, true
	for _, e := range v.alive() {
		e.s.Goaway(v.m.between(0, 100*time.Millisecond), v.m.between(0, 100*time.Millisecond))
		e.after("Goaway")
	}
	v.m.after(grace, v.shutdown)
	return true
}

// shutdown ends the sessions that are left, and begins anew.
func (v *server) shutdown() {
	if v.m.now < v.frozen {
		v.m.at(v.frozen, v.shutdown)
		return
	}
	v.leaves, v.draining = false, false
	for _, e := range v.alive() {
		v.m.hit(shutDown)
		e.s.Shutdown()
		e.after("Shutdown")
	}
	for _, c := range v.m.live() { // what was on its way to the old process does not come to the new one
		if ce := c.ends[listening]; ce.e == nil || ce.e.s.state != Ended {
			c.reset()
		}
	}
	v.begin()
	for _, d := range v.m.dialers {
		d.since = max(d.since, v.m.now)
	}
}

// alive returns the sessions that have not ended.
func (v *server) alive() (es []*end) {
	for _, e := range v.ends {
		if !e.gone && e.s.state != Ended {
			es = append(es, e)
		}
	}
	return es
}

// last returns the newest session of a dialer's; nil if there is none.
func (v *server) last(d *dialer) *end {
	for i := len(v.ends) - 1; i >= 0; i-- {
		if v.ends[i].d == d && !v.ends[i].late {
			return v.ends[i]
		}
	}
	return nil
}

func (v *server) clock() time.Duration { return v.m.now + v.skew }

// knows reports whether the session has taken the connection with that epoch.
func (v *server) knows(id [16]byte, epoch uint64) bool {
	e, ok := v.table.Get(id)
	return ok && e.s.epoch == epoch && e.s.Confirmed()
}

func (v *server) latest(id [16]byte) *end {
	for i := len(v.ends) - 1; i >= 0; i-- {
		if v.ends[i].s.id == id && !v.ends[i].late {
			return v.ends[i]
		}
	}
	v.m.failf("the dialer goes on with a session that no listener has")
	return nil
}

// buried reports whether a datagram of the dialer's was in the memory of a process that was killed.
func (v *server) buried(d *dialer, i uint64) bool {
	for _, e := range v.ends {
		if e.d != d || e.late {
			continue
		}
		if r := &e.s.recv; e.gone && !e.s.cfg.Consumed && i-e.app.base < r.arrived.N-e.s.cfg.Start.N && i >= e.app.base {
			return true
		}
	}
	return false
}

// reserve is the budget's answer to a session.
func (v *server) reserve(b *Budget) func(n int64) bool {
	return func(n int64) bool {
		if n < 0 {
			v.m.hit(budgetReturned)
			b.Release(uint64(-n))
			return true
		}
		ok := b.Reserve(uint64(n))
		v.m.hitIf(budgetRefused, !ok)
		return ok
	}
}

// checkBudget checks that what is counted is what the sessions have, and within the limit but for their floors.
func (v *server) checkBudget() {
	var sum, floors uint64
	n := 0
	for _, e := range v.ends {
		if e.budget == v.budget && !e.gone {
			sum += e.s.recv.reserved
			if e.s.recv.reserved > 0 {
				floors += e.s.cfg.MinWindow
				n++
			}
		}
	}
	b := v.budget
	if sum != b.Used() {
		v.m.failf("the budget counts %d bytes, the sessions have %d", b.Used(), sum)
	}
	if b.Limit() == 0 {
		return
	}
	// Floors are granted above the limit, when what is beyond floors was within it.
	if sum > b.Limit()+floors {
		v.m.failf("%d bytes are promised, the limit is %d and the floors are %d", sum, b.Limit(), floors)
	}
	v.m.hitIf(budgetFloors, sum > b.Limit())
	v.m.hitIf(sessionsCompete, n > 1 && sum > floors && sum <= b.Limit())
}

func (v *server) accept(c *conn) *connEnd { return v.m.newConnEnd(c, listening, nil) }

// due removes what has to go.
func (v *server) due() {
	for {
		id, e, why, ok := v.table.Due(v.clock())
		if !ok {
			return
		}
		v.evict(id, e, why)
	}
}

func (v *server) evict(id [16]byte, e *end, why Reason) {
	if e.cur != nil {
		v.m.failf("a session with a connection has expired")
	}
	v.m.hitIf(expired, why == ReasonExpired)
	v.m.hitIf(evicted, why == ReasonEvicted)
	v.m.note("%s: %v", e.name, why)
	e.s.Drop(why)
	if e.s.err == nil {
		why = ReasonClosed
	}
	v.table.Remove(id, why, e.s.ArrivedOnWire(), v.clock())
	e.over = true
	e.after("Drop")
}

// first decides on a connection by its first frame.
func (v *server) first(ce *connEnd, run datagram.Run) {
	m := v.m
	if m.now < v.frozen {
		ce.held = true
		process := v.table
		m.at(v.frozen, func() {
			ce.held = false
			if v.table != process { // it ended when it went on
				ce.close()
				return
			}
			v.first(ce, run)
			ce.readable()
		})
		return
	}
	if ce.closed {
		return
	}
	v.due()
	if run.Version != datagram.ControlVersion {
		v.refuse(ce)
		return
	}
	switch KindOf(run.Raw) {
	case KindHello:
		h, err := ParseHello(run.Raw)
		if err != nil {
			v.refuse(ce)
			return
		}
		v.hello(ce, &h, run.Raw)
	case KindResume:
		r, err := ParseResume(run.Raw)
		if err != nil {
			v.refuse(ce)
			return
		}
		v.resume(ce, &r, run.Raw)
	default:
		v.refuse(ce)
	}
}

// refuse ends a connection whose first frame is none of a dialer's. Only a changed byte makes one.
func (v *server) refuse(ce *connEnd) {
	if !ce.c.d.tainted {
		v.m.failf("a bad first frame")
	}
	ce.close()
}

func rejection(reason Reason) error { return &RejectError{Reject: Reject{Reason: reason}} }

// authenticate says who has such a token.
func (v *server) authenticate(ce *connEnd, token []byte) (principal string, ok bool) {
	if bytes.Equal(token, expiredToken) {
		v.m.hit(tokenRefused)
		ce.c.d.aborted = true // it is told, and there is no use in another dial
		v.reject(ce, rejection(ReasonUnauthorised))
		return "", false
	}
	return string(token), true
}

// other rejects a peer who is not whose session it is.
func (v *server) other(ce *connEnd, e *end, principal string) bool {
	if principal == e.principal {
		return false
	}
	if ce.c.d.of == nil && !ce.c.d.tainted {
		v.m.failf("%s: the principal is %q, and was %q", e.name, principal, e.principal)
	}
	v.m.hit(otherPrincipal)
	v.reject(ce, rejection(ReasonUnauthorised))
	return true
}

func (v *server) hello(ce *connEnd, h *Hello, frame []byte) {
	m := v.m
	principal, ok := v.authenticate(ce, h.Token)
	if !ok {
		return
	}
	if e, ok := v.table.Get(h.ID); ok {
		if err := e.s.Again(h); err != nil {
			m.hitIf(lateHello, h.Epoch < e.s.epoch && h.PublicKey == e.s.peer)
			v.reject(ce, err)
			return
		}
		if v.other(ce, e, principal) {
			return
		}
		m.hit(helloAgain)
		m.hitIf(helloAfterData, e.s.recv.arrived != m.plan.start)
		e.s.Fence(h.Epoch, h.Link)
		e.checked("Fence")
		v.takeOver(ce, e, h.Epoch, frame, func() error {
			e.s.Welcome(e.clock(), frame, ce.c.exporter)
			return nil
		})
		return
	}
	if v.tombstone(ce, h.ID) {
		return
	}
	if v.draining {
		v.reject(ce, &RejectError{Reject: Reject{Reason: ReasonDraining, Delay: 20, Spread: 100}})
		return
	}
	d := ce.c.d
	if d.of != nil { // the original's session is its own
		d.of.tainted = true
		d = d.of
	}
	if id, old, ok := v.table.Victim(); ok {
		v.evict(id, old, ReasonEvicted)
	}
	cfg, b := m.config(Listener), v.budget
	cfg.Reserve = v.reserve(b)
	s, err := NewListener(cfg, m.secret, h, v.instance)
	if err != nil {
		v.refuse(ce)
		return
	}
	b.Floor(cfg.MinWindow)
	e := &end{
		m: m, d: d, name: fmt.Sprintf("listener %c", 'a'+len(v.ends)%26), s: s, skew: v.skew, frozen: v.frozen, stood: v.frozen,
		principal: principal, budget: b, begun: m.now,
	}
	e.ticks = e.tick
	e.app = m.newApp(e)
	e.app.base, e.late = d.began(h.ID)
	e.app.next = int(e.app.base)
	if reason := v.table.Add(h.ID, e); reason != 0 {
		m.hitIf(listenerBusy, reason == ReasonBusy)
		s.Drop(reason)
		v.reject(ce, &RejectError{Reject: Reject{Reason: reason, Delay: 20, Spread: 100}})
		return
	}
	v.ends = append(v.ends, e)
	m.hitIf(threeSessions, v.table.Len() > 2)
	m.note("%s: HELLO, epoch %d, redelivered %d", e.name, h.Epoch, h.Redelivered)
	ce.e, ce.epoch, e.cur = e, h.Epoch, ce
	ce.life.heard = m.now
	v.saw(frame, ce, e)
	s.Welcome(e.clock(), frame, ce.c.exporter)
	e.after("Welcome")
}

func (v *server) saw(frame []byte, ce *connEnd, e *end) {
	v.seen = append(v.seen, greeted{bytes.Clone(frame), ce.c.exporter, e.s.id, ce.c.d, e})
}

func (v *server) resume(ce *connEnd, r *Resume, frame []byte) {
	m := v.m
	e, ok := v.table.Get(r.ID)
	if !ok {
		if !v.tombstone(ce, r.ID) {
			v.reject(ce, rejection(ReasonUnknown))
		}
		return
	}
	err := e.s.Verify(frame, ce.c.exporter)
	if err == nil {
		principal, ok := v.authenticate(ce, r.Token)
		if !ok || v.other(ce, e, principal) {
			return
		}
		err = e.s.Check(r)
	}
	if err != nil {
		m.hitIf(lateResume, r.Epoch < e.s.epoch && ce.c.d.of == nil && ce.c.ends[dialing].closed && ce.c.ends[dialing].e != nil)
		v.reject(ce, err)
		return
	}
	m.hitIf(resumeConfirms, !e.s.Confirmed())
	e.s.Fence(r.Epoch, [32]byte{})
	e.checked("Fence")
	raw := bytes.Clone(frame)
	v.takeOver(ce, e, r.Epoch, frame, func() error {
		r, err := ParseResume(raw)
		if err != nil {
			m.failf("a RESUME that was parsed before: %v", err)
		}
		return e.s.Resume(e.clock(), &r, raw, ce.c.exporter)
	})
}

// takeOver closes the connection that a session has, waits until its writer has ended, and attaches the new one.
func (v *server) takeOver(ce *connEnd, e *end, epoch uint64, frame []byte, attach func() error) {
	m := v.m
	m.note("%s: taken over by conn %d, epoch %d", e.name, ce.c.n, epoch)
	if d := ce.c.d; d.of != nil {
		if bytes.Equal(d.token, otherToken) && e.principal != string(otherToken) { // else he began it, after a restart
			m.failf("%s: taken over by another principal", e.name)
		}
		m.hit(copyTaken)
		d.of.tainted = true // from now on the copy has the session
	}
	v.saw(frame, ce, e)
	v.table.Attach(e.s.id)
	if old := e.cur; old != nil {
		m.hit(takenOverLive)
		m.hitIf(takenOverInRead, old.yielded || old.in.inbox.len() > 0)
		e.cur = nil
		old.close()
	}
	if e.coming != nil {
		m.hit(takenOverTwice)
		e.coming.held = false
		e.coming.close()
	}
	ce.held = true
	ce.epoch = epoch
	e.coming = ce
	e.idle = func() {
		e.idle, e.coming = nil, nil
		if e.gone || ce.closed || e.s.epoch != epoch || e.s.state == Ended {
			if !ce.closed {
				ce.close()
			}
			if e.cur == nil {
				v.detached(e)
			}
			return
		}
		ce.e, e.cur, ce.held = e, ce, false
		ce.life.heard = m.now
		if err := attach(); err != nil {
			ce.e, e.cur = nil, nil
			v.reject(ce, err)
			e.after("Resume")
			return
		}
		e.after("attach")
		m.at(m.now, ce.reads)
	}
	if e.writers == 0 {
		e.idle()
		return
	}
	m.hit(takenOverInWrite)
}

// reject writes a REJECT and closes the connection.
func (v *server) reject(ce *connEnd, err error) {
	var r *RejectError
	if !errors.As(err, &r) {
		v.m.failf("a refusal that is none: %v", err)
	}
	v.m.note("listener: conn %d: REJECT: %v", ce.c.n, r.Reason)
	r.Instance = v.instance
	ce.c.rejected = v.m.now
	ce.out.write(r.Append(nil))
	ce.closed = true
	ce.out.close()
}

// tombstone answers for a session that is no more.
func (v *server) tombstone(ce *connEnd, id [16]byte) bool {
	why, arrived, ok := v.table.Tombstone(id)
	if !ok {
		return false
	}
	v.m.hit(tombstoneAsked)
	v.m.hitIf(tombstoneClosed, why == ReasonClosed)
	v.reject(ce, &RejectError{Reject: Reject{Reason: why, Flags: FlagReceivedKnown, Received: arrived}})
	return true
}

// detached tells the table that a session has no connection, and sees to it that it expires.
func (v *server) detached(e *end) {
	if e.gone || e.s.state == Ended {
		return
	}
	v.table.Detach(e.s.id, v.clock())
	v.due()
	v.arm()
}

// arm sees to it that due is called at the table's deadline.
func (v *server) arm() {
	at, ok := v.table.Deadline()
	if !ok {
		return
	}
	at = max(at-v.skew, v.m.now)
	if v.armed != 0 && v.armed <= at {
		return
	}
	v.armed = max(at, 1)
	v.m.at(at, func() {
		if v.armed == max(at, 1) {
			v.armed = 0
			v.due()
			v.arm()
		}
	})
}

// removed leaves a tombstone of a session that has ended.
func (v *server) removed(e *end) {
	if got, ok := v.table.Get(e.s.id); !ok || got != e {
		return
	}
	v.table.Remove(e.s.id, ReasonClosed, e.s.ArrivedOnWire(), v.clock())
}
