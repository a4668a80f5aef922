package tcp_test

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

var _ transport.Dialer = tcp.Dialer{}

// listen opens a listener on a free port for the length of the test.
func listen(t testing.TB, addr string, cfg *tcp.Config) net.Listener {
	t.Helper()
	ln, err := tcp.Listen(t.Context(), addr, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// pair returns both ends of one connection.
func pair(t testing.TB, d tcp.Dialer, cfg *tcp.Config) (client, server net.Conn) {
	t.Helper()
	ln := listen(t, "127.0.0.1:0", cfg)
	d.Addr = ln.Addr().String()
	client, err := d.DialContext(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	server, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func TestConformance(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := tcp.Listen(context.Background(), "127.0.0.1:0", nil)
		if err != nil {
			return nil, nil, nil, err
		}
		defer func() { _ = ln.Close() }()
		if c1, err = (tcp.Dialer{Addr: ln.Addr().String()}).DialContext(context.Background()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = ln.Accept(); err != nil {
			_ = c1.Close()
			return nil, nil, nil, err
		}
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}

func TestConnectionsArePlain(t *testing.T) {
	client, server := pair(t, tcp.Dialer{}, nil)
	require.IsType(t, (*net.TCPConn)(nil), client)
	require.IsType(t, (*net.TCPConn)(nil), server)
	require.Equal(t, client.LocalAddr().String(), server.RemoteAddr().String())
	require.Equal(t, client.RemoteAddr().String(), server.LocalAddr().String())
}

func TestIPv6(t *testing.T) {
	if !nettest.SupportsIPv6() {
		t.Skip("no IPv6 here")
	}
	ln := listen(t, "[::1]:0", nil)
	c, err := tcp.Dialer{Addr: ln.Addr().String(), LocalAddr: "[::1]:0"}.DialContext(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

// A name with two addresses, of which one has no listener, is reached by the other.
func TestSeveralAddresses(t *testing.T) {
	_, port, err := net.SplitHostPort(listen(t, "127.0.0.1:0", nil).Addr().String())
	require.NoError(t, err)
	c, err := tcp.Dialer{Addr: "localhost:" + port}.DialContext(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestLocalAddr(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", nil)
	for _, local := range []string{"127.0.0.1", "127.0.0.1:0", ":0", "[127.0.0.1]"} {
		c, err := tcp.Dialer{Addr: ln.Addr().String(), LocalAddr: local}.DialContext(t.Context())
		require.NoError(t, err, local)
		require.Equal(t, "127.0.0.1", c.LocalAddr().(*net.TCPAddr).IP.String())
		require.NoError(t, c.Close())
	}
	for _, local := range []string{"localhost", "127.0.0.1:x", "127.0.0.1:70000", "eth0", "::1:x"} {
		_, err := tcp.Dialer{Addr: ln.Addr().String(), LocalAddr: local}.DialContext(t.Context())
		require.ErrorContains(t, err, `such as "192.0.2.7"`, local)
		require.ErrorAs(t, err, new(*net.OpError))
	}
}

func TestBadAddr(t *testing.T) {
	for _, addr := range []string{"", "localhost", "127.0.0.1", "::1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:no-such-service", "tcp://127.0.0.1:7000"} {
		_, err := tcp.Dialer{Addr: addr}.DialContext(t.Context())
		require.ErrorContains(t, err, `such as "127.0.0.1:7000"`, addr)
		require.ErrorAs(t, err, new(*net.OpError))
		require.ErrorAs(t, err, new(*net.AddrError))

		_, err = tcp.Listen(t.Context(), addr, nil)
		require.ErrorContains(t, err, `such as "127.0.0.1:7000"`, addr)
		require.ErrorAs(t, err, new(*net.OpError))
	}
	_, err := tcp.Dialer{Addr: "127.0.0.1:0"}.DialContext(t.Context())
	require.ErrorContains(t, err, "port 0 cannot be dialled")
}

func TestErrorsKeepTheirCause(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", nil)
	addr := ln.Addr().String()

	_, err := tcp.Listen(t.Context(), addr, nil)
	require.ErrorAs(t, err, new(*net.OpError))
	require.ErrorAs(t, err, new(syscall.Errno))

	require.NoError(t, ln.Close())
	_, err = tcp.Dialer{Addr: addr}.DialContext(t.Context())
	require.ErrorAs(t, err, new(*net.OpError))
	require.ErrorAs(t, err, new(syscall.Errno))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = tcp.Dialer{Addr: addr}.DialContext(ctx)
	require.ErrorIs(t, err, context.Canceled)

	ctx, cancel = context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err = tcp.Dialer{Addr: addr}.DialContext(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
}

// The caller's dialer and listener settings are used, each hook once a socket, and left as they were.
func TestOwnSettings(t *testing.T) {
	var mu sync.Mutex
	var ran []string
	note := func(s string) { mu.Lock(); defer mu.Unlock(); ran = append(ran, s) }

	nd := &net.Dialer{Control: func(string, string, syscall.RawConn) error { note("dial control"); return nil }}
	lc := &net.ListenConfig{Control: func(string, string, syscall.RawConn) error { note("listen control"); return nil }}
	pair(t, tcp.Dialer{NetDialer: nd, LocalAddr: "127.0.0.1"}, &tcp.Config{ListenConfig: lc})
	require.Equal(t, []string{"listen control", "dial control"}, ran)
	require.Nil(t, nd.ControlContext)
	require.Nil(t, nd.LocalAddr)

	ran = nil
	nd.ControlContext = func(context.Context, string, string, syscall.RawConn) error {
		note("dial control with ctx")
		return nil
	}
	pair(t, tcp.Dialer{NetDialer: nd}, nil)
	require.Equal(t, []string{"dial control with ctx"}, ran, "with both set, package net runs the one with a context")

	nd.ControlContext = func(context.Context, string, string, syscall.RawConn) error { return os.ErrPermission }
	ln := listen(t, "127.0.0.1:0", nil)
	_, err := tcp.Dialer{Addr: ln.Addr().String(), NetDialer: nd}.DialContext(t.Context())
	require.ErrorIs(t, err, os.ErrPermission)
}

func TestListenerClose(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", nil)
	failed := make(chan error)
	go func() {
		_, err := ln.Accept()
		failed <- err
	}()
	require.NoError(t, ln.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
	require.NoError(t, ln.Close(), "a second Close does no harm")
	c, err := ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.Nil(t, c)
}

func TestListenerDeadline(t *testing.T) {
	ln := listen(t, "127.0.0.1:0", nil)
	dl := ln.(interface{ SetDeadline(time.Time) error })
	require.NoError(t, dl.SetDeadline(time.Unix(1, 0)))
	_, err := ln.Accept()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestHalfClose(t *testing.T) {
	client, server := pair(t, tcp.Dialer{}, nil)
	require.NoError(t, client.(*net.TCPConn).CloseWrite())
	_, err := server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = server.Write([]byte("still here"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "still here", string(got))
}
