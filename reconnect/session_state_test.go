package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// watched begins a session in a network of its own, and tells the events of both ends.
func watched(t *testing.T, lo *reconnect.ListenOptions, do *reconnect.DialOptions) (s *ends, ofA, ofB *watch) {
	ofA, ofB = new(watch), new(watch)
	if lo == nil {
		lo = new(reconnect.ListenOptions)
	}
	if do == nil {
		do = new(reconnect.DialOptions)
	}
	lo.OnEvent, do.OnEvent = ofB.onEvent, ofA.onEvent
	return memSession(t, lo, do), ofA, ofB
}

func TestSessionEventsAndStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ofA, ofB := watched(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		synctest.Wait()
		require.Equal(t, reconnect.Connected, s.a.State())
		require.Equal(t, reconnect.Connected, s.b.State())
		s.net.Faults().RefuseDials(2, nil)
		s.line.cut()
		synctest.Wait()
		require.Equal(t, reconnect.Disconnected, s.a.State())
		require.Equal(t, reconnect.Disconnected, s.b.State())
		ofA.await(t, reconnect.EventResumed, 1)
		ofB.await(t, reconnect.EventResumed, 1)
		require.Equal(t, reconnect.Connected, s.a.State())

		require.NoError(t, s.b.CloseSend(ctx))
		require.NoError(t, s.a.Close(ctx))
		synctest.Wait()
		require.Equal(t, reconnect.Closed, s.a.State())
		require.Equal(t, reconnect.Closed, s.b.State())
		assert.Equal(t, []reconnect.EventKind{
			reconnect.EventConnected, reconnect.EventDisconnected, reconnect.EventDialFailed, reconnect.EventDialFailed,
			reconnect.EventResumed, reconnect.EventClosed,
		}, ofA.kinds())
		assert.Equal(t, []reconnect.EventKind{
			reconnect.EventConnected, reconnect.EventDisconnected, reconnect.EventResumed, reconnect.EventClosed,
		}, ofB.kinds())
		require.ErrorIs(t, ofA.await(t, reconnect.EventClosed, 1).Err, reconnect.ErrClosed)
		require.ErrorIs(t, ofA.await(t, reconnect.EventDisconnected, 1).Err, syscallReset)
		for _, e := range ofA.events {
			assert.NotEmpty(t, e.String())
			assert.NotZero(t, e.Time)
		}
	})
}

// A callback may call everything, and take its time; the events come one after the other.
func TestSessionCallbackMayCallAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int32
		var inside atomic.Int32
		closed := make(chan struct{})
		call := func(c *reconnect.Conn, e reconnect.Event) {
			assert.EqualValues(t, 1, inside.Add(1))
			defer inside.Add(-1)
			told.Add(1)
			ctx := context.Background()
			_, _, _, _, _ = c.State(), c.Stats(), c.Unconfirmed(), c.Err(), c.NetConn()
			_, _ = c.LocalAddr(), c.RemoteAddr()
			if e.Kind == reconnect.EventClosed {
				close(closed)
				return
			}
			assert.NoError(t, c.Writer().Send(ctx, text(1, "%v", e.Kind)))
			assert.NoError(t, c.Writer().Flush(ctx))
			switch e.Kind {
			case reconnect.EventConnected:
				c.Redial(errors.New("from the callback"))
			case reconnect.EventResumed:
				assert.NoError(t, c.Close(ctx))
			}
		}
		s := memSession(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: call}})
		defer s.end()
		<-closed
		assert.EqualValues(t, 4, told.Load(), "connected, disconnected, resumed, closed")
		n := 0
		for range s.b.Reader().All(context.Background()) {
			n++
		}
		assert.Equal(t, 3, n)
	})
}

// Flush is the peer's acknowledgement, not the end of a write.
func TestSessionFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		synctest.Wait()
		faults := s.line.newest().(*mem.Conn).Faults()
		faults.Freeze(mem.Down)
		ctx := context.Background()
		require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, s.a.Writer().Flush(short), context.DeadlineExceeded)
		d, err := s.b.Reader().Receive(ctx)
		require.NoError(t, err, "it had long arrived")
		require.Equal(t, text(1, "x"), d)
		require.Equal(t, []datagram.Datagram{text(1, "x")}, s.a.Unconfirmed())
		st := s.a.Stats()
		assert.EqualValues(t, 1, st.Unconfirmed)
		assert.Equal(t, 9, st.UnconfirmedBytes)
		assert.Equal(t, time.Second, st.OldestUnconfirmed)
		assert.Zero(t, st.Queued)
		start := time.Now()
		faults.Thaw(mem.Down)
		require.NoError(t, s.a.Writer().Flush(ctx))
		assert.Zero(t, time.Since(start))
		require.Empty(t, s.a.Unconfirmed())
		assert.Zero(t, s.a.Stats().UnconfirmedBytes)
		assert.Zero(t, s.a.Stats().OldestUnconfirmed)

		// What was accepted while a Flush waits does not hold it up, and several may wait.
		s.line.newest().(*mem.Conn).Faults().Freeze(mem.Up)
		var wg sync.WaitGroup
		for i := range 5 {
			require.NoError(t, s.a.Writer().Send(ctx, text(1, "%d", i)))
			wg.Go(func() { assert.NoError(t, s.a.Writer().Flush(ctx)) })
			synctest.Wait()
		}
		s.line.newest().(*mem.Conn).Faults().Thaw(mem.Up)
		wg.Wait()
	})
}

// Without a connection it goes on accepting until the buffer is full, then waits, and goes on when there is one.
func TestSessionOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 10 << 10
		s, ofA, _ := watched(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 100 << 10}})
		defer s.end()
		synctest.Wait()
		ctx := context.Background()
		s.net.Faults().RefuseDials(-1, nil)
		s.line.cut()
		message := func(i int) datagram.Datagram {
			return datagram.Datagram{Recipient: uint16(i), Payload: make([]byte, size)}
		}
		sent := 0
		for ; s.a.Writer().TrySend(message(sent)) == nil; sent++ {
		}
		require.ErrorIs(t, s.a.Writer().TrySend(message(0)), reconnect.ErrWouldBlock)
		require.Equal(t, 10, sent, "up to the buffer, and one may go over it")
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.ErrorIs(t, s.a.Writer().Send(short, message(0)), context.DeadlineExceeded)
		n, err := s.a.Writer().SendBatch(short, []datagram.Datagram{message(0)})
		require.Error(t, err)
		require.Zero(t, n)

		blocked := make(chan error, 1)
		go func() { blocked <- s.a.Writer().Send(ctx, message(sent)) }()
		synctest.Wait()
		require.Empty(t, blocked)
		s.net.Faults().RefuseDials(0, nil)
		s.a.Redial(nil)
		require.NoError(t, <-blocked)
		batched := make(chan error, 1)
		go func() {
			var ds []datagram.Datagram
			for i := range 30 {
				ds = append(ds, message(sent+1+i))
			}
			n, err := s.a.Writer().SendBatch(ctx, ds)
			assert.Equal(t, 30, n)
			batched <- err
		}()
		for i := range sent + 31 {
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.EqualValues(t, i, d.Recipient)
		}
		require.NoError(t, <-batched)
		ofA.await(t, reconnect.EventResumed, 1)
	})
}

// Redial ends a connection, a wait and a dial that hangs.
func TestSessionRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ofA, _ := watched(t, nil, &reconnect.DialOptions{Redial: &redial.Policy{
			Backoff: func() redial.Backoff { return hours{} },
		}})
		defer s.end()
		synctest.Wait()
		why := errors.New("a new network")
		start := time.Now()
		s.a.Redial(why)
		require.ErrorIs(t, ofA.await(t, reconnect.EventDisconnected, 1).Err, why)
		ofA.await(t, reconnect.EventResumed, 1)
		synctest.Wait()

		exchange(t, s.a, s.b, 1, func() {})
		s.net.Faults().RefuseDials(1, nil)
		s.line.cut()
		require.Equal(t, 10*time.Hour, ofA.await(t, reconnect.EventDialFailed, 1).Wait)
		synctest.Wait()
		require.Equal(t, 3, s.line.dialled())
		s.a.Redial(why)
		ofA.await(t, reconnect.EventResumed, 2)
		synctest.Wait()

		s.net.Faults().HangDials(1, 0)
		s.a.Redial(why)
		synctest.Wait()
		require.Equal(t, reconnect.Disconnected, s.a.State())
		s.a.Redial(why)
		ofA.await(t, reconnect.EventResumed, 3)
		assert.LessOrEqual(t, time.Since(start), 2*time.Millisecond, "who has just received may be slow to read on")
		assert.EqualValues(t, 3, s.b.Stats().Resumes)

		s.b.Redial(why) // does nothing
		synctest.Wait()
		require.Equal(t, reconnect.Connected, s.b.State())
		require.NoError(t, s.a.CloseNow())
		s.a.Redial(why) // nor does this
	})
}

// hours waits for hours.
type hours struct{}

func (hours) NextBackOff() time.Duration { return 10 * time.Hour }
func (hours) Reset()                     {}

func TestSessionSendExpiring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ofA, _ := watched(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		w := s.a.Writer()
		require.NoError(t, w.SendExpiring(ctx, text(1, "in time"), time.Second))
		require.NoError(t, w.Flush(ctx))
		s.net.Faults().RefuseDials(-1, nil)
		s.line.cut()
		require.NoError(t, w.Send(ctx, text(2, "for ever")))
		require.NoError(t, w.SendExpiring(ctx, text(3, "too late"), time.Second))
		require.NoError(t, w.SendExpiring(ctx, text(4, "an hour"), time.Hour))
		require.NoError(t, w.SendExpiring(ctx, text(5, "at once"), -1))
		<-time.After(10 * time.Second)
		s.net.Faults().RefuseDials(0, nil)
		require.NoError(t, w.Flush(ctx))
		for _, want := range []uint16{1, 2, 4} {
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, want, d.Recipient)
		}
		require.EqualValues(t, 3, ofA.await(t, reconnect.EventExpired, 1).N)
		require.EqualValues(t, 5, ofA.await(t, reconnect.EventExpired, 2).N)
		require.EqualValues(t, 2, s.a.Stats().Expired)
		assert.EqualValues(t, 3, s.b.Stats().Received)
		require.NoError(t, s.a.CloseSend(ctx))
		require.NoError(t, s.b.Close(ctx))
	})
	a, _ := memPair(t, nil, nil)
	require.ErrorIs(t, a.Writer().SendExpiring(t.Context(), text(1, ""), time.Second), errors.ErrUnsupported)
}

func TestSessionAckConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}}, nil)
		defer s.end()
		ctx := context.Background()
		for i := range 10 {
			require.NoError(t, s.a.Writer().Send(ctx, numbered(i)))
		}
		flushed := make(chan error, 1)
		go func() { flushed <- s.a.Writer().Flush(ctx) }()
		for range 10 {
			_, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
		}
		<-time.After(time.Second)
		require.Empty(t, flushed)
		require.EqualValues(t, 10, s.a.Stats().Unconfirmed)
		require.Error(t, s.b.Reader().Ack(11))
		require.Error(t, s.b.Reader().Ack(-1))
		require.NoError(t, s.b.Reader().Ack(4))
		<-time.After(time.Second)
		require.EqualValues(t, 6, s.a.Stats().Unconfirmed)
		s.line.cut()
		<-time.After(10 * time.Second)
		require.EqualValues(t, 6, s.a.Stats().Unconfirmed, "a resume acknowledges nothing more")
		require.NoError(t, s.b.Reader().Ack(6))
		require.NoError(t, <-flushed)
		require.Error(t, s.b.Reader().Ack(1))
		require.NoError(t, s.a.Reader().Ack(1000), "nothing to do without the option")
		assert.Zero(t, s.b.Stats().Waiting)

		closed := make(chan error, 1)
		require.NoError(t, s.a.Writer().Send(ctx, text(1, "last")))
		go func() { closed <- s.a.CloseSend(ctx) }()
		_, err := s.b.Reader().Receive(ctx)
		require.NoError(t, err)
		<-time.After(time.Second)
		require.Empty(t, closed)
		require.NoError(t, s.b.Reader().Ack(1))
		require.NoError(t, <-closed)
		require.NoError(t, s.b.Close(ctx))
		require.NoError(t, s.a.Close(ctx))
		<-s.b.Done()
		require.ErrorIs(t, s.b.Reader().Ack(1), reconnect.ErrClosed)
	})
	a, _ := memPair(t, nil, nil)
	require.NoError(t, a.Reader().Ack(1))
}

// A peer that does not acknowledge stops this side when its buffer is full.
func TestSessionAckConsumedHoldsThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}},
			&reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 10 << 10}})
		defer s.end()
		go func() {
			for range s.b.Reader().All(context.Background()) {
			}
		}()
		d := datagram.Datagram{Payload: make([]byte, 1<<10)}
		sent := 0
		for ; s.a.Writer().TrySend(d) == nil; sent++ {
			synctest.Wait()
		}
		<-time.After(time.Minute)
		require.ErrorIs(t, s.a.Writer().TrySend(d), reconnect.ErrWouldBlock)
		require.Equal(t, reconnect.Connected, s.a.State())
		require.NoError(t, s.b.Reader().Ack(1))
		require.NoError(t, s.a.Writer().Send(context.Background(), d))
	})
}

// The session gives up as its policy says, and the reason is the Conn's.
func TestSessionGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ofA, ofB := watched(t, nil, &reconnect.DialOptions{Redial: &redial.Policy{MaxAttempts: 3}})
		defer s.end()
		exchange(t, s.a, s.b, 1, func() {})
		synctest.Wait()
		s.net.Faults().RefuseDials(-1, nil)
		s.line.cut()
		require.NoError(t, s.a.Writer().Send(context.Background(), text(1, "kept")))
		<-s.a.Done()
		gaveUp := new(redial.Error)
		require.ErrorAs(t, s.a.Err(), &gaveUp)
		assert.Equal(t, 3, gaveUp.Attempts)
		require.ErrorAs(t, s.a.Writer().Send(context.Background(), text(1, "")), &gaveUp)
		_, err := s.a.Reader().Receive(context.Background())
		require.ErrorAs(t, err, &gaveUp)
		require.Equal(t, []datagram.Datagram{text(1, "kept")}, s.a.Unconfirmed())
		ofA.await(t, reconnect.EventClosed, 1)
		require.Equal(t, 3, ofA.count(reconnect.EventDialFailed))
		<-s.b.Done()
		require.ErrorIs(t, s.b.Err(), reconnect.ErrSessionLost)
		ofB.await(t, reconnect.EventClosed, 1)
	})
}

// Open waits for a listener that is not there yet; what is sent meanwhile arrives.
func TestSessionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		w := new(watch)
		a := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
			SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
		})
		defer a.CloseNow()
		require.Equal(t, reconnect.Connecting, a.State())
		require.Nil(t, a.NetConn())
		require.Nil(t, a.LocalAddr())
		require.Nil(t, a.RemoteAddr())
		ctx := context.Background()
		for i := range 100 {
			require.NoError(t, a.Writer().Send(ctx, numbered(i)))
		}
		w.await(t, reconnect.EventDialFailed, 3)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		b, err := l.Accept(ctx)
		require.NoError(t, err)
		defer b.CloseNow()
		for i := range 100 {
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, numbered(i), d)
		}
		require.NoError(t, a.Writer().Flush(ctx))
		require.Equal(t, reconnect.Connected, a.State())
		require.Equal(t, "s", a.RemoteAddr().String())
		require.NotNil(t, a.LocalAddr())
	})
}

// CloseNow ends a session in each of its states, at once and for good.
func TestSessionCloseNowInEveryState(t *testing.T) {
	for name, prepare := range map[string]func(n *mem.Network){
		"refused":   func(n *mem.Network) { n.Faults().RefuseDials(-1, nil) },
		"dialling":  func(n *mem.Network) { n.Faults().HangDials(-1, 0) },
		"greeting":  func(n *mem.Network) { n.Faults().Freeze(mem.Both) },
		"connected": func(*mem.Network) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(mem.Network)
				l := reconnect.NewListener(listenMem(t, n, "s"), nil)
				defer l.Close()
				prepare(n)
				w := new(watch)
				a := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
					SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
				})
				synctest.Wait()
				start := time.Now()
				require.NoError(t, a.CloseNow())
				<-a.Done()
				assert.LessOrEqual(t, time.Since(start), 20*time.Millisecond)
				require.ErrorIs(t, a.Err(), reconnect.ErrClosed)
				synctest.Wait()
				kinds := w.kinds()
				require.Equal(t, reconnect.EventClosed, kinds[len(kinds)-1])
			})
		})
	}
}

// The names of states, and of kinds of events, are there.
func TestSessionNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range 4 {
		seen[reconnect.State(i).String()] = true
	}
	for k := range reconnect.EventClosed + 1 {
		seen[k.String()] = true
		seen[reconnect.Event{Kind: k}.String()] = true
		seen[reconnect.Event{Kind: k, Err: errors.New("x")}.String()] = true
	}
	assert.Equal(t, "state 4", reconnect.State(4).String())
	assert.Equal(t, "event 9", reconnect.EventKind(9).String())
	assert.NotContains(t, fmt.Sprint(seen), "%!")
}

var _ transport.Dialer = new(line)

// ReceiveBatch takes all that has arrived, however it came.
func TestSessionReceiveBatch(t *testing.T) {
	s := memSession(t, nil, nil)
	defer s.end()
	ctx := bounded(t)
	for i := range 40 {
		require.NoError(t, s.a.Writer().Send(ctx, numbered(i)))
		require.NoError(t, s.a.Writer().Flush(ctx))
	}
	batch := make([]datagram.Datagram, 50)
	n, err := s.b.Reader().ReceiveBatch(ctx, batch[:30])
	require.NoError(t, err)
	require.Equal(t, 30, n)
	n, err = s.b.Reader().ReceiveBatch(ctx, batch[30:])
	require.NoError(t, err)
	require.Equal(t, 10, n)
	for i, d := range batch[:40] {
		require.Equal(t, numbered(i), d)
	}
	require.EqualValues(t, 40, s.b.Stats().Received)
}
