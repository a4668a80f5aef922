package mux_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	towtls "github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// One server serves all transports at once, sessions and plain connections, with several listeners.
func TestServeEverything(t *testing.T) {
	ctx := bounded(t)
	cert, err := towtls.SelfSigned()
	require.NoError(t, err)
	served, trusted := &tls.Config{Certificates: []tls.Certificate{cert}}, new(tls.Config)
	require.NoError(t, towtls.PinFingerprint(trusted, towtls.Fingerprint(cert.Leaf)))
	n := new(mem.Network)
	path := filepath.Join(t.TempDir(), "s")
	lnTCP, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	require.NoError(t, err)
	lnTLS, err := towtls.Listen(ctx, "127.0.0.1:0", &towtls.Config{TLS: served})
	require.NoError(t, err)
	lnQUIC, err := quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: served})
	require.NoError(t, err)
	lnUnix, err := unix.Listen(ctx, path, nil)
	require.NoError(t, err)
	dialers := map[string]transport.Dialer{
		"tcp":  tcp.Dialer{Addr: lnTCP.Addr().String()},
		"tls":  towtls.Dialer{Addr: lnTLS.Addr().String(), Config: trusted},
		"quic": quic.Dialer{Addr: lnQUIC.Addr().String(), Config: trusted},
		"unix": unix.Dialer{Path: path},
		"mem":  mem.Dialer{Network: n, Addr: "s"},
	}
	s := mux.NewServer(adder(nil, add))
	first, second := reconnect.NewListener(lnTCP, nil), reconnect.NewListener(lnTLS, nil)
	first.Add(lnQUIC)
	first.Add(lnUnix)
	second.Add(listen(t, n, "s"))
	served2 := make(chan error, 2)
	go func() { served2 <- s.Serve(first) }()
	go func() { served2 <- s.Serve(second) }()

	m := adder(nil, nil)
	plainClients := mux.NewServer(m)
	var conns []*mux.Conn
	for name, d := range dialers {
		c, err := m.Dial(ctx, d, nil)
		require.NoError(t, err, name)
		plain, err := reconnect.DialPlain(ctx, d, nil)
		require.NoError(t, err, name)
		p, err := plainClients.Attach(plain)
		require.NoError(t, err, name)
		o, err := m.Open(d, nil)
		require.NoError(t, err, name)
		for _, c := range []*mux.Conn{c, p, o} {
			got, err := callAdd(ctx, c, 1, 2)
			require.NoError(t, err, name)
			assert.Equal(t, 3, got)
		}
		assert.True(t, c.IsSession())
		assert.False(t, p.IsSession())
		conns = append(conns, c, p, o)
	}
	for _, c := range conns {
		require.NoError(t, c.Close(ctx))
		await(t, c.Done())
	}
	require.NoError(t, s.Shutdown(ctx))
	require.Equal(t, mux.ErrServerClosed, await(t, served2))
	require.Equal(t, mux.ErrServerClosed, await(t, served2))

	require.Equal(t, mux.ErrServerClosed, s.Serve(reconnect.NewListener(listen(t, n, "t"), nil)))
	a, b := mem.Pipe(nil)
	defer b.Close()
	_, err = s.Attach(reconnect.NewPlain(a, nil))
	require.Equal(t, mux.ErrServerClosed, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Shutdown(ctx))
}

// The end of a listener is the end of its Serve alone.
func TestListenerEnds(t *testing.T) {
	n := new(mem.Network)
	ln := listen(t, n, "s")
	s := mux.NewServer(mux.New(nil))
	l := reconnect.NewListener(ln, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	ln.Close()
	require.ErrorIs(t, await(t, served), net.ErrClosed)
	w := serve(t, adder(nil, add), nil)
	c := w.dial(adder(nil, nil), nil)
	_, err := callAdd(bounded(t), c, 1, 2)
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

// Ready comes before the first datagram, Closed after the last, each once; a refusal ends the connection.
func TestReadyAndClosed(t *testing.T) {
	ctx := bounded(t)
	events := newNotes[string]()
	refuse := errors.New("not you")
	m := mux.New(&mux.Options{
		Ready: func(c *mux.Conn) error {
			events.add("ready")
			if c.ID() == 2 {
				return refuse
			}
			return nil
		},
		Closed: func(c *mux.Conn, err error) {
			assert.Equal(t, c.Err(), err)
			if c.ID() == 2 {
				assert.Equal(t, refuse, err)
			} else {
				assert.Equal(t, io.EOF, err)
			}
			events.add("closed")
		},
	})
	mux.Handle(m, 1, "number", mux.Msgpack{}, func(context.Context, *mux.Conn, number) error {
		events.add("number")
		return nil
	})
	w := serve(t, m, nil)
	for i := range 2 {
		c := w.dial(numbers(nil), nil)
		_ = mux.Send(ctx, c, number{}) // the second may have been refused
		if i == 0 {
			events.wait(t, 2)
			require.NoError(t, c.Close(ctx))
			await(t, c.Done())
			assert.ErrorIs(t, c.Err(), reconnect.ErrClosed)
			events.wait(t, 1) // the server may hear of the end later
		}
		await(t, c.Done())
	}
	assert.Equal(t, []string{"ready", "number", "closed", "ready", "closed"}, events.wait(t, 2))
}

// When the peer ends its sending, handlers finish and their answers are sent before the connection ends.
func TestPeerEndsItsSending(t *testing.T) {
	ctx := bounded(t)
	for _, sideBySide := range []bool{false, true} {
		goOn := make(chan struct{})
		m := mux.New(&mux.Options{SideBySide: sideBySide})
		mux.Handle(m, 1, "number", mux.Msgpack{}, func(ctx context.Context, c *mux.Conn, v number) error {
			<-goOn
			return mux.Send(ctx, c, v)
		})
		w := serve(t, m, nil)
		got := newNotes[number]()
		cm := mux.New(nil)
		mux.Handle(cm, 1, "number", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) error {
			got.add(v)
			return nil
		})
		c := w.dial(cm, nil)
		for i := range 10 {
			require.NoError(t, mux.Send(ctx, c, number{i}))
		}
		require.NoError(t, c.CloseSend(ctx))
		close(goOn)
		await(t, c.Done())
		assert.Len(t, got.wait(t, 10), 10)
		assert.Equal(t, io.EOF, c.Err())
	}
}

// Shutdown waits for handlers and for what is unconfirmed, and lets sessions go on elsewhere: nothing that was accepted
// is lost, as the number of answers shows.
func TestShutdown(t *testing.T) { synctest.Test(t, testShutdown) }

func testShutdown(t *testing.T) {
	ctx := bounded(t)
	n := new(mem.Network)
	var done atomic.Int64
	begun, goOn := make(chan struct{}, 1), make(chan struct{})
	protocol := func(hold bool) *mux.Mux {
		m := adder(nil, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
			if hold {
				begun <- struct{}{}
				<-goOn
			}
			return add(ctx, c, s)
		})
		mux.Handle(m, 1, "number", mux.Msgpack{}, func(ctx context.Context, c *mux.Conn, v number) error {
			done.Add(1)
			return nil
		})
		return m
	}
	w := serveOn(t, n, protocol(true), nil)
	goAway, lost := make(chan struct{}, 1), make(chan struct{}, 1)
	cm := adder(nil, nil)
	mux.Handle[number](cm, 1, "number", mux.Msgpack{}, nil)
	c := w.dial(cm, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: func(_ *reconnect.Conn, e reconnect.Event) {
		switch e.Kind {
		case reconnect.EventGoAway:
			goAway <- struct{}{}
		case reconnect.EventLost:
			lost <- struct{}{}
		}
	}}})
	results := make(chan error, 1)
	go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
	await(t, begun)
	shut := make(chan error, 1)
	go func() { shut <- w.server.Shutdown(ctx) }()
	await(t, goAway)
	require.Equal(t, mux.ErrServerClosed, await(t, w.served))
	close(w.served)
	require.NoError(t, mux.Send(ctx, c, number{1})) // is still handled
	require.NoError(t, c.Writer().Flush(ctx))
	<-time.After(10 * time.Second)
	select {
	case <-shut:
		require.Fail(t, "it did not wait")
	default:
	}
	close(goOn)
	require.NoError(t, await(t, results))
	require.NoError(t, await(t, shut))
	assert.Equal(t, int64(1), done.Load())

	await(t, lost)
	next := serveOn(t, n, protocol(false), nil)
	got, err := callAdd(ctx, c, 2, 3)
	require.NoError(t, err)
	assert.Equal(t, 5, got)
	next.one()
}

// When its time is over Shutdown cuts: contexts of handlers end, and it says how many were not done.
func TestShutdownIsBounded(t *testing.T) {
	ctx := bounded(t)
	begun, released := make(chan struct{}), make(chan struct{})
	m := adder(nil, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
		close(begun)
		<-ctx.Done()
		assert.Equal(t, mux.ErrServerClosed, context.Cause(ctx))
		<-released // takes its time all the same
		return number{}, nil
	})
	w := serve(t, m, nil)
	c := w.dial(adder(nil, nil), nil)
	go func() { _, _ = callAdd(ctx, c, 1, 1) }()
	await(t, begun)
	late := errors.New("late")
	soon, cancel := context.WithTimeoutCause(ctx, 20*time.Millisecond, late)
	defer cancel()
	err := w.server.Shutdown(soon)
	require.ErrorIs(t, err, late)
	assert.ErrorContains(t, err, "1 connections were not done")
	soon, cancel = context.WithTimeoutCause(ctx, 20*time.Millisecond, late)
	defer cancel()
	require.ErrorIs(t, w.server.Shutdown(soon), late, "the handler has not returned")
	close(released)
	require.NoError(t, w.server.Shutdown(ctx))
}

// Plain connections and attached ones are closed in good order, with all that was to be sent.
func TestShutdownOfPlainConnections(t *testing.T) {
	ctx := bounded(t)
	w := serve(t, adder(nil, add), nil)
	nc, err := w.dialer().DialContext(ctx)
	require.NoError(t, err)
	raw := reconnect.NewPlain(nc, nil)
	defer raw.CloseNow()
	require.NoError(t, raw.Writer().Send(ctx, request(5, 0, 1)))
	s := mux.NewServer(adder(nil, add))
	conn, err := reconnect.Dial(ctx, w.dialer(), nil)
	require.NoError(t, err)
	c, err := s.Attach(conn)
	require.NoError(t, err)
	got, err := callAdd(ctx, c, 1, 2)
	require.NoError(t, err)
	assert.Equal(t, 3, got)
	require.NoError(t, s.Shutdown(ctx))
	await(t, c.Done())

	shut := make(chan error, 1)
	go func() { shut <- w.server.Shutdown(ctx) }()
	d, err := raw.Reader().Receive(ctx)
	require.NoError(t, err)
	assert.Equal(t, byte(2), d.Payload[0])
	_, err = raw.Reader().Receive(ctx)
	require.Equal(t, io.EOF, err)
	require.NoError(t, raw.Close(ctx))
	require.NoError(t, await(t, shut))
}

// Ticks come when they should, for a connection and for all, never twice at once; set, changed and cleared while they run,
// by themselves and by others.
func TestTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ticks, all atomic.Int64
		ready := make(chan *mux.Conn, 1)
		m := mux.New(&mux.Options{Ready: func(c *mux.Conn) error {
			c.SetTick(time.Second, func(c *mux.Conn) { ticks.Add(1) })
			ready <- c
			return nil
		}})
		w := serve(t, m, nil)
		c := w.dial(numbers(nil), nil)
		server := <-ready
		pass := func(d time.Duration) {
			<-time.After(d + time.Microsecond)
			synctest.Wait()
		}
		pass(3 * time.Second)
		assert.Equal(t, int64(3), ticks.Load())
		server.SetTick(100*time.Millisecond, func(c *mux.Conn) {
			assert.Equal(t, server, c)
			ticks.Add(1)
			<-time.After(400 * time.Millisecond) // longer than the tick: the next comes after it
		})
		pass(time.Second)
		assert.Equal(t, int64(5), ticks.Load())
		server.SetTick(time.Second, nil)
		pass(time.Minute)
		assert.Equal(t, int64(5), ticks.Load())
		server.SetTick(time.Second, func(c *mux.Conn) {
			if ticks.Add(1) == 7 {
				c.SetTick(0, nil)
			}
		})
		pass(time.Minute)
		assert.Equal(t, int64(7), ticks.Load())

		w.server.SetTick(time.Second, func(s *mux.Server) {
			assert.Equal(t, w.server, s)
			for range s.Conns() {
				all.Add(1)
			}
			if all.Load() == 5 {
				panic("enough")
			}
		})
		server.SetTick(time.Second, func(*mux.Conn) { ticks.Add(1) })
		pass(3 * time.Second)
		assert.Equal(t, int64(3), all.Load())
		assert.Equal(t, int64(10), ticks.Load())
		over(t, c)
		pass(time.Minute)
		assert.LessOrEqual(t, ticks.Load(), int64(11), "with the connection they end")
		assert.Equal(t, int64(3), all.Load(), "there is none any more")
		c = w.dial(numbers(nil), nil)
		<-ready
		pass(time.Minute)
		assert.Equal(t, int64(5), all.Load(), "a panic ends it, and nothing else")
		w.server.SetTick(time.Second, func(*mux.Server) { all.Add(1) })
		over(t, c)
		w.end()
		before := all.Load()
		pass(time.Minute)
		assert.Equal(t, before, all.Load())
	})
}

// Connections come and go while others look them up, range over them, send to them, broadcast, and tick.
func TestRegistryRaces(t *testing.T) {
	ctx := bounded(t)
	var ready, closed, received atomic.Int64
	m := mux.New(&mux.Options{
		Ready:  func(c *mux.Conn) error { ready.Add(1); c.SetValue(c.ID()); return nil },
		Closed: func(*mux.Conn, error) { closed.Add(1) },
	})
	mux.Handle[number](m, 1, "number", mux.Msgpack{}, nil)
	// A client that says no goodbye in time leaves its session to expire.
	w := serve(t, m, &reconnect.ListenOptions{Expiry: 200 * time.Millisecond})
	client := mux.New(nil)
	mux.Handle(client, 1, "number", mux.Msgpack{}, func(context.Context, *mux.Conn, number) error { received.Add(1); return nil })
	const clients, rounds = 8, 12
	stop := make(chan struct{})
	var coming, looking sync.WaitGroup
	for range clients {
		coming.Go(func() {
			for range rounds {
				c, err := client.Dial(ctx, w.dialer(), nil)
				if !assert.NoError(t, err) {
					return
				}
				before := received.Load()
				for received.Load() == before && ctx.Err() == nil {
					select {
					case <-c.Done():
					case <-time.After(time.Millisecond):
					}
				}
				if rand.IntN(2) == 0 {
					_ = c.CloseNow()
				} else {
					_ = c.Close(ctx)
				}
				<-c.Done()
			}
		})
	}
	look := func(fn func()) {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					fn()
				}
			}
		})
	}
	look(func() {
		for c := range w.server.Conns() {
			if again, ok := w.server.Conn(c.ID()); ok {
				assert.Same(t, c, again)
			}
			_ = mux.Send(ctx, c, number{1})
		}
	})
	look(func() {
		_, err := mux.Broadcast(ctx, w.server, number{2}, mux.Disconnect)
		if err != nil {
			assert.ErrorAs(t, err, new(*mux.BroadcastError))
		}
	})
	look(func() { w.server.SetTick(time.Millisecond, func(s *mux.Server) { _, _ = s.Conn(1) }) })
	look(func() {
		for c := range w.server.Conns() {
			c.SetTick(time.Millisecond, func(c *mux.Conn) { _ = c.Value() })
		}
	})
	coming.Wait()
	close(stop)
	looking.Wait()
	require.NoError(t, w.server.Shutdown(ctx))
	assert.Equal(t, int64(clients*rounds), ready.Load())
	assert.Equal(t, ready.Load(), closed.Load())
	_, ok := w.server.Conn(1)
	assert.False(t, ok)
}

// A slow recipient stops nobody but itself, until its queue is full; then it stops the reading, and nothing is lost.
func TestSlowBesideFast(t *testing.T) {
	ctx := bounded(t)
	const n = 100
	begun, goOn := make(chan struct{}, n), make(chan struct{})
	slow, fast := newNotes[int](), newNotes[int]()
	m := mux.New(&mux.Options{SideBySide: true, QueueBytes: 10 * (64 + 1)})
	m.HandleRaw(1, "slow", func(_ context.Context, _ *mux.Conn, d datagram.Datagram) error {
		begun <- struct{}{}
		<-goOn
		slow.add(int(d.Payload[0]))
		return nil
	})
	m.HandleRaw(2, "fast", func(_ context.Context, _ *mux.Conn, d datagram.Datagram) error {
		fast.add(int(d.Payload[0]))
		return nil
	})
	w := serve(t, m, nil)
	c := w.dial(numbers(nil), nil)
	send := func(recipient uint16, i int) {
		require.NoError(t, c.Writer().Send(ctx, datagram.Datagram{Recipient: recipient, Payload: []byte{byte(i)}}))
	}
	var want []int
	for i := range n {
		if i < 10 {
			send(1, i) // ten fit into its queue, one of them at work
		}
		send(2, i)
		want = append(want, i)
	}
	await(t, begun)
	assert.Equal(t, want, fast.wait(t, n))
	for i := range n {
		send(2, i)
		if i >= 10 {
			send(1, i)
		}
	}
	close(goOn)
	assert.Equal(t, want, slow.wait(t, n))
	assert.Equal(t, append(want, want...), fast.wait(t, n))
}

// A queue that is full stops the reading, and with it the fast ones, until there is room.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow, fast atomic.Int64
		goOn := make(chan struct{})
		m := mux.New(&mux.Options{SideBySide: true, QueueBytes: 3 * 64})
		m.HandleRaw(1, "slow", func(context.Context, *mux.Conn, datagram.Datagram) error { <-goOn; slow.Add(1); return nil })
		m.HandleRaw(2, "fast", func(context.Context, *mux.Conn, datagram.Datagram) error { fast.Add(1); return nil })
		w := serve(t, m, nil)
		c := w.dial(numbers(nil), nil)
		for range 4 {
			require.NoError(t, c0(t.Context(), c, 2))
			require.NoError(t, c0(t.Context(), c, 1))
		}
		require.NoError(t, c0(t.Context(), c, 2))
		synctest.Wait()
		assert.Equal(t, int64(4), fast.Load(), "the fifth is behind what has no room")
		goOn <- struct{}{}
		synctest.Wait()
		assert.Equal(t, int64(5), fast.Load())
		assert.Equal(t, int64(1), slow.Load())
		close(goOn)
		synctest.Wait()
		assert.Equal(t, int64(4), slow.Load())
		over(t, c)
		w.end()
	})
}

// An end of the connection ends the wait for a queue, and what is in it is not handled.
func TestEndWithAFullQueue(t *testing.T) {
	ctx := bounded(t)
	odd := errors.New("odd")
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	closed := make(chan error, 1)
	m := mux.New(&mux.Options{SideBySide: true, QueueBytes: 1, Closed: func(_ *mux.Conn, err error) { closed <- err }})
	m.HandleRaw(1, "fails", func(context.Context, *mux.Conn, datagram.Datagram) error {
		begun <- struct{}{}
		<-goOn
		return odd
	})
	w := serve(t, m, nil)
	c := w.dial(numbers(nil), nil)
	for range 5 {
		require.NoError(t, c0(ctx, c, 1))
	}
	await(t, begun)
	close(goOn)
	require.ErrorIs(t, await(t, closed), odd)
	assert.Empty(t, begun)
	await(t, c.Done())
}
