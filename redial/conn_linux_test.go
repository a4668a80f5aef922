package redial_test

import (
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
	unixsocket "github.com/towline-mq/towline/transport/unix"
)

// The local address and the options of the dialer hold after each redial, on each kind of socket.
func TestRedialOverSockets(t *testing.T) {
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
			func() (net.Listener, error) { return unixsocket.Listen(t.Context(), path, nil) },
			func(string) redial.Dialer {
				return redial.Dialer{Endpoints: []transport.Dialer{unixsocket.Dialer{Path: path}}}
			}, "",
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
				require.NoError(t, c.Configure(func(conn net.Conn) error {
					set = option(t, conn, unix.TCP_NODELAY)
					require.Equal(t, 1234, option(t, conn, unix.TCP_USER_TIMEOUT))
					return nil
				}))
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

// option reads an option of a TCP socket.
func option(t *testing.T, conn net.Conn, name int) (v int) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		v, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name)
	}))
	require.NoError(t, err)
	return v
}
