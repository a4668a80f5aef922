package reconnect_test

import (
	"context"
	"crypto/ecdh"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// The tests in session_hostile_*_test.go guard claim D6 of docs/delivery.md, that bytes cannot hurt, and D4, that memory
// is bounded, at a listener in this process that echoes, while it is attacked and while good clients are served.
//
//   - TestHostileSessions: malformed frames, by dialers that know the protocol. A failure names the seed and the transport;
//     SEED=n TRANSPORT=tcp go test -run TestHostileSessions ./reconnect runs that attack alone.
//   - TestSiege…: more of something than anybody needs. A failure says which bound was broken, and by how much.
//   - TestMan…: who sits in the middle and changes, moves or repeats what passes.

// fort is a listener that echoes, and knows why each of its connections ended.
type fort struct {
	t    *testing.T
	l    *reconnect.Listener
	app  func(*reconnect.Conn) error // what is done with each connection, until its end
	wg   sync.WaitGroup
	live atomic.Int64 // sessions and plain connections that the application has

	mu    sync.Mutex
	ends  map[string]int // by class, see ending
	said  map[string]int // log lines, by message
	wrong []error        // reasons of no known type
}

func newFort(t *testing.T, ln net.Listener, o reconnect.ListenOptions) *fort {
	return newFortOf(t, ln, o, echoing)
}

func newFortOf(t *testing.T, ln net.Listener, o reconnect.ListenOptions, app func(*reconnect.Conn) error) *fort {
	f := &fort{t: t, app: app, ends: map[string]int{}, said: map[string]int{}}
	o.Logger = slog.New(clerk{f})
	f.l = reconnect.NewListener(ln, &o)
	t.Cleanup(func() { // if the test has failed: a bubble has to be empty in the end
		_ = f.l.Close()
		f.wg.Wait()
	})
	f.wg.Go(func() {
		for {
			c, err := f.l.Accept(context.Background())
			if err != nil {
				return
			}
			f.live.Add(1)
			f.wg.Go(func() { f.serve(c) })
		}
	})
	return f
}

// echoing is an application that sends back what it receives.
func echoing(c *reconnect.Conn) error {
	ctx := context.Background()
	batch := make([]datagram.Datagram, 16)
	for {
		n, err := c.Reader().ReceiveBatch(ctx, batch)
		if err == nil {
			_, err = c.Writer().SendBatch(ctx, batch[:n])
		}
		if err != nil {
			return err
		}
		clear(batch[:n])
	}
}

// pushing is an application that echoes, and to peers whose first datagram says so sends as much as it may.
func pushing(c *reconnect.Conn) error {
	ctx := context.Background()
	d, err := c.Reader().Receive(ctx)
	if err != nil || d.Recipient != pushRecipient {
		if err == nil {
			err = c.Writer().Send(ctx, d)
		}
		if err != nil {
			return err
		}
		return echoing(c)
	}
	for {
		if err := c.Writer().Send(ctx, datagram.Datagram{Payload: make([]byte, 4<<10)}); err != nil {
			return err
		}
	}
}

const pushRecipient = 0xbeef

func (f *fort) serve(c *reconnect.Conn) {
	defer f.live.Add(-1)
	err := f.app(c)
	f.count(c.IsSession(), err)
	if err == io.EOF {
		limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = c.Close(limited)
		cancel()
	}
	_ = c.CloseNow()
}

// end closes the fort, which must not take long, whatever goes on.
func (f *fort) end() {
	start := time.Now()
	assert.NoError(f.t, f.l.Close())
	assert.Less(f.t, time.Since(start), 5*time.Second, "Close takes a second at most, and what a busy machine adds")
	f.wg.Wait()
}

// count notes why a connection ended, and whether the reason has a type of its own.
func (f *fort) count(session bool, err error) {
	class := ending(session, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[class]++
	if class == "" {
		f.wrong = append(f.wrong, fmt.Errorf("session %v: %w", session, err))
	}
}

// ending names the public error that err is; "" if it is none that delivery.md promises.
func ending(session bool, err error) string {
	for name, is := range map[string]error{
		"protocol": reconnect.ErrProtocol, "peer closed": reconnect.ErrPeerClosed, "lost": reconnect.ErrSessionLost,
		"taken over": reconnect.ErrTakenOver, "closed": reconnect.ErrClosed, "end": io.EOF,
		"too large": datagram.ErrTooLarge, // for a peer that said so
	} {
		if errors.Is(err, is) {
			return name
		}
	}
	if e := new(datagram.FrameError); errors.As(err, &e) && !session {
		return "framing"
	}
	if !session && network(err) {
		return "connection"
	}
	return ""
}

// network tells what the network did from what this package says.
func network(err error) bool {
	var errno syscall.Errno
	var alert tls.AlertError
	return errors.As(err, &errno) || errors.As(err, &alert) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// clerk is a slog.Handler that sees that every reason which is logged is an error of a known type.
type clerk struct{ f *fort }

func (clerk) Enabled(context.Context, slog.Level) bool { return true }
func (c clerk) WithAttrs([]slog.Attr) slog.Handler     { return c }
func (c clerk) WithGroup(string) slog.Handler          { return c }

func (c clerk) Handle(_ context.Context, r slog.Record) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	what, _, _ := strings.Cut(r.Message, ":") // the rest is the reason
	c.f.said[what]++
	if r.Message != "refused a connection" && r.Message != "rejected a dialer" {
		return nil
	}
	var err error
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			err, _ = a.Value.Any().(error)
		}
		return true
	})
	var (
		reject   *wire.RejectError
		control  *wire.ControlError
		protocol *wire.ProtocolError
		framing  *datagram.FrameError
	)
	switch {
	case err == nil:
		c.f.wrong = append(c.f.wrong, fmt.Errorf("%s, without a reason", r.Message))
	case errors.As(err, &reject) == (r.Message == "rejected a dialer"):
		if reject == nil && !errors.As(err, &control) && !errors.As(err, &protocol) && !errors.As(err, &framing) && !network(err) &&
			!oneOf(err.Error(), "its first frame is ", "it has no session", "reading its first frame: it was slower") {
			c.f.wrong = append(c.f.wrong, fmt.Errorf("%s: %w", r.Message, err))
		}
	default:
		c.f.wrong = append(c.f.wrong, fmt.Errorf("%s: %w", r.Message, err))
	}
	return nil
}

func oneOf(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return len(s) >= len(p) && s[:len(p)] == p })
}

// typed asserts that all reasons were of known types.
func (f *fort) typed() {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, err := range f.wrong[:min(len(f.wrong), 5)] {
		assert.NoError(f.t, err, "a reason of no type that is promised, one of %d", len(f.wrong))
	}
}

// keeper is a net.Listener that remembers what it accepted until that is closed. Otherwise the collector would close what a
// Listener forgets to, and nobody would see that it does.
type keeper struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
	most  int // of conns, before those that are closed are let go
}

func (k *keeper) Accept() (net.Conn, error) {
	nc, err := k.Listener.Accept()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(k.conns, nc)
	if len(k.conns) > k.most {
		k.forget()
		k.most = 2*len(k.conns) + 64
	}
	return nc, nil
}

// forget lets go of what is closed.
func (k *keeper) forget() {
	k.conns = slices.DeleteFunc(k.conns, func(nc net.Conn) bool {
		raw, err := nc.(syscall.Conn).SyscallConn()
		return err != nil || errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
	})
}

// open is how many that were accepted are not closed.
func (k *keeper) open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	return len(k.conns)
}

// client is one that is served as if nothing were the matter. It begins with a session that goes to and fro until
// leave, and is cut from time to time; beside it, new sessions come and go.
type client struct {
	t     *testing.T
	name  string
	d     *line
	c     *reconnect.Conn
	stop  chan struct{}
	wg    sync.WaitGroup
	mu    sync.Mutex
	trips []time.Duration // round trips of the session
	calls []time.Duration // dial, round trip and close of the others
}

// pause is between two round trips of a good client, and callPause between two calls.
const (
	pause     = 5 * time.Millisecond
	callPause = 50 * time.Millisecond
)

// patient is how long a good client waits for anything: this long is a hang.
const patient = 20 * time.Second

func newClient(t *testing.T, name string, d transport.Dialer) *client {
	c := &client{t: t, name: name, d: &line{d: d}, stop: make(chan struct{})}
	var err error
	c.c, err = reconnect.Dial(bounded(t), c.d, nil)
	require.NoError(t, err)
	require.NoError(t, c.trip(c.c, 0))
	c.wg.Go(c.walk)
	c.wg.Go(c.call)
	return c
}

// trip sends one datagram and sees it come back.
func (c *client) trip(conn *reconnect.Conn, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	want := text(uint16(i), "%s %d", c.name, i)
	if err := conn.Writer().Send(ctx, want); err != nil {
		return fmt.Errorf("sending %d: %w", i, err)
	}
	got, err := conn.Reader().Receive(ctx)
	if err != nil {
		return fmt.Errorf("receiving %d: %w", i, err)
	}
	if got.Recipient != want.Recipient || string(got.Payload) != string(want.Payload) || got.Redelivered {
		return fmt.Errorf("got %d %q (redelivered %v), expected %d %q", got.Recipient, got.Payload, got.Redelivered, want.Recipient, want.Payload)
	}
	return nil
}

// rest waits a moment, and returns false when it is time to go.
func (c *client) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.stop:
		return false
	}
}

func (c *client) walk() {
	for i := 1; c.rest(pause); i++ {
		start := time.Now()
		if err := c.trip(c.c, i); !assert.NoError(c.t, err, "%s: a good client is harmed", c.name) {
			return
		}
		c.note(&c.trips, start)
		if i%200 == 0 {
			c.c.Redial(errors.New("cut by the test"))
		}
	}
}

func (c *client) call() {
	for i := 1; c.rest(callPause); i++ {
		start := time.Now()
		if err := c.visit(i); !assert.NoError(c.t, err, "%s: a new client is not served", c.name) {
			return
		}
		c.note(&c.calls, start)
	}
}

func (c *client) visit(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	conn, err := reconnect.Dial(ctx, c.d.d, nil)
	if err != nil {
		return fmt.Errorf("dialling: %w", err)
	}
	if err := c.trip(conn, i); err != nil {
		_ = conn.CloseNow()
		return err
	}
	return conn.Close(ctx)
}

func (c *client) note(to *[]time.Duration, start time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*to = append(*to, time.Since(start))
}

// served is whether the session has had a round trip, and a new one has come and gone.
func (c *client) served() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.trips) > 0 && len(c.calls) > 0
}

// leave ends the client: it has lost nothing.
func (c *client) leave() {
	close(c.stop)
	c.wg.Wait()
	assert.Zero(c.t, c.c.Stats().Lost, "%s: its session was lost", c.name)
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	assert.NoError(c.t, c.c.Close(ctx), c.name)
}

// p99 returns the 99th percentile, and the greatest.
func p99(all []time.Duration) (p, most time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)*99/100], all[len(all)-1]
}

// holdings is what this process holds.
type holdings struct {
	heap        uint64
	goroutines  int
	descriptors int // -1 where they cannot be counted
}

func holds() holdings {
	runtime.GC()
	runtime.GC() // pools keep what is in them for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h := holdings{heap: m.HeapAlloc, goroutines: runtime.NumGoroutine(), descriptors: -1}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.descriptors = len(fds)
	}
	return h
}

func (h holdings) String() string {
	return fmt.Sprintf("%d KiB, %d goroutines, %d descriptors", h.heap>>10, h.goroutines, h.descriptors)
}

// growth is what may be more at the end than at the beginning: memory, in bytes.
const growth = 16 << 20

// backTo waits until no more is held than before.
func backTo(t *testing.T, before holdings, within time.Duration) holdings {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		now := holds()
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors && now.heap <= before.heap+growth {
			return now
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			require.FailNow(t, "more is held than before", "before %v, now %v\n%s", before, now, stacks[:min(len(stacks), 20<<10)])
		}
		<-time.After(20 * time.Millisecond)
	}
}

// villain is a dialer that knows the protocol and means no good. What it draws comes from its seed alone.
type villain struct {
	rng   *rand.Rand
	way   transport.Dialer
	nc    net.Conn
	key   *ecdh.PrivateKey
	s     [32]byte // of the hash chain
	hello wire.Hello
	keys  wire.Keys
	sent  wire.Position
}

// rngReader makes bytes of a generator.
type rngReader struct{ *rand.Rand }

func (r rngReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}

func newVillain(rng *rand.Rand, way transport.Dialer) *villain {
	v := &villain{rng: rng, way: way}
	v.key, _ = wire.GenerateKey(rngReader{rng})
	v.hello = wire.Hello{Version: 1, MaxPayload: 1 << 20, Epoch: 1, PublicKey: wire.PublicKey(v.key), Credit: 1 << 20}
	_, _ = rngReader{rng}.Read(v.hello.ID[:])
	_, _ = rngReader{rng}.Read(v.s[:])
	v.hello.Link = wire.Link(v.s, 1)
	return v
}

// attackTime bounds what one attack waits for: a server that needs longer hangs.
const attackTime = 20 * time.Second

func (v *villain) dial() error {
	ctx, cancel := context.WithTimeout(context.Background(), attackTime)
	defer cancel()
	nc, err := v.way.DialContext(ctx)
	if err != nil {
		return err
	}
	v.nc = nc
	return nc.SetDeadline(time.Now().Add(attackTime))
}

// greet begins a session with the HELLO frame, and what is to follow at once.
func (v *villain) greet(behind ...byte) error {
	frame := v.hello.Append(nil)
	if _, err := v.nc.Write(append(frame, behind...)); err != nil {
		return err
	}
	answer, err := readFrame(v.nc)
	if err != nil {
		return err
	}
	w, err := wire.ParseWelcome(answer)
	if err != nil {
		return err
	}
	v.keys, err = wire.DeriveKeys(v.key, w.PublicKey, v.hello.ID, v.hello.PublicKey, w.PublicKey, w.Instance)
	if err != nil {
		return err
	}
	if !wire.VerifyWelcome(answer, frame, v.keys.Listener, exporterOf(v.nc)) {
		return errors.New("the proof of WELCOME is wrong")
	}
	return nil
}

func (v *villain) status() wire.Status { return wire.Status{Sent: v.sent, Credit: 1 << 20} }

func (v *villain) control(kind wire.Kind) []byte {
	return (&wire.Control{Kind: kind, Status: v.status(), Length: 8, Token: 1}).Append(nil)
}

// data counts a datagram, and returns its frame.
func (v *villain) data(n int) []byte {
	b, _ := datagram.Append(nil, datagram.Datagram{Recipient: 1, Payload: make([]byte, n)})
	v.sent.N++
	v.sent.B += uint64(len(b))
	return b
}

// resume is a RESUME that is as it should be but for what change does to it before it is proved.
func (v *villain) resume(epoch uint64, nc net.Conn, change func(*wire.Resume)) []byte {
	r := &wire.Resume{Version: 1, MaxPayload: v.hello.MaxPayload, ID: v.hello.ID, Epoch: epoch, Status: v.status()}
	if change != nil {
		change(r)
	}
	return wire.AppendResume(nil, r, v.keys.Dialer, exporterOf(nc))
}

// exporterOf is what a channel binds proofs to; nil where there is none.
func exporterOf(nc net.Conn) []byte {
	c, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil
	}
	st := c.ConnectionState()
	b, err := st.ExportKeyingMaterial("EXPERIMENTAL-towline", nil, 32)
	if err != nil {
		panic(err)
	}
	return b
}

// reset breaks a connection as rudely as its transport can.
func reset(nc net.Conn) {
	switch c := nc.(type) {
	case *net.TCPConn:
		_ = c.SetLinger(0)
	case *mem.Conn:
		c.Faults().Cut(nil)
	case interface{ CloseNow() error }:
		_ = c.CloseNow()
	case interface{ NetConn() net.Conn }:
		reset(c.NetConn())
	}
	_ = nc.Close()
}

// headless is the frame without what its size says.
func headless(size uint32, version, recipient uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, version)
	return binary.BigEndian.AppendUint16(b, recipient)
}

func newRNG(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 0x5eed)) }
