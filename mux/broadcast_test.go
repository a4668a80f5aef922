package mux_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// crowd is a server with a number of sessions, some of which are frozen, with full queues.
type crowd struct {
	*world
	frozen  []*mux.Conn // the server's ends
	thaw    func()
	arrived []*atomic.Int64 // how many have come, by client; the frozen ones first
	got     chan int        // by whom, for each that has come
	seen    int             // taken from got
	all     []*mux.Conn     // the clients
}

func newCrowd(t *testing.T, size, frozen int) *crowd {
	ctx := bounded(t)
	m := mux.New(nil)
	mux.Handle[blob](m, 1, "blob", mux.Raw{}, nil)
	// Small queues, and no end of patience with the frozen ones.
	small := reconnect.SessionOptions{SendBuffer: 4 << 10, PingAfter: time.Hour}
	w := serve(t, m, &reconnect.ListenOptions{SessionOptions: small})
	c := &crowd{world: w, got: make(chan int, 100*size)}
	var lines []*mem.Faults
	for i := range size {
		c.arrived = append(c.arrived, new(atomic.Int64))
		cm := mux.New(nil)
		mux.Handle(cm, 1, "blob", mux.Raw{}, func(context.Context, *mux.Conn, blob) error {
			c.arrived[i].Add(1)
			c.got <- i
			return nil
		})
		conn, err := cm.Dial(ctx, w.dialer(), &reconnect.DialOptions{SessionOptions: small})
		require.NoError(t, err)
		c.all = append(c.all, conn)
		line, err := w.net.Faults().WaitConn(ctx, i+1)
		require.NoError(t, err)
		lines = append(lines, line)
		if i < frozen {
			require.Eventually(t, func() bool { _, ok := w.server.Conn(uint64(i + 1)); return ok }, patience, 100*time.Microsecond)
			s, _ := w.server.Conn(uint64(i + 1))
			c.frozen = append(c.frozen, s)
			require.NoError(t, s.Writer().Flush(ctx))
			line.Freeze(mem.Both)
			// What the line takes, and then the queue.
			for ; err == nil; err = s.Writer().TrySend(mustEncode(t, m, make(blob, 1<<10))) {
			}
			require.ErrorIs(t, err, reconnect.ErrWouldBlock)
		}
	}
	c.thaw = func() {
		for _, line := range lines[:frozen] {
			line.Thaw(mem.Both)
		}
	}
	t.Cleanup(func() {
		c.thaw()
		for _, conn := range c.all {
			go conn.CloseNow()
		}
		for _, conn := range c.all {
			await(t, conn.Done())
		}
	})
	require.Eventually(t, func() bool {
		n := 0
		for range w.server.Conns() {
			n++
		}
		return n == size
	}, patience, time.Millisecond)
	return c
}

func mustEncode[T any](t *testing.T, m *mux.Mux, v T) datagram.Datagram {
	d, err := mux.Encode(m, v)
	require.NoError(t, err)
	return d
}

// others waits until each but the frozen ones has n.
func (c *crowd) others(t *testing.T, n int) {
	t.Helper()
	for k := range n*(len(c.all)-len(c.frozen)) - c.seen {
		select {
		case <-c.got:
		case <-time.After(patience):
			for i, a := range c.arrived {
				if a.Load() != int64(n) && i >= len(c.frozen) {
					s, _ := c.server.Conn(uint64(i + 1))
					t.Logf("client %d has %d: %v %+v; server: %+v", i, a.Load(), c.all[i].State(), c.all[i].Stats(), s.Stats())
				}
			}
			require.FailNow(t, "not all have it", "%d have", k)
		}
	}
	c.seen = n * (len(c.all) - len(c.frozen))
	for i, a := range c.arrived {
		if i < len(c.frozen) {
			assert.Zero(t, a.Load(), "client %d is frozen", i)
		} else {
			assert.Equal(t, int64(n), a.Load(), "client %d", i)
		}
	}
}

// A broadcast to a thousand sessions reaches the 990 that are not frozen, whatever is done about the ten.
func TestBroadcastToAThousand(t *testing.T) {
	const size, frozen = 1000, 10
	ctx := bounded(t)
	c := newCrowd(t, size, frozen)

	sent, err := mux.Broadcast(ctx, c.server, blob("one"), mux.Skip)
	assert.Equal(t, size-frozen, sent)
	var missed *mux.BroadcastError
	require.ErrorAs(t, err, &missed)
	require.EqualError(t, err, "mux: the broadcast missed 10 connections")
	require.Len(t, missed.Missed, frozen)
	for _, f := range c.frozen {
		assert.Equal(t, reconnect.ErrWouldBlock, missed.Missed[f])
	}
	c.others(t, 1)

	soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	sent, err = mux.Broadcast(soon, c.server, blob("two"), mux.Wait)
	assert.Equal(t, size-frozen, sent)
	require.ErrorAs(t, err, &missed)
	require.Len(t, missed.Missed, frozen)
	for _, f := range c.frozen {
		assert.Equal(t, context.DeadlineExceeded, missed.Missed[f])
	}
	c.others(t, 2)

	sent, err = mux.Broadcast(ctx, c.server, blob("three"), mux.Disconnect)
	assert.Equal(t, size-frozen, sent)
	require.ErrorAs(t, err, &missed)
	c.others(t, 3)
	c.thaw()
	for i, f := range c.frozen {
		await(t, f.Done())
		assert.Equal(t, mux.ErrSlow, f.Err())
		await(t, c.all[i].Done())
	}
	sent, err = mux.Broadcast(ctx, c.server, blob("four"), mux.Skip)
	require.NoError(t, err)
	assert.Equal(t, size-frozen, sent)
}

// Who waits, waits for the slow ones alone, and they get it when they go on.
func TestBroadcastWaits(t *testing.T) {
	ctx := bounded(t)
	c := newCrowd(t, 20, 2)
	type result struct {
		sent int
		err  error
	}
	results := make(chan result, 1)
	go func() {
		sent, err := mux.Broadcast(ctx, c.server, blob("one"), mux.Wait)
		results <- result{sent, err}
	}()
	c.others(t, 1)
	select {
	case <-results:
		require.Fail(t, "it did not wait")
	default:
	}
	c.thaw()
	assert.Equal(t, result{20, nil}, await(t, results))
}

// A value is encoded once, for however many.
func TestBroadcastEncodesOnce(t *testing.T) {
	ctx := bounded(t)
	counting := new(counts)
	m := mux.New(nil)
	mux.Handle[blob](m, 1, "blob", counting, nil)
	w := serve(t, m, nil)
	for range 5 {
		w.dial(numbers(&mux.Options{Unknown: mux.UnknownDrop}), nil)
	}
	var sent int
	require.Eventually(t, func() bool {
		counting.n.Store(0)
		var err error
		sent, err = mux.Broadcast(ctx, w.server, blob("b"), mux.Skip)
		return err == nil && sent == 5
	}, patience, time.Millisecond)
	assert.Equal(t, int64(1), counting.n.Load())
}

type counts struct {
	mux.Raw
	n atomic.Int64
}

func (c *counts) Append(dst []byte, v any) ([]byte, error) {
	c.n.Add(1)
	return c.Raw.Append(dst, v)
}
