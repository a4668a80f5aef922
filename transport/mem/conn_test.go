package mem_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

// send writes s, whole.
func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	n, err := io.WriteString(c, s)
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

// expect reads exactly s.
func expect(t testing.TB, c net.Conn, s string) {
	t.Helper()
	buf := make([]byte, len(s))
	n, err := io.ReadFull(c, buf)
	require.NoError(t, err, "after %q", buf[:n])
	require.Equal(t, s, string(buf))
}

// expectError reads, and gets no byte but an error that matches target.
func expectError(t testing.TB, c net.Conn, target error) {
	t.Helper()
	n, err := c.Read(make([]byte, 1))
	require.Zero(t, n)
	require.ErrorIs(t, err, target)
}

func writeError(t testing.TB, c net.Conn, target error) {
	t.Helper()
	n, err := io.WriteString(c, "x")
	require.Zero(t, n)
	require.ErrorIs(t, err, target)
}

func TestCloseKeepsWhatWasWritten(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "last words")
	require.NoError(t, a.Close())
	writeError(t, b, syscall.EPIPE)
	expect(t, b, "last words")
	expectError(t, b, io.EOF)
	expectError(t, b, io.EOF)
	expectError(t, a, net.ErrClosed)
	writeError(t, a, net.ErrClosed)
	require.ErrorIs(t, a.Close(), net.ErrClosed)
	require.ErrorIs(t, a.CloseWrite(), net.ErrClosed)
	require.ErrorIs(t, a.SetDeadline(time.Time{}), net.ErrClosed)
	require.ErrorIs(t, a.SetLinger(0), net.ErrClosed)
}

func TestCloseWithUnreadBytesResets(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "last words")
	send(t, b, "unheard")
	require.NoError(t, a.Close())
	writeError(t, b, syscall.ECONNRESET)
	expect(t, b, "last words")
	expectError(t, b, syscall.ECONNRESET)
	var op *net.OpError
	_, err := b.Read(make([]byte, 1))
	require.ErrorAs(t, err, &op)
	require.Equal(t, "read", op.Op)
	require.Equal(t, "mem", op.Net)
	require.Equal(t, b.LocalAddr(), op.Source)
	require.Equal(t, b.RemoteAddr(), op.Addr)
}

func TestCloseWithoutLingerResets(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "lost")
	require.NoError(t, a.SetLinger(0))
	require.NoError(t, a.Close())
	expectError(t, b, syscall.ECONNRESET)
	writeError(t, b, syscall.ECONNRESET)

	a, b = pipe(t, nil)
	send(t, a, "kept")
	require.NoError(t, a.SetLinger(0))
	require.NoError(t, a.SetLinger(-1))
	require.NoError(t, a.Close())
	expect(t, b, "kept")
	expectError(t, b, io.EOF)
}

func TestHalfClose(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "question")
	require.NoError(t, a.CloseWrite())
	require.NoError(t, a.CloseWrite())
	writeError(t, a, syscall.EPIPE)
	expect(t, b, "question")
	expectError(t, b, io.EOF)
	send(t, b, "answer")
	expect(t, a, "answer")
	require.NoError(t, b.Close())
	expectError(t, a, io.EOF)
	require.NoError(t, a.Close())
	require.Zero(t, a.Faults().Stats().Live)
}

func TestWaitersWakeAtClose(t *testing.T) {
	for name, test := range map[string]struct {
		close func(a, b *mem.Conn) error
		read  error // of a
		write error
	}{
		"own":          {func(a, _ *mem.Conn) error { return a.Close() }, net.ErrClosed, net.ErrClosed},
		"peer, unread": {func(_, b *mem.Conn) error { return b.Close() }, syscall.ECONNRESET, syscall.ECONNRESET},
		"own half":     {func(a, _ *mem.Conn) error { return a.CloseWrite() }, nil, syscall.EPIPE},
		"peer half":    {func(_, b *mem.Conn) error { return b.CloseWrite() }, io.EOF, nil},
		"cut":          {func(_, b *mem.Conn) error { b.Faults().Cut(nil); return nil }, syscall.ECONNRESET, syscall.ECONNRESET},
		"clean cut":    {func(_, b *mem.Conn) error { b.Faults().Cut(io.EOF); return nil }, io.EOF, syscall.EPIPE},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pipe(t, &mem.Config{Buffer: 4})
				var read, write error
				var readDone, writeDone bool
				wrote := 0
				go func() {
					_, read = a.Read(make([]byte, 1))
					readDone = true
				}()
				go func() {
					wrote, write = a.Write([]byte("123456"))
					writeDone = true
				}()
				synctest.Wait()
				require.False(t, readDone || writeDone, "both wait")
				require.NoError(t, test.close(a, b))
				synctest.Wait()
				require.Equal(t, test.read != nil, readDone)
				require.ErrorIs(t, read, test.read)
				require.Equal(t, test.write != nil, writeDone)
				require.ErrorIs(t, write, test.write)
				if writeDone {
					require.Equal(t, 4, wrote, "what the buffer took")
				}
			})
		})
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, &mem.Config{Buffer: 4})
		start := time.Now()
		require.NoError(t, a.SetDeadline(start.Add(time.Minute)))

		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.True(t, isTimeout(err))
		require.Equal(t, time.Minute, time.Since(start))
		writeError(t, a, os.ErrDeadlineExceeded)

		require.NoError(t, a.SetWriteDeadline(time.Now().Add(time.Minute)))
		n, err := a.Write([]byte("123456"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 4, n)
		require.Equal(t, 2*time.Minute, time.Since(start))
		_, err = a.TryWrite([]byte("x"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)

		// Moved while a Read waits: later, nearer, into the past, away.
		read := make(chan error)
		wait := func() { _, err := a.Read(make([]byte, 1)); read <- err }
		for _, moved := range []time.Duration{time.Hour, time.Second, -time.Second} {
			require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Minute)))
			go wait()
			synctest.Wait()
			at := time.Now()
			require.NoError(t, a.SetReadDeadline(at.Add(moved)))
			require.ErrorIs(t, <-read, os.ErrDeadlineExceeded)
			require.Equal(t, max(moved, 0), time.Since(at))
		}
		require.NoError(t, a.SetReadDeadline(time.Now().Add(time.Minute)))
		go wait()
		synctest.Wait()
		require.NoError(t, a.SetReadDeadline(time.Time{}))
		pass(time.Hour)
		send(t, b, "x")
		require.NoError(t, <-read)
	})
}

func TestTryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, &mem.Config{Buffer: 8})
		n, err := a.TryWrite([]byte("12345"))
		require.NoError(t, err)
		require.Equal(t, 5, n)
		n, err = a.TryWrite([]byte("6789a"))
		require.NoError(t, err)
		require.Equal(t, 3, n)
		n, err = a.TryWrite([]byte("9a"))
		require.NoError(t, err)
		require.Zero(t, n)

		done := make(chan error)
		go func() { _, err := a.Write([]byte("waits for room ")); done <- err }()
		synctest.Wait()
		expect(t, b, "1")
		n, err = a.TryWrite([]byte("between"))
		require.NoError(t, err)
		require.Zero(t, n, "the bytes of one Write stay together")
		expect(t, b, "2345678waits for room ")
		require.NoError(t, <-done)

		require.NoError(t, b.Close())
		_, err = a.TryWrite([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

func TestEmptyReadsAndWrites(t *testing.T) {
	a, b := pipe(t, nil)
	n, err := a.Read(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = a.Write(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, b.Close())
	_, err = a.Write(nil)
	require.ErrorIs(t, err, syscall.EPIPE)
}

// The buffer wraps around at every offset, and grows while it does.
func TestBufferKeepsOrder(t *testing.T) {
	const limit = 3*4096 + 17
	a, b := pipe(t, &mem.Config{Buffer: limit})
	var sent, got bytes.Buffer
	buf := make([]byte, limit)
	next := byte(0)
	for i := range 4000 {
		p := make([]byte, i*7919%limit)
		for j := range p {
			p[j], next = next, next+1
		}
		n, err := a.TryWrite(p)
		require.NoError(t, err)
		next -= byte(len(p) - n)
		sent.Write(p[:n])
		if sent.Len() > got.Len() {
			n, err = b.Read(buf[:1+i*104729%limit])
			require.NoError(t, err)
			got.Write(buf[:n])
		}
	}
	require.NoError(t, a.Close())
	rest, err := io.ReadAll(b)
	require.NoError(t, err)
	got.Write(rest)
	require.Equal(t, sent.Len(), got.Len())
	require.True(t, bytes.Equal(sent.Bytes(), got.Bytes()))
}
