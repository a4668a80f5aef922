package mux_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport/mem"
)

// soonAgain dials again at once.
func soonAgain() redial.Backoff {
	return &redial.Jitter{First: time.Millisecond, Max: time.Millisecond}
}

// adder is a Mux with the call that adds; fn nil only calls.
func adder(o *mux.Options, fn func(ctx context.Context, c *mux.Conn, s sum) (number, error)) *mux.Mux {
	m := mux.New(o)
	mux.HandleCall(m, 7, "add", mux.Msgpack{}, fn)
	return m
}

func add(_ context.Context, _ *mux.Conn, s sum) (number, error) { return number{s.A + s.B}, nil }

func callAdd(ctx context.Context, c *mux.Conn, a, b int) (int, error) {
	n, err := mux.Call[sum, number](ctx, c, sum{a, b})
	return n.N, err
}

// Either side calls the other, many at once, also from the handler of a call.
func TestCall(t *testing.T) {
	ctx := bounded(t)
	m := adder(nil, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		if s.A == 0 {
			return number{s.B}, nil
		}
		n, err := callAdd(ctx, c, s.A-1, s.B+1) // asks back
		return number{n}, err
	})
	w := serve(t, m, nil)
	c := w.dial(m, nil)
	for range 3 {
		n, err := callAdd(ctx, c, 10, 5)
		require.NoError(t, err)
		assert.Equal(t, 15, n)
	}
	n, err := callAdd(ctx, w.one(), 3, 4)
	require.NoError(t, err)
	assert.Equal(t, 7, n)
}

// Ten thousand callers at once each get their own answer, though few wait and few are served at a time.
func TestTenThousandCalls(t *testing.T) {
	ctx := bounded(t)
	var running, most atomic.Int64
	w := serve(t, adder(&mux.Options{Serving: 8}, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		for n := running.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer running.Add(-1)
		return add(ctx, c, s)
	}), nil)
	c := w.dial(adder(&mux.Options{Calls: 3000}, nil), nil)
	var work sync.WaitGroup
	var wrong atomic.Int64
	for i := range 10_000 {
		work.Go(func() {
			if n, err := callAdd(ctx, c, i, i); err != nil || n != 2*i {
				t.Logf("%d: %d, %v", i, n, err)
				wrong.Add(1)
			}
		})
	}
	work.Wait()
	assert.Zero(t, wrong.Load())
	assert.LessOrEqual(t, most.Load(), int64(8))
}

// With Serving 1 calls run one after the other, in the order of sending.
func TestCallsInOrder(t *testing.T) {
	ctx := bounded(t)
	got := newNotes[int]()
	w := serve(t, adder(&mux.Options{Serving: 1}, func(_ context.Context, _ *mux.Conn, s sum) (number, error) {
		got.add(s.A)
		return number{}, nil
	}), nil)
	nc, err := w.dialer().DialContext(ctx)
	require.NoError(t, err)
	raw := reconnect.NewPlain(nc, nil)
	defer raw.CloseNow()
	var want []int
	for i := range 100 {
		require.NoError(t, raw.Writer().Send(ctx, request(uint64(i), 0, byte(i))))
		want = append(want, i)
	}
	assert.Equal(t, want, got.wait(t, 100))
}

// request is what goes over the wire: docs/mux.md.
func request(id uint64, limit uint32, a byte) datagram.Datagram {
	p := []byte{1, 0, 0, 0}
	p = binary.BigEndian.AppendUint32(p, limit)
	p = binary.BigEndian.AppendUint64(p, id)
	return datagram.Datagram{Recipient: 7, Payload: append(p, 0x82, 0xa1, 'A', a, 0xa1, 'B', 1)}
}

// The wire of calls, byte for byte, from both ends.
func TestCallOnTheWire(t *testing.T) {
	ctx := bounded(t)
	hold := make(chan error)
	w := serve(t, adder(nil, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		switch s.A {
		case 66:
			return number{}, errors.New("no sixes")
		case 77:
			_, timed := ctx.Deadline()
			assert.False(t, timed)
			hold <- nil
			<-ctx.Done()
			hold <- context.Cause(ctx)
			return number{}, ctx.Err()
		case 99:
			deadline, _ := ctx.Deadline()
			assert.WithinDuration(t, time.Now().Add(time.Hour), deadline, time.Minute)
		}
		return add(ctx, c, s)
	}), nil)
	nc, err := w.dialer().DialContext(ctx)
	require.NoError(t, err)
	raw := reconnect.NewPlain(nc, nil)
	defer raw.CloseNow()
	ask := func(d datagram.Datagram) string {
		require.NoError(t, raw.Writer().Send(ctx, d))
		got, err := raw.Reader().Receive(ctx)
		require.NoError(t, err)
		assert.Equal(t, uint16(7), got.Recipient)
		return string(got.Payload)
	}
	const id = "\x01\x02\x03\x04\x05\x06\x07\x08"
	assert.Equal(t, "\x02\x00\x00\x00\x00\x00\x00\x00"+id+"\x81\xa1N\x06", ask(request(0x0102030405060708, 0, 5)))
	assert.Equal(t, "\x02\x00\x00\x00\x00\x00\x00\x00"+id+"\x81\xa1N\x64", ask(request(0x0102030405060708, 3_600_000, 99)))
	assert.Equal(t, "\x03\x00\x00\x01\x00\x00\x00\x00"+id+"no sixes", ask(request(0x0102030405060708, 0, 66)))
	malformed := request(0x0102030405060708, 0, 5)
	malformed.Payload = malformed.Payload[:18]
	assert.Equal(t, "\x03\x00\x00\x02\x00\x00\x00\x00"+id, ask(malformed)[:16])

	require.NoError(t, raw.Writer().Send(ctx, request(1, 0, 77)))
	require.NoError(t, await(t, hold))
	require.NoError(t, raw.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte("\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")}))
	assert.Equal(t, context.Canceled, await(t, hold))

	// The other way round: what a caller sends, and what it makes of answers.
	server := w.one()
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 1)
	begin := func(ctx context.Context) []byte {
		go func() {
			n, err := callAdd(ctx, server, 3, 4)
			results <- result{n, err}
		}()
		d, err := raw.Reader().Receive(bounded(t))
		require.NoError(t, err)
		assert.Equal(t, uint16(7), d.Recipient)
		return d.Payload
	}
	answer := func(kind string, id []byte, body string) {
		require.NoError(t, raw.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte(kind + "\x00\x00\x00\x00" + string(id) + body)}))
	}
	untimed := context.Background()
	p := begin(untimed)
	assert.Equal(t, "\x01\x00\x00\x00\x00\x00\x00\x00", string(p[:8]))
	assert.Equal(t, "\x82\xa1A\x03\xa1B\x04", string(p[16:]))
	answer("\x02\x00\x00\x00", []byte("12345678"), "\x81\xa1N\x01") // nobody's
	answer("\x02\x00\x00\x00", p[8:16], "\x81\xa1N\x07")
	assert.Equal(t, result{7, nil}, await(t, results))
	p = begin(untimed)
	answer("\x03\x00\x01\x00", p[8:16], "own\xff")
	assert.Equal(t, result{0, &mux.CallError{Code: 256, Message: "own\ufffd"}}, await(t, results))
	for code, want := range map[string]error{"2": mux.ErrPayload, "3": mux.ErrUnknown, "4": mux.ErrBusy, "5": mux.ErrRedelivered, "7": context.DeadlineExceeded} {
		p = begin(untimed)
		answer("\x03\x00\x00"+string(code[0]-'0'), p[8:16], "")
		require.ErrorIs(t, await(t, results).err, want)
	}
	p = begin(untimed)
	answer("\x02\x00\x00\x00", p[8:16], "\xc1")
	require.ErrorIs(t, await(t, results).err, mux.ErrPayload)
	soon, cancel := context.WithTimeout(ctx, time.Hour)
	p = begin(soon)
	limit := binary.BigEndian.Uint32(p[4:])
	assert.InDelta(t, 30_000, limit, 1000, "bounded by the test's own")
	cancel()
	require.ErrorIs(t, await(t, results).err, context.Canceled)
	d, err := raw.Reader().Receive(ctx)
	require.NoError(t, err)
	assert.Equal(t, "\x04\x00\x00\x00\x00\x00\x00\x00"+string(p[8:16]), string(d.Payload))
	answer("\x02\x00\x00\x00", p[8:16], "\x81\xa1N\x07") // too late
	require.Eventually(t, func() bool { return server.Stats().Received >= 15 }, patience, time.Millisecond)
}

// Each connection numbers its calls from another number: an answer that reaches another's peer meets no call.
func TestNumbersOfCalls(t *testing.T) {
	ctx := bounded(t)
	seen := map[string]bool{}
	s := mux.NewServer(adder(nil, nil))
	for range 10 {
		a, b := mem.Pipe(nil)
		c, err := s.Attach(reconnect.NewPlain(a, nil))
		require.NoError(t, err)
		soon, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = callAdd(soon, c, 1, 2)
		}()
		raw := reconnect.NewPlain(b, nil)
		d, err := raw.Reader().Receive(ctx)
		require.NoError(t, err)
		seen[string(d.Payload[8:14])] = true
		cancel()
		await(t, ended)
		raw.CloseNow()
		over(t, c)
	}
	assert.Len(t, seen, 10)
}

// Answers that nobody waits for are counted, prefixes that make no sense told.
func TestStrayAnswers(t *testing.T) {
	ctx := bounded(t)
	told := newNotes[error]()
	m := adder(&mux.Options{Error: func(_ *mux.Conn, err error) error { told.add(err); return nil }}, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
		<-ctx.Done()
		return number{}, ctx.Err()
	})
	w := serve(t, m, nil)
	nc, err := w.dialer().DialContext(ctx)
	require.NoError(t, err)
	raw := reconnect.NewPlain(nc, nil)
	defer raw.CloseNow()
	for _, payload := range []string{"", "\x01234567890123", "\x00234567890123456", "\x05234567890123456", "\x02234567890123456", "\x03234567890123456", "\x04234567890123456"} {
		require.NoError(t, raw.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte(payload)}))
	}
	require.NoError(t, raw.Writer().Send(ctx, request(1, 0, 1)))
	require.NoError(t, raw.Writer().Send(ctx, request(1, 0, 1))) // the same call again, while it runs
	for _, err := range told.wait(t, 5) {
		require.ErrorIs(t, err, mux.ErrPayload)
	}
	assert.Equal(t, mux.Stats{Late: 2}, m.Stats())
}

// Errors of handlers come with their text; a handler's own with its code; what is too large is said.
func TestCallErrors(t *testing.T) {
	ctx := bounded(t)
	own := &mux.CallError{Code: 1000, Message: "own"}
	m := mux.New(nil)
	mux.HandleCall(m, 1, "fail", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v number) (words, error) {
		switch v.N {
		case 0:
			return words{}, io.ErrNoProgress
		case 1:
			return words{}, fmt.Errorf("around: %w", own)
		case 2:
			return words{}, &mux.CallError{Code: 4, Message: "not the handler's to say"}
		case 3:
			return words{Text: string(make([]byte, 2000))}, nil
		case 4:
			return words{}, errors.New(string(make([]byte, 1<<20)))
		}
		return words{}, nil
	})
	mux.HandleCall[sum, number](m, 2, "nobody", mux.Msgpack{}, nil)
	w := serve(t, m, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{MaxPayload: 1200}})
	c := w.dial(m, nil)
	ask := func(n int) error {
		_, err := mux.Call[number, words](ctx, c, number{n})
		return err
	}
	assert.Equal(t, &mux.CallError{Code: 1, Message: io.ErrNoProgress.Error()}, ask(0))
	assert.Equal(t, own, ask(1))
	assert.Equal(t, &mux.CallError{Code: 1, Message: "mux: the peer says: not the handler's to say"}, ask(2))
	var e *mux.CallError
	require.ErrorAs(t, ask(3), &e)
	assert.Contains(t, e.Message, "the limit is 1200")
	require.ErrorAs(t, ask(4), &e)
	assert.Len(t, e.Message, 1024)
	require.NoError(t, ask(5))
	_, err := callAdd(ctx, c, 1, 2)
	require.ErrorIs(t, err, mux.ErrUnknown)
	assert.Equal(t, uint64(1), m.Stats().Unknown)
}

// Time limits reach the handler, and so does a caller that gives up, also while its call waits.
func TestCallTimeoutAndCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := newNotes[int]()
		ends := newNotes[error]()
		w := serve(t, adder(&mux.Options{Serving: 1}, func(ctx context.Context, _ *mux.Conn, s sum) (number, error) {
			ran.add(s.A)
			<-ctx.Done()
			ends.add(ctx.Err())
			return number{}, ctx.Err()
		}), nil)
		m := adder(nil, nil)
		c := w.dial(m, nil)

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		_, err := callAdd(ctx, c, 1, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(begin))
		ends.wait(t, 1) // by its deadline or by its caller's word: they come in the same moment

		odd := errors.New("odd")
		first, giveUp := context.WithCancelCause(t.Context())
		second, giveUp2 := context.WithCancel(t.Context())
		results := make(chan error, 2)
		go func() { _, err := callAdd(first, c, 2, 0); results <- err }()
		ran.wait(t, 2)
		go func() { _, err := callAdd(second, c, 3, 0); results <- err }()
		synctest.Wait()
		giveUp2() // waits for the first
		require.ErrorIs(t, <-results, context.Canceled)
		giveUp(odd)
		require.Equal(t, odd, <-results)
		assert.Equal(t, context.Canceled, ends.wait(t, 1)[1])

		last, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = callAdd(last, c, 4, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, []int{1, 2, 4}, ran.wait(t, 1), "what was given up never ran")

		<-last.Done() // the peer may have noticed first
		_, err = callAdd(last, c, 5, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded, "and is not sent")
		over(t, c)
		w.end()
		assert.Equal(t, []int{1, 2, 4}, ran.wait(t, 0))
	})
}

// No more calls wait than the options say; others wait for them, with their contexts.
func TestCallsWaitForRoom(t *testing.T) {
	ctx := bounded(t)
	hold := make(chan struct{})
	w := serve(t, adder(nil, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		<-hold
		return add(ctx, c, s)
	}), nil)
	c := w.dial(adder(&mux.Options{Calls: 1}, nil), nil)
	results := make(chan error, 1)
	go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
	require.Eventually(t, func() bool { return c.Stats().Sent == 1 }, patience, time.Millisecond)
	soon, cancel := context.WithCancel(ctx)
	second := make(chan error, 1)
	go func() { _, err := callAdd(soon, c, 1, 1); second <- err }()
	cancel()
	require.ErrorIs(t, await(t, second), context.Canceled)
	assert.Equal(t, uint64(1), c.Stats().Sent)
	close(hold)
	require.NoError(t, await(t, results))
	_, err := callAdd(ctx, c, 1, 1)
	require.NoError(t, err)
}

// A server refuses calls beyond what it runs and queues, and says so.
func TestBusy(t *testing.T) {
	ctx := bounded(t)
	hold := make(chan struct{})
	m := adder(&mux.Options{Serving: 1, QueueBytes: 100}, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		<-hold
		return add(ctx, c, s)
	})
	w := serve(t, m, nil)
	c := w.dial(adder(nil, nil), nil)
	const n = 4 // one runs, one waits
	results := make(chan error, n)
	for range n {
		go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
	}
	for range n - 2 {
		require.ErrorIs(t, await(t, results), mux.ErrBusy)
	}
	close(hold)
	require.NoError(t, await(t, results))
	require.NoError(t, await(t, results))
	assert.Equal(t, uint64(n-2), m.Stats().Refused)
}

// A handler that calls back with its own context would wait for ever, and is told so. In a goroutine, or side by side, it
// may.
func TestCallFromAHandler(t *testing.T) {
	ctx := bounded(t)
	for _, sideBySide := range []bool{false, true} {
		t.Run(fmt.Sprintf("side by side %v", sideBySide), func(t *testing.T) {
			errs := newNotes[error]()
			m := adder(&mux.Options{SideBySide: sideBySide}, add)
			mux.Handle(m, 1, "number", mux.Msgpack{}, func(ctx context.Context, c *mux.Conn, v number) error {
				_, err := callAdd(ctx, c, 1, 2)
				errs.add(err)
				return nil
			})
			w := serve(t, m, nil)
			c := w.dial(m, nil)
			require.NoError(t, mux.Send(ctx, c, number{}))
			err := errs.wait(t, 1)[0]
			if sideBySide {
				require.NoError(t, err)
			} else {
				require.Equal(t, mux.ErrDeadlock, err)
			}
		})
	}
}

// A call that is cut finds its answer on the next connection, whichever way it was cut.
func TestCallAcrossACut(t *testing.T) {
	ctx := bounded(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	w := serve(t, adder(nil, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
		begun <- struct{}{}
		<-goOn
		return add(ctx, c, s)
	}), nil)
	c := w.dial(adder(nil, nil), nil)
	results := make(chan error, 1)
	call := func() {
		n, err := callAdd(ctx, c, 20, 22)
		if err == nil && n != 42 {
			err = fmt.Errorf("%d", n)
		}
		results <- err
	}
	for i := range 5 {
		if i%2 == 0 {
			w.net.Faults().Cut(nil) // before the request
		}
		go call()
		await(t, begun)
		w.net.Faults().Cut(nil) // before the answer
		goOn <- struct{}{}
		require.NoError(t, await(t, results))
	}
	assert.GreaterOrEqual(t, c.Stats().Resumes, uint64(5))
}

// When the server is lost under a session: what it had acknowledged and not answered fails as lost; what it had not
// acknowledged is sent again, and run or refused by its successor.
func TestCallsOfALostSession(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		t.Run(fmt.Sprintf("refuse %v", refuse), func(t *testing.T) {
			ctx := bounded(t)
			n := new(mem.Network)
			begun := make(chan int, 10)
			old := adder(nil, func(ctx context.Context, _ *mux.Conn, s sum) (number, error) {
				begun <- s.A
				<-ctx.Done()
				return number{}, ctx.Err()
			})
			mux.Handle(old, 8, "words", mux.Msgpack{}, func(ctx context.Context, _ *mux.Conn, _ words) error {
				assert.False(t, mux.Redelivered(ctx))
				return nil
			})
			first := serveOn(t, n, old, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}})
			again := newNotes[bool]()
			m := adder(nil, nil)
			mux.Handle[words](m, 8, "words", mux.Msgpack{}, nil)
			lost := newNotes[reconnect.Event]()
			c := first.dial(m, &reconnect.DialOptions{
				SessionOptions: reconnect.SessionOptions{OnEvent: func(_ *reconnect.Conn, e reconnect.Event) {
					if e.Kind == reconnect.EventLost {
						lost.add(e)
					}
				}},
				Redial: &redial.Policy{Backoff: soonAgain},
			})
			results := make(chan error, 1)
			go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
			assert.Equal(t, 1, await(t, begun))
			require.NoError(t, mux.Send(ctx, c, words{})) // which is dealt with, behind a call that is not
			require.Eventually(t, func() bool { return first.one().Stats().Received == 2 }, patience, time.Millisecond)

			// Its process is gone, as far as anybody can tell, with a call under way that is not acknowledged.
			n.Faults().RefuseDials(-1, nil)
			n.Faults().Cut(nil)
			require.NoError(t, first.server.Close())
			next := adder(&mux.Options{RefuseRedelivered: refuse}, func(ctx context.Context, c *mux.Conn, s sum) (number, error) {
				again.add(mux.Redelivered(ctx))
				return add(ctx, c, s)
			})
			told := newNotes[bool]()
			mux.Handle(next, 8, "words", mux.Msgpack{}, func(ctx context.Context, _ *mux.Conn, _ words) error {
				told.add(mux.Redelivered(ctx))
				return nil
			})
			second := serveOn(t, n, next, nil)
			n.Faults().RefuseDials(0, nil)
			lost.wait(t, 1)
			assert.Equal(t, []bool{true}, told.wait(t, 1))
			err := await(t, results)
			if refuse {
				require.ErrorIs(t, err, mux.ErrRedelivered)
				assert.Equal(t, uint64(1), next.Stats().Refused)
			} else {
				require.NoError(t, err)
				assert.Equal(t, []bool{true}, again.wait(t, 1))
			}
			got, err := callAdd(ctx, c, 2, 3)
			require.NoError(t, err)
			assert.Equal(t, 5, got)
			second.one()
		})
	}
}

// What the lost server had acknowledged nobody will answer.
func TestCallLost(t *testing.T) {
	ctx := bounded(t)
	n := new(mem.Network)
	begun := make(chan int, 10)
	first := serveOn(t, n, adder(nil, func(ctx context.Context, _ *mux.Conn, s sum) (number, error) {
		begun <- s.A
		<-ctx.Done()
		return number{}, ctx.Err()
	}), nil)
	c := first.dial(adder(nil, nil), &reconnect.DialOptions{Redial: &redial.Policy{Backoff: soonAgain}})
	results := make(chan error, 1)
	go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
	assert.Equal(t, 1, await(t, begun))
	require.NoError(t, c.Writer().Flush(ctx))
	require.NoError(t, first.server.Close())
	serveOn(t, n, adder(nil, add), nil)
	require.Equal(t, mux.ErrLost, await(t, results))
	got, err := callAdd(ctx, c, 2, 3)
	require.NoError(t, err)
	assert.Equal(t, 5, got)
}

// Calls end with their connection, however it ends.
func TestCallsEndWithTheConnection(t *testing.T) {
	for how, end := range map[string]func(w *world, c *mux.Conn){
		"closed here":        func(_ *world, c *mux.Conn) { c.CloseNow() },
		"closed there":       func(w *world, _ *mux.Conn) { w.one().CloseNow() },
		"the peer has ended": func(w *world, _ *mux.Conn) { go w.one().CloseSend(bounded(w.tb)) },
	} {
		t.Run(how, func(t *testing.T) {
			ctx := bounded(t)
			begun := make(chan struct{})
			w := serve(t, adder(nil, func(ctx context.Context, _ *mux.Conn, _ sum) (number, error) {
				close(begun)
				<-ctx.Done()
				return number{}, ctx.Err()
			}), nil)
			c := w.dial(adder(nil, nil), nil)
			results := make(chan error, 1)
			go func() { _, err := callAdd(ctx, c, 1, 1); results <- err }()
			await(t, begun)
			end(w, c)
			err := await(t, results)
			switch how {
			case "closed here":
				require.ErrorIs(t, err, reconnect.ErrClosed)
			case "closed there":
				require.ErrorIs(t, err, reconnect.ErrPeerClosed)
			default:
				require.Equal(t, io.EOF, err)
			}
			await(t, c.Done())
			_, err = callAdd(ctx, c, 1, 1)
			require.Error(t, err)
		})
	}
}
