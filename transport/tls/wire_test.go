package tls

import (
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/internal/trywrite"
)

// stubConn takes as many bytes as room says and then fails with err.
type stubConn struct {
	net.Conn
	room int
	err  error
	got  []byte
}

func (c *stubConn) Write(p []byte) (int, error) {
	n := min(len(p), c.room)
	c.room -= n
	c.got = append(c.got, p[:n]...)
	if n < len(p) {
		return n, &net.OpError{Op: "write", Net: "stub", Err: c.err}
	}
	return n, nil
}

func TestWireKeepsWhatADeadlineCutOff(t *testing.T) {
	c := &stubConn{room: 3, err: os.ErrDeadlineExceeded}
	w := &wire{Conn: c}

	n, err := w.Write([]byte("abcde"))
	require.Equal(t, 5, n)
	require.NoError(t, err, "crypto/tls must not learn of it")
	require.ErrorIs(t, w.cutShort(), os.ErrDeadlineExceeded)

	n, err = w.Write([]byte("fg"))
	require.Equal(t, 2, n)
	require.NoError(t, err)
	require.ErrorIs(t, w.resume(), os.ErrDeadlineExceeded)

	c.room = 1
	require.ErrorIs(t, w.resume(), os.ErrDeadlineExceeded)
	c.room = 100
	n, err = w.Write([]byte("hi"))
	require.Equal(t, 2, n)
	require.NoError(t, err)
	require.NoError(t, w.resume())
	require.NoError(t, w.cutShort())
	require.Equal(t, "abcdefghi", string(c.got))

	// A timeout that has been made good is none.
	c.room = 0
	_, _ = w.Write([]byte("j"))
	require.Error(t, w.cutShort())
	c.room = 100
	_, _ = w.Write([]byte("k"))
	require.NoError(t, w.cutShort())
	require.Equal(t, "abcdefghijk", string(c.got))
	require.Nil(t, w.rest)
}

// What ends the connection is not mistaken for a deadline, even if it calls itself a timeout.
func TestWirePassesOnFailures(t *testing.T) {
	for _, final := range []error{syscall.ECONNRESET, syscall.ETIMEDOUT, net.ErrClosed} {
		w := &wire{Conn: &stubConn{room: 3, err: final}}
		n, err := w.Write([]byte("abcde"))
		require.Equal(t, 3, n)
		require.ErrorIs(t, err, final)
		require.NoError(t, w.cutShort())
	}
}

// A peer that makes crypto/tls write without our writing anything cannot make it keep more and more.
func TestWireKeepsNoMoreThanItMay(t *testing.T) {
	w := &wire{Conn: &stubConn{err: os.ErrDeadlineExceeded}}
	kept := 0
	for {
		n, err := w.Write(make([]byte, 1000))
		if err != nil {
			require.Zero(t, n)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			break
		}
		kept += n
	}
	require.LessOrEqual(t, kept, maxRest)
	require.Greater(t, kept, maxRest-1000)
}

// tryConn takes as many bytes as room says, and no more for now.
type tryConn struct{ *stubConn }

func (c tryConn) TryWrite(p []byte) (int, error) {
	n := min(len(p), c.room)
	c.room -= n
	c.got = append(c.got, p[:n]...)
	return n, nil
}

func TestWireKeepsWhatWouldWait(t *testing.T) {
	c := tryConn{&stubConn{room: 3}}
	w := &wire{Conn: c, try: trywrite.New(c)}
	w.hurry()
	n, err := w.Write([]byte("abcde"))
	require.Equal(t, 5, n)
	require.NoError(t, err, "crypto/tls must not learn of it")
	require.ErrorIs(t, w.resume(), trywrite.ErrWouldBlock)
	require.NoError(t, w.cutShort(), "it is on its way: no timeout, and nobody's error")
	require.True(t, w.calm(), "which is for who has hurried")
	c.room = 100
	require.NoError(t, w.resume())
	require.False(t, w.calm())
	require.Equal(t, "abcde", string(c.got))
}
