package reconnect_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

const syscallReset = syscall.ECONNRESET

func TestEveryFormOfSendAndReceive(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		w, r := a.Writer(), b.Reader()
		require.NoError(t, w.Send(ctx, text(1, "send")))
		require.NoError(t, w.TrySend(text(2, "")))
		n, err := w.SendBatch(ctx, []datagram.Datagram{text(3, "b0"), text(65535, "b1"), text(0, "b2")})
		require.NoError(t, err)
		require.Equal(t, 3, n)
		w.C() <- text(4, "channel")
		require.NoError(t, w.Flush(ctx))
		require.NoError(t, a.CloseSend(ctx))

		d, err := r.Receive(ctx)
		require.NoError(t, err)
		assert.Equal(t, text(1, "send"), d)
		got := []datagram.Datagram{}
		batch := make([]datagram.Datagram, 2)
		for len(got) < 3 {
			n, err := r.ReceiveBatch(ctx, batch[:min(2, 3-len(got))])
			require.NoError(t, err)
			got = append(got, batch[:n]...)
		}
		for d, err := range r.All(ctx) {
			require.NoError(t, err)
			got = append(got, d)
		}
		assert.Equal(t, []datagram.Datagram{{Recipient: 2, Payload: []byte{}}, text(3, "b0"), text(65535, "b1"), text(0, "b2"), text(4, "channel")}, got)
		_, err = r.Receive(ctx)
		assert.Equal(t, io.EOF, err, "the end is final and repeated")
		_, err = r.ReceiveBatch(ctx, batch)
		assert.Equal(t, io.EOF, err)
		assert.Equal(t, io.EOF, b.Err())
		n, err = r.ReceiveBatch(ctx, nil)
		assert.NoError(t, err)
		assert.Zero(t, n)
	})
}

func TestPayloadIsTheCallersAgainAfterSend(t *testing.T) {
	a, b := memPair(t, &mem.Config{Buffer: 128}, &reconnect.PlainOptions{SendBuffer: 1 << 20})
	ctx := bounded(t)
	payload := make([]byte, 100<<10) // far more than the stream takes at once
	for i := range 5 {
		for j := range payload {
			payload[j] = byte(i)
		}
		require.NoError(t, a.Writer().Send(ctx, datagram.Datagram{Payload: payload}))
	}
	clear(payload)
	for i := range 5 {
		d, err := b.Reader().Receive(ctx)
		require.NoError(t, err)
		assert.Equal(t, 100<<10, bytes.Count(d.Payload, []byte{byte(i)}))
	}
}

// In a bubble synctest.Wait returns when the writing goroutine is stuck in a full stream: the queue is then exactly
// known.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 4 << 10}, &reconnect.PlainOptions{SendBuffer: 32 << 10})
		ctx := context.Background()
		w := a.Writer()
		message := func(i int) datagram.Datagram {
			d := text(1, "%08d", i)
			d.Payload = append(d.Payload, make([]byte, 1<<10)...)
			return d
		}
		sent := 0
		for ; ; sent++ {
			if err := w.TrySend(message(sent)); err != nil {
				require.ErrorIs(t, err, reconnect.ErrWouldBlock)
				break
			}
			synctest.Wait()
		}
		s := a.Stats()
		assert.EqualValues(t, sent, s.Sent)
		assert.NotZero(t, s.Queued)
		assert.LessOrEqual(t, s.QueuedBytes, 34<<10)
		assert.GreaterOrEqual(t, s.QueuedBytes, 16<<10)

		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.ErrorIs(t, w.Send(short, message(-1)), context.DeadlineExceeded)
		n, err := w.SendBatch(short, []datagram.Datagram{message(-1)})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Zero(t, n)
		require.ErrorIs(t, w.Flush(short), context.DeadlineExceeded)

		// A batch that is too long for the room there is goes in by parts, and a context that ends in the middle tells
		// how far.
		long := make([]datagram.Datagram, 100)
		for i := range long {
			long[i] = message(sent + i)
		}
		batched := make(chan int, 1)
		batchCtx, cancelBatch := context.WithCancelCause(ctx)
		defer cancelBatch(nil)
		go func() {
			n, err := w.SendBatch(batchCtx, long)
			assert.ErrorContains(t, err, "enough")
			batched <- n
		}()
		received := 0
		for received < sent/2+30 {
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, message(received), d)
			received++
		}
		synctest.Wait()
		cancelBatch(errors.New("enough"))
		sent += <-batched
		require.EqualValues(t, sent, a.Stats().Sent)

		// The next message stands directly behind what was accepted.
		go func() { assert.NoError(t, w.Send(ctx, message(sent))) }()
		for ; received <= sent; received++ {
			d, err := b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, message(received), d)
		}
		require.NoError(t, w.Flush(ctx))
		assert.Equal(t, reconnect.Stats{Sent: uint64(sent) + 1}, a.Stats())
		assert.EqualValues(t, sent+1, b.Stats().Received)
	})
}

func TestContextThatHasEnded(t *testing.T) {
	a, b := memPair(t, nil, nil)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, a.Writer().Send(ctx, text(1, "x")), why)
	_, err := a.Writer().SendBatch(ctx, []datagram.Datagram{text(1, "x")})
	require.ErrorIs(t, err, why)
	require.NoError(t, a.Writer().Send(t.Context(), text(1, "y")))
	_, err = b.Reader().Receive(ctx)
	require.ErrorIs(t, err, why)
	_, err = b.Reader().ReceiveBatch(ctx, make([]datagram.Datagram, 1))
	require.ErrorIs(t, err, why)
	d, err := b.Reader().Receive(t.Context())
	require.NoError(t, err)
	assert.Equal(t, text(1, "y"), d, "nothing refused was sent, nothing sent was lost")
}

// Senders and receivers whose contexts end all the time: what was accepted arrives, once, in each sender's order, and
// nothing else does.
func TestManyGoroutinesAndContextsThatEnd(t *testing.T) {
	overPairs(t, &reconnect.PlainOptions{SendBuffer: 2 << 10}, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		const senders, each = 16, 300
		accepted := make([][]string, senders)
		var sending sync.WaitGroup
		for s := range senders {
			sending.Go(func() {
				for i := range each {
					sctx, cancel := context.WithCancel(ctx)
					if i%3 == 0 {
						time.AfterFunc(time.Duration(i%7)*50*time.Microsecond, cancel)
					}
					d := text(uint16(s), "%d/%d", s, i)
					err := a.Writer().Send(sctx, d)
					if err == nil {
						accepted[s] = append(accepted[s], string(d.Payload))
					} else {
						assert.ErrorIs(t, err, context.Canceled)
					}
					cancel()
				}
			})
		}
		var mu sync.Mutex
		got := make([][]string, senders)
		var receiving sync.WaitGroup
		for range 4 {
			receiving.Go(func() {
				for i := 0; ; i++ {
					rctx, cancel := context.WithCancel(ctx)
					time.AfterFunc(time.Duration(i%5)*50*time.Microsecond, cancel)
					mu.Lock() // taking and noting are one step, so that the order is the order of arrival
					d, err := b.Reader().Receive(rctx)
					if err == nil {
						got[d.Recipient] = append(got[d.Recipient], string(d.Payload))
					}
					mu.Unlock()
					cancel()
					if err != nil && !errors.Is(err, context.Canceled) {
						assert.Equal(t, io.EOF, err)
						return
					}
				}
			})
		}
		sending.Wait()
		require.NoError(t, a.CloseSend(ctx))
		receiving.Wait()
		assert.Equal(t, accepted, got)
	})
}

func TestReceiversShareWhatArrives(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		const n = 2000
		var mu sync.Mutex
		seen := map[string]int{}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					d, err := b.Reader().Receive(ctx)
					if err != nil {
						assert.Equal(t, io.EOF, err)
						return
					}
					mu.Lock()
					seen[string(d.Payload)]++
					mu.Unlock()
				}
			})
		}
		for i := range n {
			require.NoError(t, a.Writer().Send(ctx, text(1, "%d", i)))
		}
		require.NoError(t, a.CloseSend(ctx))
		wg.Wait()
		assert.Len(t, seen, n)
		for k, v := range seen {
			assert.Equal(t, 1, v, k)
		}
	})
}

func TestTooLargeIsNotSent(t *testing.T) {
	a, b := memPair(t, nil, &reconnect.PlainOptions{MaxPayload: 10})
	ctx := bounded(t)
	large := datagram.Datagram{Payload: make([]byte, 11)}
	require.ErrorIs(t, a.Writer().Send(ctx, large), datagram.ErrTooLarge)
	require.ErrorIs(t, a.Writer().TrySend(large), datagram.ErrTooLarge)
	n, err := a.Writer().SendBatch(ctx, []datagram.Datagram{text(1, "good"), large, text(1, "not reached")})
	require.ErrorIs(t, err, datagram.ErrTooLarge)
	require.Equal(t, 1, n, "the error concerns the datagram at n")
	require.NoError(t, a.Close(closeSoon(t, b)))
	var got []datagram.Datagram
	for d, err := range b.Reader().All(ctx) {
		require.NoError(t, err)
		got = append(got, d)
	}
	assert.Equal(t, []datagram.Datagram{text(1, "good")}, got)
}

// closeSoon is a context for the Close of a connection whose peer reads only afterwards: it ends the peer's side for
// it.
func closeSoon(t *testing.T, peer *reconnect.Conn) context.Context {
	require.NoError(t, peer.CloseSend(bounded(t)))
	return bounded(t)
}

func TestBadFramesEndReceivingAndNotSending(t *testing.T) {
	for name, c := range map[string]struct {
		raw  string
		want error
	}{
		"size":      {"\x00\x00\x00\x03", datagram.ErrSize},
		"version":   {"\x00\x00\x00\x04\x00\x09\x00\x00", datagram.ErrVersion},
		"control":   {"\x00\x00\x00\x04\x00\x02\x00\x01", datagram.ErrVersion},
		"too large": {"\x7f\xff\xff\xff\x00\x01\x00\x00", datagram.ErrTooLarge},
		"cut":       {"\x00\x00\x00\x09\x00\x01\x00\x00hel", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			raw, nc := mem.Pipe(nil)
			defer raw.Close()
			c2 := reconnect.NewPlain(nc, nil)
			defer c2.CloseNow()
			ctx := bounded(t)
			good, err := datagram.Append(nil, text(1, "good"))
			require.NoError(t, err)
			_, err = raw.Write(append(good, c.raw...))
			require.NoError(t, err)
			require.NoError(t, raw.CloseWrite())

			d, err := c2.Reader().Receive(ctx)
			require.NoError(t, err, "what came before the bad frame is delivered")
			require.Equal(t, text(1, "good"), d)
			_, err = c2.Reader().Receive(ctx)
			require.ErrorIs(t, err, c.want)
			require.ErrorIs(t, c2.Err(), c.want)
			var last error
			for _, err := range c2.Reader().All(ctx) {
				last = err
			}
			require.ErrorIs(t, last, c.want, "All tells it once")

			require.NoError(t, c2.Writer().Send(ctx, d), "the answer to what was good can still be given")
			require.NoError(t, c2.Close(ctx))
			echoed, err := io.ReadAll(raw)
			require.NoError(t, err)
			assert.Equal(t, good, echoed)
		})
	}
}

func TestFailedWriteKillsTheConnection(t *testing.T) {
	na, nb := mem.Pipe(nil)
	a, b := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
	defer a.CloseNow()
	defer b.CloseNow()
	ctx := bounded(t)
	na.Faults().FailWrite(mem.Up, 2, 5, nil)
	require.NoError(t, a.Writer().Send(ctx, text(1, "whole")))
	require.NoError(t, a.Writer().Flush(ctx))
	err := a.Writer().Send(ctx, text(1, "cut inside its header"))
	require.NoError(t, err, "accepted; the write fails later")
	<-a.Done()
	require.ErrorIs(t, a.Err(), syscallReset)
	require.ErrorIs(t, a.Writer().Send(ctx, text(1, "never behind half a frame")), syscallReset)
	require.ErrorIs(t, a.Writer().Flush(ctx), syscallReset)
	_, err = a.Reader().Receive(ctx)
	require.ErrorIs(t, err, syscallReset)
	var unsent *reconnect.CloseError
	require.ErrorAs(t, a.Close(ctx), &unsent)
	assert.EqualValues(t, 1, unsent.Unsent)
	require.ErrorIs(t, unsent, syscallReset)

	d, err := b.Reader().Receive(ctx)
	require.NoError(t, err)
	assert.Equal(t, text(1, "whole"), d)
	_, err = b.Reader().Receive(ctx)
	assert.Equal(t, io.ErrUnexpectedEOF, err)
}

func TestLines(t *testing.T) {
	raw, nc := mem.Pipe(nil)
	defer raw.Close()
	c := reconnect.NewPlain(nc, &reconnect.PlainOptions{Framing: datagram.Lines{Recipient: 3}, MaxPayload: 100})
	defer c.CloseNow()
	ctx := bounded(t)
	_, err := raw.Write([]byte("hello\n\nworld\n"))
	require.NoError(t, err)
	for _, want := range []string{"hello", "", "world"} {
		d, err := c.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, text(3, "%s", want).String(), d.String())
		require.NoError(t, c.Writer().Send(ctx, d))
	}
	require.ErrorIs(t, c.Writer().Send(ctx, text(3, "a\nb")), datagram.ErrFraming)
	require.NoError(t, raw.CloseWrite())
	require.NoError(t, c.Close(ctx))
	echoed, err := io.ReadAll(raw)
	require.NoError(t, err)
	assert.Equal(t, "hello\n\nworld\n", string(echoed))
}

func TestAddresses(t *testing.T) {
	na, nb := tcpPair(t)
	c := reconnect.NewPlain(na, nil)
	assert.Equal(t, nb.RemoteAddr(), c.LocalAddr())
	assert.Equal(t, nb.LocalAddr(), c.RemoteAddr())
	assert.Same(t, na, c.NetConn())
	require.NoError(t, c.CloseNow())
}

func TestDialPlain(t *testing.T) {
	refused := errors.New("refused")
	_, err := reconnect.DialPlain(t.Context(), transport.DialerFunc(func(context.Context) (net.Conn, error) { return nil, refused }), nil)
	require.ErrorIs(t, err, refused)
}
