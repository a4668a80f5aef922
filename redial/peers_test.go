package redial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// peers is a dialer whose connections have their far ends in accept, in the order of the dials. It refuses as long as it
// is down.
type peers struct {
	t      testing.TB
	accept chan net.Conn
	faults *mem.Faults // of all connections

	mu    sync.Mutex
	down  bool
	dials int
}

func newPeers(t testing.TB) *peers {
	return &peers{t: t, accept: make(chan net.Conn, 100), faults: new(mem.Faults)}
}

func (p *peers) DialContext(ctx context.Context) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	down := p.down
	p.mu.Unlock() // before anything that waits: a bubble's time stands still while somebody waits for a lock
	if down {
		return refuses(ctx)
	}
	near, far := mem.Pipe(&mem.Config{Faults: p.faults})
	p.accept <- far
	return near, nil
}

func (p *peers) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *peers) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// conn dials p as d says, and returns the near end and the far end.
func (p *peers) conn(d redial.Dialer) (*redial.Conn, net.Conn) {
	p.t.Helper()
	d.Endpoints = []transport.Dialer{p}
	c, err := d.Dial(context.Background())
	require.NoError(p.t, err)
	p.t.Cleanup(func() { _ = c.Close() })
	return c, p.next()
}

// next is the far end of the next connection.
func (p *peers) next() net.Conn {
	far := <-p.accept
	p.t.Cleanup(func() { _ = far.Close() })
	return far
}

// control is that of the k-th connection alone.
func (p *peers) control(k int) *mem.Faults {
	f, err := p.faults.WaitConn(context.Background(), k)
	require.NoError(p.t, err)
	return f
}

// result is what a Read or a Write returned.
type result struct {
	n   int
	got string
	err error
}

func reading(c io.Reader, size int) <-chan result {
	done := make(chan result, 1)
	go func() {
		p := make([]byte, size)
		n, err := c.Read(p)
		done <- result{n, string(p[:n]), err}
	}()
	return done
}

func writing(c io.Writer, s string) <-chan result {
	done := make(chan result, 1)
	go func() {
		n, err := c.Write([]byte(s))
		done <- result{n, "", err}
	}()
	return done
}

func tells(t require.TestingT, c net.Conn, s string) {
	_, err := io.WriteString(c, s)
	require.NoError(t, err)
}

func gets(t require.TestingT, c io.Reader, want string) {
	p := make([]byte, len(want))
	n, err := io.ReadFull(c, p)
	require.NoError(t, err, "after %q", p[:n])
	require.Equal(t, want, string(p))
}

// odd is a connection of which a test writes the methods that matter; the others are those of a pipe's end.
type odd struct {
	net.Conn
	read  func([]byte) (int, error)
	write func([]byte) (int, error)
}

func (o odd) Read(p []byte) (int, error) {
	if o.read == nil {
		return o.Conn.Read(p)
	}
	return o.read(p)
}

func (o odd) Write(p []byte) (int, error) {
	if o.write == nil {
		return o.Conn.Write(p)
	}
	return o.write(p)
}

var reset = &net.OpError{Op: "read", Net: "mem", Err: syscall.ECONNRESET}

func isTimeout(t require.TestingT, err error) {
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	require.NotErrorIs(t, err, redial.ErrGaveUp)
}

// always makes an OnDisconnected that decides the same each time.
func always(d redial.Decision) func(context.Context, redial.Disconnect) redial.Decision {
	return func(context.Context, redial.Disconnect) redial.Decision { return d }
}

// errOwn is an end for tests that want one of their own.
var errOwn = errors.New("an end of the test's own")
