package tcp_test

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/towline-mq/towline/transport/tcp"
)

// option reads a socket option of a connection.
func option(t *testing.T, c net.Conn, level, opt int) int {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var v int
	var gerr error
	require.NoError(t, raw.Control(func(fd uintptr) { v, gerr = unix.GetsockoptInt(int(fd), level, opt) }))
	require.NoError(t, gerr)
	return v
}

func TestSocketOptions(t *testing.T) {
	client, server := pair(t, tcp.Dialer{}, nil)
	for _, c := range []net.Conn{client, server} {
		require.Equal(t, 1, option(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.Equal(t, 1, option(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.Equal(t, 15, option(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
		require.Equal(t, 0, option(t, c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), "it would kill peers that only pause")
	}
}

func TestSocketOptionsChosen(t *testing.T) {
	ka := net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second}
	client, server := pair(t,
		tcp.Dialer{UserTimeout: 5 * time.Second, NetDialer: &net.Dialer{KeepAliveConfig: ka}},
		&tcp.Config{UserTimeout: 9 * time.Second, ListenConfig: &net.ListenConfig{KeepAliveConfig: ka}})
	require.Equal(t, 5_000, option(t, client, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))
	require.Equal(t, 9_000, option(t, server, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))
	require.Equal(t, 7, option(t, client, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
	require.Equal(t, 7, option(t, server, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
}

// The user's hook has the last word.
func TestControlOverrulesUs(t *testing.T) {
	nd := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1234)
		})
	}}
	client, _ := pair(t, tcp.Dialer{NetDialer: nd}, nil)
	require.Equal(t, 1234, option(t, client, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))
}

// Bytes that the peer's system does not take end the connection: here the peer has stopped reading.
func TestUserTimeoutEndsConnection(t *testing.T) {
	client, _ := pair(t, tcp.Dialer{UserTimeout: 300 * time.Millisecond}, nil)
	require.NoError(t, client.SetWriteDeadline(time.Now().Add(20*time.Second)))
	var err error
	for err == nil {
		_, err = client.Write(make([]byte, 64<<10))
	}
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
}

// The listener lives through a want of descriptors: the connection that could not be accepted then is accepted later.
func TestAcceptOutlivesWantOfDescriptors(t *testing.T) {
	var was unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	// The lowest free descriptor is the one that the next accept would get: forbid it and all above.
	free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(free))

	restore := func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) }
	defer restore()
	var told []error
	ln := listen(t, "127.0.0.1:0", &tcp.Config{AcceptError: func(err error) {
		told = append(told, err)
		restore()
	}})
	client, err := tcp.Dialer{Addr: ln.Addr().String()}.DialContext(t.Context())
	require.NoError(t, err)
	defer func() { _ = client.Close() }()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: was.Max}))
	server, err := ln.Accept()
	require.NoError(t, err)
	require.Len(t, told, 1)
	require.ErrorIs(t, told[0], syscall.EMFILE)
	require.NoError(t, server.Close())
}
