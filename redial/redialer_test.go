package redial_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

func TestFirstTryIsImmediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		r := redial.New(s.dialers("a"), nil)
		start := time.Now()
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.Equal(t, "a", link.Conn.RemoteAddr().String())
		require.Equal(t, [4]int{0, 1, 1, 0}, [4]int{link.Endpoint, link.Attempts, link.Total, int(link.ReturnAfter)})
		_ = link.Conn.Close()

		link.Progress()
		c, err := r.DialContext(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		_ = c.Close()
	})
}

// A server that is away for a day is found again, with waits that stay within bounds all the time.
func TestRefusedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		s := newSite(t, "a")
		s.network.Faults().RefuseDials(-1, nil)
		var longest time.Duration
		r := redial.New(s.dialers("a"), &redial.Policy{OnFailure: hears(func(f redial.Failure) {
			longest = max(longest, f.Wait)
		})})
		start := time.Now()
		back := time.AfterFunc(day, func() { s.network.Faults().RefuseDials(0, nil) })
		defer back.Stop()
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.WithinRange(t, time.Now(), start.Add(day), start.Add(day+5*time.Second))
		require.LessOrEqual(t, longest, 5*time.Second)
		require.Greater(t, longest, 4900*time.Millisecond)
		require.InEpsilon(t, day/(2500*time.Millisecond), link.Attempts, 0.05)
		_ = link.Conn.Close()
	})
}

func TestFirstDialHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		s.network.Faults().HangDials(1, 0)
		var failure redial.Failure
		r := redial.New(s.dialers("a"), &redial.Policy{
			Backoff: every(time.Second), OnFailure: hears(func(f redial.Failure) { failure = f }),
		})
		start := time.Now()
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 11*time.Second, time.Since(start), "10 s for the attempt, 1 s to wait")
		_ = link.Conn.Close()

		require.Equal(t, time.Second, failure.Wait)
		require.False(t, failure.Fatal)
		require.EqualError(t, failure.Err, "not connected within 10s: dial mem a: context deadline exceeded")
		require.ErrorIs(t, failure.Err, syscall.ETIMEDOUT)
		require.NotErrorIs(t, failure.Err, context.DeadlineExceeded, "that would look like the caller's own")
		var ne net.Error
		require.ErrorAs(t, failure.Err, &ne)
		require.True(t, ne.Timeout())
		require.True(t, ne.Temporary()) //nolint:staticcheck // part of net.Error
		var op *net.OpError
		require.ErrorAs(t, failure.Err, &op)
	})
}

func TestAttemptTimeout(t *testing.T) {
	for _, c := range []struct {
		policy redial.Policy
		took   time.Duration
	}{
		{redial.Policy{AttemptTimeout: time.Second}, time.Second},
		{redial.Policy{AttemptTimeout: -1}, time.Hour},
		{redial.Policy{AttemptTimeout: time.Second, MaxTime: time.Minute}, time.Second},
		{redial.Policy{AttemptTimeout: time.Hour, MaxTime: time.Minute}, time.Minute},
		{redial.Policy{AttemptTimeout: -1, MaxTime: time.Minute}, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			c.policy.MaxAttempts = 1
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			_, err := redial.New([]transport.Dialer{steps(hangs)}, &c.policy).Dial(ctx)
			require.ErrorIs(t, err, redial.ErrGaveUp)
			require.Equal(t, c.took, time.Since(start))
		})
	}
}

// stop ends a dial in the ways that there are.
var stops = map[string]func(r *redial.Redialer, cancel context.CancelCauseFunc){
	"cancel": func(_ *redial.Redialer, cancel context.CancelCauseFunc) { cancel(nil) },
	"cause":  func(_ *redial.Redialer, cancel context.CancelCauseFunc) { cancel(os.ErrProcessDone) },
	"close":  func(r *redial.Redialer, _ context.CancelCauseFunc) { _ = r.Close(); _ = r.Close() },
}

func TestStopWhileWaitingAndWhileDialling(t *testing.T) {
	for name, stop := range stops {
		for where, step := range map[string]func(context.Context) (net.Conn, error){"waiting": refuses, "dialling": hangs} {
			t.Run(name+" while "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := redial.New([]transport.Dialer{steps(step)}, &redial.Policy{Backoff: every(time.Hour)})
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					errs := make(chan error)
					for range 2 { // one dials, one waits for its turn
						go func() {
							_, err := r.Dial(ctx)
							errs <- err
						}()
					}
					synctest.Wait()
					start := time.Now()
					stop(r, cancel)
					var attempts int
					for range 2 {
						err := <-errs
						e := isError(t, err)
						attempts += e.Attempts
						require.NotErrorIs(t, err, io.EOF)
						require.Equal(t, name == "close", errors.Is(err, net.ErrClosed))
						require.Equal(t, name != "close", errors.Is(err, redial.ErrGaveUp))
						require.Equal(t, name == "cause", errors.Is(err, os.ErrProcessDone))
						require.Equal(t, name == "close", e.Fatal)
						if name != "close" {
							require.ErrorIs(t, err, context.Canceled)
						}
						if e.Attempts == 1 && where == "waiting" {
							require.ErrorIs(t, err, syscall.ECONNREFUSED)
						}
						if e.Attempts == 1 {
							require.Error(t, e.Last)
						}
					}
					require.Equal(t, 1, attempts)
					require.Zero(t, time.Since(start))
				})
			})
		}
	}
}

func TestEndedBeforeItBegan(t *testing.T) {
	d := steps(connects)
	r := redial.New([]transport.Dialer{d}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Dial(ctx)
	require.EqualError(t, err, "redial: gave up: context canceled")
	_, err = r.DialContext(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	_, err = r.Dial(t.Context())
	require.EqualError(t, err, "redial: use of closed network connection")
	_, err = r.DialPreferred(t.Context(), nil)
	require.ErrorIs(t, err, net.ErrClosed)
	require.True(t, redial.IsFatal(err))
	require.Empty(t, d.at)
}

func TestNoEndpoints(t *testing.T) {
	_, err := redial.New(nil, nil).Dial(t.Context())
	require.EqualError(t, err, "redial: gave up: there is no endpoint to dial")
	require.True(t, redial.IsFatal(err))
}

// A dialer that minds no context, and connects when nobody wants it any more.
func TestLateConnectionIsClosed(t *testing.T) {
	for name, stop := range stops {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			var r *redial.Redialer
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			r = redial.New([]transport.Dialer{transport.DialerFunc(func(context.Context) (net.Conn, error) {
				stop(r, cancel)
				return a, nil
			})}, nil)
			_, err := r.Dial(ctx)
			require.Error(t, err, name)
			_, err = b.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err, name)
		})
	}
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		policy   redial.Policy
		dial     func(context.Context) (net.Conn, error)
		text     string
		attempts int
		took     time.Duration
	}{
		"attempts": {
			redial.Policy{MaxAttempts: 3, Backoff: every(time.Second)}, refuses,
			"redial: gave up: no attempts are left (3 attempts in 2s): dial mem: connection refused", 3, 2 * time.Second,
		},
		"time, in a wait that need not be begun": {
			redial.Policy{MaxTime: 5500 * time.Millisecond, Backoff: every(time.Second)}, refuses,
			"redial: gave up: the time is up (6 attempts in 5s): dial mem: connection refused", 6, 5 * time.Second,
		},
		"time, in an attempt": {
			redial.Policy{MaxTime: 5500 * time.Millisecond, Backoff: every(time.Second)}, hangs,
			"redial: gave up: the time is up (1 attempt in 5.5s): not connected within 5.5s: context deadline exceeded", 1, 5500 * time.Millisecond,
		},
		"stop": {
			redial.Policy{Backoff: every(time.Second, time.Second, -1)}, refuses,
			"redial: gave up: the backoff says stop (3 attempts in 2s): dial mem: connection refused", 3, 2 * time.Second,
		},
		"end of file": {
			redial.Policy{MaxAttempts: 1}, says(fmt.Errorf("handshake: %w", io.EOF)),
			"redial: gave up: no attempts are left (1 attempt in 0s): handshake: EOF", 1, 0,
		},
		"fatal": {
			redial.Policy{}, says(&net.AddrError{Err: "missing port"}),
			"redial: gave up: trying again is of no use (1 attempt in 0s): missing port", 1, 0,
		},
		"a dialer that does nothing": {
			redial.Policy{IsFatal: func(error) bool { return false }}, says(nil),
			"redial: gave up: trying again is of no use (1 attempt in 0s): the dialer returned neither a connection nor an error", 1, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				last := false
				c.policy.OnFailure = hears(func(f redial.Failure) {
					require.False(t, last, "no failure after the one without a wait")
					last = f.Wait < 0
				})
				r := redial.New([]transport.Dialer{steps(c.dial)}, &c.policy)
				for outage := range 3 { // each with full limits, and at once
					last = false
					start := time.Now()
					_, err := r.Dial(t.Context())
					require.EqualError(t, err, c.text)
					require.ErrorIs(t, err, redial.ErrGaveUp)
					require.NotErrorIs(t, err, io.EOF)
					e := isError(t, err)
					require.Equal(t, c.attempts, e.Attempts)
					require.Equal(t, c.took, e.Elapsed)
					require.Equal(t, c.took, time.Since(start), outage)
					require.True(t, last)
					require.Equal(t, []error{e.Last}, e.Causes)
					require.Equal(t, e.Fatal, redial.IsFatal(err))
				}
			})
		})
	}
}

// A Dial with a short context, called again and again, is no faster than one with a long one.
func TestEndOfContextKeepsTheOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := steps(refuses)
		r := redial.New([]transport.Dialer{d}, &redial.Policy{Backoff: every(time.Minute), MaxAttempts: 3})
		start := time.Now()
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := r.Dial(ctx)
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				require.ErrorContains(t, err, "no attempts are left")
				break
			}
		}
		require.Equal(t, []time.Time{start, start.Add(time.Minute), start.Add(2 * time.Minute)}, d.at)
	})
}

// A first endpoint that hangs for longer than each context lasts does not keep the second from being tried.
func TestEndOfContextGoesOnWithTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := redial.New([]transport.Dialer{steps(hangs), steps(connects)}, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := r.Dial(ctx)
		require.EqualError(t, err, "redial: gave up: context deadline exceeded (1 attempt in 1s): endpoint 0: context deadline exceeded")
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, link.Endpoint)
		require.Equal(t, 2, link.Attempts)
	})
}

func TestDialsAreSerialised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, calls atomic.Int32
		d := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			if running.Add(1) != 1 {
				t.Error("two dials at once")
			}
			defer running.Add(-1)
			timer := time.NewTimer(time.Second)
			defer timer.Stop()
			<-timer.C
			if calls.Add(1)%2 == 0 {
				return refuses(ctx)
			}
			return connects(ctx)
		})
		r := redial.New([]transport.Dialer{d}, nil)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				link, err := r.Dial(t.Context())
				if err == nil {
					link.Progress()
					link.Delay(0, 0)
					_ = link.Conn.Close()
				}
			})
			wg.Go(func() {
				if _, err := r.DialPreferred(t.Context(), nil); err == nil {
					t.Error("nothing was to be preferred")
				}
			})
		}
		wg.Wait()
		require.GreaterOrEqual(t, calls.Load(), int32(99))
	})
}

// Hooks may close the Redialer that calls them, and one that panics leaves it usable.
func TestHooks(t *testing.T) {
	var r *redial.Redialer
	r = redial.New([]transport.Dialer{steps(refuses)}, &redial.Policy{OnFailure: hears(func(f redial.Failure) {
		if f.Total == 1 {
			panic("hook")
		}
		_ = r.Close()
	})})
	require.PanicsWithValue(t, "hook", func() { _, _ = r.Dial(t.Context()) })
	_, err := r.Dial(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
}
