package reconnect_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// What an end of a session may take of heap and stack, in bytes. It takes about 10, 11 and 3 KiB; what other tests have
// left behind moves that a little.
const (
	memoryAttached  = 14 << 10
	memoryAfter     = 16 << 10
	memoryDetached  = 6 << 10
	memorySessions  = 150
	memoryBurst     = 4 << 20 // enough for the largest buffers everywhere
	memoryPingAfter = 700 * time.Millisecond
)

// An idle session takes little memory, also when it was busy before, and less without a connection.
func TestSessionMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	ctx := bounded(t)
	// What all sessions share, and what the runtime keeps, is not theirs.
	first := newIdle(ctx, t, memorySessions)
	first.burst(ctx, t)
	first.detach(ctx, t)
	first.end()

	before := inUse()
	s := newIdle(ctx, t, memorySessions)
	defer s.end()
	s.settles(t, before, 2*memorySessions*memoryAttached, "attached")
	s.burst(ctx, t)
	s.settles(t, before, 2*memorySessions*memoryAfter, "attached, after a burst")
	s.detach(ctx, t)
	s.settles(t, before, memorySessions*memoryDetached, "detached, after a burst")
	runtime.KeepAlive(s)
}

// inUse returns the bytes of heap and stacks in use, once what nobody needs is collected.
func inUse() int64 {
	for range 3 { // what a sync.Pool holds survives one
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// idle is many sessions with one listener, over TCP.
type idle struct {
	l                 *reconnect.Listener
	gone              atomic.Bool // no dial succeeds any more
	dialled, accepted []*reconnect.Conn
}

func newIdle(ctx context.Context, tb testing.TB, n int) *idle {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	require.NoError(tb, err)
	o := reconnect.SessionOptions{PingAfter: memoryPingAfter}
	s := &idle{l: reconnect.NewListener(ln, &reconnect.ListenOptions{SessionOptions: o, Expiry: time.Hour})}
	tb.Cleanup(func() { s.l.Close() })
	d := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		if s.gone.Load() {
			return nil, redial.Fatal(errGone)
		}
		return tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
	})
	for range n {
		a, err := reconnect.Dial(ctx, d, &reconnect.DialOptions{SessionOptions: o})
		require.NoError(tb, err)
		s.dialled = append(s.dialled, a)
		b, err := s.l.Accept(ctx)
		require.NoError(tb, err)
		s.accepted = append(s.accepted, b)
	}
	return s
}

var errGone = errors.New("gone for good")

// burst moves much on each session, one after the other.
func (s *idle) burst(ctx context.Context, tb testing.TB) {
	const size = 1 << 10
	d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
	for i := range s.dialled {
		sent := make(chan error, 1)
		go func() {
			for range memoryBurst / size {
				if err := s.dialled[i].Writer().Send(ctx, d); err != nil {
					sent <- err
					return
				}
			}
			sent <- s.dialled[i].Writer().Flush(ctx)
		}()
		for range memoryBurst / size {
			_, err := s.accepted[i].Reader().Receive(ctx)
			require.NoError(tb, err)
		}
		require.NoError(tb, <-sent)
	}
}

// detach makes the dialers vanish.
func (s *idle) detach(ctx context.Context, tb testing.TB) {
	s.gone.Store(true)
	for _, a := range s.dialled {
		a.Redial(errGone)
	}
	for _, a := range s.dialled {
		select {
		case <-a.Done():
		case <-ctx.Done():
			require.NoError(tb, context.Cause(ctx))
		}
	}
	s.dialled = nil
	for _, b := range s.accepted {
		require.Eventually(tb, func() bool { return b.State() == reconnect.Disconnected }, patience, time.Millisecond)
	}
}

// settles waits until no more than limit bytes are in use beyond before: memory is given back at heartbeats.
func (s *idle) settles(tb testing.TB, before, limit int64, what string) {
	var got int64
	begin := time.Now()
	for got = inUse() - before; got > limit; got = inUse() - before {
		require.Less(tb, time.Since(begin), patience/4, "%s: %d bytes, expected no more than %d", what, got, limit)
		<-time.After(100 * time.Millisecond)
	}
	tb.Logf("%s: %d bytes of %d allowed", what, got, limit)
}

func (s *idle) end() {
	for _, a := range s.dialled {
		a.CloseNow()
	}
	s.l.Close()
}
