package redial_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// A round goes through the endpoints in order and without a wait; then comes one.
func TestRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		for _, name := range []string{"a", "b"} {
			s.faults[name].RefuseDials(-1, syscall.EHOSTUNREACH)
		}
		s.faults["c"].RefuseDials(2, nil)
		var tried string
		r := redial.New(s.dialers("a", "b", "c"), &redial.Policy{
			Backoff:   every(time.Second, 2*time.Second),
			OnFailure: hears(func(f redial.Failure) { tried += fmt.Sprintf("%d then %v, ", f.Endpoint, f.Wait) }),
		})
		start := time.Now()
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, "0 then 0s, 1 then 0s, 2 then 1s, 0 then 0s, 1 then 0s, 2 then 2s, 0 then 0s, 1 then 0s, ", tried)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.Equal(t, [3]int{2, 9, 9}, [3]int{link.Endpoint, link.Attempts, link.Total})
		_ = link.Conn.Close()
	})
}

func TestFatalEndpointIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := &net.AddrError{Err: "wrong"}
		a, b := steps(says(wrong), connects), steps(refuses, refuses, connects)
		r := redial.New([]transport.Dialer{a, b}, nil)
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, link.Endpoint)
		require.Equal(t, 4, link.Attempts)
		require.Len(t, a.at, 1)

		link.Progress() // and in the next outage it is in again
		link, err = r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 0, link.Endpoint)
		require.Equal(t, [2]int{1, 5}, [2]int{link.Attempts, link.Total})
	})
}

func TestAllEndpointsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &net.AddrError{Err: "first"}, &net.AddrError{Err: "second"}
		r := redial.New([]transport.Dialer{steps(says(first)), steps(refuses, says(second))}, &redial.Policy{Backoff: every(time.Second)})
		_, err := r.Dial(t.Context())
		require.EqualError(t, err, "redial: gave up: trying again is of no use (3 attempts in 1s): endpoint 0: first; endpoint 1: second")
		e := isError(t, err)
		require.True(t, e.Fatal)
		require.Equal(t, []error{first, second}, e.Causes)
		require.Equal(t, second, e.Last)
		require.ErrorIs(t, err, first)
		require.ErrorIs(t, err, second)
		require.NotErrorIs(t, err, syscall.ECONNREFUSED, "an older cause is forgotten")
		var ae *net.AddrError
		require.ErrorAs(t, err, &ae)
		require.Equal(t, second, ae, "the newest first")
		var dns *net.DNSError
		require.NotErrorAs(t, err, &dns)
	})
}

// What is marked ends it at once, for all endpoints and whatever the policy thinks.
func TestMarkedFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		password := errors.New("wrong password")
		b := steps(connects)
		marked := func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done() // late, too
			return nil, fmt.Errorf("log in: %w, %w", redial.Fatal(password), ctx.Err())
		}
		r := redial.New([]transport.Dialer{steps(marked), b}, &redial.Policy{IsFatal: func(error) bool { return false }})
		_, err := r.Dial(t.Context())
		require.ErrorIs(t, err, password)
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.True(t, redial.IsFatal(err))
		require.Empty(t, b.at)
	})
}

func TestPolicyDecidesWhatIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := &redial.Policy{IsFatal: func(err error) bool {
			return errors.Is(err, syscall.ECONNREFUSED) || redial.IsFatal(err) && !errors.As(err, new(*net.AddrError))
		}}
		d := steps(says(&net.AddrError{Err: "a slip"}), refuses)
		_, err := redial.New([]transport.Dialer{d}, policy).Dial(t.Context())
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.True(t, isError(t, err).Fatal)
		require.Len(t, d.at, 2)
	})
}

// A peer that accepts and hangs up is backed off from like one that refuses, until a connection is of use.
func TestFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backoff := &waits{each: []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}}
		r := redial.New([]transport.Dialer{steps(connects)}, &redial.Policy{
			Backoff: func() redial.Backoff { return backoff }, MaxAttempts: 4,
		})
		for range 3 {
			start := time.Now()
			var old *redial.Link
			for i, after := range []time.Duration{0, 1, 3, 7} {
				link, err := r.Dial(t.Context())
				require.NoError(t, err)
				require.Equal(t, after*time.Second, time.Since(start), i)
				require.Equal(t, i+1, link.Attempts)
				if old != nil {
					old.Progress() // too late to count
				}
				old = link
			}
			old.Progress()
		}
		require.Equal(t, 3, backoff.resets)

		for range 4 {
			_, err := r.Dial(t.Context())
			require.NoError(t, err)
		}
		_, err := r.Dial(t.Context())
		require.EqualError(t, err, "redial: gave up: no attempts are left (4 attempts in 7s): connected, but the connection ended without having been of use")
		_, err = r.Dial(t.Context())
		require.NoError(t, err)
	})
}

// The wait counts from when the useless connection was made, and the time on it not at all.
func TestUselessConnectionThatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := redial.New([]transport.Dialer{steps(connects)}, &redial.Policy{Backoff: every(10 * time.Second), MaxTime: 15 * time.Second})
		start := time.Now()
		dial := func() error {
			_, err := r.Dial(t.Context())
			return err
		}
		pass := func(d time.Duration) { <-time.After(d) }
		require.NoError(t, dial())
		pass(4 * time.Second)
		require.NoError(t, dial()) // waits for 6 s
		require.Equal(t, 10*time.Second, time.Since(start))
		pass(12 * time.Second)
		require.NoError(t, dial()) // at once
		require.Equal(t, 22*time.Second, time.Since(start))
		require.ErrorContains(t, dial(), "the time is up (3 attempts in 6s)")
	})
}

// A connection that lasted was good, said or not.
func TestStable(t *testing.T) {
	for _, c := range []struct {
		after, lasts time.Duration
		good         bool
	}{{0, time.Minute, true}, {0, time.Minute - 1, false}, {time.Second, time.Second, true}, {-1, time.Hour, false}} {
		synctest.Test(t, func(t *testing.T) {
			r := redial.New([]transport.Dialer{steps(connects)}, &redial.Policy{StableAfter: c.after})
			_, err := r.Dial(t.Context())
			require.NoError(t, err)
			<-time.After(c.lasts)
			link, err := r.Dial(t.Context())
			require.NoError(t, err)
			require.Equal(t, c.good, link.Attempts == 1)
		})
	}
}

// Where the preferred endpoint accepts and brings nothing, the fallback gets its chance.
func TestUselessEndpointFallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := redial.New([]transport.Dialer{steps(connects), steps(connects)}, &redial.Policy{Backoff: every(time.Second)})
		start := time.Now()
		for i, want := range []int{0, 1, 0, 1} {
			link, err := r.Dial(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, link.Endpoint)
			require.Equal(t, time.Duration(i/2)*time.Second, time.Since(start))
			require.Equal(t, want == 1, link.ReturnAfter > 0)
		}
	})
}

func TestDelay(t *testing.T) {
	const s, m = time.Second, time.Minute
	for _, c := range []struct {
		max, delay, spread, lived time.Duration
		from, to                  time.Duration // after Delay was called
	}{
		{0, 10 * s, 0, 0, 10 * s, 10 * s},
		{0, 10 * s, 0, 3 * s, 10 * s, 10 * s},
		{0, 10 * s, 0, 30 * s, 30 * s, 30 * s},
		{0, 10 * s, 5 * s, 0, 10 * s, 15 * s},
		{0, 1000 * m, 0, 0, 5 * m, 5 * m},
		{m, 1000 * m, 1000 * m, 0, m, 2 * m},
		{-1, 10 * s, 10 * s, 0, 0, 0},
		{0, -10 * s, -5 * s, 0, 0, 0},
	} {
		for _, progress := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				r := redial.New([]transport.Dialer{steps(connects)}, &redial.Policy{
					MaxDelay: c.max, Backoff: every(0), MaxTime: 5 * time.Second, // which the delay is no part of
				})
				link, err := r.Dial(t.Context())
				require.NoError(t, err)
				if progress {
					link.Progress()
				}
				link.Delay(time.Hour, time.Hour) // replaced by:
				link.Delay(c.delay, c.spread)
				start := time.Now()
				<-time.After(c.lived)
				_, err = r.Dial(t.Context())
				require.NoError(t, err)
				require.WithinRange(t, time.Now(), start.Add(c.from), start.Add(c.to))
				start = time.Now()
				_, err = r.Dial(t.Context())
				require.NoError(t, err)
				require.Zero(t, time.Since(start), "it holds once")
			})
		}
	}
}

func TestDelayOutlivesContextAndEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := redial.New([]transport.Dialer{steps(connects)}, nil)
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		link.Delay(time.Minute, 0)
		start := time.Now()
		for range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err = r.Dial(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		_, err = r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, time.Minute, time.Since(start))
	})
}

// What holds for every sequence of events: no endpoint twice in a round, rounds apart by the backoff, preference kept,
// fatal endpoints left alone, and an outage that begins at once with the first endpoint.
func TestOutageProperties(t *testing.T) {
	const pause = time.Second
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, func() {
			t := rt
			n := rapid.IntRange(1, 4).Draw(t, "endpoints")
			var (
				last    = -1                                          // endpoint tried last in this outage, -1 if none
				when    time.Time                                     // and when
				dead    = make(map[int]bool)                          // in this outage
				fresh   = func() { last = -1; dead = map[int]bool{} } // a new outage begins
				dialled int
			)
			var all []transport.Dialer
			for i := range n {
				all = append(all, transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
					now := time.Now()
					require.False(t, dead[i], "endpoint %d was ruled out", i)
					switch {
					case last < 0: // with the first
						for j := range i {
							require.True(t, dead[j])
						}
					case now.Sub(when) < pause:
						require.Greater(t, i, last, "no pause before the round began anew")
					}
					last, when = i, now
					dialled++
					switch rapid.IntRange(0, 3).Draw(t, "outcome") {
					case 0:
						dead[i] = true
						return nil, &net.AddrError{Err: "wrong"}
					case 1:
						return connects(ctx)
					}
					return refuses(ctx)
				}))
			}
			r := redial.New(all, &redial.Policy{Backoff: every(pause)})
			for range rapid.IntRange(1, 20).Draw(t, "dials") {
				before := time.Now()
				link, err := r.Dial(context.Background())
				if err != nil {
					require.True(t, isError(t, err).Fatal)
					require.Len(t, dead, n)
					fresh()
					continue
				}
				require.Equal(t, last, link.Endpoint)
				require.Equal(t, dialled, link.Total)
				if link.Attempts == 1 {
					require.Equal(t, before, when, "the first at once")
				}
				if rapid.Bool().Draw(t, "useful") {
					link.Progress()
					fresh()
				}
			}
		})
	})
}

// inBubble runs f on fake time. A panic, by which rapid ends a run, passes through.
func inBubble(t *testing.T, f func()) {
	var thrown any
	synctest.Test(t, func(*testing.T) {
		defer func() { thrown = recover() }()
		f()
	})
	if thrown != nil {
		panic(thrown)
	}
}

// Ten thousand clients that are cut off together try once together, and then never again.
func TestHerd(t *testing.T) {
	const (
		clients = 10_000
		batch   = 2_000 // clients at a time: the race detector can have 8,128 goroutines
		down    = 30 * time.Second
		slot    = 100 * time.Millisecond
	)
	var first int
	var slots [60]int // of when they were back, counted from when the server was
	for b := range clients / batch {
		synctest.Test(t, func(t *testing.T) {
			s := newSite(t, "a")
			s.network.Faults().RefuseDials(-1, nil)
			start := time.Now()
			up := time.AfterFunc(down, func() { s.network.Faults().RefuseDials(0, nil) })
			defer up.Stop()
			type outcome struct {
				attempts int
				back     time.Duration
				err      error
			}
			all := make(chan outcome, batch)
			for i := range batch {
				r := redial.New(s.dialers("a"), &redial.Policy{
					Source:    func() rand.Source { return rand.NewPCG(uint64(b), uint64(i)) },
					OnFailure: hears(func(redial.Failure) {}),
				})
				go func() {
					link, err := r.Dial(t.Context())
					o := outcome{back: time.Since(start) - down, err: err}
					if err == nil {
						o.attempts = link.Attempts
						_ = link.Conn.Close()
					}
					all <- o
				}()
			}
			synctest.Wait()
			// Only the few whose first draw is 0 by chance have tried twice.
			first += s.network.Faults().Stats().Refused
			for range batch {
				o := <-all
				require.NoError(t, o.err)
				require.Greater(t, o.attempts, 8)
				slots[o.back/slot]++
			}
		})
	}
	require.InDelta(t, clients, first, 5, "first tries, all at once")
	peak, total := 0, 0
	for i, n := range slots {
		peak, total = max(peak, n), total+n
		if i < 40 {
			require.Positive(t, n, "a gap at %v", time.Duration(i)*slot)
		}
		if i >= 50 {
			require.Zero(t, n, "later than the longest wait")
		}
	}
	require.Equal(t, clients, total)
	// Evenly drawn waits of up to 5 s bring 40 % of those who wait within the first second: 400 in a slot.
	require.Less(t, peak, 500, slots)
}
