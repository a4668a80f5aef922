package redial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/unix"
)

var _ transport.Dialer = (*redial.Dialer)(nil)

// pairs are ways to get two ends of a connection, one of them a Conn.
func pairs(t *testing.T) map[string]func() (*redial.Conn, net.Conn, func(), error) {
	listened := func(ln net.Listener, err error, d transport.Dialer) (*redial.Conn, net.Conn, func(), error) {
		if err != nil {
			return nil, nil, nil, err
		}
		c, err := (&redial.Dialer{Endpoints: []transport.Dialer{d}, EndOnEOF: true}).Dial(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		far, err := ln.Accept()
		return c, far, func() { _ = c.Close(); _ = far.Close(); _ = ln.Close() }, err
	}
	return map[string]func() (*redial.Conn, net.Conn, func(), error){
		"tcp": func() (*redial.Conn, net.Conn, func(), error) {
			ln, err := tcp.Listen(t.Context(), "127.0.0.1:0", nil)
			return listened(ln, err, tcp.Dialer{Addr: ln.Addr().String()})
		},
		"unix": func() (*redial.Conn, net.Conn, func(), error) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := unix.Listen(t.Context(), path, nil)
			return listened(ln, err, unix.Dialer{Path: path})
		},
		"mem": func() (*redial.Conn, net.Conn, func(), error) {
			var network mem.Network
			ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: &network})
			return listened(ln, err, mem.Dialer{Network: &network, Addr: "s"})
		},
		"wrapped": func() (*redial.Conn, net.Conn, func(), error) {
			near, far := net.Pipe()
			c := (&redial.Dialer{EndOnEOF: true}).Wrap(near)
			return c, far, func() { _ = c.Close(); _ = far.Close() }, nil
		},
	}
}

// A Conn is what package net's own tests want of a net.Conn, on either side.
func TestNettest(t *testing.T) {
	for name, pair := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, far, stop, err := pair()
				return c, far, stop, err
			})
		})
		t.Run(name+", the other side", func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, far, stop, err := pair()
				return far, c, stop, err
			})
		})
	}
}

// The local address and the options of the dialer hold after each redial, on each kind of socket.
func TestRedialOverSockets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has the whole of 127.0.0.0/8")
	}
	path := filepath.Join(t.TempDir(), "s")
	sockets := map[string]struct {
		listen func() (net.Listener, error)
		dial   func(addr string) redial.Dialer
		local  string
	}{
		"tcp": {
			func() (net.Listener, error) { return tcp.Listen(t.Context(), "127.0.0.1:0", nil) },
			func(addr string) redial.Dialer {
				return redial.Dialer{Endpoints: []transport.Dialer{tcp.Dialer{
					Addr: addr, LocalAddr: "127.0.0.7", UserTimeout: 1234 * time.Millisecond,
				}}}
			}, "127.0.0.7",
		},
		"unix": {
			func() (net.Listener, error) { return unix.Listen(t.Context(), path, nil) },
			func(string) redial.Dialer { return redial.Dialer{Endpoints: []transport.Dialer{unix.Dialer{Path: path}}} }, "",
		},
	}
	for name, s := range sockets {
		t.Run(name, func(t *testing.T) {
			ln, err := s.listen()
			require.NoError(t, err)
			defer ln.Close()
			d := s.dial(ln.Addr().String())
			c, err := d.Dial(t.Context())
			require.NoError(t, err)
			defer c.Close()
			set := -1
			if name == "tcp" {
				require.NoError(t, c.Configure(func(conn net.Conn) error { return conn.(*net.TCPConn).SetNoDelay(false) }))
				require.NoError(t, c.Configure(func(conn net.Conn) error { set = noDelay(t, conn); return nil }))
			}
			accepted := make(chan net.Conn, 1)
			go func() {
				for {
					far, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = io.WriteString(far, "x")
					accepted <- far
				}
			}()
			for range 5 {
				gets(t, c, "x") // of a new connection each time
				far := <-accepted
				if host, _, err := net.SplitHostPort(far.RemoteAddr().String()); s.local != "" {
					require.NoError(t, err)
					require.Equal(t, s.local, host)
					require.Equal(t, far.RemoteAddr().String(), c.LocalAddr().String())
					require.Zero(t, set, "SetNoDelay(false) holds")
					set = -1
				}
				require.Equal(t, ln.Addr().String(), c.RemoteAddr().String())
				tells(t, c, "hello")
				gets(t, far, "hello")
				_ = far.Close()
			}
		})
	}
}

// noDelay reads TCP_NODELAY.
func noDelay(t *testing.T, conn net.Conn) (v int) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		v, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
	}))
	require.NoError(t, err)
	return v
}

// A Conn has what is listed here and nothing that would go past it to the connection below.
func TestNothingIsPromoted(t *testing.T) {
	var c any = new(redial.Conn)
	_, isConn := c.(syscall.Conn)
	require.False(t, isConn, "a descriptor is that of one connection")
	_, halfCloses := c.(interface{ CloseWrite() error })
	require.False(t, halfCloses)
	_, readsFrom := c.(io.ReaderFrom)
	_, writesTo := c.(io.WriterTo)
	require.True(t, readsFrom && writesTo)
}

func TestDial(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	for _, network := range []string{"tcp", "tcp4"} {
		c, err := redial.Dial(network, addr)
		require.NoError(t, err)
		require.Equal(t, addr, c.RemoteAddr().String())
		require.NoError(t, c.Close())
	}
	_ = ln.Close()
	_, err = redial.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorIs(t, err, redial.ErrGaveUp)
	_, err = redial.Dial("udp", addr)
	var unknown net.UnknownNetworkError
	require.ErrorAs(t, err, &unknown)
	_, err = redial.Dial("tcp", "nowhere")
	var bad *net.AddrError
	require.ErrorAs(t, err, &bad)
	require.True(t, redial.IsFatal(err))
	require.False(t, errors.Is(err, io.EOF))

	ul, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer ul.Close()
	c, err := redial.Dial("unix", ul.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}
