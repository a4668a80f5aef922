package towlinetest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// caseNamed is one case of a table.
func caseNamed(t *testing.T, cases []testCase, name string) testCase {
	for _, tc := range cases {
		if tc.name == name {
			return tc
		}
	}
	require.FailNow(t, "no such case", name)
	return testCase{}
}

// broken makes a transport over mem whose dialled connections are what wrap makes of them.
func broken(t *testing.T, wrap func(*mem.Conn) net.Conn) (net.Listener, transport.Dialer) {
	network := new(mem.Network)
	ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: network})
	require.NoError(t, err)
	return ln, transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		nc, err := mem.Dialer{Network: network, Addr: "s"}.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		return wrap(nc.(*mem.Conn)), nil
	})
}

// Connections that are wrong in one way each.
type (
	noDeadlines  struct{ *mem.Conn }
	foreignError struct{ *mem.Conn }
	shortWrites  struct{ *mem.Conn }
	keepsBytes   struct {
		*mem.Conn
		held *[]byte
	}
	losesTail struct{ *mem.Conn }
	endless   struct{ *mem.Conn }
	flips     struct {
		*mem.Conn
		n *int
	}
	fullClose struct{ *mem.Conn }
)

func (noDeadlines) SetReadDeadline(time.Time) error { return nil }

func (c foreignError) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		err = errors.New("it is closed")
	}
	return n, err
}

func (c shortWrites) Write(p []byte) (int, error) { return c.Conn.Write(p[:(len(p)+1)/2]) }

func (c keepsBytes) Write(p []byte) (int, error) {
	if *c.held != nil {
		if _, err := c.Conn.Write(*c.held); err != nil {
			return 0, err
		}
	}
	*c.held = p // and writes it with the next
	return len(p), nil
}

func (c losesTail) Close() error {
	c.SetLinger(0)
	return c.Conn.Close()
}

func (c losesTail) CloseWrite() error { return c.Conn.Close() }

func (c endless) Write(p []byte) (int, error) { return len(p), nil }

func (c flips) Write(p []byte) (int, error) {
	if *c.n += len(p); *c.n > 70_000 && len(p) > 0 {
		p = append([]byte(nil), p...)
		p[len(p)-1] ^= 1
	}
	return c.Conn.Write(p)
}

func (c fullClose) CloseWrite() error { return c.Close() }

// TestBrokenTransports: each kind of broken connection is found by the case that is there for it.
func TestBrokenTransports(t *testing.T) {
	for _, tc := range []struct {
		name  string
		found string // the case
		says  string
		wrap  func(*mem.Conn) net.Conn
	}{
		{"no read deadlines", "a read deadline that is set while Read waits", "hangs", func(c *mem.Conn) net.Conn { return noDeadlines{c} }},
		{"its own error", "Close wakes who reads", "use of closed network connection", func(c *mem.Conn) net.Conn { return foreignError{c} }},
		{"short writes without an error", "bytes, both ways", "hangs", func(c *mem.Conn) net.Conn { return shortWrites{c} }},
		{"keeps the bytes", "Write does not keep the bytes", "hangs", func(c *mem.Conn) net.Conn { return keepsBytes{c, new([]byte)} }},
		{"loses what Close overtakes", "nothing is lost in front of Close", "reset", func(c *mem.Conn) net.Conn { return losesTail{c} }},
		{"takes bytes without end", "a full line holds the writer up", "not bounded", func(c *mem.Conn) net.Conn { return endless{c} }},
		{"a flipped bit", "bytes, both ways", "is 0x", func(c *mem.Conn) net.Conn { return flips{c, new(int)} }},
		{"a flipped bit, under a session", "large payloads", "", func(c *mem.Conn) net.Conn { return flips{c, new(int)} }},
		{"half-close closes", "half-close", "", func(c *mem.Conn) net.Conn { return fullClose{c} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range []string{"addresses", tc.found} { // the first does not care
				c := &check{name: t.Name(), timeout: 2 * time.Second}
				c.listener, c.dialer = broken(t, tc.wrap)
				c.do(caseNamed(t, transportCases(), name).run)
				if name != tc.found {
					assert.Empty(t, c.failure)
					continue
				}
				require.NotEmpty(t, c.failure, "it was not found")
				assert.Contains(t, c.report(), tc.says)
				t.Log(c.report())
			}
		})
	}
	t.Run("net.Pipe", func(t *testing.T) { // is unbuffered and has an error of its own: that is said, and nothing else
		for _, tc := range transportCases() {
			if tc.group == "sessions" {
				continue
			}
			c := &check{name: t.Name(), timeout: 5 * time.Second}
			l := &pipes{queue: make(chan net.Conn), done: make(chan struct{})}
			c.listener, c.dialer = l, l
			c.do(tc.run)
			switch tc.name {
			case "Close wakes who reads", "Close wakes who writes":
				assert.Contains(t, c.failure, io.ErrClosedPipe.Error(), tc.name)
			default:
				assert.Empty(t, c.failure, tc.name)
			}
		}
	})
}

// pipes is a transport of net.Pipe.
type pipes struct {
	queue chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) DialContext(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	select {
	case p.queue <- b:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
