package mux_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// BenchmarkHandler moves 64-byte datagrams over a session on loopback TCP, one way, to who receives them: a loop around
// ReceiveBatch, a raw handler, the same with SideBySide, and a handler of MessagePack. In one run the ratios count.
func BenchmarkHandler(b *testing.B) {
	payload, err := mux.Msgpack{}.Append(nil, medium{N: 7, Text: string(make([]byte, 50))})
	require.NoError(b, err)
	bench := func(name string, payload []byte, receive func(b *testing.B, conn *reconnect.Conn, n int) <-chan struct{}) {
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			l := reconnect.NewListener(ln, nil)
			defer l.Close()
			client, err := reconnect.Dial(ctx, tcp.Dialer{Addr: ln.Addr().String()}, nil)
			require.NoError(b, err)
			defer client.CloseNow()
			conn, err := l.Accept(ctx)
			require.NoError(b, err)
			defer conn.CloseNow()
			b.ReportAllocs()
			b.ResetTimer()
			done := receive(b, conn, b.N)
			batch := make([]datagram.Datagram, 64)
			for i := range batch {
				batch[i] = datagram.Datagram{Recipient: 2, Payload: payload}
			}
			for left := b.N; left > 0; left -= len(batch) {
				batch = batch[:min(left, len(batch))]
				_, err := client.Writer().SendBatch(ctx, batch)
				require.NoError(b, err)
			}
			<-done
		})
	}
	bench("ReceiveBatch", make([]byte, 64), func(_ *testing.B, conn *reconnect.Conn, n int) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			batch := make([]datagram.Datagram, 256)
			for n > 0 {
				k, err := conn.Reader().ReceiveBatch(context.Background(), batch)
				if err != nil {
					return
				}
				n -= k
				clear(batch[:k])
			}
		}()
		return done
	})
	handled := func(o *mux.Options, bind func(m *mux.Mux, got func())) func(*testing.B, *reconnect.Conn, int) <-chan struct{} {
		return func(b *testing.B, conn *reconnect.Conn, n int) <-chan struct{} {
			done := make(chan struct{})
			var left atomic.Int64
			left.Store(int64(n))
			m := mux.New(o)
			bind(m, func() {
				if left.Add(-1) == 0 {
					close(done)
				}
			})
			_, err := mux.NewServer(m).Attach(conn)
			require.NoError(b, err)
			return done
		}
	}
	raw := func(m *mux.Mux, got func()) {
		m.HandleRaw(2, "raw", func(context.Context, *mux.Conn, datagram.Datagram) error { got(); return nil })
	}
	bench("raw", make([]byte, 64), handled(nil, raw))
	bench("raw, side by side", make([]byte, 64), handled(&mux.Options{SideBySide: true}, raw))
	bench("msgpack", payload, handled(nil, func(m *mux.Mux, got func()) {
		mux.Handle(m, 2, "medium", mux.Msgpack{}, func(context.Context, *mux.Conn, medium) error { got(); return nil })
	}))
}

// BenchmarkCall is one call after the other, over a session on loopback TCP.
func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	s := mux.NewServer(adder(nil, add))
	go s.Serve(reconnect.NewListener(ln, nil))
	defer s.Close()
	c, err := adder(nil, nil).Dial(ctx, tcp.Dialer{Addr: ln.Addr().String()}, nil)
	require.NoError(b, err)
	defer over(b, c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := callAdd(ctx, c, 1, 2); err != nil {
			b.Fatal(err)
		}
	}
}
