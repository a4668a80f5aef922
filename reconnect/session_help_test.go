package reconnect_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	towtls "github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// world makes a listener and what dials it, over each kind of stream.
type world struct {
	name string
	make func(tb testing.TB) (net.Listener, transport.Dialer)
}

func worlds() []world {
	return []world{
		{"tcp", func(tb testing.TB) (net.Listener, transport.Dialer) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(tb, err)
			return ln, tcp.Dialer{Addr: ln.Addr().String()}
		}},
		{"unix", func(tb testing.TB) (net.Listener, transport.Dialer) {
			path := filepath.Join(tb.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			require.NoError(tb, err)
			return ln, unix.Dialer{Path: path}
		}},
		{"tls", func(tb testing.TB) (net.Listener, transport.Dialer) {
			served, trusted := identity(tb)
			ln, err := towtls.Listen(tb.Context(), "127.0.0.1:0", &towtls.Config{TLS: served})
			require.NoError(tb, err)
			return ln, towtls.Dialer{Addr: ln.Addr().String(), Config: trusted}
		}},
		{"quic", func(tb testing.TB) (net.Listener, transport.Dialer) {
			served, trusted := identity(tb)
			ln, err := quic.Listen(tb.Context(), "127.0.0.1:0", &quic.Config{TLS: served})
			require.NoError(tb, err)
			return ln, quic.Dialer{Addr: ln.Addr().String(), Config: trusted}
		}},
		{"mem", func(tb testing.TB) (net.Listener, transport.Dialer) {
			n := new(mem.Network)
			return listenMem(tb, n, "s"), mem.Dialer{Network: n, Addr: "s"}
		}},
	}
}

// identity makes a certificate for a server, and what trusts it alone.
func identity(tb testing.TB) (served, trusted *tls.Config) {
	cert, err := towtls.SelfSigned()
	require.NoError(tb, err)
	trusted = new(tls.Config)
	require.NoError(tb, towtls.PinFingerprint(trusted, towtls.Fingerprint(cert.Leaf)))
	return &tls.Config{Certificates: []tls.Certificate{cert}}, trusted
}

func listenMem(tb testing.TB, n *mem.Network, name string) net.Listener {
	ln, err := mem.Listen(context.Background(), name, &mem.Config{Network: n})
	require.NoError(tb, err)
	return ln
}

// ends is a dialer's and a listener's end of one session.
type ends struct {
	l    *reconnect.Listener
	a, b *reconnect.Conn // a dialled
	net  *mem.Network    // of memSession
	line *line           // of a's connections
}

// end gives everything up. Tests in a bubble defer it.
func (s *ends) end() {
	s.a.CloseNow()
	if s.b != nil {
		s.b.CloseNow()
	}
	s.l.Close()
	s.line.wait()
}

// newSession begins a session over a world.
func newSession(tb testing.TB, w world, lo *reconnect.ListenOptions, do *reconnect.DialOptions) *ends {
	ln, d := w.make(tb)
	return begin(tb, ln, d, lo, do)
}

func begin(tb testing.TB, ln net.Listener, d transport.Dialer, lo *reconnect.ListenOptions, do *reconnect.DialOptions) *ends {
	s := &ends{l: reconnect.NewListener(ln, lo), line: &line{d: d}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	s.a, err = reconnect.Dial(ctx, s.line, do)
	require.NoError(tb, err)
	s.b, err = s.l.Accept(ctx)
	require.NoError(tb, err)
	require.True(tb, s.a.IsSession() && s.b.IsSession())
	return s
}

// memSession begins a session over an in-process network of its own.
func memSession(tb testing.TB, lo *reconnect.ListenOptions, do *reconnect.DialOptions) *ends {
	n := new(mem.Network)
	s := begin(tb, listenMem(tb, n, "s"), mem.Dialer{Network: n, Addr: "s"}, lo, do)
	s.net = n
	return s
}

// wrappedSession is memSession where the dialer sees its connections through wrap.
func wrappedSession(tb testing.TB, wrap func(*mem.Conn) net.Conn) *ends {
	n := new(mem.Network)
	return begin(tb, listenMem(tb, n, "s"), transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		return wrap(nc.(*mem.Conn)), nil
	}), nil, nil)
}

// line is a dialer that knows its newest connection, to cut it.
type line struct {
	d transport.Dialer

	mu     sync.Mutex
	nc     net.Conn
	dials  int
	closed sync.WaitGroup
}

func (l *line) DialContext(ctx context.Context) (net.Conn, error) {
	nc, err := l.d.DialContext(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dials++
	if err == nil {
		l.nc = nc
	}
	return nc, err
}

func (l *line) newest() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nc
}

func (l *line) dialled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dials
}

// cut breaks the newest connection, by a reset where there is such a thing.
func (l *line) cut() {
	nc := l.newest()
	switch c := nc.(type) {
	case *net.TCPConn:
		c.SetLinger(0)
		c.Close()
	case *mem.Conn:
		c.Faults().Cut(nil)
	case interface{ CloseNow() error }:
		l.closed.Go(func() { c.CloseNow() })
	case interface{ NetConn() net.Conn }:
		c.NetConn().Close()
	default:
		nc.Close()
	}
}

func (l *line) wait() { l.closed.Wait() }

// watch records the events of a Conn, and lets tests wait for them.
type watch struct {
	mu      sync.Mutex
	events  []reconnect.Event
	changed chan struct{}
}

func (w *watch) onEvent(_ *reconnect.Conn, e reconnect.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// await waits for the n-th event of a kind, and returns it.
func (w *watch) await(tb testing.TB, kind reconnect.EventKind, n int) reconnect.Event {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		w.mu.Lock()
		seen := 0
		for _, e := range w.events {
			if e.Kind == kind {
				if seen++; seen == n {
					w.mu.Unlock()
					return e
				}
			}
		}
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			require.FailNow(tb, "no such event", "%d. %v, only %v", n, kind, w.kinds())
		}
	}
}

func (w *watch) kinds() (kinds []reconnect.EventKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func (w *watch) count(kind reconnect.EventKind) (n int) {
	for _, k := range w.kinds() {
		if k == kind {
			n++
		}
	}
	return n
}

// numbered sends n datagrams, of which number i says so, and a few are long.
func numbered(i int) datagram.Datagram {
	d := text(uint16(i), "%d", i)
	if i%50 == 49 {
		d.Payload = append(d.Payload, make([]byte, 3<<10)...)
	}
	return d
}

// goroutines counts those that the package has begun.
func goroutines() (n int) {
	stacks := make([]byte, 4<<20)
	for _, g := range bytes.Split(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
		if bytes.Contains(g, []byte("created by github.com/towline-mq/towline/reconnect.")) {
			n++
		}
		if i := bytes.Index(g, []byte("created by sync.(*WaitGroup).Go")); i >= 0 && bytes.Contains(g, []byte("reconnect.(*Listener)")) {
			n++
		}
	}
	return n
}
