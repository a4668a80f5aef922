package reconnect_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/blackbox"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport/tcp"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// journal is a slog.Handler that keeps what is logged.
type journal struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed with the next line
}

func newJournal() *journal { return &journal{more: make(chan struct{})} }

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
	close(j.more)
	j.more = make(chan struct{})
	return nil
}

// count returns how many lines contain all of parts, and what is closed when there are more lines.
func (j *journal) count(parts ...string) (n int, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
next:
	for _, line := range j.lines {
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		n++
	}
	return n, j.more
}

// await waits until n lines contain all of parts.
func (j *journal) await(t *testing.T, n int, parts ...string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		got, more := j.count(parts...)
		if got >= n {
			return
		}
		select {
		case <-more:
		case <-timeout:
			require.FailNow(t, "not logged", "%d times %q, expected %d", got, parts, n)
		}
	}
}

// target is a listener that echoes, and a session that goes to and fro there all the time, through a proxy that has
// recorded its first frames: one HELLO, and as many RESUMEs as it was cut.
type target struct {
	t     *testing.T
	log   *journal
	l     *reconnect.Listener
	addr  string
	proxy *blackbox.Proxy
	c     *reconnect.Conn

	wg       sync.WaitGroup
	stop     chan struct{}
	echoed   atomic.Uint64
	accepted atomic.Uint64
	failed   chan error
}

func newTarget(t *testing.T) *target {
	x := &target{t: t, log: newJournal(), stop: make(chan struct{}), failed: make(chan error, 1)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	x.addr = ln.Addr().String()
	x.l = reconnect.NewListener(ln, &reconnect.ListenOptions{
		Plain: reconnect.RefusePlain, SessionOptions: reconnect.SessionOptions{Logger: slog.New(x.log)},
	})
	ctx := context.Background()
	x.wg.Go(func() {
		for {
			c, err := x.l.Accept(ctx)
			if err != nil {
				return
			}
			x.accepted.Add(1)
			x.wg.Go(func() {
				defer c.CloseNow()
				for d, err := range c.Reader().All(ctx) {
					if err != nil || c.Writer().Send(ctx, d) != nil {
						return
					}
				}
				_ = c.Close(ctx)
			})
		}
	})
	x.proxy, err = blackbox.NewProxy(x.addr, 1, blackbox.Faults{Record: true})
	require.NoError(t, err)
	x.c, err = reconnect.Dial(bounded(t), tcp.Dialer{Addr: x.proxy.Addr()}, nil)
	require.NoError(t, err)
	x.wg.Go(x.exchange)
	t.Cleanup(func() {
		close(x.stop)
		x.c.CloseNow()
		x.proxy.Close()
		assert.NoError(t, x.l.Close())
		x.wg.Wait()
	})
	x.unharmed()
	for range 2 {
		x.cut()
	}
	return x
}

// exchange sends numbers, eight at a time on their way, and sees that each comes back, once and in order.
func (x *target) exchange() {
	ctx := context.Background()
	for sent := uint64(0); ; {
		select {
		case <-x.stop:
			return
		default:
		}
		for ; sent < x.echoed.Load()+8; sent++ {
			if err := x.c.Writer().Send(ctx, text(1, "%d", sent)); err != nil {
				x.failed <- fmt.Errorf("send: %w", err)
				return
			}
		}
		d, err := x.c.Reader().Receive(ctx)
		if want := fmt.Sprint(x.echoed.Load()); err == nil && (string(d.Payload) != want || d.Redelivered) {
			err = fmt.Errorf("got %q, expected %s", d.Payload, want)
		}
		if err != nil {
			x.failed <- fmt.Errorf("receive: %w", err)
			return
		}
		x.echoed.Add(1)
	}
}

// unharmed waits until the session has moved on by more than what can have been on its way.
func (x *target) unharmed() {
	x.t.Helper()
	from := x.echoed.Load()
	require.Eventually(x.t, func() bool {
		select {
		case err := <-x.failed:
			require.NoError(x.t, err, "the session was harmed")
		default:
		}
		return x.echoed.Load() > from+20
	}, 20*time.Second, time.Millisecond, "the session does not go on")
}

// cut makes the session resume.
func (x *target) cut() {
	before := x.c.Stats().Resumes
	x.proxy.Cut(false)
	require.Eventually(x.t, func() bool { return x.c.Stats().Resumes > before }, 20*time.Second, time.Millisecond)
	x.unharmed()
}

// first is the first frame of the session's i-th connection.
func (x *target) first(i int) []byte {
	b := x.proxy.Recorded(i)
	require.Greater(x.t, len(b), datagram.HeaderSize)
	return b[:4+binary.BigEndian.Uint32(b)]
}

// refused is what an attack gets: the reason of the REJECT that answers it; 0 for a connection that is closed without
// one. The session must go on meanwhile, on the connection that it has.
func (x *target) refused(name string, want wire.Reason, stream []byte) {
	x.t.Helper()
	before, epoch, accepted := x.c.Stats().Resumes, x.c.Stats().Epoch, x.accepted.Load()
	warned, _ := x.log.count("re") // "rejected a dialer", "refused a connection"
	rejected, _ := x.log.count("rejected a dialer", want.String())
	refusals, _ := x.log.count("refused a connection")
	nc, err := net.Dial("tcp", x.addr)
	require.NoError(x.t, err)
	defer nc.Close()
	require.NoError(x.t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = nc.Write(stream)
	require.NoError(x.t, err)
	frame, err := readFrame(nc)
	if want == 0 {
		require.Error(x.t, err, "%s: it is not answered, and got %x", name, frame)
		x.log.await(x.t, refusals+1, "refused a connection")
	} else {
		require.NoError(x.t, err, name)
		r, err := wire.ParseReject(frame)
		require.NoError(x.t, err, "%s: %x", name, frame)
		require.Equal(x.t, want, r.Reason, "%s: %v", name, r.Reason)
		_, err = readFrame(nc)
		require.ErrorIs(x.t, err, io.EOF, "%s: nothing follows", name)
		x.log.await(x.t, rejected+1, "rejected a dialer", want.String())
	}
	nc.Close()
	x.unharmed()
	assert.Equal(x.t, before, x.c.Stats().Resumes, "%s: the session keeps its connection", name)
	assert.Equal(x.t, epoch, x.c.Stats().Epoch, name)
	assert.Equal(x.t, accepted, x.accepted.Load(), "%s: nobody gets a session", name)
	now, _ := x.log.count("re")
	assert.Equal(x.t, warned+1, now, "%s: it is logged, once", name)
}

func readFrame(r io.Reader) ([]byte, error) {
	f := make([]byte, datagram.HeaderSize)
	if _, err := io.ReadFull(r, f); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(f)
	if size < 4 || size > 1<<20 {
		return nil, fmt.Errorf("a frame of size %d", size)
	}
	f = append(f, make([]byte, size-4)...)
	_, err := io.ReadFull(r, f[datagram.HeaderSize:])
	return f, err
}

// changed returns a copy of frame with other bytes at an offset in its body.
func changed(frame []byte, at int, b []byte) []byte {
	frame = append([]byte(nil), frame...)
	copy(frame[datagram.HeaderSize+at:], b)
	return frame
}

func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// Offsets in the bodies of HELLO and RESUME.
const (
	atID             = 8
	atEpoch          = 24
	atResumeSent     = 32
	atResumeReceived = 48
	atResumeCredit   = 64
	atResumeProof    = 72
	atHelloKey       = 32
)

// What was recorded of a session, or made up about it, gets nobody in, and does not touch the session.
func TestSessionAttacksFromOutside(t *testing.T) {
	x := newTarget(t)
	hello, old, resume := x.first(0), x.first(1), x.first(2)
	require.Equal(t, wire.KindHello, wire.KindOf(hello))
	require.Equal(t, wire.KindResume, wire.KindOf(old))
	require.Equal(t, wire.KindResume, wire.KindOf(resume))
	r, err := wire.ParseResume(resume)
	require.NoError(t, err)
	epoch := r.Epoch

	var unknown [16]byte
	_, _ = rand.Read(unknown[:])
	data := frameOf(t, "from an attacker")
	garbage := func(kind uint16, n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		if n > 0 {
			b[0] = 9 // so that its version is never one that there is
		}
		return append(datagram.Header{Size: uint32(4 + n), Version: 2, Recipient: kind}.Append(nil), b...)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)

	for _, a := range []struct {
		name   string
		want   wire.Reason
		stream []byte
	}{
		{"the RESUME, again", wire.ReasonTakenOver, resume},
		{"the RESUME, again, with data", wire.ReasonTakenOver, append(append([]byte(nil), resume...), data...)},
		{"the RESUME before", wire.ReasonTakenOver, old},
		{"the RESUME, epoch raised by one", wire.ReasonUnauthorised, changed(resume, atEpoch, u64(epoch+1))},
		{"the RESUME, highest epoch", wire.ReasonUnauthorised, changed(resume, atEpoch, u64(1<<64-1))},
		{"the RESUME, stale epoch", wire.ReasonUnauthorised, changed(resume, atEpoch, u64(1))},
		{"the RESUME, sent forged", wire.ReasonUnauthorised, changed(resume, atResumeSent, u64(1<<40))},
		{"the RESUME, received forged", wire.ReasonUnauthorised, changed(resume, atResumeReceived, u64(1<<40))},
		{"the RESUME, credit forged", wire.ReasonUnauthorised, changed(resume, atResumeCredit, u64(1<<60))},
		{"the RESUME, a bit of the proof", wire.ReasonUnauthorised, changed(resume, atResumeProof, []byte{^resume[8+atResumeProof]})},
		{"the RESUME, no proof", wire.ReasonUnauthorised, changed(resume, atResumeProof, make([]byte, 32))},
		{"the RESUME, another session", wire.ReasonUnknown, changed(resume, atID, unknown[:])},
		{"a guessed id", wire.ReasonUnknown, (&wire.Resume{Version: 1, MaxPayload: r.MaxPayload, ID: unknown, Epoch: 1}).Append(nil)},
		{"the HELLO, again", wire.ReasonMismatch, hello},
		{"the HELLO, again, with data", wire.ReasonMismatch, append(append([]byte(nil), hello...), data...)},
		{"the HELLO, epoch raised by one", wire.ReasonMismatch, changed(hello, atEpoch, u64(2))},
		{"the HELLO, highest epoch", wire.ReasonMismatch, changed(hello, atEpoch, u64(256))},
		{"the HELLO, another key", wire.ReasonMismatch, changed(hello, atHelloKey, key.PublicKey().Bytes())},
		{"the HELLO, epoch out of range", 0, changed(hello, atEpoch, u64(257))},
		{"the HELLO, a key without a secret", wire.ReasonMismatch, changed(hello, atHelloKey, make([]byte, 32))},
		{"another version of RESUME", wire.ReasonVersion, changed(resume, 0, []byte{0, 2})},
		{"another version of HELLO", wire.ReasonVersion, changed(hello, 0, []byte{0, 2})},
		{"an ACK first", 0, (&wire.Control{Kind: wire.KindAck}).Append(nil)},
		{"a CLOSE first", 0, (&wire.Control{Kind: wire.KindClose}).Append(nil)},
		{"a data frame first", 0, data},
		{"garbage as a RESUME", wire.ReasonVersion, garbage(3, 106)},
		{"garbage as a HELLO", wire.ReasonVersion, garbage(1, 114)},
		{"garbage as a kind that is none", 0, garbage(99, 50)},
		{"a control frame that is too long", 0, garbage(3, 2000)},
		{"an empty control frame", 0, garbage(3, 0)},
		{"a size of nothing", 0, []byte{0, 0, 0, 0, 0, 2, 0, 3}},
		{"another protocol", 0, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
	} {
		t.Run(a.name, func(t *testing.T) {
			x.t = t
			x.refused(a.name, a.want, a.stream)
		})
	}
	x.t = t
	x.cut() // the session's own RESUME is as good as ever
}

// The same while the session has no connection, so that nobody would be in the way.
func TestSessionAttacksWhileDetached(t *testing.T) {
	x := newTarget(t)
	hello, resume := x.first(0), x.first(2)
	r, err := wire.ParseResume(resume)
	require.NoError(t, err)
	require.NoError(t, x.proxy.Refuse(true))
	gone, _ := x.log.count("disconnected")
	x.proxy.Cut(false)
	x.log.await(t, gone+1, "disconnected")

	for _, a := range []struct {
		name   string
		want   wire.Reason
		stream []byte
	}{
		{"the RESUME, again", wire.ReasonTakenOver, resume},
		{"the RESUME, epoch raised by one", wire.ReasonUnauthorised, changed(resume, atEpoch, u64(r.Epoch+1))},
		{"the RESUME, received forged", wire.ReasonUnauthorised, changed(resume, atResumeReceived, u64(1<<40))},
		{"the HELLO, again", wire.ReasonMismatch, hello},
		{"the HELLO, epoch raised by one", wire.ReasonMismatch, changed(hello, atEpoch, u64(2))},
	} {
		nc, err := net.Dial("tcp", x.addr)
		require.NoError(t, err)
		require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = nc.Write(a.stream)
		require.NoError(t, err)
		frame, err := readFrame(nc)
		require.NoError(t, err, a.name)
		got, err := wire.ParseReject(frame)
		require.NoError(t, err, "%s: %x", a.name, frame)
		assert.Equal(t, a.want, got.Reason, "%s: %v", a.name, got.Reason)
		nc.Close()
	}
	before := x.c.Stats().Resumes
	require.NoError(t, x.proxy.Refuse(false))
	x.unharmed()
	assert.Equal(t, before+1, x.c.Stats().Resumes)
	assert.EqualValues(t, 1, x.accepted.Load())
}

// rogue is a dialer that knows the protocol and does not keep to it. Its session is one of its own.
type rogue struct {
	t     *testing.T
	nc    net.Conn
	hello wire.Hello
	frame []byte // the HELLO
	keys  wire.Keys
	sent  wire.Position
	from  wire.Position // what came
}

func (x *target) rogue(dial func() (net.Conn, error)) *rogue {
	t := x.t
	r := &rogue{t: t}
	key, err := wire.GenerateKey(rand.Reader)
	require.NoError(t, err)
	r.hello = wire.Hello{Version: 1, MaxPayload: 1 << 20, Epoch: 1, PublicKey: wire.PublicKey(key), Credit: 1 << 20}
	_, _ = rand.Read(r.hello.ID[:])
	_, _ = rand.Read(r.hello.Link[:])
	r.frame = r.hello.Append(nil)
	r.nc, err = dial()
	require.NoError(t, err)
	t.Cleanup(func() { r.nc.Close() })
	require.NoError(t, r.nc.SetDeadline(time.Now().Add(20*time.Second)))
	r.write(r.frame)
	answer, err := readFrame(r.nc)
	require.NoError(t, err)
	w, err := wire.ParseWelcome(answer)
	require.NoError(t, err)
	r.keys, err = wire.DeriveKeys(key, w.PublicKey, r.hello.ID, r.hello.PublicKey, w.PublicKey, w.Instance)
	require.NoError(t, err)
	r.write((&wire.Control{Kind: wire.KindAck, Status: r.status()}).Append(nil))
	r.echo()
	return r
}

func (x *target) dialTCP() (net.Conn, error) { return net.Dial("tcp", x.addr) }

func (r *rogue) status() wire.Status {
	return wire.Status{Sent: r.sent, Received: r.from, Credit: r.from.B + 1<<20}
}

func (r *rogue) write(b []byte) {
	r.t.Helper()
	_, err := r.nc.Write(b)
	require.NoError(r.t, err)
}

// data is one frame of data, which it counts.
func (r *rogue) data(payload string) []byte {
	b := frameOf(r.t, payload)
	r.sent.N++
	r.sent.B += uint64(len(b))
	return b
}

func frameOf(t *testing.T, payload string) []byte {
	b, err := datagram.Append(nil, text(1, "%s", payload))
	require.NoError(t, err)
	return b
}

// echo sees that the session works.
func (r *rogue) echo() {
	r.t.Helper()
	want := r.data(fmt.Sprintf("number %d", r.sent.N))
	r.write(want)
	for {
		f, err := readFrame(r.nc)
		require.NoError(r.t, err)
		if datagram.ParseHeader(f).Version == datagram.Version {
			require.Equal(r.t, want, f)
			r.from.N++
			r.from.B += uint64(len(f))
			return
		}
	}
}

// closed waits for the CLOSE that ends the session, and what comes before that.
func (r *rogue) closed() wire.CloseReason {
	r.t.Helper()
	for {
		f, err := readFrame(r.nc)
		require.NoError(r.t, err, "the session ends with a CLOSE")
		if wire.KindOf(f) == wire.KindClose && datagram.ParseHeader(f).Version == datagram.ControlVersion {
			c, err := wire.ParseControl(f)
			require.NoError(r.t, err)
			_, err = io.Copy(io.Discard, r.nc)
			require.True(r.t, err == nil || !errors.Is(err, context.DeadlineExceeded), err)
			return c.Reason
		}
	}
}

// A peer with a session of its own that breaks the rules ends that session, loudly, and no other.
func TestSessionAttacksFromInside(t *testing.T) {
	x := newTarget(t)
	const most = 1<<64 - 1
	control := func(kind wire.Kind, change func(*wire.Status)) func(*rogue) []byte {
		return func(r *rogue) []byte {
			st := r.status()
			change(&st)
			return (&wire.Control{Kind: kind, Status: st}).Append(nil)
		}
	}
	for _, a := range []struct {
		name   string
		logged string
		stream func(r *rogue) []byte
	}{
		{"ack of the future", "an acknowledgement", control(wire.KindAck, func(s *wire.Status) { s.Received.N, s.Received.B = s.Received.N+1, s.Received.B+20 })},
		{"ack of the far future", "an acknowledgement", control(wire.KindAck, func(s *wire.Status) { s.Received = wire.Position{N: most, B: most} })},
		{"ack between frames", "an acknowledgement", control(wire.KindAck, func(s *wire.Status) { s.Received.B-- })},
		{"sent ahead by one", "sent", control(wire.KindAck, func(s *wire.Status) { s.Sent.N++ })},
		{"sent ahead by a byte", "sent", control(wire.KindPing, func(s *wire.Status) { s.Sent.B++ })},
		{"sent behind", "sent", control(wire.KindPong, func(s *wire.Status) { s.Sent = wire.Position{} })},
		{"sent at the end of the numbers", "sent", control(wire.KindAck, func(s *wire.Status) { s.Sent = wire.Position{N: most, B: most} })},
		{"FIN that drifted", "sent", control(wire.KindFin, func(s *wire.Status) { s.Sent.N++ })},
		{"CLOSE that drifted", "sent", control(wire.KindClose, func(s *wire.Status) { s.Sent.N++ })},
		{"data behind FIN", "", func(r *rogue) []byte {
			fin := (&wire.Control{Kind: wire.KindFin, Status: r.status()}).Append(nil)
			return append(fin, r.data("more")...)
		}},
		{"GOAWAY of a dialer", "", control(wire.KindGoaway, func(*wire.Status) {})},
		{"a second HELLO", "", func(r *rogue) []byte { return r.frame }},
		{"an unknown kind", "", func(*rogue) []byte { return []byte{0, 0, 0, 4, 0, 2, 0, 99} }},
		{"an unknown version", "", func(*rogue) []byte { return []byte{0, 0, 0, 4, 0, 9, 0, 1} }},
		{"a payload above the limit", "", func(*rogue) []byte { return []byte{0xff, 0xff, 0xff, 0xff, 0, 1, 0, 1} }},
		{"data beyond the credit", "credit", func(r *rogue) []byte {
			return bytes.Repeat(r.data(strings.Repeat("x", 1<<16)), 640)
		}},
	} {
		t.Run(a.name, func(t *testing.T) {
			x.t = t
			r := x.rogue(x.dialTCP)
			resumes := x.c.Stats().Resumes
			before, _ := x.log.count("closed", reconnect.ErrProtocol.Error(), a.logged)
			stream := a.stream(r)
			if len(stream) > 1<<20 {
				// Nobody reads the echoes, so that the window closes. The writing may end when the connection does.
				go func() { _, _ = r.nc.Write(stream) }()
			} else {
				r.write(stream)
				require.Equal(t, wire.CloseProtocol, r.closed())
			}
			x.log.await(t, before+1, "closed", reconnect.ErrProtocol.Error(), a.logged)
			x.unharmed()
			assert.Equal(t, resumes, x.c.Stats().Resumes, "the other session keeps its connection")
			r.nc.Close()

			// The session has ended for good.
			nc, err := x.dialTCP()
			require.NoError(t, err)
			defer nc.Close()
			require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
			_, err = nc.Write(r.resume(2, r.status(), nil))
			require.NoError(t, err)
			frame, err := readFrame(nc)
			require.NoError(t, err)
			got, err := wire.ParseReject(frame)
			require.NoError(t, err)
			assert.Equal(t, wire.ReasonClosed, got.Reason)
		})
	}
	x.t = t
	x.cut()
}

// resume is a RESUME whose proof is right.
func (r *rogue) resume(epoch uint64, st wire.Status, exporter []byte) []byte {
	return wire.AppendResume(nil, &wire.Resume{
		Version: 1, MaxPayload: r.hello.MaxPayload, ID: r.hello.ID, Epoch: epoch, Status: st,
	}, r.keys.Dialer, exporter)
}

// Who has the secret of a session and resumes it wrongly is refused as well. What was stale changes nothing: the
// connection of before works on.
func TestSessionAttacksWithTheSecret(t *testing.T) {
	x := newTarget(t)
	ask := func(frame []byte) wire.Reason {
		nc, err := x.dialTCP()
		require.NoError(t, err)
		defer nc.Close()
		require.NoError(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = nc.Write(frame)
		require.NoError(t, err)
		answer, err := readFrame(nc)
		require.NoError(t, err)
		got, err := wire.ParseReject(answer)
		require.NoError(t, err, "%x", answer)
		return got.Reason
	}

	r := x.rogue(x.dialTCP)
	for _, epoch := range []uint64{0, 1} {
		require.Equal(t, wire.ReasonTakenOver, ask(r.resume(epoch, r.status(), nil)), "epoch %d", epoch)
		r.echo()
	}
	for name, frame := range map[string][]byte{
		"another limit": wire.AppendResume(nil, &wire.Resume{
			Version: 1, MaxPayload: 1, ID: r.hello.ID, Epoch: 2, Status: r.status(),
		}, r.keys.Dialer, nil),
		"other flags": wire.AppendResume(nil, &wire.Resume{
			Version: 1, Flags: 1, MaxPayload: r.hello.MaxPayload, ID: r.hello.ID, Epoch: 2, Status: r.status(),
		}, r.keys.Dialer, nil),
	} {
		require.Equal(t, wire.ReasonMismatch, ask(frame), name)
		r.echo()
	}
	require.Equal(t, wire.ReasonUnknown, ask(wire.AppendResume(nil, &wire.Resume{
		Version: 1, MaxPayload: r.hello.MaxPayload, ID: r.hello.ID, Epoch: 2, Status: r.status(),
	}, r.keys.Listener, nil)), "the listener's own key")
	r.echo()

	// Positions that cannot be made good end that session.
	for name, change := range map[string]func(*wire.Status){
		"sent above what has arrived":          func(s *wire.Status) { s.Sent.N, s.Sent.B = s.Sent.N+1, s.Sent.B+20 },
		"received above what was sent":         func(s *wire.Status) { s.Received.N, s.Received.B = s.Received.N+5, s.Received.B+99 },
		"received below what was acknowledged": func(s *wire.Status) { s.Received = wire.Position{} },
	} {
		r := x.rogue(x.dialTCP)
		r.write((&wire.Control{Kind: wire.KindAck, Status: r.status()}).Append(nil))
		r.echo()
		st := r.status()
		change(&st)
		before, _ := x.log.count("rejected a dialer", wire.ReasonMismatch.String())
		require.Equal(t, wire.ReasonMismatch, ask(r.resume(2, st, nil)), name)
		x.log.await(t, before+1, "rejected a dialer", wire.ReasonMismatch.String())
		require.NotEqual(t, wire.ReasonMismatch, ask(r.resume(3, r.status(), nil)), "%s: it has ended", name)
		x.unharmed()
	}
	x.cut()
}

// On TLS a proof holds for one connection: a RESUME made for another, and relayed, is refused.
func TestSessionRelayedResume(t *testing.T) {
	x := newTarget(t)
	cert, err := towtls.SelfSigned()
	require.NoError(t, err)
	ln, err := towtls.Listen(t.Context(), "127.0.0.1:0", &towtls.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	require.NoError(t, err)
	addr := ln.Addr().String()
	x.l.Add(ln)
	trust := &tls.Config{}
	require.NoError(t, towtls.PinFingerprint(trust, towtls.Fingerprint(cert.Leaf)))
	dial := func() (net.Conn, error) {
		return towtls.Dialer{Addr: addr, Config: trust}.DialContext(context.Background())
	}
	exporter := func(nc net.Conn) []byte {
		st := nc.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState()
		v, err := st.ExportKeyingMaterial("EXPERIMENTAL-towline", nil, 32)
		require.NoError(t, err)
		return v
	}
	r := x.rogue(dial)
	other, err := dial()
	require.NoError(t, err)
	defer other.Close()
	plain, err := x.dialTCP()
	require.NoError(t, err)
	defer plain.Close()
	fresh, err := dial()
	require.NoError(t, err)
	defer fresh.Close()
	for name, a := range map[string]struct {
		over net.Conn
		made []byte
	}{
		"for another connection":       {other, exporter(fresh)},
		"of a connection, to plain":    {plain, exporter(fresh)},
		"of the connection of before":  {mustDial(t, dial), exporter(r.nc)},
		"of a plain connection, to it": {mustDial(t, dial), nil},
	} {
		require.NoError(t, a.over.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = a.over.Write(r.resume(2, r.status(), a.made))
		require.NoError(t, err)
		frame, err := readFrame(a.over)
		require.NoError(t, err, name)
		got, err := wire.ParseReject(frame)
		require.NoError(t, err, name)
		assert.Equal(t, wire.ReasonUnknown, got.Reason, name)
		r.echo()
	}
	require.NoError(t, fresh.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = fresh.Write(r.resume(2, r.status(), exporter(fresh)))
	require.NoError(t, err)
	frame, err := readFrame(fresh)
	require.NoError(t, err)
	assert.Equal(t, wire.KindResumed, wire.KindOf(frame), "where it belongs it is good")
	x.unharmed()
}

func mustDial(t *testing.T, dial func() (net.Conn, error)) net.Conn {
	nc, err := dial()
	require.NoError(t, err)
	t.Cleanup(func() { nc.Close() })
	return nc
}
