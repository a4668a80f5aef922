package reconnect_test

import (
	"bytes"
	"context"
	"fmt"
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

// mixed has two ends of a session and of a plain connection, over TCP, where reads bring long runs.
func mixed(t *testing.T, test func(t *testing.T, a, b *reconnect.Conn)) {
	t.Run("session", func(t *testing.T) {
		s := newSession(t, worlds()[0], nil, nil)
		defer s.end()
		test(t, s.a, s.b)
	})
	t.Run("plain", func(t *testing.T) {
		a, b := tcpPair(t)
		ca, cb := reconnect.NewPlain(a, nil), reconnect.NewPlain(b, nil)
		defer ca.CloseNow()
		defer cb.CloseNow()
		test(t, ca, cb)
	})
}

// inBubble is the same over memory, with time that is fake.
func inBubble(t *testing.T, test func(t *testing.T, a, b *reconnect.Conn)) {
	t.Run("session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			test(t, s.a, s.b)
		})
	})
	for name, o := range map[string]*reconnect.PlainOptions{"plain": nil, "lines": {Framing: datagram.Lines{}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := memPair(t, nil, o)
				test(t, a, b)
			})
		})
	}
}

// flood sends until ctx ends; the function that it returns waits for that.
func flood(ctx context.Context, a *reconnect.Conn) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			d := datagram.Datagram{Payload: bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), 64)}
			if a.Writer().Send(ctx, d) != nil {
				return
			}
		}
	})
	return wg.Wait
}

// kept is a payload that was received, and what it was then.
type kept struct{ got, was []byte }

func keep(d datagram.Datagram) kept { return kept{d.Payload, bytes.Clone(d.Payload)} }

func untouched(t *testing.T, all []kept) {
	touched := 0
	for _, k := range all {
		if !bytes.Equal(k.got, k.was) {
			touched++
		}
	}
	assert.Zero(t, touched, "of %d payloads that Receive returned", len(all))
}

// What Receive and ReceiveBatch have returned is the caller's for good, also when Each takes what arrived with it, in turn
// or in another goroutine.
func TestReceivedIsKeptBesideEach(t *testing.T) {
	mixed(t, func(t *testing.T, a, b *reconnect.Conn) {
		ctx, cancel := context.WithCancel(bounded(t))
		wait := flood(ctx, a)
		var all []kept
		batch := make([]datagram.Datagram, 3)
		for range 200 {
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			all = append(all, keep(d))
			n, err := b.Reader().ReceiveBatch(ctx, batch)
			require.NoError(t, err)
			for _, d := range batch[:n] {
				all = append(all, keep(d))
			}
			seen := 0
			require.Equal(t, errEnough, b.Reader().Each(ctx, func(datagram.Datagram) error {
				if seen++; seen == 500 {
					return errEnough
				}
				return nil
			}))
		}
		cancel()
		wait()
		untouched(t, all)
	})
	mixed(t, func(t *testing.T, a, b *reconnect.Conn) {
		ctx, cancel := context.WithCancel(bounded(t))
		wait := flood(ctx, a)
		var wg sync.WaitGroup
		wg.Go(func() { _ = b.Reader().Each(ctx, func(datagram.Datagram) error { return nil }) })
		var all []kept
		for range 5000 {
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			all = append(all, keep(d))
		}
		cancel()
		wait()
		wg.Wait()
		untouched(t, all)
	})
}

// Each ends with its context and with CloseNow, however much has arrived, and leaves the rest to the next receiver.
func TestEachEndsInTheMiddle(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *reconnect.Conn) {
		ctx, cancel := context.WithCancel(t.Context())
		fctx, stop := context.WithCancel(t.Context())
		wait := flood(fctx, a)
		calls := 0
		err := b.Reader().Each(ctx, func(datagram.Datagram) error {
			if calls++; calls == 10 {
				cancel()
			}
			<-time.After(10 * time.Millisecond)
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		assert.Equal(t, 10, calls)
		d, err := b.Reader().Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "00000010", string(d.Payload[:8]))
		stop()
		wait()
		calls = 0
		err = b.Reader().Each(t.Context(), func(datagram.Datagram) error {
			calls++
			_ = b.CloseNow()
			return nil
		})
		require.ErrorIs(t, err, reconnect.ErrClosed)
		assert.Equal(t, 1, calls)
	})
}

// What Each has left goes to a receiver that waits already, also to one that reads the stream itself.
func TestEachLeavesTheRest(t *testing.T) {
	for _, warm := range []bool{false, true} {
		inBubble(t, func(t *testing.T, a, b *reconnect.Conn) {
			ctx := t.Context()
			if warm { // then a session's receivers read by themselves
				time.AfterFunc(time.Second, func() { _ = a.Writer().Send(context.Background(), text(0, "x")) })
				_, err := b.Reader().Receive(ctx)
				require.NoError(t, err)
			}
			_, err := a.Writer().SendBatch(ctx, []datagram.Datagram{text(0, "1"), text(0, "2"), text(0, "3")})
			require.NoError(t, err)
			synctest.Wait()
			begin := time.Now()
			got := make(chan string, 1)
			err = b.Reader().Each(ctx, func(datagram.Datagram) error {
				go func() {
					d, err := b.Reader().Receive(ctx)
					assert.NoError(t, err)
					got <- string(d.Payload)
				}()
				synctest.Wait() // it waits, but for Framings, which have it at once
				return errEnough
			})
			require.Equal(t, errEnough, err)
			assert.Contains(t, []string{"2", "3"}, <-got)
			assert.Zero(t, time.Since(begin))
		})
	}
}

// Close wakes a receiver that reads by itself, also when the line is silent.
func TestCloseWakesWhoReads(t *testing.T) {
	for _, warm := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			if warm {
				time.AfterFunc(time.Second, func() { _ = s.a.Writer().Send(context.Background(), text(0, "x")) })
				_, err := s.b.Reader().Receive(t.Context())
				require.NoError(t, err)
			}
			got := make(chan error, 1)
			go func() {
				_, err := s.b.Reader().Receive(context.Background())
				got <- err
			}()
			synctest.Wait()
			s.net.Faults().Freeze(mem.Up)
			s.net.Faults().Freeze(mem.Down)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begin := time.Now()
			go s.b.Close(ctx)
			require.ErrorIs(t, <-got, reconnect.ErrClosed)
			assert.Zero(t, time.Since(begin), "warm: %v", warm)
			s.b.CloseNow()
		})
	}
}
