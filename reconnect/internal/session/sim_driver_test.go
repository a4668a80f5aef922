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
	d    *dialer // whose session it is, on either side
	name string
	s    *Session
	app  *app
	cur  *connEnd // whose frames are fed, and nobody else's

	principal string        // of a listener's
	budget    *Budget       // likewise
	begun     time.Duration // of a listener's: when
	late      bool          // begun by a HELLO that the dialer needs no more: no session of its
	overdrawn bool          // it was restored, and there is no budget for what it has promised
	kept      uint64        // bytes of a lost session that still wait for the application

	writers int      // connections whose write is under way; no other connection is attached before it has ended
	idle    func()   // called then
	coming  *connEnd // waits for that, to be attached

	skew    time.Duration // of its clock, forwards
	frozen  time.Duration // the process is stopped until then
	stood   time.Duration // when the process last stood still, or its clock jumped; it may be in the future
	armed   time.Duration // when Tick is called next; 0: not
	ticks   func()
	gone    bool // the process is gone, and its memory with it
	over    bool // the end was seen to
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
	same    int    // so much of that was compared
	piece   int    // of vec
	off     int    // in that piece
	begun   bool   // some of it is written
	stalled bool   // no room in the lane

	life life

	reads, writes, written func() // readable, writeOn, wrote
}

func (m *sim) newConnEnd(c *conn, side int, e *end) *connEnd {
	ce := &connEnd{m: m, c: c, side: side, in: c.lanes[1-side], out: c.lanes[side], e: e, copy: m.mem.bytes()}
	ce.reader = datagram.NewReader(ce.in, &datagram.Options{Control: true, MaxPayload: int(m.plan.maxPayload)})
	ce.life.heard = m.now
	ce.reads, ce.writes, ce.written = ce.readable, ce.writeOn, ce.wrote
	c.ends[side] = ce
	return ce
}

// ---- reading

// readable reads what has arrived.
func (ce *connEnd) readable() {
	if ce.e != nil && ce.e.wait(ce.reads) {
		return
	}
	ce.yielded = false
	for !ce.held {
		if ce.closed || ce.e != nil && ce.e.cur != ce {
			if ce.in.inbox.len() > 0 {
				ce.m.hit(lateBytes)
				ce.in.inbox.drop()
				ce.madeRoom()
			}
			return
		}
		run, err := ce.reader.Frames()
		if err != nil {
			ce.bad(err)
			return
		}
		if run.N == 0 {
			if ce.in.inbox.len() == 0 {
				if ce.in.ended {
					ce.broken("the end of the stream")
				}
				return
			}
			if err := ce.reader.Fill(); err != nil {
				ce.m.failf("a read of bytes that are there: %v", err)
			}
			ce.madeRoom()
			if run, err = ce.reader.Frames(); err != nil {
				ce.bad(err)
				return
			}
			if ce.e != nil {
				ce.e.s.Read(ce.e.clock(), run.N > 0)
				ce.read(run.N > 0)
				ce.e.checked("Read")
				ce.e.arm() // parts of a frame are to be acknowledged soon
			}
			if run.N == 0 {
				continue
			}
		}
		ce.frame(run)
		if !ce.m.healed && ce.m.plan.yields && ce.m.odds(4) {
			// Let others in between: at the same instant, or while this reader is slow.
			ce.yielded = true
			ce.m.after(pick(ce.m, 0, ce.m.between(0, 20*time.Millisecond)), ce.reads)
			return
		}
	}
}

// madeRoom lets a writer go on that waits for room, where nothing is on the way whose arrival would: its reader was late.
func (ce *connEnd) madeRoom() {
	if w := ce.c.ends[1-ce.side]; w != nil && w.stalled && len(ce.in.parts) == 0 {
		ce.m.after(0, w.writable)
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
	ce.heard(run)
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
		if m.tracing {
			m.note("%s: %d datagrams in, arrived %v here %v", e.name, run.N, s.recv.arrived, s.recv.here)
		}
		passes := func(limit uint64) bool { return s.recv.arrived.N > limit && s.recv.arrived.N-n <= limit }
		m.hitIf(passed31, passes(1<<31))
		m.hitIf(passed32, passes(1<<32))
		m.hitIf(passed63, passes(1<<63))
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
	if m.tracing {
		m.note("%s: %v in: %v, base %v unsent %v, here %v, %v", e.name, kind, s.state, s.log.base, s.log.unsent, s.recv.here, err)
	}
	var c *ClosedError
	m.hitIf(shutdownTold, kind == KindClose && state != Ended && errors.As(err, &c) && c.Reason == CloseShutdown)
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
	ce.copy, ce.same = ce.copy[:0], 0
	for _, p := range ce.vec.Vec {
		if len(p) == 0 {
			m.failf("%s: Pull gave an empty piece", e.name)
		}
		ce.copy = append(ce.copy, p...)
	}
	e.written(ce.copy, max)
	if m.tracing {
		m.note("%s: conn %d, %d bytes out: %s, unsent %v credit %d", e.name, ce.c.n, len(ce.copy), frameNames(ce.copy), s.log.unsent, s.credit)
	}
	ce.life.parts = 0
	ce.writing, ce.piece, ce.off, ce.stalled, ce.begun = true, 0, 0, false, false
	e.writers++
	if d := m.plan.writeDelay; d > 0 && !m.healed && m.odds(3) {
		m.after(m.between(0, d), ce.writes)
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
				e.cur.life.asked = e.m.now
			default:
			}
		} else {
			e.m.hitIf(emptyDatagram, n == datagram.HeaderSize)
			e.m.hitIf(hugeDatagram, uint64(n) > e.m.plan.minWindow)
			e.m.hitIf(largestDatagram, n == datagram.HeaderSize+int(e.m.plan.maxPayload))
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
	if !ce.writing || e.wait(ce.writes) {
		return
	}
	for ce.piece < len(ce.vec.Vec) {
		if ce.closed || ce.c.dead {
			// The write fails some time later.
			m.hitIf(shortWriteFailed, ce.begun)
			m.after(m.between(0, m.plan.writeDelay), ce.written)
			ce.stalled = true
			return
		}
		p := ce.vec.Vec[ce.piece]
		k := len(p) - ce.off
		if m.plan.shortWrites && !m.healed {
			k = min(k, 1+m.rng.IntN(3000))
		}
		n := ce.out.write(p[ce.off : ce.off+k])
		if !bytes.Equal(p[ce.off:ce.off+n], ce.copy[ce.same:ce.same+n]) {
			m.failf("%s: the bytes of a write have changed under it", e.name)
		}
		ce.begun = ce.begun || n > 0
		ce.off += n
		ce.same += n
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
		m.after(m.between(0, m.plan.writeDelay), ce.written)
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
	if e == e.d.end {
		e.d.redial()
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
	if m.walk--; m.walk <= 0 {
		m.walk = 1 + m.rng.IntN(max(m.plan.walk, 1))
		if err := s.check(); err != nil {
			m.failf("%s: after %s: %v", e.name, what, err)
		}
		m.server.checkBudget()
	} else if err := s.checkBriefly(); err != nil {
		m.failf("%s: after %s: %v", e.name, what, err)
	}
	// D4: nobody holds more than was promised to him, and one datagram.
	r := &s.recv
	if promised := r.credit - min(r.credit, r.taken.B); !e.overdrawn && s.state != Ended && promised > max(r.reserved, InitialCredit, r.arrived.B-r.taken.B) {
		m.failf("%s: after %s: %d bytes are promised, %d reserved", e.name, what, promised, r.reserved)
	}
	largest := uint64(m.plan.maxPayload) + datagram.HeaderSize
	e.kept = min(e.kept, r.waiting)
	if limit := max(r.window, r.reserved, e.kept) + largest; r.waiting > limit && !e.overdrawn && !e.d.tainted {
		m.failf("%s: after %s: %d bytes wait, the window is %d", e.name, what, r.waiting, r.window)
	}
	if n := s.log.size(); n > s.cfg.SendBuffer+largest {
		m.failf("%s: after %s: %d bytes are unconfirmed", e.name, what, n)
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
			if e == e.d.end {
				e.d.live()
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

// arm sees to it that Tick is called at the deadline, as late as that may be.
func (e *end) arm() {
	at, slack, ok := e.s.Deadline()
	if !ok {
		return
	}
	at = max(at+slack-e.skew, e.m.now)
	if e.armed != 0 && e.armed <= at {
		return
	}
	e.armed = max(at, 1)
	e.m.at(at, e.ticks)
}

func (e *end) tick() {
	if e.armed == 0 || e.m.now < e.armed-1 || e.gone || e.wait(e.ticks) {
		return
	}
	e.armed = 0
	deadline, slack, ok := e.s.Deadline()
	if !ok {
		return
	}
	if deadline > e.clock() {
		e.arm()
		return
	}
	m := e.m
	if late := e.clock() - deadline; late > 1+slack && e.stood == 0 {
		m.failf("%s: Tick is called %v late", e.name, late) // arm was not called when the deadline changed
	}
	delayed := e.s.recv.ackAt != 0 && e.s.recv.ackAt <= e.clock()
	partial := e.s.partialAt != 0 && e.s.partialAt <= e.clock()
	last, ping := e.s.alive()
	late := e.clock()-(last+2*ping) > lateTimer
	if e.s.Tick(e.clock()) {
		e.checked("Tick")
		m.note("%s: conn %d is silent", e.name, e.cur.c.n)
		m.hit(silence)
		e.cur.dead()
		e.cur.close()
		return
	}
	m.hitIf(lateTick, late)
	m.hitIf(partialAck, partial)
	m.hitIf(ackDelayed, delayed)
	e.after("Tick")
}

// ended sees to a Session that has ended: its last bytes are written, and then the connection is closed.
func (e *end) ended() {
	if !e.over {
		e.over = true
		e.m.note("%s: ended: %v", e.name, e.s.err)
		if e != e.d.end {
			e.m.server.removed(e)
		} else if e.d.ended() {
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
