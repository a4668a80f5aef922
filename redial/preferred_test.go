package redial_test

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// The preferred network is away, the fallback serves, and when the preferred one is back so is the client.
func TestReturnToThePreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "quic", "tls")
		s.faults["quic"].HangDials(-1, 0)
		r := redial.New(s.dialers("quic", "tls"), nil)
		start := time.Now()
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 10*time.Second, time.Since(start))
		require.Equal(t, 1, link.Endpoint)
		require.GreaterOrEqual(t, link.ReturnAfter, 30*time.Second)
		require.LessOrEqual(t, link.ReturnAfter, 90*time.Second)
		link.Progress()

		for range 3 {
			<-time.After(link.ReturnAfter)
			_, err = r.DialPreferred(t.Context(), link)
			require.EqualError(t, err, "redial: gave up: no preferred endpoint can be reached (1 attempt in 10s): "+
				"endpoint 0: not connected within 10s: dial mem quic: context deadline exceeded")
			require.ErrorIs(t, err, redial.ErrGaveUp)
			require.False(t, redial.IsFatal(err))
		}
		s.faults["quic"].HangDials(0, 0)
		<-time.After(link.ReturnAfter)
		better, err := r.DialPreferred(t.Context(), link)
		require.NoError(t, err)
		require.Equal(t, [3]int{0, 1, 6}, [3]int{better.Endpoint, better.Attempts, better.Total})
		require.Zero(t, better.ReturnAfter)
		require.Equal(t, "quic", better.Conn.RemoteAddr().String())
		_ = link.Conn.Close()
		_ = better.Conn.Close()

		_, err = r.DialPreferred(t.Context(), better)
		require.ErrorContains(t, err, "no endpoint is preferred to this one")
		_, err = r.DialPreferred(t.Context(), link)
		require.ErrorContains(t, err, "a newer connection was made")

		// It was of no use, and the fallback is next, without a wait.
		start = time.Now()
		link, err = r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, [3]int{1, 2, 7}, [3]int{link.Endpoint, link.Attempts, link.Total})
		require.Zero(t, time.Since(start))
		_ = link.Conn.Close()
	})
}

func TestReturnAfter(t *testing.T) {
	for _, c := range []struct{ policy, from, to time.Duration }{
		{0, 30 * time.Second, 90 * time.Second}, {10 * time.Second, 5 * time.Second, 15 * time.Second}, {-1, 0, 0},
	} {
		for range 100 {
			r := redial.New([]transport.Dialer{steps(refuses), steps(connects)}, &redial.Policy{ReturnAfter: c.policy})
			link, err := r.Dial(t.Context())
			require.NoError(t, err)
			require.GreaterOrEqual(t, link.ReturnAfter, c.from)
			require.LessOrEqual(t, link.ReturnAfter, c.to)
		}
	}
}

func fallback(t *testing.T, policy *redial.Policy, preferred ...transport.Dialer) (*redial.Redialer, *redial.Link) {
	t.Helper()
	r := redial.New(append(preferred, steps(connects)), policy)
	link, err := r.Dial(t.Context())
	require.NoError(t, err)
	require.Equal(t, len(preferred), link.Endpoint)
	return r, link
}

// Preferred endpoints are tried in their order, those ruled out by the outage too, and failures are told and change
// nothing.
func TestDialPreferredOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []redial.Failure
		backoff := &waits{each: []time.Duration{time.Hour}}
		policy := &redial.Policy{
			Backoff: func() redial.Backoff { return backoff }, MaxAttempts: 4,
			OnFailure: hears(func(f redial.Failure) { told = append(told, f) }),
		}
		wrong := &net.AddrError{Err: "wrong"}
		a, b := steps(says(wrong)), steps(refuses, refuses, connects)
		r, link := fallback(t, policy, a, b)
		told = nil

		_, err := r.DialPreferred(t.Context(), link)
		require.ErrorIs(t, err, wrong)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, []redial.Failure{
			{Endpoint: 0, Err: wrong, Fatal: true, Attempts: 1, Total: 4, Wait: -1},
			{Endpoint: 1, Err: isError(t, err).Last, Attempts: 2, Total: 5, Wait: -1},
		}, told)

		link.Delay(time.Second, 0)
		better, err := r.DialPreferred(t.Context(), link) // asked for by the caller, whatever the delay
		require.NoError(t, err)
		require.Equal(t, [3]int{1, 4, 7}, [3]int{better.Endpoint, better.Attempts, better.Total})
		require.Positive(t, better.ReturnAfter)
		require.Zero(t, backoff.n)
	})
}

func TestDialPreferredStopsAtAMark(t *testing.T) {
	b := steps(refuses)
	r, link := fallback(t, nil, steps(refuses, says(redial.Fatal(syscall.EPERM))), b)
	_, err := r.DialPreferred(t.Context(), link)
	require.ErrorIs(t, err, syscall.EPERM)
	require.True(t, redial.IsFatal(err))
	require.Len(t, b.at, 1)
}

func TestDialPreferredEnds(t *testing.T) {
	for name, stop := range stops {
		for how, step := range map[string]func(context.Context) (net.Conn, error){
			"hangs": hangs,
			"connects late": func(ctx context.Context) (net.Conn, error) {
				<-ctx.Done()
				a, b := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, b) }() // ends when a is closed
				return a, nil
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, link := fallback(t, &redial.Policy{AttemptTimeout: -1, MaxTime: time.Hour}, steps(refuses, step))
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					start := time.Now()
					timer := time.AfterFunc(100*time.Hour, func() { stop(r, cancel) })
					defer timer.Stop()
					_, err := r.DialPreferred(ctx, link)
					require.Error(t, err)
					require.Equal(t, 100*time.Hour, time.Since(start), "the policy's limit is for outages")
					require.Equal(t, name == "close", isError(t, err).Fatal)
				})
			})
		}
	}
}

// A fallback that brought nothing before it was left is no reason to begin a new outage.
func TestDialPreferredAfterAUselessFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, link := fallback(t, &redial.Policy{Backoff: every(time.Second)}, steps(refuses, connects))
		better, err := r.DialPreferred(t.Context(), link)
		require.NoError(t, err)
		require.Equal(t, 3, better.Attempts)
		link.Progress() // too late
		start := time.Now()
		for _, want := range []int{1, 0} {
			link, err = r.Dial(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, link.Endpoint)
		}
		require.Equal(t, time.Second, time.Since(start))
	})
}
