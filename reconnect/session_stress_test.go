package reconnect_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// Senders and receivers in many goroutines, by every form of call, with contexts that end, while the connection breaks
// all the time: what was accepted arrives, once, in each sender's order, and nothing else does.
func TestSessionStress(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			so := reconnect.SessionOptions{SendBuffer: 64 << 10}
			seen, dialer := new(watch), so
			dialer.OnEvent = seen.onEvent
			s := newSession(t, w, &reconnect.ListenOptions{SessionOptions: so}, &reconnect.DialOptions{SessionOptions: dialer})
			defer s.end()
			ctx := bounded(t)
			const senders, each = 8, 400
			resumed := sync.OnceFunc(func() { seen.await(t, reconnect.EventResumed, 3) })
			var sending, receiving, others sync.WaitGroup
			stop := make(chan struct{})
			others.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					select {
					case <-tick.C:
						if i%3 == 0 {
							s.a.Redial(errors.New("for the sake of it"))
						} else {
							s.line.cut()
						}
					case <-stop:
						return
					}
				}
			})
			others.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						for _, c := range []*reconnect.Conn{s.a, s.b} {
							_, _, _, _ = c.Stats(), c.State(), c.Err(), c.NetConn()
						}
						_ = s.a.Unconfirmed()
					}
				}
			})
			for _, way := range []struct{ from, to *reconnect.Conn }{{s.a, s.b}, {s.b, s.a}} {
				accepted := make([][]string, senders)
				for i := range senders {
					sending.Go(func() { accepted[i] = sendEveryWay(ctx, t, way.from, i, each, resumed) })
				}
				var mu sync.Mutex
				got := make([][]string, senders)
				for i := range 4 {
					receiving.Go(func() { receiveEveryWay(ctx, t, way.to, i, &mu, got) })
				}
				defer func() { assert.Equal(t, accepted, got) }()
			}
			sending.Wait()
			require.NoError(t, s.a.CloseSend(ctx))
			require.NoError(t, s.b.CloseSend(ctx))
			receiving.Wait()
			close(stop)
			others.Wait()
			require.NoError(t, s.a.Close(ctx))
			require.NoError(t, s.b.Close(ctx))
			assert.Zero(t, s.a.Stats().Lost)
			assert.NotZero(t, s.a.Stats().Resumes)
		})
	}
}

// sendEveryWay returns what was accepted of n datagrams. Half-way it calls half.
func sendEveryWay(ctx context.Context, t *testing.T, c *reconnect.Conn, sender, n int, half func()) (accepted []string) {
	w := c.Writer()
	for i := 0; i < n; {
		if i >= n/2 {
			half()
		}
		d := text(uint16(sender), "%d/%d", sender, i)
		if i%40 == 39 {
			d.Payload = append(d.Payload, make([]byte, 20<<10)...)
		}
		switch i % 5 {
		case 0:
			sctx, cancel := context.WithTimeout(ctx, time.Duration(i%7)*50*time.Microsecond)
			if err := w.Send(sctx, d); err == nil {
				accepted = append(accepted, string(d.Payload))
			} else {
				assert.ErrorIs(t, err, context.DeadlineExceeded)
			}
			cancel()
		case 1:
			if err := w.TrySend(d); err == nil {
				accepted = append(accepted, string(d.Payload))
			} else {
				assert.ErrorIs(t, err, reconnect.ErrWouldBlock)
			}
		case 2:
			ds := []datagram.Datagram{d, text(uint16(sender), "%d/%d", sender, i+1), text(uint16(sender), "%d/%d", sender, i+2)}
			k, err := w.SendBatch(ctx, ds)
			assert.NoError(t, err)
			assert.Equal(t, 3, k)
			for _, d := range ds[:k] {
				accepted = append(accepted, string(d.Payload))
			}
			i += 2
		default:
			assert.NoError(t, w.Send(ctx, d))
			accepted = append(accepted, string(d.Payload))
		}
		if i++; i%100 == 0 {
			assert.NoError(t, w.Flush(ctx))
		}
	}
	return accepted
}

var errEnough = errors.New("enough")

// receiveEveryWay puts what it receives into got, by sender. Taking and noting are one step, so that the order is that of
// arrival.
func receiveEveryWay(ctx context.Context, t *testing.T, c *reconnect.Conn, receiver int, mu *sync.Mutex, got [][]string) {
	batch := make([]datagram.Datagram, 1+receiver)
	for i := 0; ; i++ {
		rctx, cancel := context.WithTimeout(ctx, time.Duration(i%5)*100*time.Microsecond)
		mu.Lock()
		var err error
		if left := i%11 - 5; left > 0 {
			err = c.Reader().Each(rctx, func(d datagram.Datagram) error {
				got[d.Recipient] = append(got[d.Recipient], string(d.Payload))
				if left--; left == 0 {
					return errEnough
				}
				return nil
			})
			if err == nil {
				err = io.EOF
			}
		} else {
			var n int
			n, err = c.Reader().ReceiveBatch(rctx, batch)
			for _, d := range batch[:n] {
				got[d.Recipient] = append(got[d.Recipient], string(d.Payload))
			}
		}
		mu.Unlock()
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && err != errEnough {
			assert.Equal(t, io.EOF, err)
			return
		}
	}
}

// Ends of every kind, of both sides at any time, in the middle of cuts and of all calls: everybody returns, and nothing
// is left.
func TestSessionEndsAtAnyTime(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		s := memSession(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 4 << 10}})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cuts := rand.New(rand.NewPCG(seed, 8)) // the dialing goroutine's
		s.net.Faults().OnConn(func(_ int, c *mem.Faults) { c.CutAfter(mem.Both, cuts.Int64N(20_000), nil) })
		var wg sync.WaitGroup
		for _, c := range []*reconnect.Conn{s.a, s.b} {
			for i := range 3 {
				wg.Go(func() {
					for c.Writer().Send(ctx, numbered(i)) == nil {
					}
				})
				wg.Go(func() {
					for {
						if _, err := c.Reader().Receive(ctx); err != nil {
							return
						}
					}
				})
			}
			wg.Go(func() {
				for c.Writer().Flush(ctx) == nil && ctx.Err() == nil {
					if c.State() == reconnect.Closed {
						return
					}
					if err := c.Writer().Send(ctx, text(1, "")); err != nil {
						return
					}
				}
			})
			wg.Go(func() {
				for range c.Reader().C() {
				}
			})
		}
		wait := make(chan struct{})
		n := rng.IntN(200)
		wg.Go(func() {
			defer close(wait)
			for s.b.Stats().Received < uint64(n) && s.b.State() != reconnect.Closed {
				if _, err := s.b.Reader().Receive(ctx); err != nil {
					return
				}
			}
		})
		s.line.cut()
		<-wait
		ends := []func(c *reconnect.Conn){
			func(c *reconnect.Conn) { c.CloseNow() },
			func(c *reconnect.Conn) { c.Close(ctx) },
			func(c *reconnect.Conn) { c.Close(canceled(ctx)) },
			func(c *reconnect.Conn) { c.CloseSend(ctx); c.Close(ctx) },
			func(*reconnect.Conn) { s.l.Close() },
			func(*reconnect.Conn) {
				sctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
				defer cancel()
				s.l.Shutdown(sctx, 0, 0)
			},
		}
		for range 2 {
			end, c := ends[rng.IntN(len(ends))], []*reconnect.Conn{s.a, s.b}[rng.IntN(2)]
			wg.Go(func() { end(c) })
		}
		// One end at least ends; then the other does, or is ended.
		closed := make(chan struct{})
		go func() { wg.Wait(); close(closed) }()
		select {
		case <-s.a.Done():
		case <-s.b.Done():
		case <-ctx.Done():
			t.Fatal("nobody has ended", seed)
		}
		s.a.CloseNow()
		s.b.CloseNow()
		select {
		case <-closed:
		case <-ctx.Done():
			t.Fatal("somebody waits on", seed)
		}
		<-s.a.Done()
		<-s.b.Done()
		s.end()
		cancel()
	}
}
