package mem_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

var kinds = []struct {
	name string
	make func(b *testing.B) (net.Conn, net.Conn)
}{
	{"mem", func(*testing.B) (net.Conn, net.Conn) { return mem.Pipe(nil) }},
	{"net.Pipe", func(*testing.B) (net.Conn, net.Conn) { return net.Pipe() }},
	{"tcp", func(b *testing.B) (net.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(b, err)
		defer func() { _ = l.Close() }()
		c, err := net.Dial("tcp", l.Addr().String())
		require.NoError(b, err)
		s, err := l.Accept()
		require.NoError(b, err)
		return c, s
	}},
}

// BenchmarkStream writes one way; the reader reads 64 KiB at a time.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%d/%s", size, kind.name), func(b *testing.B) {
				c, s := kind.make(b)
				read := make(chan int64, 1)
				go func() {
					buf := make([]byte, 64<<10)
					var n int64
					for {
						k, err := s.Read(buf)
						n += int64(k)
						if err != nil {
							read <- n
							return
						}
					}
				}()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					_, err := c.Write(p)
					require.NoError(b, err)
				}
				_ = c.Close()
				require.EqualValues(b, size*b.N, <-read)
				_ = s.Close()
			})
		}
	}
}

// BenchmarkPingPong is the round trip of one byte.
func BenchmarkPingPong(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.name, func(b *testing.B) {
			c, s := kind.make(b)
			done := make(chan struct{})
			go func() {
				defer close(done)
				buf := make([]byte, 1)
				for {
					if _, err := s.Read(buf); err != nil {
						return
					}
					if _, err := s.Write(buf); err != nil {
						return
					}
				}
			}()
			buf := make([]byte, 1)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				_, err := c.Write(buf)
				require.NoError(b, err)
				_, err = io.ReadFull(c, buf)
				require.NoError(b, err)
			}
			_ = c.Close()
			<-done
			_ = s.Close()
		})
	}
}

// BenchmarkConnect dials, accepts and closes.
func BenchmarkConnect(b *testing.B) {
	var n mem.Network
	l, err := mem.Listen(b.Context(), "x", &mem.Config{Network: &n})
	require.NoError(b, err)
	defer func() { _ = l.Close() }()
	d := mem.Dialer{Network: &n, Addr: "x"}
	b.ReportAllocs()
	for range b.N {
		c, err := d.DialContext(b.Context())
		require.NoError(b, err)
		s, err := l.Accept()
		require.NoError(b, err)
		_, _ = c.Close(), s.Close()
	}
}

// Moving bytes allocates nothing once the buffers have grown.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	a, b := pipe(t, nil)
	p, q := make([]byte, 4096), make([]byte, 4096)
	allocs := testing.AllocsPerRun(1000, func() {
		_, err := a.Write(p)
		if err == nil {
			_, err = io.ReadFull(b, q)
		}
		if err != nil {
			t.Error(err)
		}
	})
	require.Zero(t, allocs)
}
