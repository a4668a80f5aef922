package session

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// modelLog is sendLog as simple as can be: frames in a slice.
type modelLog struct {
	start  Position
	frames [][]byte
	ends   []Position // of each frame
	base   int        // frames before it are acknowledged
	unsent int
	max    int
}

func (m *modelLog) at(n int) Position {
	if n == 0 {
		return m.start
	}
	return m.ends[n-1]
}

func (m *modelLog) bytes(from, to int) []byte { return bytes.Join(m.frames[from:to], nil) }

// from returns the first frame that begins at b or behind.
func (m *modelLog) from(b uint64) int {
	for n := m.base; n < len(m.frames); n++ {
		if m.at(n).B >= b {
			return n
		}
	}
	return len(m.frames)
}

// logTest runs a sendLog along its model.
type logTest struct {
	t   *testing.T
	r   *rand.Rand
	mem heap
	l   sendLog
	m   modelLog

	vec    [][]byte // given and not unpinned
	copied [][]byte
}

func newLogTest(t *testing.T, seed uint64, start Position) *logTest {
	x := &logTest{t: t, r: rand.New(rand.NewPCG(seed, 1)), m: modelLog{start: start}}
	x.l.mem = &x.mem
	x.l.base, x.l.unsent, x.l.sent, x.l.max, x.l.end = start, start, start, start, start
	return x
}

// size draws the length of a payload: mostly short ones, but all that matter at the edges of segments too.
func (x *logTest) size() int {
	switch x.r.IntN(10) {
	case 0:
		return 0
	case 1:
		return x.r.IntN(200_000)
	case 2, 3:
		return LargeSegment - 30 + x.r.IntN(40)
	case 4, 5:
		return SmallSegment - 30 + x.r.IntN(40)
	case 6: // so that a header crosses
		if i := len(x.l.segs) - 1; i >= 0 {
			if left := len(x.l.segs[i].buf) - x.l.segs[i].n; left > 16 {
				return left - 8 - x.r.IntN(9)
			}
		}
		return 1
	}
	return x.r.IntN(300)
}

func (x *logTest) append() {
	p := make([]byte, x.size())
	for i := range p {
		p[i] = byte(x.r.Uint32())
	}
	d := datagram.Datagram{Recipient: uint16(x.r.Uint32()), Payload: p}
	frame, err := datagram.Append(nil, d)
	require.NoError(x.t, err)
	if x.m.at(len(x.m.frames)).B > math.MaxUint64-uint64(len(frame)) {
		return
	}
	x.l.append(d)
	clear(p) // it is the caller's
	x.m.frames = append(x.m.frames, frame)
	x.m.ends = append(x.m.ends, x.m.at(len(x.m.ends)).add(Position{1, uint64(len(frame))}))
}

func (x *logTest) give() {
	if x.m.unsent == len(x.m.frames) {
		return
	}
	upTo := x.m.unsent + 1 + x.r.IntN(len(x.m.frames)-x.m.unsent)
	begin := x.m.at(x.m.unsent).B
	credit := plus(begin+1, x.r.Uint64N(x.l.end.B-begin+10))
	if x.r.IntN(2) == 0 {
		credit = math.MaxUint64
	}
	size := x.r.Uint64N(300_000)

	got := x.l.give(nil, credit, size, x.m.at(upTo))
	to := int(x.l.unsent.N - x.m.start.N)
	limit := min(upTo, x.m.from(credit))
	require.Greater(x.t, to, x.m.unsent, "at least one")
	require.LessOrEqual(x.t, to, limit)
	require.Equal(x.t, x.m.at(to), x.l.unsent)
	if to < limit {
		require.GreaterOrEqual(x.t, x.l.unsent.B-begin, size, "no less than size")
	}
	if to-1 > x.m.unsent {
		// The last frame begins in the segment behind the one in which size was reached, at the latest.
		require.LessOrEqual(x.t, x.m.at(to-1).B-begin, size+2*LargeSegment, "not much more than size")
	}
	require.True(x.t, bytes.Equal(x.m.bytes(x.m.unsent, to), bytes.Join(got, nil)), "what was given")
	x.m.unsent, x.m.max = to, max(x.m.max, to)
	for _, b := range got {
		x.vec, x.copied = append(x.vec, b), append(x.copied, bytes.Clone(b))
	}
}

// unchanged looks at what was given and is not unpinned.
func (x *logTest) unchanged() {
	for i := range x.vec {
		if !bytes.Equal(x.vec[i], x.copied[i]) {
			x.t.Fatal("bytes of a write that is under way have changed")
		}
	}
}

func (x *logTest) acknowledge() {
	n := x.m.base + x.r.IntN(x.m.max-x.m.base+1)
	x.l.acknowledge(x.m.at(n))
	x.m.base = n
	if x.m.unsent < n {
		x.m.unsent = n
		x.l.unsent = x.m.at(n)
	}
}

func (x *logTest) unpin() {
	x.l.unpin()
	x.vec, x.copied = nil, nil
}

func (x *logTest) check() {
	require.NoError(x.t, x.l.check())
	x.unchanged()
	end := len(x.m.frames)
	require.Equal(x.t, x.m.at(end), x.l.end)
	require.Equal(x.t, x.m.at(x.m.base), x.l.base)
	require.Equal(x.t, x.m.at(x.m.unsent), x.l.unsent)
	require.Equal(x.t, x.m.at(x.m.max), x.l.max)
	require.Equal(x.t, x.l.end.B-x.l.base.B, x.l.size())

	// Positions at random, and around an edge.
	begin := x.l.base.B
	for range 4 {
		b := begin + x.r.Uint64N(x.l.size()+2)
		if x.r.IntN(2) == 0 {
			b = x.m.at(x.m.base+x.r.IntN(end-x.m.base+1)).B + x.r.Uint64N(3) - 1
		}
		if b < begin { // also: above 2^64
			continue
		}
		n := x.m.from(b)
		require.Equal(x.t, x.m.at(n), x.l.from(b), "from %d", b)
		for _, p := range []Position{{x.m.at(n).N, b}, {x.m.at(n).N + 1, b}, {x.m.at(n).N - 1, b}} {
			require.Equal(x.t, p == x.m.at(n), x.l.edge(p), "edge %v", p)
		}
	}
}

func (x *logTest) run(steps int) {
	for range steps {
		switch x.r.IntN(12) {
		case 0, 1, 2, 3, 4:
			x.append()
		case 5, 6, 7:
			x.give()
		case 8:
			x.acknowledge()
		case 9, 10:
			x.unpin()
		case 11:
			if x.r.IntN(3) == 0 {
				x.l.rewind()
				x.vec, x.copied = nil, nil
				x.m.unsent = x.m.base
			}
		}
		x.check()
	}
	n := x.m.base
	for d := range x.l.unconfirmed {
		want, _, err := datagram.Parse(x.m.frames[n])
		require.NoError(x.t, err)
		require.Equal(x.t, want.Recipient, d.Recipient)
		require.True(x.t, bytes.Equal(want.Payload, d.Payload))
		n++
	}
	require.Equal(x.t, len(x.m.frames), n)
	for range x.l.unconfirmed {
		break
	}
	for x.m.unsent < len(x.m.frames) {
		x.give()
		x.unpin()
	}
	x.unpin()
	x.m.base = len(x.m.frames)
	x.l.acknowledge(x.l.end)
	x.check()
	require.Zero(x.t, x.mem.out, "segments that were not given back")
}

func TestLogModel(t *testing.T) {
	for _, start := range []Position{
		{}, {1<<32 - 20, 1<<32 - 200_000}, {math.MaxUint64 - 500, math.MaxUint64 - 3_000_000}, {7, math.MaxUint64 - 100},
	} {
		for seed := range uint64(8) {
			t.Run(fmt.Sprint(start, seed), func(t *testing.T) { newLogTest(t, seed, start).run(250) })
		}
	}
}

func TestLogEveryByte(t *testing.T) {
	x := newLogTest(t, 1, Position{3, 1000})
	for range 60 {
		x.append()
		if x.l.size() > 300_000 {
			break
		}
	}
	for n := range len(x.m.frames) {
		x.m.max, x.m.base, x.m.unsent = len(x.m.frames), n, n
		x.l.unsent, x.l.sent, x.l.max = x.m.at(n), x.l.end, x.l.end
		x.l.acknowledge(x.m.at(n))
		x.check()
		for b := x.l.base.B; b <= x.l.end.B; b += 1 + uint64(x.r.IntN(1+n*20)) {
			m := x.m.from(b)
			if p := x.l.from(b); p != x.m.at(m) {
				t.Fatalf("from(%d) is %v, expected %v", b, p, x.m.at(m))
			}
			if got, want := x.l.edge(Position{x.m.at(m).N, b}), x.m.at(m).B == b; got != want {
				t.Fatalf("edge(%d) is %v", b, got)
			}
		}
		require.False(t, x.l.edge(Position{x.l.base.N, x.l.base.B - 1}))
		require.False(t, x.l.edge(Position{x.l.end.N, x.l.end.B + 1}))
		require.False(t, x.l.edge(Position{x.l.end.N + 1, x.l.end.B}))
	}
}

func TestLogFin(t *testing.T) {
	x := newLogTest(t, 1, Position{})
	x.append()
	x.l.fin = true
	require.Equal(t, Position{2, x.l.end.B}, x.l.final())
	x.give()
	x.l.advance(x.l.final())
	require.True(t, x.l.edge(x.l.end))
	require.True(t, x.l.edge(x.l.final()))
	require.False(t, x.l.edge(Position{3, x.l.end.B}))
	x.unpin()
	x.l.acknowledge(x.l.final())
	require.NoError(t, x.l.check())
	require.Zero(t, x.mem.out)
}

func TestLogMarks(t *testing.T) {
	var l sendLog
	l.mem = &heap{}
	for i := range 5 {
		if i != 2 {
			l.marks = append(l.marks, mark{at: l.end, length: 9, deadline: time.Duration(i)})
		}
		l.append(runDatagram("x"))
	}
	require.NoError(t, l.check())
	require.Equal(t, 0, l.nextMark())
	l.give(nil, 18, 1, l.end) // 0 and 1
	l.unpin()
	require.Equal(t, 2, l.nextMark())
	require.Equal(t, Position{3, 27}, l.marks[2].at)
	require.False(t, l.expired(&l.marks[0], 100), "it was sent")
	require.False(t, l.expired(&l.marks[2], 2))
	require.True(t, l.expired(&l.marks[2], 3))
	l.marks[1].skipped, l.skips = true, 1
	require.True(t, l.expired(&l.marks[1], 0), "for ever")
	var got int
	for range l.unconfirmed {
		got++
	}
	require.Equal(t, 4, got, "what was skipped is not unconfirmed")
	l.acknowledge(Position{1, 9})
	require.Len(t, l.marks, 3)
	l.acknowledge(Position{2, 18})
	require.Len(t, l.marks, 2)
	l.rewind()
	require.Equal(t, 0, l.nextMark())
	require.NoError(t, l.check())
}

func TestLogAfterBurst(t *testing.T) {
	x := newLogTest(t, 1, Position{})
	for x.l.size() < 20*LargeSegment {
		x.append()
	}
	for x.m.unsent < len(x.m.frames) {
		x.give()
	}
	x.unpin()
	x.l.acknowledge(x.l.end)
	require.Nil(t, x.l.segs, "the room for many segments does not stay")
	require.Zero(t, x.mem.out)
}
