package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// overAll runs test over sessions on each transport, plain connections, and plain ones with another framing.
func overAll(t *testing.T, test func(t *testing.T, a, b *reconnect.Conn)) {
	for _, w := range worlds() {
		t.Run("session/"+w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			test(t, s.a, s.b)
		})
	}
	t.Run("plain", func(t *testing.T) { overPairs(t, nil, test) })
	t.Run("lines", func(t *testing.T) {
		overPairs(t, &reconnect.PlainOptions{Framing: datagram.Lines{Recipient: 1}}, test)
	})
}

// Each hands out all, in order; an error of f ends it, and what f has not seen is left to whoever receives next.
func TestEach(t *testing.T) {
	overAll(t, func(t *testing.T, a, b *reconnect.Conn) {
		const n = 5000
		ctx := bounded(t)
		sent := make(chan error, 1)
		go func() {
			for i := range n {
				if err := a.Writer().Send(ctx, text(1, "%d", i)); err != nil {
					sent <- err
					return
				}
			}
			sent <- a.CloseSend(ctx)
		}()
		i := 0
		take := func(d datagram.Datagram) {
			require.Equal(t, fmt.Sprint(i), string(d.Payload))
			i++
		}
		enough := errors.New("enough")
		for i < n/2 {
			stop := i + 1 + i%100
			err := b.Reader().Each(ctx, func(d datagram.Datagram) error {
				if take(d); i == stop {
					return enough
				}
				return nil
			})
			require.Equal(t, enough, err)
			require.Equal(t, stop, i)
			require.EqualValues(t, i, b.Stats().Received)
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			take(d)
			batch := make([]datagram.Datagram, 3)
			k, err := b.Reader().ReceiveBatch(ctx, batch)
			require.NoError(t, err)
			for _, d := range batch[:k] {
				take(d)
			}
		}
		assert.PanicsWithValue(t, "handler", func() {
			_ = b.Reader().Each(ctx, func(d datagram.Datagram) error {
				take(d)
				panic("handler")
			})
		})
		require.NoError(t, b.Reader().Each(ctx, func(d datagram.Datagram) error {
			take(d)
			return nil
		}), "the end of the peer's stream is none")
		require.Equal(t, n, i)
		require.NoError(t, <-sent)
	})
}

func TestEachEnds(t *testing.T) {
	overAll(t, func(t *testing.T, a, b *reconnect.Conn) {
		none := func(datagram.Datagram) error { return nil }
		require.ErrorIs(t, b.Reader().Each(canceled(t.Context()), none), context.Canceled)
		why := errors.New("had enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- b.Reader().Each(ctx, func(datagram.Datagram) error {
				cancel(why)
				return nil
			})
		}()
		require.NoError(t, a.Writer().Send(bounded(t), text(1, "x")))
		require.ErrorIs(t, <-ended, why)

		require.NoError(t, a.Writer().Send(bounded(t), text(1, "y")))
		d, err := b.Reader().Receive(bounded(t))
		require.NoError(t, err, "the connection was not harmed")
		require.Equal(t, "y", string(d.Payload))

		go func() { ended <- b.Reader().Each(context.Background(), none) }()
		require.NoError(t, b.CloseNow())
		require.ErrorIs(t, <-ended, reconnect.ErrClosed)
	})
}

// With AckConsumed what Each has handed out counts as received one by one.
func TestEachAckConsumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}}, nil)
		defer s.end()
		ctx := t.Context()
		for i := range 10 {
			require.NoError(t, s.a.Writer().Send(ctx, text(1, "%d", i)))
		}
		synctest.Wait()
		n := 0
		require.Equal(t, errEnough, s.b.Reader().Each(ctx, func(datagram.Datagram) error {
			n++
			require.Error(t, s.b.Reader().Ack(2))
			require.NoError(t, s.b.Reader().Ack(1))
			if n == 6 {
				return errEnough
			}
			return nil
		}))
		<-time.After(time.Second)
		require.EqualValues(t, 4, s.a.Stats().Unconfirmed)
	})
}

// A connection is read although the application does not receive, and has just received.
func TestReadingGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		exchange(t, s.a, s.b, 3, func() {}) // both read for themselves now
		start := time.Now()
		for range 20 {
			require.NoError(t, s.a.Writer().Send(t.Context(), text(1, "nobody receives")))
			require.NoError(t, s.a.Writer().Flush(t.Context()))
		}
		require.LessOrEqual(t, time.Since(start), 2*time.Millisecond+20*25*time.Millisecond, "each acknowledged, after a while")
		require.Equal(t, 20, s.b.Stats().Waiting/len("\x00\x00\x00\x00\x00\x00\x00\x00nobody receives"))
	})
}
