package mux_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
)

// A handler that waits for its context does not outlive the connection for longer than it says, whoever ends that, beside
// which recipients or not; and the connection is over then.
func TestHandlerContextEnds(t *testing.T) {
	for how, c := range map[string]struct {
		end   func(w *world, c *mux.Conn)
		after time.Duration
		why   error
	}{
		"this side, at once": {func(w *world, _ *mux.Conn) { w.one().CloseNow() }, 0, reconnect.ErrClosed},
		"this side":          {func(w *world, _ *mux.Conn) { go w.one().Close(context.Background()) }, 0, reconnect.ErrClosed},
		"the peer, at once":  {func(_ *world, c *mux.Conn) { c.CloseNow() }, time.Minute, reconnect.ErrPeerClosed},
		"the peer":           {func(_ *world, c *mux.Conn) { go c.Close(context.Background()) }, time.Minute, io.EOF},
		"the server":         {func(w *world, _ *mux.Conn) { w.server.Close() }, 0, mux.ErrServerClosed},
	} {
		for _, beside := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ctx := context.Background()
				begun, ended := make(chan struct{}), make(chan error)
				m := mux.New(&mux.Options{SideBySide: beside, QueueBytes: 1})
				m.HandleRaw(1, "waits", func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
					if len(d.Payload) > 0 {
						return nil
					}
					close(begun)
					<-ctx.Done()
					ended <- context.Cause(ctx)
					return nil
				})
				w := serve(t, m, nil)
				conn := w.dial(numbers(nil), nil)
				require.NoError(t, c0(ctx, conn, 1))
				<-begun
				for range 3 { // with these nothing is read when recipients are beside each other, either
					require.NoError(t, conn.Writer().Send(ctx, datagram.Datagram{Recipient: 1, Payload: []byte("x")}))
				}
				synctest.Wait()
				server := w.one()
				start := time.Now()
				c.end(w, conn)
				err := <-ended
				assert.ErrorIs(t, err, c.why, how)
				assert.InDelta(t, c.after, time.Since(start), float64(50*time.Millisecond), how)
				<-server.Done()
				assert.ErrorIs(t, server.Err(), c.why, how)
			})
		}
	}
}

// Nobody waits for the answer to a call when its caller's connection has ended: its context ends at once, and, where that
// cannot be told from a connection on which nothing more is sent, with Linger.
func TestCallContextEnds(t *testing.T) {
	for how, end := range map[string]func(c *mux.Conn){
		"Close":    func(c *mux.Conn) { go c.Close(context.Background()) },
		"CloseNow": func(c *mux.Conn) { go c.CloseNow() },
	} {
		synctest.Test(t, func(t *testing.T) {
			begun, ended := make(chan struct{}), make(chan struct{})
			w := serve(t, adder(nil, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
				close(begun)
				<-ctx.Done()
				close(ended)
				return number{}, ctx.Err()
			}), nil)
			c := w.dial(adder(nil, nil), nil)
			called := make(chan error)
			go func() {
				_, err := callAdd(context.Background(), c, 1, 1)
				called <- err
			}()
			<-begun
			server := w.one()
			start := time.Now()
			end(c)
			<-ended
			require.ErrorIs(t, <-called, reconnect.ErrClosed, how)
			<-server.Done()
			assert.Less(t, time.Since(start), time.Second, how)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		begun, ended := make(chan struct{}), make(chan struct{})
		w := serve(t, adder(&mux.Options{Linger: time.Hour}, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
			close(begun)
			<-ctx.Done()
			close(ended)
			return number{}, ctx.Err()
		}), nil)
		plain, err := reconnect.DialPlain(t.Context(), w.dialer(), nil)
		require.NoError(t, err)
		require.NoError(t, plain.Writer().Send(t.Context(), request(1, 0, 1)))
		<-begun
		server := w.one()
		start := time.Now()
		_ = plain.CloseNow()
		<-ended
		<-server.Done()
		assert.Equal(t, time.Hour, time.Since(start))
	})
}

// What had arrived is handled, with a context that lives, when the peer has closed.
func TestArrivedIsHandledAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, each = 40, time.Second
		handled := 0
		m := mux.New(nil)
		mux.Handle(m, 1, "number", mux.Msgpack{}, func(ctx context.Context, _ *mux.Conn, v number) error {
			<-time.After(each)
			assert.NoError(t, ctx.Err())
			assert.Equal(t, handled, v.N)
			handled++
			return nil
		})
		w := serve(t, m, nil)
		c := w.dial(numbers(nil), nil)
		for i := range n {
			require.NoError(t, mux.Send(t.Context(), c, number{i}))
		}
		server := w.one()
		require.NoError(t, c.Close(t.Context()))
		<-server.Done()
		assert.Equal(t, n, handled)
		assert.ErrorIs(t, server.Err(), io.EOF)
	})
}

// A call returns when its connection has ended, also while a handler that waits for it keeps the end from being read, and
// from Ready.
func TestCallEndsBesideAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := serve(t, adder(nil, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
			<-ctx.Done()
			return number{}, ctx.Err()
		}), nil)
		called, release := make(chan error), make(chan struct{})
		m := adder(nil, nil)
		m.HandleRaw(1, "waits", func(context.Context, *mux.Conn, datagram.Datagram) error { <-release; return nil })
		c := w.dial(m, nil)
		go func() {
			_, err := callAdd(context.Background(), c, 1, 1)
			called <- err
		}()
		require.NoError(t, c0(t.Context(), w.one(), 1))
		synctest.Wait()
		start := time.Now()
		_ = w.one().CloseNow()
		require.ErrorIs(t, <-called, reconnect.ErrPeerClosed)
		assert.InDelta(t, 5*time.Second, time.Since(start), float64(50*time.Millisecond))
		close(release)

		m = adder(&mux.Options{Ready: func(c *mux.Conn) error {
			_, err := callAdd(context.Background(), c, 1, 1)
			called <- err
			return err
		}}, nil)
		c = w.dial(m, nil)
		synctest.Wait()
		start = time.Now()
		_ = c.CloseNow()
		require.ErrorIs(t, <-called, reconnect.ErrClosed)
		assert.Zero(t, time.Since(start))
	})
}

// One call that takes long costs nothing for the datagrams behind it; with AckConsumed they are acknowledged when it is done.
func TestAcksBehindALongCall(t *testing.T) {
	ctx := bounded(t)
	begun, release := make(chan struct{}), make(chan struct{})
	m := adder(&mux.Options{Unknown: mux.UnknownDrop}, func(context.Context, *mux.Conn, sum) (number, error) {
		close(begun)
		<-release
		return number{}, nil
	})
	o := reconnect.SessionOptions{AckConsumed: true}
	w := serve(t, m, &reconnect.ListenOptions{SessionOptions: o})
	c, err := reconnect.Dial(ctx, w.dialer(), &reconnect.DialOptions{SessionOptions: o})
	require.NoError(t, err)
	defer c.CloseNow()
	require.NoError(t, c.Writer().Send(ctx, request(1, 0, 1)))
	<-begun
	const many = 100_000
	batch := make([]datagram.Datagram, 1000)
	for i := range batch {
		batch[i].Recipient = 99
	}
	for range many / len(batch) {
		_, err := c.Writer().SendBatch(ctx, batch)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return m.Stats().Unknown == many }, patience, time.Millisecond)
	assert.Equal(t, 1, mux.UnderWay(w.one()))
	assert.Equal(t, uint64(many+1), c.Stats().Unconfirmed)
	close(release)
	require.NoError(t, c.Writer().Flush(ctx))
	assert.Zero(t, mux.UnderWay(w.one()))
}

// Whatever the order in which they are done, what is acknowledged is what is done without a gap.
func TestAcksInAnyOrder(t *testing.T) {
	ctx := bounded(t)
	const n = 300
	release := make([]chan struct{}, n)
	for i := range release {
		release[i] = make(chan struct{})
	}
	begun := newNotes[int]()
	w := serve(t, adder(&mux.Options{Serving: n}, func(_ context.Context, _ *mux.Conn, s sum) (number, error) {
		begun.add(s.A)
		<-release[s.A]
		return number{}, nil
	}), &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}})
	c := w.dial(adder(nil, nil), nil)
	for i := range n {
		go func() { _, _ = callAdd(ctx, c, i, 0) }()
		begun.wait(t, 1)
	}
	unconfirmed := func(want int) {
		require.Eventually(t, func() bool { return c.Stats().Unconfirmed == uint64(want) }, patience, time.Millisecond, "%d", want)
	}
	server := w.one()
	unconfirmed(n)
	for i := n - 1; i > 0; i-- {
		close(release[i])
	}
	require.Eventually(t, func() bool { return mux.UnderWay(server) < 2+n/4 }, patience, time.Millisecond)
	unconfirmed(n)
	close(release[0])
	unconfirmed(0)
}

// A caller that gives up is heard of, also where there is no room for that at the moment.
func TestGivenUpWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, ended := make(chan struct{}), make(chan struct{})
		m := adder(&mux.Options{Unknown: mux.UnknownDrop}, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
			close(begun)
			<-ctx.Done()
			close(ended)
			return number{}, nil
		})
		w := serve(t, m, nil)
		c := w.dial(adder(nil, nil), &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 4 << 10}})
		ctx, cancel := context.WithCancel(t.Context())
		called := make(chan error)
		go func() {
			_, err := callAdd(ctx, c, 1, 1)
			called <- err
		}()
		<-begun
		w.net.Faults().RefuseDials(-1, nil)
		w.net.Faults().Cut(nil)
		for full := false; !full; {
			full = c.Writer().TrySend(datagram.Datagram{Recipient: 9, Payload: make([]byte, 100)}) != nil
		}
		cancel()
		require.ErrorIs(t, <-called, context.Canceled)
		w.net.Faults().RefuseDials(0, nil)
		<-ended
	})
}

// A call that waits for its turn and is given up makes room for others.
func TestGivenUpInTheQueue(t *testing.T) {
	ctx := bounded(t)
	begun, release := make(chan struct{}, 9), make(chan struct{})
	w := serve(t, adder(&mux.Options{Serving: 1, QueueBytes: 300}, func(context.Context, *mux.Conn, sum) (number, error) {
		begun <- struct{}{}
		<-release
		return number{}, nil
	}), nil)
	raw, err := reconnect.Dial(ctx, w.dialer(), nil)
	require.NoError(t, err)
	defer raw.CloseNow()
	require.NoError(t, raw.Writer().Send(ctx, request(1, 0, 1)))
	await(t, begun)
	answers := func(id byte, kind byte) {
		d, err := raw.Reader().Receive(ctx)
		require.NoError(t, err)
		assert.Equal(t, []byte{kind, id}, []byte{d.Payload[0], d.Payload[15]})
	}
	const fit = 4 // of 64 bytes and the request
	for id := range uint64(fit) {
		require.NoError(t, raw.Writer().Send(ctx, request(2+id, 0, 1)))
	}
	require.NoError(t, raw.Writer().Send(ctx, request(9, 0, 1)))
	answers(9, 3)
	giveUp := request(3, 0, 1)
	giveUp.Payload = append([]byte{4}, giveUp.Payload[1:16]...)
	require.NoError(t, raw.Writer().Send(ctx, giveUp))
	require.NoError(t, raw.Writer().Send(ctx, request(10, 0, 1)))
	require.NoError(t, raw.Writer().Send(ctx, request(11, 0, 1)))
	answers(11, 3)
	close(release)
	for _, id := range []byte{1, 2, 4, 5, 10} {
		answers(id, 2)
	}
}

// Broadcasts leave those out of which Ready has not decided yet.
func TestBroadcastIsForTheReady(t *testing.T) {
	ctx := bounded(t)
	in, out := make(chan struct{}), make(chan error)
	m := mux.New(&mux.Options{Ready: func(*mux.Conn) error {
		in <- struct{}{}
		return <-out
	}})
	mux.Handle[blob](m, 1, "blob", mux.Raw{}, nil)
	w := serve(t, m, nil)
	ready, err := reconnect.Dial(ctx, w.dialer(), nil)
	require.NoError(t, err)
	defer ready.CloseNow()
	await(t, in)
	out <- nil
	_, err = ready.Writer().SendBatch(ctx, nil)
	require.NoError(t, err)
	refused, err := reconnect.Dial(ctx, w.dialer(), nil)
	require.NoError(t, err)
	defer refused.CloseNow()
	await(t, in)
	require.Eventually(t, func() bool {
		n, err := mux.Broadcast(ctx, w.server, blob("secret"), mux.Skip)
		require.NoError(t, err)
		require.Less(t, n, 2)
		return n == 1
	}, patience, time.Millisecond, "one is ready")
	out <- errors.New("not you")
	_, err = refused.Reader().Receive(ctx)
	require.Error(t, err)
	d, err := ready.Reader().Receive(ctx)
	require.NoError(t, err)
	assert.Equal(t, "secret", string(d.Payload))
}

// Nothing is attached once the server is shutting down.
func TestAttachWhileShuttingDown(t *testing.T) {
	ctx := bounded(t)
	begun, release := make(chan struct{}), make(chan struct{})
	w := serve(t, adder(nil, func(context.Context, *mux.Conn, sum) (number, error) {
		close(begun)
		<-release
		return number{}, nil
	}), nil)
	c := w.dial(adder(nil, nil), nil)
	go func() { _, _ = callAdd(ctx, c, 1, 1) }()
	await(t, begun)
	done := make(chan error, 1)
	go func() { done <- w.server.Shutdown(ctx) }()
	require.ErrorIs(t, await(t, w.served), mux.ErrServerClosed)
	close(w.served)
	other := serve(t, adder(nil, add), nil)
	conn, err := reconnect.Dial(ctx, other.dialer(), nil)
	require.NoError(t, err)
	_, err = w.server.Attach(conn)
	require.ErrorIs(t, err, mux.ErrServerClosed)
	await(t, conn.Done())
	close(release)
	require.NoError(t, await(t, done))
}

// No tick begins once the server is closed.
func TestTickAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mux.NewServer(numbers(nil))
		in, out := make(chan struct{}), make(chan struct{})
		s.SetTick(time.Millisecond, func(s *mux.Server) {
			close(in)
			<-out
			s.SetTick(time.Millisecond, func(*mux.Server) { t.Error("a tick of a closed server, set by a tick") })
		})
		<-in
		require.NoError(t, s.Close())
		close(out)
		s.SetTick(time.Millisecond, func(*mux.Server) { t.Error("a tick of a closed server") })
		<-time.After(time.Second)
	})
}
