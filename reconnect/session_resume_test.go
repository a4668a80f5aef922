package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// exchange sends n numbered datagrams each way and checks what arrives; tick is called for each that does.
func exchange(t *testing.T, a, b *reconnect.Conn, n int, tick func()) {
	t.Helper()
	ctx := bounded(t)
	var wg sync.WaitGroup
	for _, way := range []struct{ from, to *reconnect.Conn }{{a, b}, {b, a}} {
		wg.Go(func() {
			for i := range n {
				if !assert.NoError(t, way.from.Writer().Send(ctx, numbered(i))) {
					return
				}
			}
			assert.NoError(t, way.from.Writer().Flush(ctx))
		})
		wg.Go(func() {
			for i := range n {
				d, err := way.to.Reader().Receive(ctx)
				d.Redelivered = false // it may be said of what came with a HELLO that got no answer
				if !assert.NoError(t, err) || !assert.Equal(t, numbered(i), d) {
					return
				}
				tick()
			}
		})
	}
	wg.Wait()
}

// Both directions over every kind of stream, whose connection breaks again and again: nothing is lost, doubled or
// reordered.
func TestSessionSurvivesCuts(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			const n = 4000
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(1, 2))
			next, got := 100, 0
			exchange(t, s.a, s.b, n, func() {
				mu.Lock()
				defer mu.Unlock()
				if got++; got >= next {
					next += 50 + rng.IntN(300)
					s.line.cut()
				}
			})
			st := s.a.Stats()
			assert.NotZero(t, st.Resumes) // several cuts may meet the same connection
			assert.Equal(t, uint64(n), st.Sent)
			assert.Equal(t, uint64(n), st.Received)
			assert.Zero(t, st.Unconfirmed)
			assert.Zero(t, st.Lost)
			ctx := bounded(t)
			require.NoError(t, s.a.CloseSend(ctx))
			require.NoError(t, s.b.Close(ctx))
			require.NoError(t, s.a.Close(ctx))
			t.Logf("%+v", st)
		})
	}
}

// Every connection is cut after a random number of bytes, in a random direction, by a reset or in good order, the
// handshakes of the first connections included.
func TestSessionSurvivesCutsAtAnyByte(t *testing.T) {
	resumes := uint64(0)
	defer func() { assert.Greater(t, resumes, uint64(80)) }()
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 0))
				n := new(mem.Network)
				n.Faults().OnConn(func(_ int, c *mem.Faults) {
					c.SetShape(mem.Both, mem.Shape{Latency: time.Duration(rng.IntN(3)) * time.Millisecond, MaxRead: rng.IntN(3) * 100})
					dir := []mem.Direction{mem.Both, mem.Up, mem.Down}[rng.IntN(3)]
					most := 1 << (4 + rng.IntN(14))
					c.CutAfter(dir, rng.Int64N(int64(most)), []error{nil, errors.New("cut")}[rng.IntN(2)])
				})
				l := reconnect.NewListener(listenMem(t, n, "s"), nil)
				defer l.Close()
				a := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, nil)
				defer a.CloseNow()
				b, err := l.Accept(bounded(t))
				require.NoError(t, err)
				defer b.CloseNow()
				exchange(t, a, b, 1000, func() {})
				resumes += a.Stats().Resumes
				assert.Zero(t, a.Stats().Lost)
				ctx := bounded(t)
				require.NoError(t, a.CloseSend(ctx))
				require.NoError(t, b.CloseSend(ctx))
				require.NoError(t, a.Close(ctx))
				require.NoError(t, b.Close(ctx))
			})
		})
	}
}

// A connection that looks alive to the listener is taken over at once.
func TestSessionTakeover(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			ctx := bounded(t)
			exchange(t, s.a, s.b, 10, func() {})
			why := errors.New("the network has changed")
			start := time.Now()
			s.a.Redial(why)
			exchange(t, s.a, s.b, 10, func() {})
			assert.Less(t, time.Since(start), 2*time.Second)
			assert.EqualValues(t, 1, s.a.Stats().Resumes)
			assert.EqualValues(t, 2, s.b.Stats().Epoch)
			require.NoError(t, s.b.CloseSend(ctx))
			require.NoError(t, s.a.Close(ctx))
		})
	}
}

// A dialer whose connection breaks dials again at once, without any wait, however often, if something got through.
func TestSessionRedialAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		for i := range 20 {
			exchange(t, s.a, s.b, 10, func() {})
			<-time.After(time.Second) // all is acknowledged
			start := time.Now()
			s.net.Faults().Cut(nil)
			require.NoError(t, s.b.Writer().Send(context.Background(), text(1, "%d", i)))
			d, err := s.a.Reader().Receive(context.Background())
			require.NoError(t, err)
			require.Equal(t, text(1, "%d", i), d)
			require.Zero(t, time.Since(start))
		}
		require.EqualValues(t, 20, s.a.Stats().Resumes)
	})
}

// The old connection is a black hole: neither side has heard of its end, and the takeover takes no time at all.
func TestSessionTakeoverOfABlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		exchange(t, s.a, s.b, 10, func() {})
		s.line.newest().(*mem.Conn).Faults().Freeze(mem.Both)
		require.NoError(t, s.a.Writer().Send(context.Background(), text(1, "into the hole")))
		require.NoError(t, s.b.Writer().Send(context.Background(), text(1, "and from the other end")))
		synctest.Wait()
		start := time.Now()
		s.a.Redial(nil)
		d, err := s.b.Reader().Receive(context.Background())
		require.NoError(t, err)
		require.Equal(t, text(1, "into the hole"), d)
		d, err = s.a.Reader().Receive(context.Background())
		require.NoError(t, err)
		require.Equal(t, text(1, "and from the other end"), d)
		assert.Less(t, time.Since(start), 10*time.Millisecond)
	})
}

// Messages of every size, longer than the window and the buffer too, while the connection breaks.
func TestSessionLargeMessages(t *testing.T) {
	s := memSession(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 1 << 20}})
	defer s.end()
	ctx := bounded(t)
	sizes := []int{0, 1, 16 << 10, 64<<10 - 8, 64 << 10, 1 << 20, 3 << 20, 5}
	go func() {
		for i, size := range sizes {
			d := datagram.Datagram{Recipient: uint16(i), Payload: make([]byte, size)}
			for j := range d.Payload {
				d.Payload[j] = byte(i + j>>8)
			}
			assert.NoError(t, s.a.Writer().Send(ctx, d))
		}
	}()
	s.net.Faults().OnConn(func(k int, c *mem.Faults) { c.CutAfter(mem.Both, int64(k)*1000_000, nil) })
	s.line.cut()
	for i, size := range sizes {
		d, err := s.b.Reader().Receive(ctx)
		require.NoError(t, err)
		require.EqualValues(t, i, d.Recipient)
		require.Len(t, d.Payload, size)
		for j, c := range d.Payload {
			if c != byte(i+j>>8) {
				t.Fatalf("message %d differs at %d", i, j)
			}
		}
	}
}

// What the caller changes after Send is not what is sent, also where it is sent again.
func TestSessionPayloadIsTheCallersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		s.line.newest().(*mem.Conn).Faults().Freeze(mem.Both)
		payload := []byte("before")
		require.NoError(t, s.a.Writer().Send(ctx, datagram.Datagram{Payload: payload}))
		copy(payload, "behind")
		synctest.Wait()
		s.a.Redial(nil)
		d, err := s.b.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, "before", string(d.Payload))
	})
}

// What follows RESUME at once is little: the answer may make the rest unnecessary.
func TestSessionFirstFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		exchange(t, s.a, s.b, 1000, func() {})
		<-time.After(time.Second) // all credit has been granted
		require.Greater(t, s.a.Stats().Credit, 40<<10)
		s.net.Faults().Freeze(mem.Down)
		const n = 1000
		for i := range n {
			require.NoError(t, s.a.Writer().Send(ctx, numbered(i)))
		}
		synctest.Wait()
		require.Greater(t, s.a.Stats().UnconfirmedBytes-s.a.Stats().QueuedBytes, 40<<10)
		s.a.Redial(nil)
		synctest.Wait()
		st := s.a.Stats()
		require.EqualValues(t, 2, st.Epoch)
		flight := st.UnconfirmedBytes - st.QueuedBytes
		assert.Greater(t, flight, 10<<10, "the replay begins with RESUME")
		assert.Less(t, flight, 20<<10)
		s.net.Faults().Thaw(mem.Down)
		for i := range n {
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, numbered(i), d)
		}
		assert.Less(t, s.a.Stats().Replayed, uint64(n), "what had arrived is not sent again")
	})
}
