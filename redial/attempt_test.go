package redial_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
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
