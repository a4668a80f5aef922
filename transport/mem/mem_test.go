package mem_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ transport.Dialer = mem.Dialer{}
	_ net.Conn         = (*mem.Conn)(nil)
)

// dialed gives both ends of a new connection over a listener of n.
func dialed(t testing.TB, n *mem.Network, cfg mem.Config) (client, server *mem.Conn) {
	t.Helper()
	cfg.Network = n
	l, err := mem.Listen(t.Context(), "", &cfg)
	require.NoError(t, err)
	c, err := mem.Dialer{Network: n, Addr: l.Addr().String()}.DialContext(t.Context())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	t.Cleanup(func() {
		_ = c.Close()
		_ = s.Close()
	})
	return c.(*mem.Conn), s.(*mem.Conn)
}

// pipe is Pipe, closed at the end of the test.
func pipe(t testing.TB, cfg *mem.Config) (a, b *mem.Conn) {
	a, b = mem.Pipe(cfg)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

// pass lets time pass, in a bubble of testing/synctest, where that takes none.
func pass(d time.Duration) { <-time.After(d) }

func closing(all ...io.Closer) func() {
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
	}
}

func TestConnConformance(t *testing.T) {
	makers := map[string]nettest.MakePipe{
		"pipe": func() (a, b net.Conn, stop func(), err error) {
			a, b = mem.Pipe(nil)
			return a, b, closing(a, b), nil
		},
		"small buffer": func() (a, b net.Conn, stop func(), err error) {
			a, b = mem.Pipe(&mem.Config{Buffer: 100})
			return a, b, closing(a, b), nil
		},
		"dialed": func() (a, b net.Conn, stop func(), err error) {
			var n mem.Network
			ctx := context.Background()
			l, err := mem.Listen(ctx, "x", &mem.Config{Network: &n})
			if err != nil {
				return nil, nil, nil, err
			}
			if a, err = (mem.Dialer{Network: &n, Addr: "x"}).DialContext(ctx); err != nil {
				return nil, nil, nil, err
			}
			b, err = l.Accept()
			return a, b, closing(a, b, l), err
		},
		"wrapped TCP": func() (a, b net.Conn, stop func(), err error) {
			var f mem.Faults
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, nil, nil, err
			}
			defer func() { _ = l.Close() }()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return nil, nil, nil, err
			}
			s, err := l.Accept()
			a, b = f.Wrap(c), f.Wrap(s)
			return a, b, closing(a, b), err
		},
	}
	for name, mp := range makers {
		t.Run(name, func(t *testing.T) { nettest.TestConn(t, mp) })
	}
}
