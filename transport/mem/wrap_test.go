package mem_test

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// tcpPair gives a TCP connection whose dialing end is wrapped.
func tcpPair(t *testing.T, f *mem.Faults) (wrapped *mem.Conn, peer *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	var d net.Dialer
	dialer := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		c, err := d.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return f.Wrap(c), nil
	})
	c, err := dialer.DialContext(t.Context())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		f.Cut(nil)
		_ = c.Close()
		_ = s.Close()
	})
	// A fault that was forgotten ends the test, not the run.
	require.NoError(t, s.SetDeadline(time.Now().Add(time.Minute)))
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c.(*mem.Conn), s.(*net.TCPConn)
}

func TestWrapCarries(t *testing.T) {
	var f mem.Faults
	c, s := tcpPair(t, &f)
	require.Equal(t, s.RemoteAddr(), c.LocalAddr())
	require.Equal(t, s.LocalAddr(), c.RemoteAddr())
	big := strings.Repeat("0123456789abcdef", 64<<10)
	go func() { _, _ = io.Copy(s, s); _ = s.CloseWrite() }()
	go func() { _, _ = io.WriteString(c, big); _ = c.CloseWrite() }()
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, big, string(got))
	require.NoError(t, c.Close())
	require.EqualValues(t, len(big), f.Stats().UpRead)
	require.EqualValues(t, len(big), f.Stats().DownRead)
}

func TestWrapCloses(t *testing.T) {
	t.Run("written before close", func(t *testing.T) {
		c, s := tcpPair(t, new(mem.Faults))
		send(t, c, "last words")
		require.NoError(t, c.Close())
		expect(t, s, "last words")
		expectError(t, s, io.EOF)
	})
	t.Run("peer closes", func(t *testing.T) {
		c, s := tcpPair(t, new(mem.Faults))
		send(t, s, "last words")
		require.NoError(t, s.Close())
		expect(t, c, "last words")
		expectError(t, c, io.EOF)
	})
	t.Run("peer resets", func(t *testing.T) {
		c, s := tcpPair(t, new(mem.Faults))
		require.NoError(t, s.SetLinger(0))
		require.NoError(t, s.Close())
		expectError(t, c, syscall.ECONNRESET)
		var op *net.OpError
		_, err := c.Read(make([]byte, 1))
		require.ErrorAs(t, err, &op)
		require.Equal(t, "tcp", op.Net)
		for err = nil; err == nil; _, err = c.Write(make([]byte, 1000)) {
		}
		require.False(t, isTimeout(err), "writes fail as well: %v", err)
	})
	t.Run("peer does not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x, y := mem.Pipe(&mem.Config{Buffer: 4})
			c := new(mem.Faults).Wrap(x)
			send(t, c, "1234567890")
			synctest.Wait()
			require.NoError(t, c.Close())
			pass(5*time.Second - 1)
			synctest.Wait()
			require.Equal(t, 1, c.Faults().Stats().Live, "it still tries")
			pass(1)
			synctest.Wait()
			require.Zero(t, c.Faults().Stats().Live, "it has given up")
			expect(t, y, "1234")
			require.NoError(t, y.Close())
		})
	})
	t.Run("both ends, full both ways", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x, y := mem.Pipe(nil)
			var f mem.Faults
			a, b := f.Wrap(x), f.Wrap(y)
			for _, c := range []*mem.Conn{a, b} {
				go func() { _, _ = c.Write(make([]byte, 1<<20)) }()
			}
			synctest.Wait()
			require.NoError(t, a.Close())
			require.NoError(t, b.Close())
			synctest.Wait()
			require.Zero(t, f.Stats().Live, "neither waits for the other to read")
		})
	})
	t.Run("peer goes on writing", func(t *testing.T) {
		c, s := tcpPair(t, new(mem.Faults))
		send(t, c, "last words")
		require.NoError(t, c.Close())
		var err error
		for err == nil {
			_, err = s.Write(make([]byte, 1000))
		}
		require.False(t, isTimeout(err), "the end shows: %v", err)
	})
	t.Run("what arrives long after close", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			x, y := mem.Pipe(nil)
			c := new(mem.Faults).Wrap(x)
			c.Faults().SetShape(mem.Up, mem.Shape{Latency: time.Minute})
			send(t, c, "late")
			require.NoError(t, c.Close())
			expect(t, y, "late")
			expectError(t, y, io.EOF)
			require.NoError(t, y.Close())
		})
	})
	t.Run("abort", func(t *testing.T) {
		c, s := tcpPair(t, new(mem.Faults))
		require.NoError(t, c.SetLinger(0))
		require.NoError(t, c.Close())
		expectError(t, s, syscall.ECONNRESET)
	})
}

func TestWrapFaults(t *testing.T) {
	t.Run("cut", func(t *testing.T) {
		var f mem.Faults
		c, s := tcpPair(t, &f)
		f.Cut(nil)
		expectError(t, c, syscall.ECONNRESET)
		expectError(t, s, syscall.ECONNRESET)
	})
	t.Run("clean cut", func(t *testing.T) {
		var f mem.Faults
		c, s := tcpPair(t, &f)
		send(t, c, "through")
		f.Cut(io.EOF)
		expect(t, s, "through")
		expectError(t, s, io.EOF)
		expectError(t, c, io.EOF)
	})
	t.Run("cut after, down", func(t *testing.T) {
		var f mem.Faults
		f.CutAfter(mem.Down, 3, nil)
		c, s := tcpPair(t, &f)
		send(t, s, "123456")
		expect(t, c, "123")
		expectError(t, c, syscall.ECONNRESET)
		expectError(t, s, syscall.ECONNRESET)
	})
	t.Run("cut while the peer does not read", func(t *testing.T) {
		var f mem.Faults
		c, _ := tcpPair(t, &f)
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		_, err := c.Write(make([]byte, 64<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		f.Cut(nil) // goleak: and all goroutines are gone
	})
	t.Run("freeze and thaw", func(t *testing.T) {
		var f mem.Faults
		c, s := tcpPair(t, &f)
		f.Freeze(mem.Up)
		send(t, c, "held back")
		require.NoError(t, s.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, err := s.Read(make([]byte, 1))
		require.True(t, isTimeout(err))
		require.NoError(t, s.SetReadDeadline(time.Now().Add(time.Minute)))
		f.Thaw(mem.Up)
		expect(t, s, "held back")
	})
}
