package towlinetest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/towlinetest"
	"github.com/towline-mq/towline/transport"
)

// TestClient runs the dialer's side of the suite against the library, over each transport.
func TestClient(t *testing.T) {
	t.Parallel()
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			dialers := map[net.Addr]transport.Dialer{}
			r := towlinetest.Client(t, func(tb testing.TB) net.Listener {
				ln, d := w.make(tb)
				ln = &named{ln, new(name)}
				mu.Lock()
				defer mu.Unlock()
				dialers[ln.Addr()] = d
				return ln
			}, func(ctx context.Context, addr net.Addr) error {
				mu.Lock()
				d := dialers[addr]
				mu.Unlock()
				return client(ctx, d)
			}, &towlinetest.ClientOptions{Timeout: caseTime})
			t.Logf("%s: %v", w.name, r)
			assert.GreaterOrEqual(t, r.Passed, 57)
			assert.Zero(t, r.Skipped)
		})
	}
}

// named is a listener with an address of its own.
type named struct {
	net.Listener
	name *name
}

type name struct{ _ byte }

func (*name) Network() string   { return "test" }
func (*name) String() string    { return "test" }
func (n *named) Addr() net.Addr { return n.name }

// client is a whole client of an echo server.
func client(ctx context.Context, d transport.Dialer) error {
	conn := reconnect.Open(d, nil)
	defer func() {
		if errors.Is(conn.Err(), reconnect.ErrProtocol) {
			<-conn.Done() // the peer has been told; CloseNow would cut that short
		}
		conn.CloseNow()
	}()
	w, r := conn.Writer(), conn.Reader()
	for i := range 20 {
		if err := w.Send(ctx, datagram.Datagram{Recipient: uint16(i), Payload: fmt.Appendf(nil, "number %d", i)}); err != nil {
			return err
		}
	}
	for i := range 20 {
		got, err := r.Receive(ctx)
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("number %d", i); string(got.Payload) != want || got.Recipient != uint16(i) {
			return fmt.Errorf("got %q, expected %q", got.Payload, want)
		}
	}
	if err := conn.CloseSend(ctx); err != nil {
		return err
	}
	return conn.Close(ctx)
}
