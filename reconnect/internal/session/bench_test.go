package session

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// reuse is a Memory that keeps what comes back.
type reuse map[int][][]byte

func (m reuse) Get(size int) []byte {
	if free := m[size]; len(free) > 0 {
		m[size] = free[:len(free)-1]
		return free[len(free)-1]
	}
	return make([]byte, size)
}

func (m reuse) Put(b []byte) { m[len(b)] = append(m[len(b)], b) }

// stream is a live pair between which 64 datagrams at a time go one way, without a Reader between.
type stream struct {
	p        *pair
	out, ack Out
	wire     []byte
	d        datagram.Datagram
	got      int
}

func newStream(t testing.TB) *stream {
	x := &stream{d: datagram.Datagram{Recipient: 1, Payload: bytes.Repeat([]byte{5}, 64)}}
	mem := reuse{}
	tt := &testing.T{}
	x.p = livePairOf(tt, func(d, l *Config) { d.Memory, l.Memory = mem, mem })
	require.False(t, tt.Failed())
	return x
}

func (x *stream) batch() {
	p := x.p
	for range 64 {
		if p.d.Append(p.now, x.d, 0) != nil {
			panic("not accepted")
		}
	}
	for p.d.Pull(p.now, &x.out) {
		x.wire = x.wire[:0]
		for _, b := range x.out.Vec {
			x.wire = append(x.wire, b...)
		}
		p.d.Wrote()
		x.feed(p.l, x.wire)
		for {
			run, ok := p.l.Take()
			if !ok {
				break
			}
			for _, ok := run.Next(); ok; _, ok = run.Next() {
				x.got++
			}
		}
		if p.l.Pull(p.now, &x.ack) {
			x.feed(p.d, x.ack.Vec[0])
			p.l.Wrote()
		}
	}
}

// feed lets s read what is on the wire: control frames each, data in one run.
func (x *stream) feed(s *Session, wire []byte) {
	s.Read(x.p.now, true)
	for len(wire) > 0 {
		h := datagram.ParseHeader(wire)
		if n := h.Size + 4; h.Version == datagram.ControlVersion {
			if s.Control(x.p.now, wire[:n]) != nil {
				panic(s.Err())
			}
			wire = wire[n:]
			continue
		}
		run := datagram.Run{Version: datagram.Version}
		for n := 0; n < len(wire) && datagram.ParseHeader(wire[n:]).Version == datagram.Version; run.N++ {
			n += int(datagram.ParseHeader(wire[n:]).Size) + 4
			run.Raw = wire[:n]
		}
		if s.Data(x.p.now, run) != nil {
			panic(s.Err())
		}
		wire = wire[len(run.Raw):]
	}
}

func TestNoAllocations(t *testing.T) {
	x := newStream(t)
	for range 1000 { // until windows and buffers are what they will be
		x.batch()
	}
	require.Zero(t, testing.AllocsPerRun(500, x.batch))
	require.Equal(t, 64*1501, x.got)
}

// BenchmarkOneWay is what both machines cost for a datagram of 64 bytes, acknowledgements included, with a copy in place
// of a connection.
func BenchmarkOneWay(b *testing.B) {
	x := newStream(b)
	b.SetBytes(64)
	b.ReportAllocs()
	for n := 0; n < b.N; n += 64 {
		x.batch()
	}
}
