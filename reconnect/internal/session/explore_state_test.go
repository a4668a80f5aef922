package session

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// A state of the explorer holds Sessions, and goes on in many ways from there: so a Session must be copied, and two of
// them compared. Export will not do: it leaves out the connection. What follows copies and compares all fields.
// TestExploreFields fails when a field comes that it does not know.

// exCopySession returns a Session that shares no memory with s which either of them writes to.
func exCopySession(s *Session) *Session {
	c := new(Session)
	*c = *s
	l, r := &c.log, &c.recv
	l.segs = slices.Clone(l.segs)
	for i := range l.segs {
		g := &l.segs[i]
		g.buf = bytes.Clone(g.buf)
	}
	l.marks = slices.Clone(l.marks)
	r.small = new([2]queued)
	r.queue = append(r.small[:0], s.recv.queue...)
	for i := range r.queue {
		if r.queue[i].own {
			r.queue[i].Raw = bytes.Clone(r.queue[i].Raw)
		}
	}
	r.sizes = slices.Clone(r.sizes)
	c.events = slices.Clone(c.events)
	return c
}

// exFields says of each field of a Session, and of its parts, how it gets into the print of a state:
//
//	state   its value is in it
//	part    its fields are
//	config  it is the same in all states of a scope
//	follows it is what other fields say, or nothing depends on it but gauges and memory
//	large   it is not: it counts what matters from some KiB on, and all bytes of a scope are fewer than that
//	time    of it only whether it is 0: in the explorer time stands still, and that of a timer is when it fires
var exFields = map[string]string{
	"Session.cfg": "config", "Session.role": "config", "Session.state": "state", "Session.err": "state",
	"Session.id": "state", "Session.private": "follows", "Session.public": "follows", "Session.peer": "follows",
	"Session.secret": "follows", "Session.link": "state", "Session.keys": "state", "Session.instance": "state",
	"Session.epoch": "state", "Session.redelivered": "state", "Session.refused": "state", "Session.proved": "state",
	"Session.missed": "state", "Session.peerMax": "state", "Session.peerFlags": "state", "Session.welcomed": "state",
	"Session.expiry": "state", "Session.greeting": "state", "Session.exporter": "state", "Session.unanswered": "state",
	"Session.log": "part", "Session.recv": "part", "Session.longest": "state", "Session.credit": "large",
	"Session.stopped": "state", "Session.finAcked": "state", "Session.first": "state", "Session.ackDue": "state",
	"Session.stopDue": "state", "Session.closeDue": "state", "Session.confirmDue": "state", "Session.pongDue": "state",
	"Session.pingDue": "state", "Session.flushDue": "state", "Session.moved": "state", "Session.goaway": "state",
	"Session.pongToken": "state", "Session.closeReason": "state", "Session.closeSent": "state",
	"Session.goawayDelay": "state", "Session.goawaySpread": "state", "Session.flushTo": "state",
	"Session.lastRead": "time", "Session.waitSince": "time", "Session.pinged": "state", "Session.pingAt": "time",
	"Session.token": "state", "Session.waitPong": "state", "Session.partialAt": "time", "Session.rtt": "time",
	"Session.stats": "follows", "Session.events": "follows",

	"sendLog.mem": "config", "sendLog.segs": "follows", "sendLog.origin": "state", "sendLog.base": "state",
	"sendLog.unsent": "state", "sendLog.sent": "state", "sendLog.max": "state", "sendLog.end": "state",
	"sendLog.fin": "state", "sendLog.gone": "state", "sendLog.pinned": "state", "sendLog.pin": "state",
	"sendLog.marks": "state", "sendLog.skips": "follows",

	"recvSide.origin": "state", "recvSide.arrived": "state", "recvSide.here": "state", "recvSide.taken": "state",
	"recvSide.done": "state", "recvSide.fin": "state", "recvSide.stopped": "state", "recvSide.queue": "state",
	"recvSide.small": "follows", "recvSide.waiting": "follows", "recvSide.window": "state", "recvSide.credit": "large",
	"recvSide.reserved": "state", "recvSide.heldAt": "large", "recvSide.held": "large", "recvSide.went": "large",
	"recvSide.stalled": "large", "recvSide.enough": "large", "recvSide.sizes": "state", "recvSide.open": "follows",
	"recvSide.stale": "state", "recvSide.unstated": "large", "recvSide.ackAt": "time",

	"queued.Run": "state", "queued.own": "follows", "queued.skip": "state", "queued.old": "state",
	"size.length": "state", "size.skip": "state",
	"mark.at": "state", "mark.length": "state", "mark.deadline": "config", "mark.skipped": "state",
	"segment.buf": "follows", "segment.n": "follows", "segment.at": "follows", "segment.first": "follows",
	"segment.firstN": "follows",
}

// TestExploreFields fails when the machine has got a field of which exCopySession and exAppendPrint do not know.
func TestExploreFields(t *testing.T) {
	seen := 0
	for _, v := range []any{Session{}, sendLog{}, recvSide{}, queued{}, size{}, mark{}, segment{}} {
		for f := range reflect.TypeOf(v).Fields() {
			name := reflect.TypeOf(v).Name() + "." + f.Name
			require.Contains(t, exFields, name, "say what it is, and see to exCopySession and exAppendPrint")
			seen++
		}
	}
	require.Len(t, exFields, seen, "a field that is gone")
}

// TestExploreCopy requires that a copy has the same print, and that nothing which happens to it changes the original's.
func TestExploreCopy(t *testing.T) {
	w, err := newExWorld(&exScope{messages: [2]int{2, 2}, cuts: 1, consumed: true})
	require.NoError(t, err)
	for range 40 {
		ops := w.ops(nil)
		if len(ops) == 0 {
			break
		}
		before := exRawOf(w)
		for _, o := range ops {
			_, err := w.apply(o, nil)
			require.NoError(t, err)
			require.Equal(t, before, exRawOf(w), "%v changed the state from which it led", o)
		}
		w, err = w.apply(ops[len(ops)-1], nil)
		require.NoError(t, err)
	}
}

func exRawOf(w *exWorld) string {
	var b []byte
	for i := range w.sides {
		if s := w.sides[i].s; s != nil {
			b = exAppendPrint(append(b, byte(i)), s)
			for _, g := range s.log.segs {
				b = append(b, g.buf[:g.n]...)
			}
		}
	}
	return string(b)
}

func exAppendBits(b []byte, bits ...bool) []byte {
	var x uint64
	for i, bit := range bits {
		if bit {
			x |= 1 << i
		}
	}
	return binary.LittleEndian.AppendUint64(b, x)
}

func exAppendNumbers(b []byte, xs ...uint64) []byte {
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

func exAppendPositions(b []byte, ps ...Position) []byte {
	for _, p := range ps {
		b = exAppendNumbers(b, p.N, p.B)
	}
	return b
}

func exAppendBytes(b, p []byte) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(p))), p...)
}

// exAppendPrint appends all that the future of s depends on. Its length is in it wherever that varies, so that two states
// have the same only if they are the same.
func exAppendPrint(b []byte, s *Session) []byte {
	l, r := &s.log, &s.recv
	b = exAppendBits(b, s.refused, s.proved, s.missed, s.welcomed, s.unanswered, s.stopped, s.finAcked, s.ackDue, s.stopDue,
		s.closeDue, s.confirmDue, s.pongDue, s.pingDue, s.flushDue, s.moved, s.goaway, s.closeSent, s.pinged, s.waitPong,
		s.partialAt != 0, l.fin, l.gone, l.pinned, r.fin, r.stopped, r.ackAt != 0, s.err != nil)
	b = exAppendNumbers(b, uint64(s.state), s.epoch, s.redelivered, uint64(s.peerMax), uint64(s.peerFlags), uint64(s.expiry),
		s.longest, s.pongToken, uint64(s.closeReason), uint64(s.goawayDelay), uint64(s.goawaySpread), s.flushTo,
		s.token, r.window, r.reserved, uint64(r.stale))
	b = append(b, s.id[:]...)
	b = append(b, s.instance[:]...)
	b = append(b, s.link[:8]...)
	b = append(b, s.keys.Dialer[:8]...)
	if s.err != nil {
		b = exAppendBytes(b, []byte(s.err.Error()))
	}
	b = exAppendBytes(b, s.first)
	b = exAppendBytes(b, s.greeting)
	b = exAppendBytes(b, s.exporter)
	b = exAppendPositions(b, l.origin, l.base, l.unsent, l.sent, l.max, l.end)
	if l.pinned {
		b = exAppendNumbers(b, l.pin)
	}
	b = exAppendPositions(b, r.origin, r.arrived, r.here, r.taken, r.done)
	b = exAppendNumbers(b, uint64(len(l.marks)), uint64(len(r.queue)), uint64(len(r.sizes)))
	for _, m := range l.marks {
		b = exAppendBits(exAppendPositions(b, m.at), m.skipped)
	}
	for _, q := range r.queue {
		b = exAppendBits(exAppendNumbers(exAppendBytes(b, q.Raw), uint64(q.N), q.skip), q.old)
	}
	for _, z := range r.sizes {
		b = exAppendBits(exAppendNumbers(b, z.length), z.skip)
	}
	return b
}

// exPrint is a hash of 128 bits. That two states of a run have the same by chance is out of the question.
type exPrint [2]uint64

var exSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func exPrintOf(b []byte) exPrint {
	return exPrint{maphash.Bytes(exSeeds[0], b), maphash.Bytes(exSeeds[1], b)}
}

// exCopyTable returns a Table that shares no memory with t.
func exCopyTable(t *Table[int]) *Table[int] {
	c := NewTable[int](t.config)
	c.now = t.now
	for p := range t.lists {
		for e := t.lists[p].first; e != nil; e = e.next {
			n := &tableEntry[int]{id: e.id, s: e.s, since: e.since, in: e.in, confirmed: e.confirmed}
			c.sessions[e.id] = n
			c.lists[p].push(n)
		}
	}
	for d := t.oldest; d != nil; d = d.next {
		n := &tombstone{id: d.id, arrived: d.arrived, since: d.since, why: d.why}
		c.tombstones[d.id] = n
		if c.newest == nil {
			c.oldest = n
		} else {
			c.newest.next = n
		}
		c.newest = n
	}
	return c
}

// exAppendTable appends all that the future of t depends on, but for its clock.
func exAppendTable(b []byte, t *Table[int]) []byte {
	for p := range t.lists {
		b = exAppendNumbers(b, uint64(t.lists[p].n))
		for e := t.lists[p].first; e != nil; e = e.next {
			b = exAppendBits(exAppendNumbers(append(b, e.id[:]...), uint64(e.s)), e.confirmed)
		}
	}
	b = exAppendNumbers(b, uint64(len(t.tombstones)))
	for d := t.oldest; d != nil; d = d.next {
		b = exAppendNumbers(exAppendPositions(append(b, d.id[:]...), d.arrived), uint64(d.why))
	}
	return b
}
