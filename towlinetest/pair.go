package towlinetest

import (
	"context"
	"testing"
	"time"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// PairOptions say how both sides of a Pair are set up. nil, and the zero value, are the defaults of package reconnect.
type PairOptions struct {
	Dial   *reconnect.DialOptions
	Listen *reconnect.ListenOptions
}

// Session is both sides of a session, and the network between them.
type Session struct {
	Dialer, Listener *reconnect.Conn     // the two ends
	Accepting        *reconnect.Listener // what accepted the one
	Network          *mem.Network        // where it listens as "towlinetest"
	Faults           *mem.Faults         // of all connections of the session, later ones too (WaitConn: of one alone); Up is from the dialer
}

// setupTime bounds how long a pair may take to connect.
const setupTime = 30 * time.Second

// Pair connects a session inside this process, over a network that breaks on demand. It fails tb if that does not work.
// All of it ends with the test.
//
// It may be called in a bubble of testing/synctest, with the bubble's own T: then waits and timeouts take no real time.
func Pair(tb testing.TB, o *PairOptions) *Session {
	tb.Helper()
	if o == nil {
		o = new(PairOptions)
	}
	network := new(mem.Network)
	s := &Session{Network: network, Faults: network.Faults()}
	ctx, cancel := context.WithTimeout(context.Background(), setupTime)
	defer cancel()
	ln, err := mem.Listen(ctx, "towlinetest", &mem.Config{Network: network})
	if err != nil {
		tb.Fatalf("listening: %v", err)
	}
	s.Accepting = reconnect.NewListener(ln, o.Listen)
	tb.Cleanup(s.Close)
	if s.Dialer, err = reconnect.Dial(ctx, mem.Dialer{Network: network, Addr: "towlinetest"}, o.Dial); err != nil {
		tb.Fatalf("dialling: %v", err)
	}
	if s.Listener, err = s.Accepting.Accept(ctx); err != nil {
		tb.Fatalf("accepting: %v", err)
	}
	return s
}

// Close ends everything at once, and waits for the end of its goroutines, which a bubble needs. Pair sees to it that it is
// called at the end of the test.
func (s *Session) Close() {
	for _, c := range []*reconnect.Conn{s.Dialer, s.Listener} {
		if c != nil {
			_ = c.CloseNow()
			<-c.Done() // soon, whatever the network does
		}
	}
	_ = s.Accepting.Close() // nil, always
	s.Faults.Cut(nil)       // what is left knows at once
}
