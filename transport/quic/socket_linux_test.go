package quic

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What happens to a socket once, such as that an administrator or the system has aborted it, ends neither the listener
// nor a connection: the next call may find nothing wrong.
func TestSocketErrorsPass(t *testing.T) {
	e := listen(t, nil)
	server := e.ln.(*listener).sock.udp
	provoke := func() {
		// Nobody listens there, and the kernel is told to say so.
		gone, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		require.NoError(t, gone.Close())
		_, _ = server.WriteTo([]byte{0}, gone.LocalAddr()) // it may be told of the error before
	}
	raw, err := server.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_RECVERR, 1)
	}))
	require.NoError(t, err)

	dialed, accepted := e.pair(t)
	for range 20 {
		provoke()
		buf := make([]byte, 5)
		for _, c := range [][2]*Conn{{dialed, accepted}, {accepted, dialed}} {
			require.NoError(t, c[1].SetReadDeadline(time.Now().Add(5*time.Second)))
			_, err := c[0].Write([]byte("hello"))
			require.NoError(t, err)
			_, err = c[1].Read(buf)
			require.NoError(t, err)
		}
	}
	e.pair(t)
}

// A socket whose reads do nothing but fail is broken, and one that fails now and then is not.
func TestSocketErrorsThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, broken := new(packetConn), errors.New("broken")
		for range 10 * maxFailures {
			require.ErrorIs(t, c.judge(broken), error(passingError{broken}))
			<-time.After(failureGap + 1)
		}
		for range maxFailures - 1 {
			require.ErrorIs(t, c.judge(broken), error(passingError{broken}))
		}
		require.Equal(t, broken, c.judge(broken))
	})
	c := new(packetConn)
	for _, err := range []error{nil, net.ErrClosed, os.ErrDeadlineExceeded} {
		require.Equal(t, err, c.judge(err))
	}
}
