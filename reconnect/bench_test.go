package reconnect_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
)

// BenchmarkOneWay moves b.N messages over loopback TCP. floor is a bufio pair that moves header and payload and does
// nothing else: the other figures are to be read beside it, from the same run.
func BenchmarkOneWay(b *testing.B) {
	ctx := context.Background()
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
		b.Run(fmt.Sprintf("floor/%dB", size), func(b *testing.B) {
			c, s := tcpPair(b)
			oneWay(b, size, func(n int) error { return floorSend(c, d, n) }, func(n int) error { return floorTake(s, d, n) })
		})
		for _, v := range variants(ctx, d) {
			b.Run(fmt.Sprintf("%s/%dB", v.name, size), func(b *testing.B) {
				nc, ns := tcpPair(b)
				c := v.conn(b, nc, true)
				s := v.conn(b, ns, false)
				oneWay(b, size, func(n int) error { return v.send(c, n) }, func(n int) error { return v.take(s, n) })
				c.CloseNow()
				s.CloseNow()
			})
		}
	}
}

func oneWay(b *testing.B, size int, send, take func(n int) error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	done := make(chan error, 1)
	b.ResetTimer()
	go func() { done <- send(b.N) }()
	err := take(b.N)
	b.StopTimer()
	require.NoError(b, err)
	require.NoError(b, <-done)
}

type variant struct {
	name string
	conn func(tb testing.TB, nc net.Conn, dials bool) *reconnect.Conn
	send func(c *reconnect.Conn, n int) error
	take func(s *reconnect.Conn, n int) error
}

// plainConn and sessionConn make one end of a connection; of a session, dials says which.
func plainConn(_ testing.TB, nc net.Conn, _ bool) *reconnect.Conn { return reconnect.NewPlain(nc, nil) }

func sessionConn(tb testing.TB, nc net.Conn, dials bool) *reconnect.Conn {
	if !dials {
		l := reconnect.NewListener(newOnce(nc), nil)
		tb.Cleanup(func() { l.Close() })
		c, err := l.Accept(context.Background())
		require.NoError(tb, err)
		return c
	}
	return reconnect.Open(transport.DialerFunc(func(context.Context) (net.Conn, error) { return nc, nil }), nil)
}

// once is a net.Listener that yields one connection.
type once struct {
	net.Conn
	c     chan net.Conn
	close func()
}

func newOnce(nc net.Conn) *once {
	o := &once{Conn: nc, c: make(chan net.Conn, 1)}
	o.close = sync.OnceFunc(func() { close(o.c) })
	o.c <- nc
	return o
}

func (o *once) Addr() net.Addr { return o.LocalAddr() }

func (o *once) Close() error { o.close(); return nil }

func (o *once) Accept() (net.Conn, error) {
	if nc, ok := <-o.c; ok {
		return nc, nil
	}
	return nil, net.ErrClosed
}

func variants(ctx context.Context, d datagram.Datagram) []variant {
	var vs []variant
	for _, e := range []struct {
		name string
		conn func(testing.TB, net.Conn, bool) *reconnect.Conn
	}{{"plain", plainConn}, {"session", sessionConn}} {
		vs = append(vs, variant{
			e.name + "/single", e.conn,
			func(c *reconnect.Conn, n int) error {
				for range n {
					if err := c.Writer().Send(ctx, d); err != nil {
						return err
					}
				}
				return c.Writer().Flush(ctx)
			},
			func(c *reconnect.Conn, n int) error {
				for range n {
					if _, err := c.Reader().Receive(ctx); err != nil {
						return err
					}
				}
				return nil
			},
		}, batchVariant(ctx, d, e.name+"/batch", e.conn, false), batchVariant(ctx, d, e.name+"/released", e.conn, true))
		each := vs[len(vs)-3]
		each.name, each.take = e.name+"/each", func(c *reconnect.Conn, n int) error { return takeEach(ctx, c, n) }
		vs = append(vs, each)
	}
	return vs
}

// takeEach receives n datagrams whose payloads are lent.
func takeEach(ctx context.Context, c *reconnect.Conn, n int) error {
	err := c.Reader().Each(ctx, func(datagram.Datagram) error {
		if n--; n == 0 {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		err = nil
	}
	return err
}

// batchVariant is SendBatch and ReceiveBatch of 64, with or without giving payloads back.
func batchVariant(ctx context.Context, d datagram.Datagram, name string, conn func(testing.TB, net.Conn, bool) *reconnect.Conn, release bool) variant {
	return variant{
		name, conn,
		func(c *reconnect.Conn, n int) error {
			batch := make([]datagram.Datagram, 64)
			for i := range batch {
				batch[i] = d
			}
			for n > 0 {
				k, err := c.Writer().SendBatch(ctx, batch[:min(n, len(batch))])
				if err != nil {
					return err
				}
				n -= k
			}
			return c.Writer().Flush(ctx)
		},
		func(c *reconnect.Conn, n int) error {
			batch := make([]datagram.Datagram, 64)
			for n > 0 {
				k, err := c.Reader().ReceiveBatch(ctx, batch)
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

func floorSend(c net.Conn, d datagram.Datagram, n int) error {
	w := bufio.NewWriterSize(c, 64<<10)
	var h [8]byte
	for range n {
		binary.BigEndian.PutUint32(h[:], uint32(4+len(d.Payload)))
		binary.BigEndian.PutUint32(h[4:], 1<<16|7)
		w.Write(h[:])
		w.Write(d.Payload)
	}
	return w.Flush()
}

func floorTake(s net.Conn, d datagram.Datagram, n int) error {
	r := bufio.NewReaderSize(s, 64<<10)
	buf := make([]byte, len(d.Payload))
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
	for _, e := range []struct {
		name string
		conn func(testing.TB, net.Conn, bool) *reconnect.Conn
	}{{"plain", plainConn}, {"session", sessionConn}} {
		b.Run(e.name, func(b *testing.B) {
			nc, ns := tcpPair(b)
			ctx := context.Background()
			c := e.conn(b, nc, true)
			s := e.conn(b, ns, false)
			defer s.CloseNow()
			defer c.CloseNow()
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
}
