package reconnect_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

func TestChannels(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		const n = 3000
		ctx := bounded(t)
		w, r := a.Writer().C(), b.Reader().C()
		require.Equal(t, w, a.Writer().C(), "always the same")
		require.Equal(t, r, b.Reader().C())
		go func() {
			out := a.Writer().C()
			for i := range n {
				out <- text(uint16(i), "%d", i)
			}
			close(out) // is CloseSend
		}()
		i := 0
		for d := range b.Reader().C() {
			require.Equal(t, text(uint16(i), "%d", i), d)
			i++
		}
		require.Equal(t, n, i)
		require.Equal(t, io.EOF, b.Err())
		require.NoError(t, b.Close(ctx))
		require.NoError(t, a.Close(ctx))
	})
}

func TestCloseCoversTheChannel(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		a.Writer().C() <- text(1, "before Close")
		require.NoError(t, b.CloseSend(ctx))
		require.NoError(t, a.Close(ctx))
		d, err := b.Reader().Receive(ctx)
		require.NoError(t, err)
		assert.Equal(t, text(1, "before Close"), d)
	})
}

// A datagram that the channel took and that did not get into the full queue is counted by Close.
func TestCloseCountsWhatTheChannelTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memPair(t, &mem.Config{Buffer: 1 << 10}, &reconnect.PlainOptions{SendBuffer: 2 << 10})
		taken := uint64(0)
		d := datagram.Datagram{Payload: make([]byte, 1<<10)}
		out := a.Writer().C()
		for full := false; !full; {
			synctest.Wait()
			select {
			case out <- d:
				taken++
			default:
				full = true
			}
		}
		s := a.Stats()
		require.Equal(t, taken, s.Sent+1, "one is in the goroutine's hand")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, a.Writer().Flush(ctx), context.DeadlineExceeded)
		var unsent *reconnect.CloseError
		require.ErrorAs(t, a.Close(ctx), &unsent)
		assert.Equal(t, s.Queued+1, unsent.Unsent)
	})
}

// What has gone from the channel to the queue is counted there, and not twice.
func TestCloseCountsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := memPair(t, &mem.Config{Buffer: 1 << 10}, nil)
		a.Writer().C() <- text(1, "gone")
		require.NoError(t, a.Writer().Flush(context.Background()))
		require.NoError(t, a.Writer().Send(context.Background(), datagram.Datagram{Payload: make([]byte, 8<<10)}))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var unsent *reconnect.CloseError
		require.ErrorAs(t, a.Close(ctx), &unsent)
		assert.EqualValues(t, 1, unsent.Unsent)
	})
}

func TestUnsendableInTheChannelEndsTheConnection(t *testing.T) {
	a, _ := memPair(t, nil, &reconnect.PlainOptions{MaxPayload: 3})
	a.Writer().C() <- text(1, "four")
	<-a.Done()
	require.ErrorIs(t, a.Err(), datagram.ErrTooLarge)
	require.ErrorIs(t, a.Writer().Send(t.Context(), text(1, "")), datagram.ErrTooLarge)
}

func TestChannelIsClosedOnFailureAfterWhatArrived(t *testing.T) {
	raw, nc := mem.Pipe(nil)
	defer raw.Close()
	c := reconnect.NewPlain(nc, nil)
	defer c.CloseNow()
	b, err := datagram.Append(nil, text(1, "whole"))
	require.NoError(t, err)
	_, err = raw.Write(append(b, 1, 2, 3))
	require.NoError(t, err)
	require.NoError(t, raw.CloseWrite())
	var got []datagram.Datagram
	for d := range c.Reader().C() {
		got = append(got, d)
	}
	assert.Equal(t, []datagram.Datagram{text(1, "whole")}, got)
	assert.Equal(t, io.ErrUnexpectedEOF, c.Err())
}
