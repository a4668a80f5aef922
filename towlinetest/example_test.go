package towlinetest_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/towlinetest"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
)

// A session in a bubble: the connection is cut in the middle of the third datagram, and all three arrive.
func ExamplePair() {
	_ = func(t *testing.T) { // TestOrders
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, nil)
			first, err := s.Faults.WaitConn(t.Context(), 1) // the connection that is there
			if err != nil {
				t.Fatal(err)
			}
			first.CutAfter(mem.Up, 40, nil)
			for i := range 3 {
				order := fmt.Sprintf("order %d", i)
				if err := s.Dialer.Writer().Send(t.Context(), datagram.Datagram{Recipient: 7, Payload: []byte(order)}); err != nil {
					t.Fatal(err)
				}
				d, err := s.Listener.Reader().Receive(t.Context())
				if err != nil || string(d.Payload) != order {
					t.Fatalf("got %q, %v", d.Payload, err)
				}
			}
			if n := s.Faults.Stats().Conns; n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// A network that is silent for an hour, and a program that is not to give up: in a bubble that takes no time.
func ExamplePair_blackHole() {
	_ = func(t *testing.T) { // TestOutage
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, &towlinetest.PairOptions{Listen: &reconnect.ListenOptions{Expiry: 2 * time.Hour}})
			s.Faults.Freeze(mem.Both) // this connection, and all that come
			time.AfterFunc(time.Hour, func() { s.Faults.Thaw(mem.Both) })
			if err := s.Dialer.Writer().Send(t.Context(), datagram.Datagram{Payload: []byte("late")}); err != nil {
				t.Fatal(err)
			}
			d, err := s.Listener.Reader().Receive(t.Context())
			if err != nil || string(d.Payload) != "late" {
				t.Fatalf("got %q, %v", d.Payload, err)
			}
		})
	}
}

// An old connection that reaches the server behind a newer one.
func ExamplePair_overtaken() {
	_ = func(t *testing.T) { // TestOvertaken
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, nil)
			release := s.Faults.HoldConns(1)
			s.Dialer.Redial(nil) // this dial gets no answer, and another is made after a while
			if err := s.Dialer.Writer().Send(t.Context(), datagram.Datagram{Payload: []byte("once")}); err != nil {
				t.Fatal(err)
			}
			if d, err := s.Listener.Reader().Receive(t.Context()); err != nil || string(d.Payload) != "once" {
				t.Fatalf("got %q, %v", d.Payload, err)
			}
			release() // now the server hears what the first dial said
			synctest.Wait()
			if st := s.Listener.Stats(); st.Received != 1 || st.Waiting != 0 {
				t.Errorf("it was taken: %+v", st)
			}
		})
	}
}

// A transport of your own.
func ExampleTransport() {
	_ = func(t *testing.T) { // TestMyTransport
		towlinetest.Transport(t, func(tb testing.TB) (net.Listener, transport.Dialer) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				tb.Fatal(err)
			}
			return ln, transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", ln.Addr().String())
			})
		})
	}
}

// An echo server that runs somewhere, in whatever language.
func ExampleServer() {
	_ = func(t *testing.T) { // TestMyServer
		result := towlinetest.Server(t, tcp.Dialer{Addr: "127.0.0.1:7000"}, &towlinetest.ServerOptions{MaxPayload: 1 << 20})
		t.Log(result) // 410 cases: 410 passed, 0 skipped, 0 failed, 10.3 s
	}
}
