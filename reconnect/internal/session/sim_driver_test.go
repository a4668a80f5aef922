package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// end is what a driver has for one Session: its connection, its timer, its application.
type end struct {
	m    *sim
	name string
	s    *Session
	app  *app
	cur  *connEnd // whose frames are fed, and nobody else's

	writers int      // connections whose write is under way; no other connection is attached before it has ended
	idle    func()   // called then
	coming  *connEnd // waits for that, to be attached

	skew    time.Duration // of its clock, forwards
	frozen  time.Duration // the process is stopped until then
	armed   time.Duration // when Tick is called next; 0: not
	gone    bool          // the process is gone, and its memory with it
	over    bool          // the end was seen to
	lingers bool
}

// linger is how long the last bytes of a session may take.
const linger = 5 * time.Second

func (e *end) clock() time.Duration { return e.m.now + e.skew }

// wait reports whether the process is stopped, and then calls f when it is not any more.
func (e *end) wait(f func()) bool {
	if e.m.now < e.frozen {
		e.m.at(e.frozen, f)
		return true
	}
	return false
}

// connEnd is one end of a connection, with its reader and its writer.
type connEnd struct {
	m      *sim
	c      *conn
	side   int
	in     *lane
	out    *lane
	e      *end // nil while a listener has not decided on it
	reader *datagram.Reader
	epoch  uint64

	closed  bool // by this driver, or it has learned of it
	held    bool // nothing is read until the listener has decided
	yielded bool // in the middle of what it has read

	// The write that is under way.
	writing bool
	vec     Out
	copy    []byte // what it must still be when it is written
	piece   int    // of vec
	off     int    // in that piece
	stalled bool   // no room in the lane
}

func (m *sim) newConnEnd(c *conn, side int, e *end) *connEnd {
	ce := &connEnd{m: m, c: c, side: side, in: c.lanes[1-side], out: c.lanes[side], e: e}
	ce.reader = datagram.NewReader(ce.in, &datagram.Options{Control: true, MaxPayload: int(m.plan.maxPayload)})
	c.ends[side] = ce
	return ce
}

// ---- reading

// readable reads what has arrived.
func (ce *connEnd) readable() {
	if ce.e != nil && ce.e.wait(ce.readable) {
		return
	}
	ce.yielded = false
	for !ce.held {
		if ce.closed || ce.e != nil && ce.e.cur != ce {
			if len(ce.in.inbox) > 0 {
				ce.m.hit(lateBytes)
				ce.in.inbox = nil
			}
			return
		}
		run, err := ce.reader.Frames()
		if err != nil {
			ce.bad(err)
			return
		}
		if run.N == 0 {
			if len(ce.in.inbox) == 0 {
				if ce.in.ended {
					ce.broken("the end of the stream")
				}
				return
			}
			if err := ce.reader.Fill(); err != nil {
				ce.m.failf("a read of bytes that are there: %v", err)
			}
			if run, err = ce.reader.Frames(); err != nil {
				ce.bad(err)
				return
			}
			if ce.e != nil {
				ce.e.s.Read(ce.e.clock(), run.N > 0)
				ce.e.checked("Read")
			}
			if run.N == 0 {
				continue
			}
		}
		ce.frame(run)
		if !ce.m.healed && ce.m.plan.yields && ce.m.odds(4) {
			// Let others in between: at the same instant, or while this reader is slow.
			ce.yielded = true
			ce.m.after(pick(ce.m, 0, ce.m.between(0, 20*time.Millisecond)), ce.readable)
			return
		}
	}
}

func (ce *connEnd) bad(err error) {
	if ce.e == nil {
		ce.m.note("conn %d: refused: %v", ce.c.n, err)
		ce.close()
		return
	}
	err = ce.e.s.Bad(err)
	ce.e.after("Bad")
	ce.distrust(err)
}

// frame feeds what has been read.
func (ce *connEnd) frame(run datagram.Run) {
	m, e := ce.m, ce.e
	if e == nil {
		m.server.first(ce, run)
		return
	}
	s := e.s
	var err error
	if run.Version == datagram.Version {
		if s.recv.stopped {
			m.hit(stopWithData)
		}
		again := s.stats.Duplicates
		n := uint64(run.N)
		err = s.Data(e.clock(), run)
		if d := s.stats.Duplicates - again; d > 0 && err == nil {
			m.hit(dropped)
			m.hitIf(replayPassed, d < n)
		}
		m.note("%s: %d datagrams in, arrived %v here %v", e.name, run.N, s.recv.arrived, s.recv.here)
	} else {
		err = e.control(run.Raw)
	}
	var reject *RejectError
	if errors.As(err, &reject) {
		e.rejected(reject)
		return
	}
	e.after("input")
	ce.distrust(err)
}

// distrust closes a connection that gave nonsense, where the session has survived that.
func (ce *connEnd) distrust(err error) {
	if e := ce.e; err != nil && e.s.state != Ended && e.cur == ce {
		ce.m.note("%s: conn %d: %v", e.name, ce.c.n, err)
		ce.close()
	}
}

// control feeds a control frame.
func (e *end) control(frame []byte) error {
	m, s := e.m, e.s
	moved, finAcked, base, rtt := s.moved, s.finAcked, s.log.base, s.waitPong
	state := s.state
	kind := KindOf(frame)
	err := s.Control(e.clock(), frame)
	m.note("%s: %v in: %v, base %v unsent %v, here %v, %v", e.name, kind, s.state, s.log.base, s.log.unsent, s.recv.here, err)
	m.hitIf(cursorMoved, !moved && s.moved)
	m.hitIf(ackedInWrite, s.log.pinned && s.log.base != base && s.log.base.B > s.log.pin)
	m.hitIf(finConfirmed, !finAcked && s.finAcked)
	m.hitIf(pongCame, kind == KindPong && rtt && !s.waitPong)
	m.hitIf(goawayCame, kind == KindGoaway && err == nil)
	m.hitIf(stopCame, kind == KindStop && err == nil)
	if kind == KindResumed && s.state == Live {
		m.hitIf(nothingToReplay, s.log.base == s.log.final())
		m.hitIf(resumedWithReplay, s.log.base != s.log.max)
	}
	m.hitIf(closeCame, kind == KindClose && err == nil && state == Live)
	m.hitIf(closeLost, kind == KindReject && err == nil)
	return err
}

// ---- writing

// kick begins a write, if there is something to write and nothing is being written.
func (e *end) kick() {
	ce, s, m := e.cur, e.s, e.m
	if e.gone || ce == nil || ce.writing || ce.closed || m.now < e.frozen {
		return
	}
	pulls, max := s.Pulls(), s.log.max
	got := s.Pull(e.clock(), &ce.vec)
	if pulls != got {
		m.failf("%s: Pulls says %v, Pull %v", e.name, pulls, got)
	}
	e.checked("Pull")
	e.drain()
	if !got {
		m.hitIf(creditUsedUp, s.state == Live && s.log.unsent.N < s.log.end.N && !s.stopped)
		return
	}
	ce.copy = ce.copy[:0]
	for _, p := range ce.vec.Vec {
		if len(p) == 0 {
			m.failf("%s: Pull gave an empty piece", e.name)
		}
		ce.copy = append(ce.copy, p...)
	}
	e.written(ce.copy, max)
	m.note("%s: conn %d, %d bytes out: %s, unsent %v credit %d", e.name, ce.c.n, len(ce.copy), frameNames(ce.copy), s.log.unsent, s.credit)
	ce.writing, ce.piece, ce.off, ce.stalled = true, 0, 0, false
	e.writers++
	if d := m.plan.writeDelay; d > 0 && !m.healed && m.odds(3) {
		m.after(m.between(0, d), ce.writeOn)
		return
	}
	ce.writeOn()
}

// written looks at what is about to be written. max is the furthest that was before.
func (e *end) written(p []byte, max Position) {
	for len(p) > 0 {
		h := datagram.ParseHeader(p)
		n := int(h.Size) + 4
		if h.Version == datagram.ControlVersion {
			switch kind := Kind(h.Recipient); kind {
			case KindSkip:
				e.m.hit(skipSent)
				e.m.hitIf(skipAgain, binary.BigEndian.Uint64(p[8:])+e.s.log.origin.N < max.N)
			case KindFin:
				e.m.hitIf(finAgain, binary.BigEndian.Uint64(p[8:])+e.s.log.origin.N < max.N)
			case KindPing:
				e.m.hit(pingSent)
			default:
			}
		} else {
			e.m.hitIf(emptyDatagram, n == datagram.HeaderSize)
			e.m.hitIf(hugeDatagram, uint64(n) > e.m.plan.minWindow)
		}
		p = p[n:]
	}
}

// frameNames names the frames in p.
func frameNames(p []byte) string {
	var b bytes.Buffer
	for len(p) > 0 {
		h := datagram.ParseHeader(p)
		if h.Version == datagram.ControlVersion {
			b.WriteString(Kind(h.Recipient).String() + " ")
		} else {
			b.WriteString("data ")
		}
		p = p[h.Size+4:]
	}
	return b.String()
}

// writeOn writes as much as the connection takes.
func (ce *connEnd) writeOn() {
	m, e := ce.m, ce.e
	if !ce.writing || e.wait(ce.writeOn) {
		return
	}
	for ce.piece < len(ce.vec.Vec) {
		if ce.closed || ce.c.dead {
			// The write fails some time later.
			m.after(m.between(0, m.plan.writeDelay), ce.wrote)
			ce.stalled = true
			return
		}
		p := ce.vec.Vec[ce.piece]
		if !bytes.Equal(p[ce.off:], ce.copy[:len(p)-ce.off]) {
			m.failf("%s: the bytes of a write have changed under it", e.name)
		}
		k := len(p) - ce.off
		if m.plan.shortWrites && !m.healed {
			k = min(k, 1+m.rng.IntN(3000))
		}
		n := ce.out.write(p[ce.off : ce.off+k])
		ce.off += n
		ce.copy = ce.copy[n:]
		if ce.off == len(p) {
			ce.piece, ce.off = ce.piece+1, 0
		}
		if n == 0 {
			ce.stalled = true
			m.hit(writerStalled)
			return
		}
	}
	ce.wrote()
}

// wrote ends a write.
func (ce *connEnd) wrote() {
	if !ce.writing {
		return
	}
	ce.writing, ce.stalled = false, false
	e := ce.e
	e.writers--
	if !e.gone {
		e.s.Wrote()
		e.after("Wrote")
		if e.writers == 0 && e.idle != nil {
			e.idle()
		}
	}
}

// writable goes on with a write that had no room.
func (ce *connEnd) writable() {
	if ce.stalled && !ce.closed && !ce.c.dead {
		ce.stalled = false
		ce.writeOn()
	}
}

// ---- the end of a connection

// broken tells a driver that its connection is of no use any more.
func (ce *connEnd) broken(why string) {
	if ce.closed {
		return
	}
	if e := ce.e; e != nil && e.wait(func() { ce.broken(why) }) {
		return
	}
	ce.m.note("conn %d: end %d: %s", ce.c.n, ce.side, why)
	ce.close()
}

// close closes the connection from this side. The other one learns of it as the network pleases.
func (ce *connEnd) close() {
	if ce.closed {
		return
	}
	ce.closed = true
	m := ce.m
	if !ce.c.dead {
		switch how := m.rng.IntN(4); {
		case how == 0 && !m.healed && m.plan.silent:
			ce.in.hole = true // what was written still arrives, and then nothing, for ever
		case how == 1 && !m.healed:
			ce.c.reset()
		default:
			ce.out.close()
		}
	}
	if ce.writing && ce.stalled {
		m.after(m.between(0, m.plan.writeDelay), ce.wrote)
	}
	if e := ce.e; e != nil && e.cur == ce {
		e.cur = nil
		e.s.Detach()
		e.checked("Detach")
		e.lost()
	}
}

// lost sees to what follows when the connection is gone.
func (e *end) lost() {
	if e == e.m.dialer.end {
		e.m.dialer.redial()
	} else {
		e.m.server.detached(e)
	}
}

// forget gives back the memory of a Session that nobody uses any more.
func (e *end) forget() {
	e.s.log.unpin()
	e.s.log.drop()
}

// ---- after each call

// checked checks the invariants.
func (e *end) checked(what string) {
	m := e.m
	if e.gone {
		return
	}
	s := e.s
	if err := s.check(); err != nil {
		m.failf("%s: after %s: %v", e.name, what, err)
	}
	r := &s.recv
	if promised := r.credit - min(r.credit, r.taken.B); s.state != Ended && promised > max(r.reserved, InitialCredit, r.arrived.B-r.taken.B) {
		m.failf("%s: after %s: %d bytes are promised, %d reserved", e.name, what, promised, r.reserved)
	}
	if limit := max(r.window, r.reserved) + uint64(m.plan.maxPayload) + datagram.HeaderSize; r.waiting > limit && !m.flipped {
		m.failf("%s: after %s: %d bytes wait, the window is %d", e.name, what, r.waiting, r.window)
	}
	m.hitIf(windowGrown, r.window > s.cfg.MinWindow)
	m.hitIf(logFull, !s.Room())
}

// drain takes the events.
func (e *end) drain() {
	m := e.m
	for _, ev := range e.s.Events() {
		switch ev.Kind {
		case EventExpired:
			e.app.expire(ev.Number)
		case EventLive:
			m.note("%s: live, epoch %d, resumed %v", e.name, e.s.epoch, ev.Resumed)
			if e == m.dialer.end {
				m.dialer.live()
			} else {
				m.server.table.Confirm(e.s.id)
			}
		case EventGoaway, EventStopped, EventFin:
		}
	}
}

// after does what a driver does after each call.
func (e *end) after(what string) {
	if e.gone {
		return
	}
	e.checked(what)
	e.drain()
	e.app.wake()
	e.kick()
	if e.s.state == Ended {
		e.ended()
		return
	}
	e.arm()
}

// arm sees to it that Tick is called at the deadline.
func (e *end) arm() {
	at, ok := e.s.Deadline()
	if !ok {
		return
	}
	at = max(at-e.skew, e.m.now)
	if e.armed != 0 && e.armed <= at {
		return
	}
	e.armed = max(at, 1)
	e.m.at(at, func() { e.tick(at) })
}

func (e *end) tick(at time.Duration) {
	if e.armed != max(at, 1) || e.gone || e.wait(func() { e.tick(at) }) {
		return
	}
	e.armed = 0
	deadline, ok := e.s.Deadline()
	if !ok {
		return
	}
	if deadline > e.clock() {
		e.arm()
		return
	}
	m := e.m
	partial := e.s.partialAt != 0 && e.s.partialAt <= e.clock()
	last, ping := e.s.alive()
	late := e.clock()-(last+2*ping) > lateTimer
	if e.s.Tick(e.clock()) {
		e.checked("Tick")
		m.note("%s: conn %d is silent", e.name, e.cur.c.n)
		m.hit(silence)
		e.cur.close()
		return
	}
	m.hitIf(lateTick, late)
	m.hitIf(partialAck, partial)
	e.after("Tick")
}

// ended sees to a Session that has ended: its last bytes are written, and then the connection is closed.
func (e *end) ended() {
	if !e.over {
		e.over = true
		e.m.note("%s: ended: %v", e.name, e.s.err)
		if e != e.m.dialer.end {
			e.m.server.removed(e)
		} else if isLost(e.s.err) {
			e.m.dialer.gaveUp()
			return
		}
	}
	if ce := e.cur; ce != nil && (ce.writing || e.s.closeDue) {
		if !e.lingers {
			e.lingers = true
			e.m.after(linger, ce.close) // whoever does not take the last bytes has had his time
		}
		return
	}
	if ce := e.cur; ce != nil {
		ce.close()
	}
}

// ---- the dialer

type dialer struct {
	*end
	pending  bool
	backoff  time.Duration
	notUntil time.Duration
	dials    int
	lives    int
	wasLive  bool // since the last dial
	eras     []era
	renewing bool // as soon as the last write has ended
	lost     bool // the session is lost for good
}

// era is from which number on the dialer's stream from the peer is that of which listener's session.
type era struct {
	from uint64
	l    *end
}

func (d *dialer) redial() {
	if d.pending || d.s.state == Ended {
		return
	}
	d.pending = true
	wait := d.m.between(0, d.backoff)
	d.backoff = min(max(2*d.backoff, 50*time.Millisecond), 2*time.Second)
	d.m.at(max(d.m.now+wait, d.notUntil), d.dial)
}

// dial makes a connection, if there is none.
func (d *dialer) dial() {
	m := d.m
	if d.wait(d.dial) {
		return
	}
	switch {
	case d.s.state == Ended || d.cur != nil:
		d.pending = false
		return
	case d.writers > 0:
		m.hit(dialWaited)
		return // idle comes back
	case !m.healed && m.now < m.plan.refuseUntil:
		m.hit(dialRefused)
		d.pending = false
		d.redial()
		return
	}
	d.pending = false
	d.attach(m.newConn())
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
	d.wasLive = false
	s.Dial(d.clock(), c.exporter, m.plan.token)
	ce.epoch = s.epoch
	m.note("dialer: conn %d, epoch %d, %v, base %v", c.n, s.epoch, s.state, s.log.base)
	d.after("Dial")
}

// leave gives the connection up.
func (d *dialer) leave() {
	if d.cur != nil {
		d.m.hit(leftByDialer)
		d.cur.close()
	}
}

func (d *dialer) live() {
	d.wasLive = true
	d.lives++
	d.backoff = 0
	if n := len(d.eras); n == 0 || d.eras[n-1].l.s.id != d.s.id {
		d.eras = append(d.eras, era{d.s.recv.origin.N + d.s.cfg.Start.N, d.m.server.latest(d.s.id)})
	}
}

// rejected sees to a REJECT.
func (e *end) rejected(r *RejectError) {
	m, d := e.m, e.m.dialer
	e.checked("REJECT")
	m.note("dialer: %v", r)
	m.hitIf(restartSeen, r.Restarted)
	if e.s.state != Ended {
		m.hit(rejectedAgain)
		d.notUntil = m.now + ms(r.Delay) + m.between(0, ms(r.Spread))
		e.cur.close()
		return
	}
	m.hitIf(lostWithCount, r.Flags&FlagReceivedKnown != 0)
	e.after("REJECT")
}

// gaveUp sees to a session that is lost: what is unconfirmed goes on in a new one, when nobody writes it any more.
func (d *dialer) gaveUp() {
	d.m.hit(sessionLost)
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
	return errors.As(err, &r) && r.Reason.Lost() || errors.As(err, &l)
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
	for i := range d.s.log.origin.N {
		// It was acknowledged: only a process that was killed takes it with it, or the application can still have it.
		if msg := &d.app.sent[i]; !msg.delivered && !msg.expired {
			msg.buried = m.server.buried(i)
		}
	}
	m.void = m.void || m.plan.start.N > 1<<63
	m.note("dialer: renewed, %d redelivered, origin %v %v", d.s.redelivered, d.s.log.origin, d.s.recv.origin)
	d.over, d.lingers = false, false
	d.redial()
	d.app.wake()
}

func (d *dialer) idleFunc() {
	if d.pending && d.cur == nil {
		d.m.after(0, d.dial)
	}
}

// ---- the listener

type server struct {
	m        *sim
	table    *Table[*end]
	instance [16]byte
	ends     []*end // all that there ever were
	frozen   time.Duration
	skew     time.Duration
	draining bool

	seen []greeted // greetings that were taken, for who replays them
}

type greeted struct {
	frame, exporter []byte
	id              [16]byte
}

func (m *sim) newServer() *server {
	v := &server{m: m}
	v.restart()
	return v
}

// restart begins with a new process. The old one's sessions are gone.
func (v *server) restart() {
	for _, e := range v.ends {
		if !e.gone {
			e.gone = true
			e.forget()
		}
	}
	v.table = NewTable[*end](TableConfig{
		MaxSessions: 4, MaxDetached: 4, MaxTombstones: 3, Expiry: v.m.plan.expiry, UnconfirmedExpiry: v.m.plan.expiry / 2,
	})
	v.m.secret.Read(v.instance[:])
}

func (v *server) clock() time.Duration { return v.m.now + v.skew }

// knows reports whether the session has taken the connection with that epoch.
func (v *server) knows(id [16]byte, epoch uint64) bool {
	e, ok := v.table.Get(id)
	return ok && e.s.epoch == epoch && e.s.Confirmed()
}

func (v *server) latest(id [16]byte) *end {
	for i := len(v.ends) - 1; i >= 0; i-- {
		if v.ends[i].s.id == id {
			return v.ends[i]
		}
	}
	v.m.failf("the dialer goes on with a session that no listener has")
	return nil
}

// buried reports whether a datagram of the dialer's was in the memory of a process that was killed.
func (v *server) buried(i uint64) bool {
	for _, e := range v.ends {
		if r := &e.s.recv; e.gone && !e.s.cfg.Consumed && i-e.app.base < r.arrived.N-e.s.cfg.Start.N && i >= e.app.base {
			return true
		}
	}
	return false
}

func (v *server) accept(c *conn) *connEnd { return v.m.newConnEnd(c, listening, nil) }

// due removes what has to go.
func (v *server) due() {
	for {
		id, e, why, ok := v.table.Due(v.clock())
		if !ok {
			return
		}
		if e.cur != nil {
			v.m.failf("a session with a connection has expired")
		}
		v.m.hit(expired)
		v.m.note("%s: %v", e.name, why)
		e.s.Drop(why)
		if e.s.err == nil {
			why = ReasonClosed
		}
		v.table.Remove(id, why, e.s.ArrivedOnWire(), v.clock())
		e.over = true
		e.after("Drop")
	}
}

// first decides on a connection by its first frame.
func (v *server) first(ce *connEnd, run datagram.Run) {
	m := v.m
	if m.now < v.frozen {
		ce.held = true
		m.at(v.frozen, func() {
			ce.held = false
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
	if !v.m.flipped {
		v.m.failf("a bad first frame")
	}
	ce.close()
}

func (v *server) hello(ce *connEnd, h *Hello, frame []byte) {
	m := v.m
	if e, ok := v.table.Get(h.ID); ok {
		if err := e.s.Again(h); err != nil {
			v.reject(ce, err)
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
	s, err := NewListener(m.config(Listener), m.secret, h, v.instance)
	if err != nil {
		v.refuse(ce)
		return
	}
	e := &end{m: m, name: "listener " + string(rune('a'+len(v.ends)%26)), s: s, skew: v.skew, frozen: v.frozen}
	e.app = m.newApp(e)
	if d := m.dialer; d.s.id == h.ID {
		e.app.base = d.s.log.origin.N
		e.app.next = int(e.app.base)
	}
	if reason := v.table.Add(h.ID, e); reason != 0 {
		v.reject(ce, &RejectError{Reject: Reject{Reason: reason}})
		return
	}
	v.ends = append(v.ends, e)
	m.note("%s: HELLO, epoch %d, redelivered %d", e.name, h.Epoch, h.Redelivered)
	ce.e, ce.epoch, e.cur = e, h.Epoch, ce
	v.saw(frame, ce, h.ID)
	s.Welcome(e.clock(), frame, ce.c.exporter)
	e.after("Welcome")
}

func (v *server) saw(frame []byte, ce *connEnd, id [16]byte) {
	v.seen = append(v.seen, greeted{bytes.Clone(frame), ce.c.exporter, id})
}

func (v *server) resume(ce *connEnd, r *Resume, frame []byte) {
	m := v.m
	e, ok := v.table.Get(r.ID)
	if !ok {
		if !v.tombstone(ce, r.ID) {
			v.reject(ce, &RejectError{Reject: Reject{Reason: ReasonUnknown}})
		}
		return
	}
	err := e.s.Verify(frame, ce.c.exporter)
	if err == nil {
		err = e.s.Check(r)
	}
	if err != nil {
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
	v.saw(frame, ce, e.s.id)
	v.table.Attach(e.s.id)
	if old := e.cur; old != nil {
		m.hit(takenOverLive)
		m.hitIf(takenOverInRead, old.yielded || len(old.in.inbox) > 0)
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
		if err := attach(); err != nil {
			ce.e, e.cur = nil, nil
			v.reject(ce, err)
			e.after("Resume")
			return
		}
		e.after("attach")
		m.at(m.now, ce.readable)
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

func (v *server) arm() {
	if at, ok := v.table.Deadline(); ok {
		v.m.at(max(at-v.skew, v.m.now), func() {
			if t, ok := v.table.Deadline(); ok && t <= v.clock() {
				v.due()
				v.arm()
			}
		})
	}
}

// removed leaves a tombstone of a session that has ended.
func (v *server) removed(e *end) {
	if got, ok := v.table.Get(e.s.id); !ok || got != e {
		return
	}
	why := ReasonClosed
	if e.s.err != nil {
		why = ReasonMismatch
	}
	v.table.Remove(e.s.id, why, e.s.ArrivedOnWire(), v.clock())
}
