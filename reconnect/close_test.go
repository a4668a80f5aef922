package reconnect_test

import (
	"context"
	"errors"
	"io"
	"net"
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

func TestCloseSendsEverything(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		const n = 5000
		got := make(chan int)
		go func() {
			count := 0
			for d, err := range b.Reader().All(ctx) {
				assert.NoError(t, err)
				assert.Equal(t, text(1, "%d", count).Payload, d.Payload)
				count++
			}
			assert.NoError(t, b.Close(ctx))
			got <- count
		}()
		for i := range n {
			require.NoError(t, a.Writer().Send(ctx, text(1, "%d", i)))
		}
		require.NoError(t, a.Close(ctx))
		require.Equal(t, n, <-got)
		require.NoError(t, a.Close(ctx), "idempotent")
		require.NoError(t, a.CloseNow())
		require.ErrorIs(t, a.Writer().Send(ctx, text(1, "")), reconnect.ErrClosed)
		require.ErrorIs(t, a.Writer().Send(ctx, text(1, "")), net.ErrClosed)
		_, err := a.Reader().Receive(ctx)
		require.ErrorIs(t, err, reconnect.ErrClosed)
		require.ErrorIs(t, a.Err(), reconnect.ErrClosed)
	})
}

// Closing a socket that holds unread bytes resets it, and the reset can overtake what was sent last. Close waits for
// the peer's end instead.
func TestCloseWhilePeerIsStillSending(t *testing.T) {
	overPlain(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					assert.NoError(t, b.CloseSend(ctx))
					return
				default:
					if !assert.NoError(t, b.Writer().Send(ctx, text(1, "unasked for"))) {
						return
					}
				}
			}
		})
		wg.Go(func() {
			count := 0
			for _, err := range b.Reader().All(ctx) {
				if !assert.NoError(t, err) {
					return
				}
				count++
			}
			assert.Equal(t, 1000, count)
			close(stop)
		})
		for range 1000 {
			require.NoError(t, a.Writer().Send(ctx, text(1, "the last words")))
		}
		require.NoError(t, a.Close(ctx))
		wg.Wait()
	})
}

func TestCloseSendLeavesReceivingOpen(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		require.NoError(t, a.Writer().Send(ctx, text(1, "question")))
		require.NoError(t, a.CloseSend(ctx))
		require.NoError(t, a.CloseSend(ctx), "idempotent")
		require.ErrorIs(t, a.Writer().Send(ctx, text(1, "")), reconnect.ErrClosed)
		_, err := a.Writer().SendBatch(ctx, []datagram.Datagram{text(1, "")})
		require.ErrorIs(t, err, reconnect.ErrClosed)
		require.NoError(t, a.Err())

		d, err := b.Reader().Receive(ctx)
		require.NoError(t, err)
		_, err = b.Reader().Receive(ctx)
		require.Equal(t, io.EOF, err)
		require.NoError(t, b.Writer().Send(ctx, d))
		require.NoError(t, b.Close(ctx), "the peer has ended its side already: no wait")

		d, err = a.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, text(1, "question"), d)
		_, err = a.Reader().Receive(ctx)
		require.Equal(t, io.EOF, err)
		require.NoError(t, a.Close(ctx))
	})
}

// A peer that never reads cannot hold Close longer than its context, and Close says how much is left.
func TestCloseThatCannotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, nil)
		ctx := context.Background()
		for range 50 {
			require.NoError(t, a.Writer().Send(ctx, datagram.Datagram{Payload: make([]byte, 1<<10)}))
		}
		synctest.Wait()
		queued := a.Stats().Queued
		require.NotZero(t, queued)
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		start := time.Now()
		second := make(chan error)
		go func() { second <- a.Close(ctx) }()
		synctest.Wait()
		assert.NoError(t, a.Close(short), "a second Close ends the wait of the first one with its own context")
		assert.Equal(t, 3*time.Second, time.Since(start))
		var unsent *reconnect.CloseError
		require.ErrorAs(t, <-second, &unsent)
		assert.Equal(t, queued, unsent.Unsent)
		assert.Contains(t, unsent.Error(), "datagrams not known to have arrived")
		require.NoError(t, b.CloseNow())
	})
}

func TestCloseWhoseContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, nil)
		require.NoError(t, a.Writer().Send(context.Background(), datagram.Datagram{Payload: make([]byte, 64<<10)}))
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := a.CloseSend(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var unsent *reconnect.CloseError
		require.ErrorAs(t, err, &unsent)
		assert.EqualValues(t, 1, unsent.Unsent)

		// What CloseSend began goes on: once the peer reads, it gets everything and the end.
		d, err := b.Reader().Receive(context.Background())
		require.NoError(t, err)
		assert.Len(t, d.Payload, 64<<10)
		_, err = b.Reader().Receive(context.Background())
		require.Equal(t, io.EOF, err)
	})
}

func TestCloseWaitsForThePeersEndOnlySoLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, nil, nil)
		require.NoError(t, a.Writer().Send(context.Background(), text(1, "x")))
		start := time.Now()
		require.NoError(t, a.Close(context.Background()), "everything was sent")
		assert.Equal(t, 5*time.Second, time.Since(start))
		d, err := b.Reader().Receive(context.Background())
		require.NoError(t, err)
		assert.Equal(t, text(1, "x"), d)
	})
}

func TestClosesEndEveryWaiter(t *testing.T) {
	for name, end := range map[string]func(a *reconnect.Conn){
		"CloseNow": func(a *reconnect.Conn) { a.CloseNow() },
		"Close":    func(a *reconnect.Conn) { a.Close(canceled(context.Background())) },
	} {
		t.Run(name, func(t *testing.T) {
			overPairs(t, &reconnect.PlainOptions{SendBuffer: 1 << 10}, func(t *testing.T, a, b *reconnect.Conn) {
				ctx := bounded(t)
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						_, err := a.Reader().Receive(ctx)
						assert.ErrorIs(t, err, reconnect.ErrClosed)
					})
					wg.Go(func() {
						_, err := a.Reader().ReceiveBatch(context.Background(), make([]datagram.Datagram, 3))
						assert.ErrorIs(t, err, reconnect.ErrClosed)
					})
					wg.Go(func() {
						for {
							if err := a.Writer().Send(ctx, datagram.Datagram{Payload: make([]byte, 100<<10)}); err != nil {
								assert.ErrorIs(t, err, reconnect.ErrClosed)
								return
							}
						}
					})
					wg.Go(func() {
						// What was accepted before may have been written in time.
						if err := a.Writer().Flush(ctx); err != nil {
							assert.ErrorIs(t, err, reconnect.ErrClosed)
						}
					})
				}
				wg.Go(func() {
					for range a.Reader().C() {
					}
				})
				wg.Go(func() {
					for {
						select {
						case a.Writer().C() <- text(1, ""):
						case <-a.Writer().Done():
							return
						}
					}
				})
				// Something is under way in the writing goroutine before the end comes.
				for a.Stats().Queued == 0 {
				}
				end(a)
				wg.Wait()
				<-a.Done()
			})
		})
	}
}

// onlyConn is a net.Conn without half-close, and without a write that does not wait.
type onlyConn struct{ net.Conn }

func TestStreamWithoutHalfClose(t *testing.T) {
	na, nb := mem.Pipe(nil)
	a, b := reconnect.NewPlain(onlyConn{na}, nil), reconnect.NewPlain(onlyConn{nb}, nil)
	defer b.CloseNow()
	ctx := bounded(t)
	require.ErrorIs(t, a.CloseSend(ctx), errors.ErrUnsupported)
	require.NoError(t, a.Writer().Send(ctx, text(1, "still open")))
	require.NoError(t, a.Close(ctx))
	d, err := b.Reader().Receive(ctx)
	require.NoError(t, err)
	assert.Equal(t, text(1, "still open"), d)
	_, err = b.Reader().Receive(ctx)
	assert.Equal(t, io.EOF, err)
}
