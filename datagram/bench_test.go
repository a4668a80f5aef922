package datagram_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

var benchSizes = []int{64, 1 << 10, 64 << 10}

func loopback(b *testing.B) (c, s net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer ln.Close()
	c, err = net.Dial("tcp", ln.Addr().String())
	require.NoError(b, err)
	s, err = ln.Accept()
	require.NoError(b, err)
	b.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}

// BenchmarkLoopback sends b.N messages one way over loopback TCP: floor is a bufio pair that does nothing but move
// header and payload, codec is Writer and Reader.
func BenchmarkLoopback(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("floor/%dB", size), func(b *testing.B) {
			c, s := loopback(b)
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			done := make(chan error, 1)
			b.ResetTimer()
			go func() {
				w := bufio.NewWriterSize(c, 64<<10)
				var h [8]byte
				for range b.N {
					binary.BigEndian.PutUint32(h[:], uint32(4+size))
					binary.BigEndian.PutUint32(h[4:], 1<<16|7)
					w.Write(h[:])
					w.Write(payload)
				}
				done <- w.Flush()
			}()
			r := bufio.NewReaderSize(s, 64<<10)
			buf := make([]byte, size)
			var h [8]byte
			for range b.N {
				if _, err := io.ReadFull(r, h[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, buf[:binary.BigEndian.Uint32(h[:])-4]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			require.NoError(b, <-done)
		})
		b.Run(fmt.Sprintf("codec/%dB", size), func(b *testing.B) {
			c, s := loopback(b)
			d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			done := make(chan error, 1)
			b.ResetTimer()
			go func() {
				w := datagram.NewWriter(c, nil)
				for range b.N {
					if err := w.Write(d); err != nil {
						done <- err
						return
					}
				}
				done <- w.Flush()
			}()
			r := datagram.NewReader(s, nil)
			for range b.N {
				if _, err := r.Read(); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			require.NoError(b, <-done)
		})
	}
}
