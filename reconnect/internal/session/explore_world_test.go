package session

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// exScope is what may happen in a run of the explorer. Beside what it says, everything that can happen at all may
// happen at any time: reads, writes, dials, takeovers, timers.
type exScope struct {
	name     string
	messages [2]int // of the dialer, of the listener; each ends its stream after them
	cuts     int    // connections that are cut, or that the dialer leaves for another while they live
	pings    int    // timers of silence that fire
	losses   int    // sessions that expire while they live, or listeners that start again: at most so many
	restarts bool   // it is a listener that starts again

	takes    bool // the application takes when it likes; otherwise at once
	consumed bool // both sides acknowledge what their applications have finished with
	stops    bool // each application may stop taking
	aborts   bool // each application may give the session up
	ages     bool // datagrams have an age limit
	forgets  bool // the listener keeps no tombstones
	slow     bool // a write takes time: other things happen between Pull and Wrote
	lean     bool // a dial that has become stale is refused at once, for it would be at any time after
	apart    bool // what the application does, timers and dials are steps of their own, and not parts of others
}

// exNow is when everything happens. A timer fires when it is its turn: the machine is told the time at which it is
// due. What is older than another matters nowhere else.
const exNow = time.Hour

// exAged is when a datagram's time runs out, so shortly after that nothing else happens by it.
const exAged = exNow + time.Millisecond

// exStart is just below 2^32, so that the counts pass it in every run.
var exStart = Position{1<<32 - 2, 1<<32 - 15}

// exMemory gives out very short segments, so that frames cross from one to the next; what comes back is overwritten,
// so that a use after it shows.
type exMemory struct{}

func (exMemory) Get(size int) []byte {
	if size == SmallSegment {
		return make([]byte, 24)
	}
	return make([]byte, 40)
}

func (exMemory) Put(b []byte) {
	for i := range b {
		b[i] = 0xdd
	}
}

func (sc *exScope) config() Config {
	return Config{
		MaxPayload: 1 << 20, SendBuffer: 1 << 20, MinWindow: 64 << 10, MaxWindow: 1 << 20, Consumed: sc.consumed,
		PingAfter: 5 * time.Second, AckDelay: 25 * time.Millisecond, AnswerTimeout: 5 * time.Second, Expiry: time.Minute,
		Memory: exMemory{}, Start: exStart,
	}
}

// exPacket is a frame on its way. It is never changed.
type exPacket struct {
	raw   []byte
	kind  Kind // kindData for a data frame
	print exPrint
}

// exLink says what one end of a connection does with it.
type exLink uint8

const (
	exLinkWaits exLink = iota // a listener has read nothing of it yet
	exLinkComes               // a listener has fenced the session for it, and waits for the old connection's writer
	exLinkOpen
	exLinkGone
)

// exWire is a connection. What is under way to a side and never arrives is what was lost.
type exWire struct {
	id   int
	to   [2][]exPacket // to[i] is under way to side i
	ends [2]exLink
	cut  bool // no end may trust that what is under way arrives

	greeting []byte // of an exLinkComes
	epoch    uint64 // of it
}

// exSide is one side: a Session and its application.
type exSide struct {
	s     *Session // nil: a listener that has had no HELLO
	sent  int      // datagrams that the application has handed over
	got   int      // of the peer's stream in this session
	done  bool     // it has ended its stream
	aged  bool     // the age limit of all datagrams has passed
	owes  int      // taken, and not finished with
	gone  uint64   // which of its datagrams it was told that they were not sent in time
	over  bool     // its end was seen to
	print exPrint

	writing bool   // a write is under way
	vec     []byte // what it still has to write
	pin     uint64 // from where on, if that is in the log
	pinEnd  uint64
}

// exWorld is a state of everything. It is not changed once it is made: apply makes another.
type exWorld struct {
	sc    *exScope
	sides [2]exSide
	wires []exWire // in the order in which they were dialled
	table *Table[int]
	dials int // so many were made

	cuts, pings, losses int // that may still come
	gen                 int // listener's Sessions that were made
	instance            byte
	base                int // of the dialer's datagrams was the first of this session

	delivered, unmarked uint64 // which of the dialer's datagrams were delivered, and which as ones that were not before
	lost                bool   // a session was lost
}

func newExWorld(sc *exScope) (*exWorld, error) {
	w := &exWorld{sc: sc, cuts: sc.cuts, pings: sc.pings, losses: sc.losses, instance: 1}
	w.newTable()
	var err error
	d := &w.sides[Dialer]
	if d.s, err = NewDialer(sc.config(), exRand(0)); err != nil {
		return nil, err
	}
	if !sc.apart {
		(&exTurn{exWorld: w, owned: [2]bool{true}}).dial()
	}
	w.printSide(Dialer)
	return w, err
}

func (w *exWorld) newTable() {
	c := TableConfig{MaxSessions: 4, MaxDetached: 4, MaxTombstones: 4, Expiry: time.Minute, UnconfirmedExpiry: time.Minute}
	if w.sc.forgets {
		c.MaxTombstones = 0
	}
	w.table = NewTable[int](c)
}

func exRand(n int) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{byte(n)}) }

// ---- steps

// exKind says what a step is.
type exKind uint8

const (
	exOpPull    exKind = iota // a write, before which the application may send, and the timer for an ACK fire
	exOpIn                    // frames arrive
	exOpLeave                 // a side's connection is gone
	exOpDial                  // the dialer dials
	exOpAttach                // a listener's session gets the connection for which it was fenced
	exOpExpire                // the listener drops a session that is without a connection
	exOpRestart               // the listener starts again
	exOpTake                  // the application takes a run of datagrams
	exOpConsume               // and has finished with the next one
	exOpSend                  // it hands over the next datagram
	exOpFinish                // it ends its stream
	exOpStop                  // it takes no more
	exOpAbort                 // it gives the session up
	exOpTick                  // the timer for an ACK fires
	exOpSilence               // the timer of silence fires
	exOpWrote                 // a write has ended
	exOpAge                   // the age limit of all datagrams has passed
)

var exOpNames = [...]string{
	"pull", "in", "leave", "dial", "attach", "expire", "restart", "take", "consume", "send", "finish", "stop", "abort",
	"tick", "silence", "wrote", "age",
}

// exOp is a step.
type exOp struct {
	kind   exKind
	side   Role
	wire   int // for exOpIn, exOpLeave and exOpAttach
	n      int // exOpIn: frames; exOpPull: datagrams that are handed over before
	finish bool
	tick   bool
}

var exSideNames = [...]string{"D", "L"}

// String is how EXPLORE_PATH names o.
func (o exOp) String() string {
	s := exOpNames[o.kind]
	switch o.kind {
	case exOpDial, exOpExpire, exOpRestart:
		return s
	case exOpAttach:
		return fmt.Sprintf("%s.%d", s, o.wire)
	case exOpLeave:
		return fmt.Sprintf("%s.%s.%d", s, exSideNames[o.side], o.wire)
	case exOpIn:
		s = fmt.Sprintf("%s.%s.%d", s, exSideNames[o.side], o.wire)
		if o.n > 1 {
			s += "x" + strconv.Itoa(o.n)
		}
		return s
	case exOpPull:
		s += "." + exSideNames[o.side]
		if o.tick {
			s += "t"
		}
		if o.n > 0 {
			s += "+" + strconv.Itoa(o.n)
		}
		if o.finish {
			s += "f"
		}
		return s
	default:
		return s + "." + exSideNames[o.side]
	}
}

// on returns the connection that a side has, or nil.
func (w *exWorld) on(side Role) *exWire {
	for i := range w.wires {
		if w.wires[i].ends[side] == exLinkOpen {
			return &w.wires[i]
		}
	}
	return nil
}

func (w *exWorld) coming() *exWire {
	for i := range w.wires {
		if w.wires[i].ends[Listener] == exLinkComes {
			return &w.wires[i]
		}
	}
	return nil
}

// free reports whether a side may learn for nothing that its connection is gone: the other one has left it, and all that
// was under way has arrived, or it was cut.
func (c *exWire) free(side Role) bool {
	return c.ends[1-side] == exLinkGone && len(c.to[side]) == 0
}

// ops appends the steps that are possible. The first of them is the fair one, and no fault, if there is one that is not.
func (w *exWorld) ops(ops []exOp) []exOp {
	sc := w.sc
	for i := range w.wires {
		c := &w.wires[i]
		if c.ends[Listener] == exLinkComes && !w.sides[Listener].writing {
			ops = append(ops, exOp{kind: exOpAttach, side: Listener, wire: c.id})
		}
	}
	for i := range w.wires {
		c := &w.wires[i]
		for _, side := range [...]Role{Listener, Dialer} {
			in := c.to[side]
			if len(in) == 0 || c.ends[side] != exLinkOpen && c.ends[side] != exLinkWaits {
				continue
			}
			n := 1
			for n < len(in) && in[n].kind == kindData && in[0].kind == kindData {
				n++
			}
			for ; n > 0; n-- {
				ops = append(ops, exOp{kind: exOpIn, side: side, wire: c.id, n: n})
			}
		}
	}
	for _, side := range [...]Role{Dialer, Listener} {
		a := &w.sides[side]
		if a.writing {
			ops = append(ops, exOp{kind: exOpWrote, side: side})
		}
		if a.s != nil && w.on(side) != nil {
			ops = w.pulls(ops, side)
		}
	}
	for _, side := range [...]Role{Dialer, Listener} {
		a := &w.sides[side]
		if a.s == nil {
			continue
		}
		if sc.takes && a.s.Readable() {
			ops = append(ops, exOp{kind: exOpTake, side: side})
		}
		if sc.consumed && a.owes > 0 && a.s.state != Ended {
			ops = append(ops, exOp{kind: exOpConsume, side: side})
		}
	}
	d, l := &w.sides[Dialer], &w.sides[Listener]
	if d.s.state != Ended && w.on(Dialer) == nil && !d.writing && sc.apart {
		ops = append(ops, exOp{kind: exOpDial})
	}
	for i := range w.wires {
		c := &w.wires[i]
		for _, side := range [...]Role{Dialer, Listener} {
			if c.ends[side] == exLinkOpen && c.free(side) {
				ops = append(ops, exOp{kind: exOpLeave, side: side, wire: c.id})
			}
		}
	}
	if sc.apart {
		for _, side := range [...]Role{Dialer, Listener} {
			ops = w.applications(ops, side)
		}
	}
	ended := d.s.state == Ended
	if ended && l.s != nil && w.expirable() {
		ops = append(ops, exOp{kind: exOpExpire, side: Listener})
	}
	return w.faults(ops, ended)
}

// pulls appends the writes that are possible.
func (w *exWorld) pulls(ops []exOp, side Role) []exOp {
	a := &w.sides[side]
	s := a.s
	if a.writing {
		return ops
	}
	if s.Pulls() {
		ops = append(ops, exOp{kind: exOpPull, side: side})
	}
	if w.sc.apart || s.state == Ended {
		return ops
	}
	ticks := s.recv.ackAt != 0 && s.answered()
	if ticks {
		ops = append(ops, exOp{kind: exOpPull, side: side, tick: true})
	}
	if a.done || s.Accepting() != nil || s.stopped {
		return ops
	}
	// The application hands over what goes out with this write. All of it first: that is what the fair schedule takes.
	left := w.sc.messages[side] - a.sent
	for _, tick := range [...]bool{true, false} {
		if tick && !ticks {
			continue
		}
		for n := left; n >= 0; n-- {
			if n > 0 && s.log.unsent.B >= s.limit() {
				continue // it would wait: the same as if it came later
			}
			if n == left && (n > 0 || s.log.unsent.N == s.log.end.N) {
				ops = append(ops, exOp{kind: exOpPull, side: side, tick: tick, n: n, finish: true})
			}
			if n > 0 {
				ops = append(ops, exOp{kind: exOpPull, side: side, tick: tick, n: n})
			}
		}
	}
	return ops
}

// applications appends what an application can do, and its timer, as steps of their own.
func (w *exWorld) applications(ops []exOp, side Role) []exOp {
	a := &w.sides[side]
	s := a.s
	if s == nil || s.state == Ended {
		return ops
	}
	if s.recv.ackAt != 0 && s.answered() {
		ops = append(ops, exOp{kind: exOpTick, side: side})
	}
	switch {
	case a.done:
	case s.Accepting() == nil && a.sent < w.sc.messages[side]:
		ops = append(ops, exOp{kind: exOpSend, side: side})
	default:
		ops = append(ops, exOp{kind: exOpFinish, side: side})
	}
	return ops
}

// faults appends what nobody has to expect.
func (w *exWorld) faults(ops []exOp, ended bool) []exOp {
	sc := w.sc
	for i := range w.wires {
		c := &w.wires[i]
		for _, side := range [...]Role{Dialer, Listener} {
			if (c.ends[side] == exLinkOpen || c.ends[side] == exLinkWaits) && !c.free(side) && (c.cut || w.cuts > 0) {
				ops = append(ops, exOp{kind: exOpLeave, side: side, wire: c.id})
			}
		}
	}
	for _, side := range [...]Role{Dialer, Listener} {
		a := &w.sides[side]
		if a.s == nil || a.s.state == Ended {
			continue
		}
		if w.pings > 0 && a.s.answered() && !a.s.pinged && w.on(side) != nil {
			ops = append(ops, exOp{kind: exOpSilence, side: side})
		}
		if sc.stops && !a.s.recv.stopped {
			ops = append(ops, exOp{kind: exOpStop, side: side})
		}
		if sc.aborts {
			ops = append(ops, exOp{kind: exOpAbort, side: side})
		}
		if sc.ages && !a.aged {
			ops = append(ops, exOp{kind: exOpAge, side: side})
		}
	}
	if w.losses > 0 && w.sides[Listener].s != nil && !ended {
		if sc.restarts {
			ops = append(ops, exOp{kind: exOpRestart, side: Listener})
		} else if w.expirable() {
			ops = append(ops, exOp{kind: exOpExpire, side: Listener})
		}
	}
	return ops
}

// expirable reports whether the listener's session is without a connection.
func (w *exWorld) expirable() bool {
	l := &w.sides[Listener]
	return l.s.state != Ended && w.table.Detached() == 1 && !l.writing
}

// apply returns the state after a step, and an error if something is wrong in it. It may note situations in seen.
func (w *exWorld) apply(o exOp, seen *exSeen) (*exWorld, error) {
	n := new(exWorld)
	*n = *w
	n.wires = slices.Clone(w.wires)
	t := &exTurn{exWorld: n, seen: seen}
	if err := t.step(o); err != nil {
		return n, err
	}
	if err := t.settle(); err != nil {
		return n, err
	}
	for side, changed := range t.owned {
		if changed {
			if err := n.sides[side].s.check(); err != nil {
				return n, fmt.Errorf("%s: %w", exSideNames[side], err)
			}
			n.printSide(Role(side))
		}
		if a, b := w.sides[side].s, n.sides[side].s; a != nil && b != nil && a.id == b.id && b.epoch < a.epoch {
			return n, fmt.Errorf("%s went back to epoch %d, from %d", exSideNames[side], b.epoch, a.epoch)
		}
	}
	return n, n.check()
}

// exTurn is a world that is being made.
type exTurn struct {
	*exWorld
	owned      [2]bool
	ownedTable bool
	seen       *exSeen
}

// own returns a side, with a Session that may be changed.
func (t *exTurn) own(side Role) *exSide {
	a := &t.sides[side]
	if !t.owned[side] && a.s != nil {
		a.s = exCopySession(a.s)
		t.owned[side] = true
	}
	return a
}

func (t *exTurn) tab() *Table[int] {
	if !t.ownedTable {
		t.table, t.ownedTable = exCopyTable(t.table), true
	}
	return t.table
}

func (t *exTurn) wire(id int) *exWire {
	for i := range t.wires {
		if t.wires[i].id == id {
			return &t.wires[i]
		}
	}
	return nil
}

var errExStep = errors.New("this step is not possible here")

func (t *exTurn) step(o exOp) error {
	switch o.kind {
	case exOpPull:
		return t.pull(o)
	case exOpIn:
		return t.in(o.side, t.wire(o.wire), o.n)
	case exOpLeave:
		return t.leave(o.side, t.wire(o.wire))
	case exOpDial:
		t.dial()
	case exOpAttach:
		return t.attach(t.wire(o.wire))
	case exOpExpire:
		return t.expire()
	case exOpRestart:
		t.restart()
	case exOpTake:
		return t.take(o.side)
	case exOpConsume:
		a := t.own(o.side)
		if !a.s.Consume(exNow, 1) {
			return fmt.Errorf("%s cannot finish with what it took", exSideNames[o.side])
		}
		a.owes--
	case exOpSend:
		return t.send(o.side, 1)
	case exOpFinish:
		a := t.own(o.side)
		a.s.Finish(exNow)
		a.done = true
	case exOpStop:
		a := t.own(o.side)
		a.s.Stop()
		a.owes = 0
	case exOpAbort:
		t.own(o.side).s.Abort()
	case exOpTick:
		return t.tick(o.side)
	case exOpSilence:
		a := t.own(o.side)
		at, _ := a.s.silence()
		ack := a.s.recv.ackAt
		a.s.recv.ackAt = 0 // that it fires too is another path
		if a.s.Tick(at) {
			return fmt.Errorf("%s is dead at the first silence", exSideNames[o.side])
		}
		a.s.recv.ackAt = ack
		t.pings--
	case exOpWrote:
		a := t.own(o.side)
		a.writing, a.vec = false, nil
		a.s.Wrote()
	case exOpAge:
		t.own(o.side).aged = true
	}
	return nil
}

// clock is the time at a side.
func (a *exSide) clock() time.Duration {
	if a.aged {
		return exAged
	}
	return exNow
}

// payload is the datagram number i of a side, counted from 0. Each has a length of its own.
func (w *exWorld) payload(side Role, i int) []byte {
	if side == Dialer {
		return []byte{'d', byte(i), 1, 2}[:2+i%3]
	}
	return []byte{'l', byte(i), byte(w.gen), 3, 4}[:3+i%3]
}

func (t *exTurn) send(side Role, n int) error {
	a := t.own(side)
	for range n {
		d := datagram.Datagram{Recipient: uint16(7 + a.sent), Payload: t.payload(side, a.sent)}
		var deadline time.Duration
		if t.sc.ages && a.sent%2 == 0 {
			deadline = exAged
		}
		if err := a.s.Append(exNow, d, deadline); err != nil {
			return fmt.Errorf("%s: Append: %w", exSideNames[side], err)
		}
		a.sent++
	}
	return nil
}

func (t *exTurn) tick(side Role) error {
	a := t.own(side)
	if a.s.Tick(a.s.recv.ackAt) {
		return fmt.Errorf("%s is dead when its ACK is due", exSideNames[side])
	}
	return nil
}

// pull writes.
func (t *exTurn) pull(o exOp) error {
	a := t.own(o.side)
	c := t.on(o.side)
	s := a.s
	if c == nil {
		return errExStep
	}
	if o.tick {
		if err := t.tick(o.side); err != nil {
			return err
		}
	}
	if err := t.send(o.side, o.n); err != nil {
		return err
	}
	if o.finish {
		s.Finish(exNow)
		a.done = true
	}
	var out Out
	pulls, replayed, from, ended := s.Pulls(), s.stats.Replayed, s.log.unsent, s.state == Ended
	if got := s.Pull(a.clock(), &out); got != pulls || !got {
		return fmt.Errorf("%s: Pull says %v, Pulls said %v", exSideNames[o.side], got, pulls)
	}
	var raw []byte
	for _, p := range out.Vec {
		raw = append(raw, p...)
	}
	t.seen.hitIf(exSaidAgain, s.stats.Replayed > replayed)
	for len(raw) > 0 {
		h := datagram.ParseHeader(raw)
		p := exPacket{raw: raw[: h.Size+4 : h.Size+4], print: exPrintOf(raw[:h.Size+4])}
		if h.Version == datagram.ControlVersion {
			p.kind = Kind(h.Recipient)
		}
		raw = raw[h.Size+4:]
		if c.ends[1-o.side] == exLinkGone {
			t.seen.lose(1-o.side, p.kind) // nobody is there
			continue
		}
		to := c.to[1-o.side]
		c.to[1-o.side] = append(to[:len(to):len(to)], p)
	}
	if t.sc.slow && !ended {
		a.writing = true
		if s.log.pinned {
			a.pin, a.pinEnd = from.B, s.log.unsent.B
			a.vec = append([]byte(nil), s.log.bytes(s.log.find(a.pin), a.pin, a.pinEnd-a.pin)...)
		}
		return nil
	}
	s.Wrote()
	return nil
}

// in lets frames arrive.
func (t *exTurn) in(side Role, c *exWire, n int) error {
	if c == nil || len(c.to[side]) < n {
		return errExStep
	}
	ps := c.to[side][:n]
	c.to[side] = c.to[side][n:]
	if c.ends[side] == exLinkWaits {
		return t.first(c, ps[0].raw)
	}
	if c.ends[side] != exLinkOpen {
		return errExStep
	}
	a := t.own(side)
	s := a.s
	if d := t.on(Dialer); side == Listener && c.ends[Dialer] == exLinkGone {
		t.seen.hitIf(exLateFrame, d != nil)
		t.seen.hitIf(exLateData, d != nil && ps[0].kind == kindData)
	}
	s.Read(a.clock(), true)
	if ps[0].kind == kindData {
		run := datagram.Run{N: n, Version: datagram.Version}
		for i := range ps {
			run.Raw = append(run.Raw, ps[i].raw...)
		}
		again := s.stats.Duplicates
		err := s.Data(a.clock(), run)
		d := int(s.stats.Duplicates - again)
		t.seen.hitIf(exDroppedAgain, d > 0)
		t.seen.hitIf(exPassedArrived, d > 0 && d < n)
		return t.wrong(side, err)
	}
	moved, live := s.moved, s.state == Live
	err := s.Control(a.clock(), ps[0].raw)
	t.seen.hitIf(exCursorMovedOn, s.moved && !moved)
	t.seen.hitIf(exConfirmedLate, side == Listener && !live && s.state == Live)
	t.seen.hitIf(exWriteAcked, a.writing && s.log.base.B > a.pin)
	if ps[0].kind == KindReject && err == nil {
		t.seen.hit(exClosedByReject)
	}
	return t.wrong(side, err)
}

// wrong returns err unless the scope has it.
func (t *exTurn) wrong(side Role, err error) error {
	var closed *ClosedError
	var reject *RejectError
	switch sc := t.sc; {
	case err == nil:
		return nil
	case errors.As(err, &closed):
		if sc.stops && closed.Reason == CloseDone || sc.aborts && closed.Reason == CloseAborted {
			return nil
		}
	case errors.As(err, &reject):
		if sc.losses > 0 && reject.Reason.Lost() || (sc.aborts || sc.stops) && reject.Reason == ReasonClosed {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", exSideNames[side], err)
}

// first lets the listener decide on a connection by its first frame, as reconnect.Listener does.
func (t *exTurn) first(c *exWire, frame []byte) error {
	switch kind := KindOf(frame); kind {
	case KindHello:
		h, err := ParseHello(frame)
		if err != nil {
			return err
		}
		return t.hello(c, &h, frame)
	case KindResume:
		r, err := ParseResume(frame)
		if err != nil {
			return err
		}
		return t.resume(c, &r, frame)
	default:
		return fmt.Errorf("the first frame is %v", kind)
	}
}

func (c *exWire) exporter() []byte { return bytes.Repeat([]byte{byte(c.id)}, 32) }

func (t *exTurn) hello(c *exWire, h *Hello, frame []byte) error {
	if _, ok := t.table.Get(h.ID); ok {
		s := t.sides[Listener].s
		if err := s.Again(h); err != nil {
			t.seen.hit(exStaleHello)
			return t.reject(c, err)
		}
		t.seen.hit(exHelloRepeated)
		t.seen.hitIf(exHelloAfterWrite, s.recv.arrived != exStart)
		return t.takeOver(c, h.Epoch, h.Link, frame)
	}
	if t.tombstone(c, h.ID) {
		return nil
	}
	if h.ID != t.sides[Dialer].s.id {
		return errors.New("a HELLO of a session that was, of which the listener knows nothing")
	}
	t.gen++
	s, err := NewListener(t.sc.config(), exRand(t.gen), h, [16]byte{t.instance})
	if err != nil {
		return err
	}
	if why := t.tab().Add(h.ID, t.gen); why != 0 {
		return fmt.Errorf("a HELLO is refused: %v", why)
	}
	t.seen.hitIf(exWelcomeAfterLoss, t.lost)
	t.base = int(t.sides[Dialer].s.log.origin.N)
	t.sides[Listener] = exSide{s: s}
	t.sides[Dialer].got = 0 // of this listener's
	t.owned[Listener] = true
	c.ends[Listener] = exLinkOpen
	s.Welcome(exNow, frame, c.exporter())
	return nil
}

func (t *exTurn) resume(c *exWire, r *Resume, frame []byte) error {
	if _, ok := t.table.Get(r.ID); !ok {
		if !t.tombstone(c, r.ID) {
			return t.reject(c, &RejectError{Reject: Reject{Reason: ReasonUnknown}})
		}
		return nil
	}
	s := t.sides[Listener].s
	if err := s.Verify(frame, c.exporter()); err != nil {
		return err // the proof is right in every scope
	}
	if err := s.Check(r); err != nil {
		t.seen.hit(exStaleResume)
		return t.reject(c, err)
	}
	t.seen.hitIf(exResumeConfirmed, !s.Confirmed())
	err := t.takeOver(c, r.Epoch, [32]byte{}, frame)
	t.tab().Confirm(r.ID)
	return err
}

// tombstone answers for a session that is no more.
func (t *exTurn) tombstone(c *exWire, id [16]byte) bool {
	why, arrived, ok := t.table.Tombstone(id)
	if ok {
		t.seen.hit(exTombstoneAnswered)
		_ = t.reject(c, &RejectError{Reject: Reject{Reason: why, Flags: FlagReceivedKnown, Received: arrived}})
	}
	return ok
}

// reject answers REJECT, and closes the connection.
func (t *exTurn) reject(c *exWire, err error) error {
	var r *RejectError
	if !errors.As(err, &r) {
		return fmt.Errorf("a refusal that is none: %w", err)
	}
	r.Instance = [16]byte{t.instance}
	raw := r.Append(nil)
	if c.ends[Dialer] != exLinkGone {
		c.to[Dialer] = []exPacket{{raw: raw, kind: KindReject, print: exPrintOf(raw)}}
	}
	c.ends[Listener] = exLinkGone
	return nil
}

// takeOver fences the session for a connection.
func (t *exTurn) takeOver(c *exWire, epoch uint64, hello [32]byte, frame []byte) error {
	t.own(Listener).s.Fence(epoch, hello)
	t.tab().Attach(t.sides[Listener].s.id)
	if old := t.on(Listener); old != nil {
		t.seen.hit(exTakenOver)
		t.seen.hitIf(exTakenOverLate, len(old.to[Listener]) > 0)
		t.seen.hitIf(exTakenOverWriting, t.sides[Listener].writing)
		if err := t.fenced(old); err != nil {
			return err
		}
		old.ends[Listener] = exLinkGone
		old.cut = true // it is closed with what is unread
	}
	c.ends[Listener], c.greeting, c.epoch = exLinkComes, frame, epoch
	return nil
}

// fenced requires that what a fenced connection still delivers changes nothing. A reader that is late may bring it.
func (t *exTurn) fenced(old *exWire) error {
	s := exCopySession(t.sides[Listener].s)
	before := exAppendPrint(nil, s)
	for _, p := range old.to[Listener] {
		var err error
		if s.Read(exNow, true); p.kind == kindData {
			err = s.Data(exNow, datagram.Run{Raw: p.raw, N: 1, Version: datagram.Version})
		} else {
			err = s.Control(exNow, p.raw)
		}
		if err != nil || !bytes.Equal(before, exAppendPrint(nil, s)) {
			return fmt.Errorf("L: a frame of a connection that was fenced is taken, %v", err)
		}
	}
	return nil
}

// attach gives the session the connection for which it was fenced, unless that is an old one by now.
func (t *exTurn) attach(c *exWire) error {
	if c == nil || c.ends[Listener] != exLinkComes {
		return errExStep
	}
	frame := c.greeting
	c.greeting = nil
	l := t.own(Listener)
	if l.s.epoch != c.epoch || l.s.state == Ended {
		t.seen.hit(exComingTooLate)
		c.ends[Listener], c.cut = exLinkGone, true
		t.alone()
		return nil
	}
	c.ends[Listener] = exLinkOpen
	if KindOf(frame) == KindHello {
		l.s.Welcome(exNow, frame, c.exporter())
		return nil
	}
	r, err := ParseResume(frame)
	if err != nil {
		return err
	}
	if err := l.s.Resume(exNow, &r, frame, c.exporter()); err != nil {
		return fmt.Errorf("L: %w: %w", err, l.s.err)
	}
	return nil
}

// alone tells the table of a listener's session that has no connection, and gets none.
func (t *exTurn) alone() {
	if l := t.sides[Listener].s; l.state != Ended && t.on(Listener) == nil && t.coming() == nil {
		t.tab().Detach(l.id, t.table.now)
	}
}

// leave tells a side that its connection is gone, with what is under way to it.
func (t *exTurn) leave(side Role, c *exWire) error {
	if c == nil || c.ends[side] != exLinkOpen && c.ends[side] != exLinkWaits {
		return errExStep
	}
	if !c.free(side) && !c.cut {
		c.cut = true
		if t.cuts--; t.cuts < 0 {
			return errExStep
		}
	}
	if len(c.to[side]) > 0 {
		t.seen.lose(side, c.to[side][0].kind)
	}
	waits := c.ends[side] == exLinkWaits
	c.ends[side] = exLinkGone
	if waits {
		return nil
	}
	t.own(side).s.Detach()
	if side == Listener {
		t.alone()
	}
	return nil
}

func (t *exTurn) dial() {
	t.dials++
	c := exWire{id: t.dials}
	c.ends[Dialer] = exLinkOpen
	d := t.own(Dialer)
	t.seen.hitIf(exAskedAlone, d.s.unanswered)
	d.s.Dial(exNow, c.exporter(), nil)
	t.wires = append(t.wires, c)
	overlap := 0
	for i := range t.wires {
		if t.wires[i].ends[Listener] != exLinkGone {
			overlap++
		}
	}
	t.seen.hitIf(exDialledAnew, overlap > 1)
	t.seen.hitIf(exDialledTwice, overlap > 2)
}

// expire lets the time of a session run out that has no connection, as reconnect.Listener does.
func (t *exTurn) expire() error {
	l := t.own(Listener)
	at, ok := t.table.Deadline()
	if !ok {
		return errExStep
	}
	id, _, why, ok := t.tab().Due(at)
	if !ok || id != l.s.id {
		return errors.New("nothing has expired")
	}
	if t.sides[Dialer].s.state != Ended {
		t.losses--
		t.lost = true
	}
	acked := l.s.log.base.N
	t.tab().Remove(id, why, l.s.ArrivedOnWire(), at)
	l.s.Drop(why)
	l.over = true
	var lost *LostError
	var closed *ClosedError
	switch {
	case l.s.err == nil:
		t.seen.hit(exExpiredQuietly)
	case t.sc.stops && errors.As(l.s.err, &closed):
		t.seen.hit(exExpiredStopped)
	case !errors.As(l.s.err, &lost) || !t.lost && t.sc.losses == 0 && !t.sc.aborts:
		return fmt.Errorf("L: it expired: %w", l.s.err)
	default:
		t.seen.hit(exExpiredAloud)
	}
	return t.unconfirmed(Listener, int(acked-exStart.N))
}

// unconfirmed checks the list of what is not acknowledged, which a side gets that has lost its session: all from number
// acked on.
func (t *exTurn) unconfirmed(side Role, acked int) error {
	a := &t.sides[side]
	i := min(acked, a.sent)
	for d := range a.s.Unconfirmed {
		if i >= a.sent || !bytes.Equal(d.Payload, t.payload(side, i)) {
			return fmt.Errorf("%s: the list of what is unconfirmed is wrong at %d of %d", exSideNames[side], i, a.sent)
		}
		i++
	}
	if i != a.sent {
		return fmt.Errorf("%s: the list of what is unconfirmed ends at %d of %d", exSideNames[side], i, a.sent)
	}
	return nil
}

// restart ends the listener's process, and begins another.
func (t *exTurn) restart() {
	t.losses--
	t.lost = true
	t.instance++
	t.newTable()
	t.ownedTable = true
	t.sides[Listener] = exSide{sent: t.sides[Listener].sent} // the dialer may still read of it
	for i := range t.wires {
		t.wires[i].ends[Listener], t.wires[i].cut, t.wires[i].greeting = exLinkGone, true, nil
	}
}

// take lets the application take a run, and compares it with what was sent.
func (t *exTurn) take(side Role) error {
	a := t.own(side)
	run, ok := a.s.Take()
	if !ok {
		return nil // all of it was skipped
	}
	if t.sc.consumed {
		a.owes += run.N
	}
	n := run.N
	for i := range n {
		d, ok := run.Next()
		number := a.got
		if side == Listener {
			number += t.base
		}
		for t.sc.ages && number%2 == 0 && number < t.sides[1-side].sent && !bytes.Equal(d.Payload, t.payload(1-side, number)) {
			number++ // it was skipped
			a.got++
		}
		if !ok || number >= t.sides[1-side].sent {
			return fmt.Errorf("%s got more than was sent: number %d", exSideNames[side], number)
		}
		if !bytes.Equal(d.Payload, t.payload(1-side, number)) || int(d.Recipient) != 7+number {
			return fmt.Errorf("%s got %v for number %d, expected %v", exSideNames[side], d, number, t.payload(1-side, number))
		}
		if t.sides[1-side].gone&(1<<number) != 0 {
			return fmt.Errorf("%s got number %d, of which the sender was told that it was not sent in time", exSideNames[side], number)
		}
		a.got++
		if side == Listener {
			marked := i < run.Redelivered
			if t.unmarked&(1<<number) != 0 && !marked {
				return fmt.Errorf("number %d is delivered twice, and not marked", number)
			}
			t.seen.hitIf(exRedeliveredMarked, marked && t.delivered&(1<<number) != 0)
			t.delivered |= 1 << number
			if !marked {
				t.unmarked |= 1 << number
			}
		}
	}
	return nil
}

// settle does what follows by itself.
func (t *exTurn) settle() error {
	for side := range t.sides {
		a := &t.sides[side]
		if a.s == nil {
			continue
		}
		if t.owned[side] {
			if !t.sc.takes && !a.s.recv.stopped {
				for a.s.Readable() {
					if err := t.take(Role(side)); err != nil {
						return err
					}
				}
			}
			for _, e := range a.s.Events() {
				switch {
				case e.Kind == EventLive && Role(side) == Listener:
					t.tab().Confirm(a.s.id)
				case e.Kind == EventExpired:
					i := e.Number - exStart.N - 1
					a.gone |= 1 << i
					if Role(side) == Dialer && t.delivered&(1<<i) != 0 || Role(side) == Listener && int(i) < t.sides[Dialer].got {
						return fmt.Errorf("%s is told that number %d was not sent in time, and it was delivered", exSideNames[side], i)
					}
				}
			}
		}
		if a.s.state == Ended {
			if err := t.ended(Role(side)); err != nil {
				return err
			}
		}
	}
	wires := t.wires[:0]
	for _, c := range t.wires {
		for side := range c.ends {
			if c.ends[side] == exLinkGone || t.sides[side].s != nil && t.sides[side].s.state == Ended && c.ends[side] == exLinkOpen {
				c.to[side] = nil
			}
		}
		if c.ends[Listener] == exLinkWaits && t.sc.lean && t.stale(&c) {
			epoch := t.sides[Listener].s.epoch
			if err := t.first(&c, c.to[Listener][0].raw); err != nil {
				return err
			}
			if c.ends[Listener] != exLinkGone || t.sides[Listener].s.epoch != epoch {
				return fmt.Errorf("L: a dial with epoch %d is taken, it has %d", c.id, epoch)
			}
		}
		if c.ends[Listener] == exLinkWaits && c.free(Listener) {
			c.ends[Listener] = exLinkGone // closed before its first frame
		}
		if c.ends != [2]exLink{exLinkGone, exLinkGone} {
			wires = append(wires, c)
		}
	}
	t.wires = wires
	if d := &t.sides[Dialer]; d.s.state != Ended && t.on(Dialer) == nil && !d.writing && !t.sc.apart {
		t.dial()
	}
	return nil
}

// stale reports whether a connection which the dialer has left brings what is refused, now and for ever.
func (t *exTurn) stale(c *exWire) bool {
	l := t.sides[Listener].s
	return c.ends[Dialer] == exLinkGone && len(c.to[Listener]) > 0 && l != nil && l.epoch >= uint64(c.id) && !t.lost
}

// ended sees to a Session that has ended: the listener forgets it, a dialer that lost it begins another, and what it has
// still to say is said before the connection is closed.
func (t *exTurn) ended(side Role) error {
	a := &t.sides[side]
	if !a.over {
		a = t.own(side)
		a.over = true
		var reject *RejectError
		switch {
		case side == Listener:
			t.tab().Remove(a.s.id, ReasonClosed, a.s.ArrivedOnWire(), t.table.now)
		case errors.As(a.s.err, &reject) && reject.Reason.Lost():
			if err := t.renew(); err != nil {
				return err
			}
		}
	}
	if c := t.on(side); c != nil && (a.s.state != Ended || !a.s.Pulls() && !a.writing) {
		c.ends[side] = exLinkGone
	}
	return nil
}

// renew lets the dialer begin a new session in place of a lost one.
func (t *exTurn) renew() error {
	d := &t.sides[Dialer]
	if err := t.unconfirmed(Dialer, int(d.s.log.base.N-exStart.N)); err != nil {
		return err
	}
	ok, err := d.s.Renew(exRand(100 + t.gen + 10*t.dials))
	if err != nil {
		return err
	}
	t.seen.hitIf(exRenewedSession, ok)
	t.seen.hitIf(exRenewedNot, !ok)
	if ok {
		d.over = false
	}
	return nil
}

// ---- what must hold

// printSide computes what a side adds to the print of a world.
func (w *exWorld) printSide(side Role) {
	a := &w.sides[side]
	var space [2048]byte
	b := exAppendBits(space[:0], a.done, a.aged, a.over, a.writing)
	b = exAppendNumbers(b, uint64(a.sent), uint64(a.got), uint64(a.owes), a.gone)
	a.print = exPrintOf(exAppendPrint(b, a.s))
}

// print is that of the world.
func (w *exWorld) print() exPrint {
	var space [2048]byte
	b := exAppendNumbers(space[:0], uint64(w.dials), uint64(w.cuts), uint64(w.pings), uint64(w.losses), uint64(w.gen),
		uint64(w.instance), uint64(w.base), w.delivered, w.unmarked, uint64(len(w.wires)))
	b = exAppendBits(b, w.lost, w.sides[Listener].s != nil)
	for i := range w.sides {
		b = exAppendNumbers(b, w.sides[i].print[0], w.sides[i].print[1])
	}
	for i := range w.wires {
		c := &w.wires[i]
		b = exAppendBits(b, c.cut)
		b = exAppendNumbers(b, uint64(c.id), uint64(c.ends[0]), uint64(c.ends[1]), c.epoch, uint64(len(c.to[0])), uint64(len(c.to[1])))
		for _, to := range c.to {
			for i := range to {
				b = exAppendNumbers(b, to[i].print[0], to[i].print[1])
			}
		}
		if c.greeting != nil {
			b = exAppendBytes(b, c.greeting)
		}
	}
	b = exAppendTable(b, w.table)
	return exPrintOf(b)
}

// check compares both sides with one another.
func (w *exWorld) check() error {
	for side := range w.sides {
		a := &w.sides[side]
		if a.s == nil {
			continue
		}
		if err := w.checkWrite(Role(side)); err != nil {
			return err
		}
		if err := w.checkEnd(Role(side)); err != nil {
			return err
		}
	}
	d, l := w.sides[Dialer].s, w.sides[Listener].s
	// What is acknowledged must have been delivered.
	if acked := min(int(d.log.base.N-exStart.N), w.sides[Dialer].sent); !w.sc.takes && !w.sc.stops && !w.sc.ages {
		for i := range acked {
			if w.delivered&(1<<i) == 0 {
				return fmt.Errorf("D's number %d is acknowledged and was not delivered", i)
			}
		}
	}
	if l == nil || l.id != d.id {
		return nil
	}
	if d.epoch < l.epoch {
		return fmt.Errorf("the epoch is %d at the listener, %d at the dialer", l.epoch, d.epoch)
	}
	for _, x := range [...]struct {
		name     string
		from, to *Session
	}{{"D to L", d, l}, {"L to D", l, d}} {
		sent, base := x.from.log.sent.sub(x.from.log.origin), x.from.log.base.sub(x.from.log.origin)
		arrived, acking := x.to.recv.arrived.sub(x.to.recv.origin), x.to.acking().sub(x.to.recv.origin)
		fin := uint64(0)
		if x.to.recv.fin {
			fin = 1
			if !x.from.log.fin || arrived.N-1 != x.from.log.end.sub(x.from.log.origin).N {
				return fmt.Errorf("%s: the stream has ended at %v, it was sent to %v", x.name, arrived, x.from.log.end)
			}
		}
		switch {
		case arrived.N > sent.N || arrived.B > sent.B:
			return fmt.Errorf("%s: %v have arrived, sent are %v", x.name, arrived, sent)
		case base.N > acking.N || base.B > acking.B:
			return fmt.Errorf("%s: %v are acknowledged, the peer has %v", x.name, base, acking)
		case x.from.credit-x.from.log.origin.B > x.to.recv.credit-x.to.recv.origin.B:
			return fmt.Errorf("%s: the credit is %d, granted were %d", x.name, x.from.credit, x.to.recv.credit)
		case x.to.recv.taken.N-x.to.recv.origin.N > arrived.N-fin:
			return fmt.Errorf("%s: %v are taken of %v", x.name, x.to.recv.taken, arrived)
		}
	}
	return nil
}

// checkWrite requires that what a write reads is still there.
func (w *exWorld) checkWrite(side Role) error {
	a := &w.sides[side]
	if !a.writing || len(a.vec) == 0 {
		return nil
	}
	segs := a.s.log.segs
	b := a.vec
	for i := range segs {
		g := &segs[i]
		if g.at > a.pin && i == 0 {
			break
		}
		from := int(a.pin) + len(a.vec) - len(b) - int(g.at)
		if from < 0 || from >= g.n || len(b) == 0 {
			continue
		}
		p := g.buf[from:g.n]
		p = p[:min(len(p), len(b))]
		if !bytes.Equal(p, b[:len(p)]) {
			return fmt.Errorf("%s: bytes have changed that are being written", exSideNames[side])
		}
		b = b[len(p):]
	}
	if len(b) > 0 {
		return fmt.Errorf("%s: bytes are freed that are being written", exSideNames[side])
	}
	return nil
}

// checkEnd requires that a side which ended in good order has, and knows it, all that it should.
func (w *exWorld) checkEnd(side Role) error {
	a, sc := &w.sides[side], w.sc
	if a.s.state != Ended {
		return nil
	}
	if a.s.err != nil {
		if sc.stops || sc.aborts || sc.losses > 0 {
			return nil
		}
		return fmt.Errorf("%s has ended: %w", exSideNames[side], a.s.err)
	}
	if sc.aborts || sc.losses > 0 {
		return nil
	}
	if sc.stops {
		if l := &a.s.log; l.base.B != l.end.B {
			return fmt.Errorf("%s has ended in good order, and %v of %v are acknowledged", exSideNames[side], l.base, l.end)
		}
		return nil
	}
	if l := &a.s.log; l.base != l.final() || !l.fin {
		return fmt.Errorf("%s has ended in good order, and %v of %v are acknowledged", exSideNames[side], l.base, l.final())
	}
	if r := &a.s.recv; !r.fin || !sc.ages && a.got+exQueued(r) != sc.messages[1-side] {
		return fmt.Errorf("%s has ended in good order, and got %d", exSideNames[side], a.got)
	}
	return nil
}

// exQueued returns how many datagrams wait.
func exQueued(r *recvSide) int {
	n := 0
	for _, q := range r.queue {
		n += q.N
	}
	return n
}

// final checks the last state of all, in which nothing can happen any more.
func (w *exWorld) final() error {
	d, l := &w.sides[Dialer], &w.sides[Listener]
	sc := w.sc
	switch {
	case d.s.state != Ended || l.s != nil && l.s.state != Ended:
		return errors.New("nothing goes on, and it is not the end")
	case len(w.wires) > 0:
		return errors.New("a connection has outlived the session")
	case sc.stops || sc.aborts:
		return nil
	case d.s.err != nil:
		var r *RejectError
		if !errors.As(d.s.err, &r) || !r.Reason.Lost() || !w.lost {
			return fmt.Errorf("D has ended: %w", d.s.err)
		}
		return nil
	case sc.ages:
		return nil
	}
	if w.delivered != 1<<d.sent-1 || d.sent != sc.messages[Dialer] {
		return fmt.Errorf("of the dialer's %d datagrams were delivered %b", d.sent, w.delivered)
	}
	if l.s != nil && l.s.err == nil && (d.got != l.sent || l.sent != sc.messages[Listener]) {
		return fmt.Errorf("of the listener's %d datagrams were delivered %d", l.sent, d.got)
	}
	return nil
}

// story describes a state in a line.
func (w *exWorld) story() string {
	var b strings.Builder
	for side := range w.sides {
		a := &w.sides[side]
		if a.s == nil {
			fmt.Fprintf(&b, " | %s: none", exSideNames[side])
			continue
		}
		l, r := &a.s.log, &a.s.recv
		rel := func(p Position) string { return p.sub(exStart).String() }
		fmt.Fprintf(&b, " | %s: %v, epoch %d, acked %s unsent %s sent %s end %s", exSideNames[side], a.s.state, a.s.epoch,
			rel(l.base), rel(l.unsent), rel(l.sent), rel(l.final()))
		fmt.Fprintf(&b, ", arrived %s here %s", rel(r.arrived), rel(r.here))
	}
	for i := range w.wires {
		c := &w.wires[i]
		fmt.Fprintf(&b, " | wire %d:", c.id)
		for side, to := range c.to {
			what := [...]string{"waits", "comes", "open", "gone"}[c.ends[side]]
			fmt.Fprintf(&b, " %s %s", exSideNames[side], what)
			if len(to) > 0 {
				b.WriteString(" <-")
			}
			for _, p := range to {
				if p.kind == kindData {
					b.WriteString(" data")
				} else {
					b.WriteString(" " + p.kind.String())
				}
			}
			b.WriteString(";")
		}
	}
	return b.String()[3:]
}
