package redial_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// What the hook waits is no part of the attempt, however long it is.
func TestOnAttemptWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		s.network.Faults().RefuseDials(1, nil)
		var asked []time.Duration
		start := time.Now()
		r := redial.New(s.dialers("a"), &redial.Policy{
			AttemptTimeout: time.Second, Backoff: every(10 * time.Second),
			OnAttempt: func(context.Context) error {
				asked = append(asked, time.Since(start))
				<-time.After(time.Hour)
				return nil
			},
		})
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, [2]int{2, 2}, [2]int{link.Attempts, link.Total})
		require.Equal(t, []time.Duration{0, time.Hour + 10*time.Second}, asked)
		require.Equal(t, 2*time.Hour+10*time.Second, time.Since(start))
		_ = link.Conn.Close()
	})
}

// It counts towards MaxTime, of which the hook's context knows; and an outage that it ended is over.
func TestOnAttemptAndMaxTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		hangs := true
		r := redial.New(s.dialers("a"), &redial.Policy{MaxTime: time.Minute, OnAttempt: func(ctx context.Context) error {
			if hangs {
				<-ctx.Done()
			}
			return ctx.Err()
		}})
		for range 2 {
			start := time.Now()
			_, err := r.Dial(t.Context())
			require.EqualError(t, err, "redial: gave up: the time is up")
			require.Equal(t, time.Minute, time.Since(start))
			require.Zero(t, isError(t, err).Attempts)
		}
		hangs = false
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		_ = link.Conn.Close()
	})
}

// An error of its own is the end of the dial, and not of the Redialer.
func TestOnAttemptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(-1, nil)
		bad := errOwn
		r := redial.New(s.dialers("a", "b"), &redial.Policy{OnAttempt: func(context.Context) error { return bad }})
		_, err := r.Dial(t.Context())
		require.ErrorIs(t, err, errOwn)
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.Equal(t, &redial.Error{Reason: errOwn, Causes: []error{nil, nil}}, isError(t, err))
		bad = nil
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, link.Attempts, "nothing was attempted before")
		link.Progress()

		bad = errOwn
		_, err = r.DialPreferred(t.Context(), link)
		require.ErrorIs(t, err, errOwn)
		require.Zero(t, isError(t, err).Attempts)
		_ = link.Conn.Close()
	})
}

// The end of Dial's context, Close and Restart end it; after Restart it is asked again.
func TestOnAttemptCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(1, nil)
		asked, patient := 0, false
		r := redial.New(s.dialers("a", "b"), &redial.Policy{OnAttempt: func(ctx context.Context) error {
			asked++
			if !patient {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		start := time.Now()
		link, err := r.Dial(t.Context()) // to the fallback
		require.NoError(t, err)
		require.Equal(t, 2, asked)
		link.Progress()

		// dialled begins do, and waits until the hook does.
		dialled := func(do func() error) <-chan error {
			asked, patient = 0, true
			done := make(chan error, 1)
			go func() { done <- do() }()
			synctest.Wait()
			require.Equal(t, 1, asked)
			return done
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		dial := func() error { _, err := r.Dial(ctx); return err }
		preferred := func() error { _, err := r.DialPreferred(ctx, link); return err }

		done := dialled(preferred)
		patient = false
		r.Restart()
		require.ErrorContains(t, <-done, "asked to begin anew")
		better, err := r.Dial(ctx)
		require.NoError(t, err)
		require.Equal(t, [2]int{0, 1}, [2]int{better.Endpoint, better.Attempts})
		_, _ = link.Conn.Close(), better.Conn.Close()
		better.Progress()

		done = dialled(dial)
		patient = false
		r.Restart()
		require.NoError(t, <-done)
		require.Equal(t, 2, asked)

		done = dialled(dial)
		cancel(errOwn)
		require.ErrorIs(t, <-done, errOwn)

		ctx = t.Context()
		done = dialled(dial)
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-done, net.ErrClosed)
		require.Zero(t, time.Since(start))
	})
}

// An error of it in DialPreferred leaves the outage of a fallback that is of no use as it is.
func TestOnAttemptOfDialPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(-1, nil)
		var bad error
		r := redial.New(s.dialers("a", "b"), &redial.Policy{OnAttempt: func(context.Context) error { return bad }})
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		bad = errOwn
		_, err = r.DialPreferred(t.Context(), link)
		require.ErrorIs(t, err, errOwn)
		bad = nil
		_ = link.Conn.Close()
		link, err = r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 4, link.Attempts, "it goes on counting, for link was of no use")
		_ = link.Conn.Close()
	})
}

// calls calls f when an attempt makes its context, which is after everything was looked at.
type calls struct {
	context.Context
	f func()
}

func (c *calls) Deadline() (time.Time, bool) {
	if f := c.f; f != nil {
		c.f = nil
		f()
	}
	return c.Context.Deadline()
}

// Restart ends the attempt that is about to begin just then, and a dial that has just met its limit, of which the hook is
// told.
func TestRestartInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		dials := 0
		r := redial.New([]transport.Dialer{transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			if dials++; dials == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return s.dialers("a")[0].DialContext(ctx)
		})}, nil)
		start := time.Now()
		link, err := r.Dial(&calls{t.Context(), r.Restart})
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.Equal(t, 2, dials)
		_ = link.Conn.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		s.network.Faults().RefuseDials(1, nil)
		var r *redial.Redialer
		r = redial.New(s.dialers("a"), &redial.Policy{MaxAttempts: 1, OnFailure: hears(func(f redial.Failure) {
			require.Negative(t, f.Wait)
			r.Restart()
		})})
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, link.Attempts)
		_ = link.Conn.Close()
	})
}

// A policy that is set during the wait holds for the attempt behind it, and one that is set while OnAttempt waits, too.
func TestSetPolicyBeforeTheAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		s.network.Faults().RefuseDials(1, nil)
		old := func(context.Context, redial.Connection) error {
			t.Error("the hook of an old policy")
			return nil
		}
		connected := false
		r := redial.New(s.dialers("a"), &redial.Policy{Backoff: every(time.Hour), OnConnected: old})
		time.AfterFunc(time.Minute, func() {
			r.SetPolicy(&redial.Policy{OnConnected: old, OnAttempt: func(context.Context) error {
				r.SetPolicy(&redial.Policy{OnConnected: func(context.Context, redial.Connection) error {
					connected = true
					return nil
				}})
				return nil
			}})
		})
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.True(t, connected)
		_ = link.Conn.Close()
	})
}

// An attempt that the hook lets begin when the outage's time is over does not begin.
func TestOnAttemptTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		r := redial.New(s.dialers("a"), &redial.Policy{MaxTime: time.Minute, OnAttempt: func(context.Context) error {
			<-time.After(2 * time.Minute)
			return nil
		}})
		_, err := r.Dial(t.Context())
		require.EqualError(t, err, "redial: gave up: the time is up")
	})
}

// A Restart that came before DialPreferred ends that, and is then the next Dial's.
func TestRestartBeforeDialPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(1, nil)
		patient := false
		r := redial.New(s.dialers("a", "b"), &redial.Policy{OnAttempt: func(ctx context.Context) error {
			if !patient {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}})
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		link.Delay(time.Hour, 0)
		r.Restart()
		patient = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err = r.DialPreferred(ctx, link)
		require.ErrorContains(t, err, "asked to begin anew")
		require.Zero(t, time.Since(start))
		patient = false
		better, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Zero(t, better.Endpoint)
		require.Zero(t, time.Since(start), "Restart ends the wait that the peer asked for")
		_, _ = link.Conn.Close(), better.Conn.Close()
	})
}

// A hook may call Restart, and the attempt that it has let begin then does not.
func TestOnAttemptRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(1, nil)
		var r *redial.Redialer
		n := 0
		r = redial.New(s.dialers("a", "b"), &redial.Policy{OnAttempt: func(ctx context.Context) error {
			if n++; n == 2 {
				r.Restart()
			}
			return nil
		}})
		l, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, [2]int{0, 1}, [2]int{l.Endpoint, l.Attempts})
		_ = l.Conn.Close()
	})
}

// A Restart that came while a connection was being made has what it wanted, and does not end what is done with that.
func TestRestartThatCameTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		s.faults["a"].RefuseDials(1, nil)
		all := s.dialers("a", "b")
		var r *redial.Redialer
		r = redial.New([]transport.Dialer{all[0], transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			conn, err := all[1].DialContext(ctx)
			r.Restart()
			return conn, err
		})}, nil)
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, link.Endpoint)
		better, err := r.DialPreferred(t.Context(), link)
		require.NoError(t, err)
		require.Zero(t, better.Endpoint)
		_, _ = link.Conn.Close(), better.Conn.Close()
	})
}
