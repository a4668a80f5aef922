package mux_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// A peer that has ended its sending gets all answers, for as long as it takes.
func TestAnswersToASlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mux.New(nil)
		m.HandleRaw(1, "go", func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
			for range 64 {
				if err := c.Writer().Send(ctx, datagram.Datagram{Recipient: 2, Payload: make([]byte, 16<<10)}); err != nil {
					return err
				}
			}
			return nil
		})
		n := new(mem.Network)
		s := mux.NewServer(m)
		l := reconnect.NewListener(listen(t, n, "s"), nil)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c, err := reconnect.Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
			SessionOptions: reconnect.SessionOptions{MaxWindow: 64 << 10}})
		require.NoError(t, err)
		require.NoError(t, c.Writer().Send(t.Context(), datagram.Datagram{Recipient: 1}))
		require.NoError(t, c.CloseSend(t.Context()))
		<-time.After(20 * time.Second)
		for range 64 {
			_, err := c.Reader().Receive(t.Context())
			require.NoError(t, err)
		}
		_ = c.Close(t.Context())
		require.NoError(t, s.Shutdown(t.Context()))
	})
}

// One call may go over QueueBytes.
func TestOneCallMayGoOver(t *testing.T) {
	hold := make(chan struct{})
	begun := make(chan struct{}, 4)
	w := serve(t, adder(&mux.Options{Serving: 1, QueueBytes: 1}, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		begun <- struct{}{}
		<-hold
		return add(ctx, c, s)
	}), nil)
	c := w.dial(adder(nil, nil), nil)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := callAdd(bounded(t), c, 1, 1); first <- err }()
	<-begun
	go func() { _, err := callAdd(bounded(t), c, 1, 2); second <- err }()
	select {
	case err := <-second:
		require.NoError(t, err, "refused")
	case <-time.After(100 * time.Millisecond):
	}
	close(hold)
	assert.NoError(t, <-first)
	assert.NoError(t, <-second)
}

// An answer on another tag is nobody's.
func TestAnswerOnAnotherTag(t *testing.T) {
	ctx := bounded(t)
	n := new(mem.Network)
	l := reconnect.NewListener(listen(t, n, "s"), nil)
	defer l.Close()
	m := adder(nil, nil)
	mux.HandleCall[words, number](m, 8, "count", mux.Msgpack{}, nil)
	c, err := m.Dial(ctx, mem.Dialer{Network: n, Addr: "s"}, nil)
	require.NoError(t, err)
	defer over(t, c)
	b, err := l.Accept(ctx)
	require.NoError(t, err)
	got := make(chan int, 1)
	go func() { k, _ := callAdd(ctx, c, 1, 2); got <- k }()
	d, err := b.Reader().Receive(ctx)
	require.NoError(t, err)
	answer := append([]byte{2, 0, 0, 0, 0, 0, 0, 0}, d.Payload[8:16]...)
	answer = append(answer, 0x81, 0xa1, 'N')
	require.NoError(t, b.Writer().Send(ctx, datagram.Datagram{Recipient: 8, Payload: append(append([]byte(nil), answer...), 66)}))
	require.NoError(t, b.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: append(append([]byte(nil), answer...), 3)}))
	assert.Equal(t, 3, <-got)
	assert.EqualValues(t, 1, m.Stats().Late)
}

// What comes behind a call that still runs is not acknowledged before it.
func TestAckInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, handled := make(chan struct{}), make(chan struct{}, 1)
		bind := func(serves bool) *mux.Mux {
			var fn func(context.Context, *mux.Conn, sum) (number, error)
			var on func(context.Context, *mux.Conn, words) error
			if serves {
				fn = func(ctx context.Context, c *mux.Conn, s sum) (number, error) { <-hold; return add(ctx, c, s) }
				on = func(context.Context, *mux.Conn, words) error { handled <- struct{}{}; return nil }
			}
			m := adder(nil, fn)
			mux.Handle(m, 8, "words", mux.Msgpack{}, on)
			return m
		}
		n := new(mem.Network)
		s := mux.NewServer(bind(true))
		l := reconnect.NewListener(listen(t, n, "s"), &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}})
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		c, err := bind(false).Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, nil)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { _, err := callAdd(t.Context(), c, 1, 2); done <- err }()
		synctest.Wait()
		require.NoError(t, mux.Send(t.Context(), c, words{Text: "x"}))
		<-handled
		<-time.After(time.Second)
		assert.EqualValues(t, 2, c.Stats().Unconfirmed, "the call is not done")
		close(hold)
		require.NoError(t, <-done)
		<-time.After(time.Second)
		assert.Zero(t, c.Stats().Unconfirmed)
		_ = c.CloseNow()
		<-c.Done()
		require.NoError(t, s.Close())
		require.NoError(t, s.Shutdown(t.Context()))
	})
}
