package mux_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not hang.
const patience = 30 * time.Second

// bounded is the context of a test that must not hang.
func bounded(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// Three types of messages, and a call.
type (
	number struct{ N int }
	words  struct {
		Text string
		More []string
	}
	blob []byte
	sum  struct{ A, B int }
)

// world is a server in memory, and a network to break.
type world struct {
	tb       testing.TB
	net      *mem.Network
	server   *mux.Server
	listener *reconnect.Listener
	served   chan error
}

// serve serves m under the name "s".
func serve(tb testing.TB, m *mux.Mux, o *reconnect.ListenOptions) *world {
	return serveOn(tb, new(mem.Network), m, o)
}

func serveOn(tb testing.TB, n *mem.Network, m *mux.Mux, o *reconnect.ListenOptions) *world {
	w := &world{tb: tb, net: n, server: mux.NewServer(m), served: make(chan error, 1)}
	w.listener = reconnect.NewListener(listen(tb, n, "s"), o)
	go func() { w.served <- w.server.Serve(w.listener) }()
	tb.Cleanup(w.end)
	return w
}

func listen(tb testing.TB, n *mem.Network, name string) net.Listener {
	ln, err := mem.Listen(context.Background(), name, &mem.Config{Network: n})
	require.NoError(tb, err)
	return ln
}

// end closes the server and waits for all of it.
func (w *world) end() {
	require.NoError(w.tb, w.server.Close())
	require.NoError(w.tb, w.server.Shutdown(bounded(w.tb)))
	if err, ok := <-w.served; ok {
		require.ErrorIs(w.tb, err, mux.ErrServerClosed)
		close(w.served)
	}
}

func (w *world) dialer() mem.Dialer { return mem.Dialer{Network: w.net, Addr: "s"} }

// dial returns a connection to the server, that ends with the test.
func (w *world) dial(m *mux.Mux, o *reconnect.DialOptions) *mux.Conn {
	c, err := m.Dial(bounded(w.tb), w.dialer(), o)
	require.NoError(w.tb, err)
	w.tb.Cleanup(func() { over(w.tb, c) })
	return c
}

// over ends a connection, and waits for all of it.
func over(tb testing.TB, c *mux.Conn) {
	_ = c.CloseNow()
	await(tb, c.Done())
}

func await[T any](tb testing.TB, c <-chan T) (v T) {
	tb.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.FailNow(tb, "nothing came")
	}
	return v
}

// one returns the server's only connection.
func (w *world) one() (c *mux.Conn) {
	require.Eventually(w.tb, func() bool {
		for c = range w.server.Conns() {
			return true
		}
		return false
	}, patience, time.Millisecond)
	return c
}

// notes collects what happens.
type notes[T any] struct {
	mu  sync.Mutex
	all []T
	got chan struct{} // one for each, up to its capacity
}

func newNotes[T any]() *notes[T] { return &notes[T]{got: make(chan struct{}, 1<<20)} }

func (n *notes[T]) add(v T) {
	n.mu.Lock()
	n.all = append(n.all, v)
	n.mu.Unlock()
	n.got <- struct{}{}
}

// wait waits for k more, and returns all.
func (n *notes[T]) wait(tb testing.TB, k int) []T {
	tb.Helper()
	for range k {
		await(tb, n.got)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]T(nil), n.all...)
}
