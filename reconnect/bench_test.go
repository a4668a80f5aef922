package reconnect_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// BenchmarkOneWay moves b.N messages over loopback TCP. floor is a bufio pair that moves header and payload and does
// nothing else: the other figures are to be read beside it, from the same run.
func BenchmarkOneWay(b *testing.B) {
	ctx := context.Background()
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
		for _, v := range variants(ctx, d) {
			b.Run(fmt.Sprintf("%s/%dB", v.name, size), func(b *testing.B) {
				c, s := tcpPair(b)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				done := make(chan error, 1)
				b.ResetTimer()
				go func() { done <- v.send(c, b.N) }()
				err := v.receive(s, b.N)
				b.StopTimer()
				require.NoError(b, err)
				require.NoError(b, <-done)
			})
		}
	}
}

type variant struct {
	name    string
	send    func(c net.Conn, n int) error
	receive func(s net.Conn, n int) error
}

func variants(ctx context.Context, d datagram.Datagram) []variant {
	size := len(d.Payload)
	return []variant{{
		"floor",
		func(c net.Conn, n int) error {
			w := bufio.NewWriterSize(c, 64<<10)
			var h [8]byte
			for range n {
				binary.BigEndian.PutUint32(h[:], uint32(4+size))
				binary.BigEndian.PutUint32(h[4:], 1<<16|7)
				w.Write(h[:])
				w.Write(d.Payload)
			}
			return w.Flush()
		},
		func(s net.Conn, n int) error {
			r := bufio.NewReaderSize(s, 64<<10)
			buf := make([]byte, size)
			var h [8]byte
			for range n {
				if _, err := io.ReadFull(r, h[:]); err != nil {
					return err
				}
				if _, err := io.ReadFull(r, buf[:binary.BigEndian.Uint32(h[:])-4]); err != nil {
					return err
				}
			}
			return nil
		},
	}, {
		"single",
		func(c net.Conn, n int) error {
			w := reconnect.NewPlain(c, nil).Writer()
			for range n {
				if err := w.Send(ctx, d); err != nil {
					return err
				}
			}
			return w.Flush(ctx)
		},
		func(s net.Conn, n int) error {
			r := reconnect.NewPlain(s, nil).Reader()
			for range n {
				if _, err := r.Receive(ctx); err != nil {
					return err
				}
			}
			return nil
		},
	}, batchVariant(ctx, d, "batch", false), batchVariant(ctx, d, "released", true)}
}

// batchVariant is SendBatch and ReceiveBatch of 64, with or without giving payloads back.
func batchVariant(ctx context.Context, d datagram.Datagram, name string, release bool) variant {
	return variant{
		name,
		func(c net.Conn, n int) error {
			w := reconnect.NewPlain(c, nil).Writer()
			batch := make([]datagram.Datagram, 64)
			for i := range batch {
				batch[i] = d
			}
			for n > 0 {
				k, err := w.SendBatch(ctx, batch[:min(n, len(batch))])
				if err != nil {
					return err
				}
				n -= k
			}
			return w.Flush(ctx)
		},
		func(s net.Conn, n int) error {
			r := reconnect.NewPlain(s, nil).Reader()
			batch := make([]datagram.Datagram, 64)
			for n > 0 {
				k, err := r.ReceiveBatch(ctx, batch)
				if err != nil {
					return err
				}
				if release {
					for _, d := range batch[:k] {
						datagram.Release(d)
					}
				}
				n -= k
			}
			return nil
		},
	}
}

// BenchmarkRoundTrip sends one message of 64 bytes to and fro.
func BenchmarkRoundTrip(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		c, s := tcpPair(b)
		go func() {
			var buf [72]byte
			for {
				if _, err := io.ReadFull(s, buf[:]); err != nil {
					return
				}
				s.Write(buf[:])
			}
		}()
		var buf [72]byte
		for b.Loop() {
			c.Write(buf[:])
			if _, err := io.ReadFull(c, buf[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		nc, ns := tcpPair(b)
		ctx := context.Background()
		c, s := reconnect.NewPlain(nc, nil), reconnect.NewPlain(ns, nil)
		go func() {
			for {
				d, err := s.Reader().Receive(ctx)
				if err != nil {
					return
				}
				s.Writer().Send(ctx, d)
			}
		}()
		d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
		b.ReportAllocs()
		for b.Loop() {
			if err := c.Writer().Send(ctx, d); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Reader().Receive(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}
