package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
)

// numbers is a Mux that sends numbers.
func numbers(o *mux.Options) *mux.Mux {
	m := mux.New(o)
	mux.Handle[number](m, 1, "number", mux.Msgpack{}, nil)
	return m
}

// Each type goes to its handler, in both directions, from either side, and also raw.
func TestHandle(t *testing.T) {
	ctx := bounded(t)
	got := newNotes[any]()
	protocol := func(answer bool) *mux.Mux {
		m := mux.New(nil)
		mux.Handle(m, 1, "number", mux.Msgpack{}, func(ctx context.Context, c *mux.Conn, v number) error {
			if answer {
				return mux.Send(ctx, c, v)
			}
			got.add(v)
			return nil
		})
		mux.Handle(m, 500, "words", mux.JSON{}, func(ctx context.Context, c *mux.Conn, v words) error {
			if answer {
				return mux.Send(ctx, c, v)
			}
			got.add(v)
			return nil
		})
		mux.Handle(m, 65535, "blob", mux.Raw{}, func(ctx context.Context, c *mux.Conn, v blob) error {
			if answer {
				return mux.Send(ctx, c, v)
			}
			got.add(v)
			return nil
		})
		m.HandleRaw(0, "raw", func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
			if answer {
				return c.Writer().Send(ctx, d)
			}
			got.add(string(d.Payload))
			return nil
		})
		return m
	}
	w := serve(t, protocol(true), nil)
	m := protocol(false)
	sendBlob := mux.Sender[blob](m)
	c := w.dial(m, nil)
	require.NoError(t, mux.Send(ctx, c, number{7}))
	require.NoError(t, mux.Send(ctx, c, words{"a", []string{"b", "c"}}))
	require.NoError(t, sendBlob(ctx, c, blob("bytes")))
	require.NoError(t, c.Writer().Send(ctx, datagram.Datagram{Payload: []byte("raw")}))
	assert.Equal(t, []any{number{7}, words{"a", []string{"b", "c"}}, blob("bytes"), "raw"}, got.wait(t, 4))
	assert.Equal(t, uint64(1), w.one().ID())
}

// What nobody takes is counted, and dropped, told, or the end, as the options say.
func TestUnknownRecipients(t *testing.T) {
	ctx := bounded(t)
	send := func(t *testing.T, o *mux.Options) (*world, *mux.Mux, *mux.Conn, *notes[number]) {
		got := newNotes[number]()
		m := mux.New(o)
		mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) error {
			got.add(v)
			return nil
		})
		mux.Handle[words](m, 2, "words", mux.Msgpack{}, nil) // which this side only sends
		w := serve(t, m, nil)
		client := numbers(nil)
		c := w.dial(client, nil)
		_ = c0(ctx, c, 9)
		_ = c0(ctx, c, 2)               // the connection may have ended
		_ = mux.Send(ctx, c, number{1}) // likewise
		return w, m, c, got
	}
	t.Run("drop", func(t *testing.T) {
		_, m, _, got := send(t, &mux.Options{Unknown: mux.UnknownDrop})
		got.wait(t, 1)
		assert.Equal(t, uint64(2), m.Stats().Unknown)
	})
	t.Run("error, that is overlooked", func(t *testing.T) {
		told := newNotes[error]()
		_, m, _, got := send(t, &mux.Options{Error: func(_ *mux.Conn, err error) error { told.add(err); return nil }})
		got.wait(t, 1)
		all := told.wait(t, 2)
		for i, recipient := range []uint16{9, 2} {
			var e *mux.HandlerError
			require.ErrorAs(t, all[i], &e)
			require.ErrorIs(t, e, mux.ErrUnknown)
			assert.Equal(t, recipient, e.Recipient)
		}
		assert.ErrorContains(t, all[1], "words (recipient 2)")
		assert.Equal(t, uint64(2), m.Stats().Unknown)
	})
	t.Run("error, by default the end", func(t *testing.T) {
		w, m, c, _ := send(t, nil)
		await(t, c.Done())
		w.end()
		assert.Equal(t, uint64(1), m.Stats().Unknown)
	})
	t.Run("close", func(t *testing.T) {
		closed := make(chan error, 1)
		_, _, c, _ := send(t, &mux.Options{
			Unknown: mux.UnknownClose,
			Error:   func(*mux.Conn, error) error { return nil },
			Closed:  func(_ *mux.Conn, err error) { closed <- err },
		})
		await(t, c.Done())
		assert.ErrorIs(t, await(t, closed), mux.ErrUnknown)
	})
	t.Run("taken by the callback", func(t *testing.T) {
		rest := newNotes[uint16]()
		_, m, _, got := send(t, &mux.Options{Datagram: func(_ context.Context, _ *mux.Conn, d datagram.Datagram) error {
			rest.add(d.Recipient)
			return nil
		}})
		got.wait(t, 1)
		assert.Equal(t, []uint16{9, 2}, rest.wait(t, 2))
		assert.Zero(t, m.Stats().Unknown)
	})
}

// A payload that cannot be read does not reach the handler.
func TestMalformedPayload(t *testing.T) {
	ctx := bounded(t)
	told, got := newNotes[error](), newNotes[number]()
	m := mux.New(&mux.Options{Error: func(_ *mux.Conn, err error) error { told.add(err); return nil }})
	mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) error {
		got.add(v)
		return nil
	})
	mux.Handle(m, 2, "keys", mux.Msgpack{}, func(context.Context, *mux.Conn, map[any]int) error { return nil })
	mux.Handle(m, 3, "text", mux.Text{}, func(context.Context, *mux.Conn, string) error { return nil })
	w := serve(t, m, nil)
	c := w.dial(numbers(nil), nil)
	for _, d := range []datagram.Datagram{
		{Recipient: 1, Payload: []byte{0xc1}},
		{Recipient: 1, Payload: []byte{0xdf, 0xff, 0xff, 0xff, 0xff}},
		{Recipient: 1},
		{Recipient: 2, Payload: []byte{0x81, 0x90, 0x01}}, // a key that no map can have: the library panics
		{Recipient: 3, Payload: []byte{0xff}},
	} {
		require.NoError(t, c.Writer().Send(ctx, d))
	}
	require.NoError(t, mux.Send(ctx, c, number{3}))
	assert.Equal(t, []number{{3}}, got.wait(t, 1))
	for _, err := range told.wait(t, 5) {
		require.ErrorIs(t, err, mux.ErrPayload)
		assert.NotErrorAs(t, err, new(*mux.PanicError))
	}
}

// A handler's error ends its connection and no other; Options.Error may forgive it. Closed tells why.
func TestHandlerErrors(t *testing.T) {
	ctx := bounded(t)
	odd := errors.New("odd")
	for _, forgive := range []bool{false, true} {
		t.Run(fmt.Sprintf("forgive %v", forgive), func(t *testing.T) {
			got, closed := newNotes[number](), newNotes[error]()
			o := &mux.Options{Closed: func(_ *mux.Conn, err error) { closed.add(err) }}
			if forgive {
				o.Error = func(c *mux.Conn, err error) error {
					assert.NotNil(t, c)
					assert.ErrorIs(t, err, odd)
					return nil
				}
			}
			m := mux.New(o)
			mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) error {
				got.add(v)
				if v.N%2 > 0 {
					return odd
				}
				return nil
			})
			w := serve(t, m, nil)
			a, b := w.dial(numbers(nil), nil), w.dial(numbers(nil), nil)
			require.NoError(t, mux.Send(ctx, a, number{1}))
			got.wait(t, 1)
			if forgive {
				require.NoError(t, mux.Send(ctx, a, number{2}))
				got.wait(t, 1)
			} else {
				err := closed.wait(t, 1)[0]
				require.ErrorIs(t, err, odd)
				var e *mux.HandlerError
				require.ErrorAs(t, err, &e)
				assert.Equal(t, mux.HandlerError{Recipient: 1, Name: "number", Err: odd}, *e)
				await(t, a.Done())
				assert.ErrorIs(t, a.Err(), io.EOF, "the peer ended in good order, as far as it can")
			}
			require.NoError(t, mux.Send(ctx, b, number{4}))
			got.wait(t, 1)
		})
	}
}

// A panic ends its connection and no other, whatever is said of it, wherever it happens.
func TestPanics(t *testing.T) {
	ctx := bounded(t)
	cause := errors.New("boom")
	for _, sideBySide := range []bool{false, true} {
		for _, where := range []string{"typed", "raw", "call", "datagram", "middleware", "ready", "tick", "error"} {
			t.Run(fmt.Sprintf("%s, side by side %v", where, sideBySide), func(t *testing.T) {
				told, closed, got := newNotes[error](), newNotes[error](), newNotes[number]()
				first := true
				o := &mux.Options{
					SideBySide: sideBySide,
					Closed:     func(_ *mux.Conn, err error) { closed.add(err) },
					Error: func(_ *mux.Conn, err error) error {
						told.add(err)
						if where == "error" {
							panic(cause)
						}
						return nil
					},
					Ready: func(c *mux.Conn) error {
						if where == "ready" && first {
							first = false
							panic(cause)
						}
						if where == "tick" {
							c.SetTick(1, func(c *mux.Conn) {
								if c.ID() == 1 {
									panic(cause)
								}
							})
						}
						return nil
					},
					Datagram: func(context.Context, *mux.Conn, datagram.Datagram) error { panic(cause) },
				}
				m := mux.New(o)
				mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, c *mux.Conn, v number) error {
					if where == "typed" && c.ID() == 1 {
						panic(cause)
					}
					if where == "error" && c.ID() == 1 {
						return cause
					}
					got.add(v)
					return nil
				})
				m.HandleRaw(2, "raw", func(context.Context, *mux.Conn, datagram.Datagram) error { panic(cause) })
				mux.HandleCall(m, 3, "add", mux.Msgpack{}, func(context.Context, *mux.Conn, sum) (number, error) { panic(cause) })
				m.Use(func(next mux.Handler) mux.Handler {
					return func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
						if where == "middleware" && c.ID() == 1 {
							panic(cause)
						}
						return next(ctx, c, d)
					}
				})
				w := serve(t, m, nil)
				client := numbers(nil)
				mux.HandleCall[sum, number](client, 3, "add", mux.Msgpack{}, nil)
				a := w.dial(client, nil)
				switch where {
				case "raw":
					_ = c0(ctx, a, 2)
				case "datagram":
					_ = c0(ctx, a, 9)
				case "call":
					_, err := mux.Call[sum, number](ctx, a, sum{1, 2})
					var e *mux.CallError
					require.ErrorAs(t, err, &e)
					assert.Equal(t, uint16(6), e.Code)
					assert.NotContains(t, e.Message, "boom", "that is nobody else's business")
				default:
					_ = mux.Send(ctx, a, number{1}) // the connection may have ended
				}
				err := closed.wait(t, 1)[0]
				var p *mux.PanicError
				require.ErrorAs(t, err, &p)
				require.ErrorIs(t, err, cause)
				assert.Contains(t, string(p.Stack), "mux_test")
				told.wait(t, 1)
				await(t, a.Done())

				b := w.dial(numbers(nil), nil)
				require.NoError(t, mux.Send(ctx, b, number{4}))
				got.wait(t, 1)
			})
		}
	}
}

func c0(ctx context.Context, c *mux.Conn, recipient uint16) error {
	return c.Writer().Send(ctx, datagram.Datagram{Recipient: recipient})
}

// Middleware is around every handler, the first that is given outermost. Its error is the handler's.
func TestMiddleware(t *testing.T) {
	ctx := bounded(t)
	trace := newNotes[string]()
	around := func(name string) func(mux.Handler) mux.Handler {
		return func(next mux.Handler) mux.Handler {
			return func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
				trace.add(fmt.Sprintf("%s %d %q", name, d.Recipient, d.Payload))
				if string(d.Payload) == "\x82\xa1A\x07\xa1B\x07" {
					return &mux.CallError{Code: 777, Message: "not sevens"}
				}
				defer trace.add(name + " out")
				return next(ctx, c, d)
			}
		}
	}
	m := mux.New(&mux.Options{Datagram: func(context.Context, *mux.Conn, datagram.Datagram) error {
		trace.add("datagram")
		return nil
	}})
	m.Use(around("outer"))
	m.Use(around("inner"))
	mux.Handle(m, 1, "number", mux.Msgpack{}, func(context.Context, *mux.Conn, number) error {
		trace.add("number")
		return nil
	})
	mux.HandleCall(m, 2, "add", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, s sum) (number, error) {
		trace.add("add")
		return number{s.A + s.B}, nil
	})
	w := serve(t, m, nil)
	client := numbers(nil)
	mux.HandleCall[sum, number](client, 2, "add", mux.Msgpack{}, nil)
	c := w.dial(client, nil)
	require.NoError(t, mux.Send(ctx, c, number{1}))
	require.NoError(t, c0(ctx, c, 5))
	trace.wait(t, 10)
	n, err := mux.Call[sum, number](ctx, c, sum{1, 2})
	require.NoError(t, err)
	assert.Equal(t, number{3}, n)
	_, err = mux.Call[sum, number](ctx, c, sum{7, 7})
	assert.Equal(t, &mux.CallError{Code: 777, Message: "not sevens"}, err)
	assert.Equal(t, []string{
		`outer 1 "\x81\xa1N\x01"`, `inner 1 "\x81\xa1N\x01"`, "number", "inner out", "outer out",
		`outer 5 ""`, `inner 5 ""`, "datagram", "inner out", "outer out",
		`outer 2 "\x82\xa1A\x01\xa1B\x02"`, `inner 2 "\x82\xa1A\x01\xa1B\x02"`, "add", "inner out", "outer out",
		`outer 2 "\x82\xa1A\a\xa1B\a"`,
	}, trace.wait(t, 6))
}

// With AckConsumed a datagram is acknowledged when its handler has returned, in order, and not before.
func TestAckConsumed(t *testing.T) {
	for _, sideBySide := range []bool{false, true} {
		t.Run(fmt.Sprintf("side by side %v", sideBySide), func(t *testing.T) {
			ctx := bounded(t)
			begun, goOn := make(chan int, 10), make(chan struct{})
			m := mux.New(&mux.Options{SideBySide: sideBySide})
			mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) error {
				begun <- v.N
				<-goOn
				return nil
			})
			fast := make(chan struct{}, 10)
			m.HandleRaw(2, "fast", func(context.Context, *mux.Conn, datagram.Datagram) error {
				fast <- struct{}{}
				return nil
			})
			w := serve(t, m, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}})
			c := w.dial(numbers(nil), nil)
			require.NoError(t, mux.Send(ctx, c, number{1}))
			require.NoError(t, c0(ctx, c, 2))
			require.NoError(t, mux.Send(ctx, c, number{2}))
			assert.Equal(t, 1, await(t, begun))
			if sideBySide {
				await(t, fast) // which is done, behind one that is not
			}
			soon, cancel := context.WithCancelCause(ctx)
			flushed := make(chan error, 1)
			go func() { flushed <- c.Writer().Flush(soon) }()
			assert.Equal(t, uint64(3), c.Stats().Unconfirmed)
			goOn <- struct{}{}
			assert.Equal(t, 2, await(t, begun))
			require.Eventually(t, func() bool { return c.Stats().Unconfirmed == 1 }, patience, 1e6)
			cancel(io.ErrNoProgress)
			require.ErrorIs(t, await(t, flushed), io.ErrNoProgress)
			assert.Equal(t, uint64(1), c.Stats().Unconfirmed)
			goOn <- struct{}{}
			require.NoError(t, c.Writer().Flush(ctx))
		})
	}
}

// A value stays with its connection.
func TestValue(t *testing.T) {
	ctx := bounded(t)
	totals := newNotes[int]()
	m := mux.New(&mux.Options{Ready: func(c *mux.Conn) error { c.SetValue(new(int)); return nil }})
	mux.Handle(m, 1, "number", mux.Msgpack{}, func(_ context.Context, c *mux.Conn, v number) error {
		total := c.Value().(*int)
		*total += v.N
		totals.add(*total)
		return nil
	})
	w := serve(t, m, nil)
	a, b := w.dial(numbers(nil), nil), w.dial(numbers(nil), nil)
	assert.Nil(t, a.Value())
	a.SetValue("text")
	a.SetValue(7)
	assert.Equal(t, 7, a.Value())
	for _, c := range []*mux.Conn{a, b} {
		require.NoError(t, mux.Send(ctx, c, number{2}))
		require.NoError(t, mux.Send(ctx, c, number{3}))
		totals.wait(t, 2)
	}
	assert.Equal(t, []int{2, 5, 2, 5}, totals.wait(t, 0))
}
