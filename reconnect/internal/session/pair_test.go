package session

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// heap is a Memory that fills what comes back, so that a use after it shows.
type heap struct{ out int }

func (h *heap) Get(size int) []byte { h.out++; return make([]byte, size) }

func (h *heap) Put(b []byte) {
	h.out--
	for i := range b {
		b[i] = 0xdd
	}
}

func testConfig(mem Memory) Config {
	return Config{
		MaxPayload: 1 << 20, SendBuffer: 1 << 20, MinWindow: 64 << 10, MaxWindow: 1 << 20,
		PingAfter: 5 * time.Second, AckDelay: 25 * time.Millisecond, AnswerTimeout: 5 * time.Second, Expiry: time.Minute,
		Memory: mem,
	}
}

// pair is a dialer's and a listener's Session on a connection without latency.
type pair struct {
	t          *testing.T
	now        time.Duration
	rand       *rand.ChaCha8
	mem        heap
	d, l       *Session
	dr, lr     *datagram.Reader
	toD, toL   bytes.Buffer
	exporter   []byte
	gotD, gotL [][]byte // what the dialer and the listener received
	lcfg       Config
	instance   [16]byte
	errD, errL error
	handshook  bool
	dontTake   bool
}

func newPair(t *testing.T) *pair {
	p := &pair{t: t, rand: rand.NewChaCha8([32]byte{1}), exporter: bytes.Repeat([]byte{7}, 32)}
	p.lcfg = testConfig(&p.mem)
	p.instance = [16]byte{9}
	var err error
	p.d, err = NewDialer(testConfig(&p.mem), p.rand)
	require.NoError(t, err)
	return p
}

// connect begins a connection, and drops what was under way on the last.
func (p *pair) connect() {
	p.toD.Reset()
	p.toL.Reset()
	p.d.Detach()
	if p.l != nil {
		p.l.Detach()
	}
	o := &datagram.Options{Control: true, MaxPayload: 1 << 20}
	p.dr, p.lr = datagram.NewReader(&p.toD, o), datagram.NewReader(&p.toL, o)
	p.d.Dial(p.now, p.exporter, nil)
	p.handshook = false
}

func (p *pair) check() {
	require.NoError(p.t, p.d.check(), "dialer")
	if p.l != nil {
		require.NoError(p.t, p.l.check(), "listener")
	}
}

func (p *pair) write(s *Session, to *bytes.Buffer) bool {
	var out Out
	if s == nil {
		return false
	}
	pulls := s.Pulls()
	got := s.Pull(p.now, &out)
	require.Equal(p.t, pulls, got, "Pulls and Pull agree")
	for _, b := range out.Vec {
		to.Write(b)
	}
	s.Wrote()
	p.check()
	return got
}

func (p *pair) handshake(frame []byte) {
	switch KindOf(frame) {
	case KindHello:
		h, err := ParseHello(frame)
		require.NoError(p.t, err)
		if p.l == nil {
			p.l, err = NewListener(p.lcfg, p.rand, &h, p.instance)
			require.NoError(p.t, err)
		} else {
			require.NoError(p.t, p.l.Again(&h))
			p.l.Fence(h.Epoch, h.Link)
		}
		p.l.Welcome(p.now, frame, p.exporter)
	case KindResume:
		r, err := ParseResume(frame)
		require.NoError(p.t, err)
		require.NoError(p.t, p.l.Verify(frame, p.exporter))
		require.NoError(p.t, p.l.Check(&r))
		p.l.Fence(r.Epoch, [32]byte{})
		require.NoError(p.t, p.l.Resume(p.now, &r, frame, p.exporter))
	default:
		p.t.Fatal(KindOf(frame))
	}
	p.handshook = true
	p.check()
}

// read lets s take what has arrived.
func (p *pair) read(s *Session, r *datagram.Reader, from *bytes.Buffer, err *error) bool {
	any := from.Len() > 0
	for from.Len() > 0 {
		run, e := r.Frames()
		require.NoError(p.t, e)
		if run.N == 0 {
			require.NoError(p.t, r.Fill())
		}
		p.frames(s, r, err)
	}
	return any
}

func (p *pair) frames(s *Session, r *datagram.Reader, err *error) {
	for {
		run, e := r.Frames()
		require.NoError(p.t, e)
		if run.N == 0 {
			return
		}
		if s == nil {
			s = p.l // there may be one by now
		}
		if s == nil || s == p.l && !p.handshook {
			p.handshake(run.Raw)
			s = p.l
			continue
		}
		s.Read(p.now, true)
		if run.Version == datagram.Version {
			*err = s.Data(p.now, run)
		} else {
			*err = s.Control(p.now, run.Raw)
		}
		p.check()
	}
}

func (p *pair) take(s *Session, got *[][]byte) {
	if s == nil || p.dontTake {
		return
	}
	for {
		run, ok := s.Take()
		if !ok {
			return
		}
		for d, ok := run.Next(); ok; d, ok = run.Next() {
			*got = append(*got, bytes.Clone(d.Payload))
		}
		p.check()
	}
}

// run goes on until nothing more happens.
func (p *pair) run() {
	for again := true; again; {
		again = p.write(p.d, &p.toL)
		again = p.read(p.l, p.lr, &p.toL, &p.errL) || again
		again = p.write(p.l, &p.toD) || again
		again = p.read(p.d, p.dr, &p.toD, &p.errD) || again
		p.take(p.d, &p.gotD)
		p.take(p.l, &p.gotL)
	}
}

func (p *pair) send(s *Session, payload string) {
	require.NoError(p.t, s.Append(p.now, datagram.Datagram{Recipient: 1, Payload: []byte(payload)}, 0))
}

func TestPair(t *testing.T) {
	p := newPair(t)
	p.send(p.d, "one")
	p.connect()
	p.run()
	require.Equal(t, Live, p.d.State())
	require.Equal(t, Live, p.l.State())
	p.send(p.l, "eins")
	p.send(p.d, "two")
	p.run()
	p.connect()
	p.send(p.d, "three")
	p.run()
	require.Equal(t, Live, p.d.State())
	require.Equal(t, [][]byte{[]byte("one"), []byte("two"), []byte("three")}, p.gotL)
	require.Equal(t, [][]byte{[]byte("eins")}, p.gotD)
	p.d.Finish(p.now)
	p.run()
	p.l.Finish(p.now)
	p.run()
	require.Equal(t, Ended, p.d.State())
	require.Equal(t, Ended, p.l.State())
	require.NoError(t, p.d.Err())
	require.NoError(t, p.l.Err())
	require.Zero(t, p.mem.out)
}
