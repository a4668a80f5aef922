package redial_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// With Background, Dial returns at once, and who reads or writes waits.
func TestBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		p.setDown(true)
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		c, err := (&redial.Dialer{Endpoints: []transport.Dialer{p}, Background: true}).Dial(ctx)
		cancel() // changes nothing
		require.NoError(t, err)
		defer c.Close()
		require.Zero(t, time.Since(start))
		require.Equal(t, redial.Connecting, c.State())
		require.Equal(t, "redial", c.LocalAddr().Network())
		require.Equal(t, "not connected", c.RemoteAddr().String())
		_, err = c.Detach()
		require.ErrorIs(t, err, redial.ErrDisconnected)
		require.EqualError(t, err, "redial: disconnected")
		var op *net.OpError
		require.NotErrorAs(t, err, &op)
		require.NoError(t, c.SetWriteDeadline(start.Add(time.Second)))
		isTimeout(t, (<-writing(c, "x")).err)
		require.NoError(t, c.SetWriteDeadline(start.Add(time.Hour)))
		w := writing(c, "hello")
		synctest.Wait()
		p.setDown(false)
		gets(t, p.next(), "hello")
		require.NoError(t, (<-w).err)
		require.NoError(t, c.WaitState(t.Context(), redial.Connected))
		<-time.After(time.Hour) // the deadline from before holds
		isTimeout(t, (<-writing(c, "x")).err)
	})
}

func TestFirstDial(t *testing.T) {
	for name, c := range map[string]struct {
		step   func(context.Context) (net.Conn, error)
		policy redial.Policy
		took   time.Duration
		dials  int
		is     error
	}{
		"refused, once":         {refuses, redial.Policy{FirstOnce: true}, 0, 1, syscall.ECONNREFUSED},
		"hanging, once":         {hangs, redial.Policy{FirstOnce: true}, 10 * time.Second, 1, syscall.ETIMEDOUT},
		"refused, with retries": {refuses, redial.Policy{Backoff: every(time.Second)}, time.Minute, 61, context.DeadlineExceeded},
		"hanging, with retries": {hangs, redial.Policy{Backoff: every(time.Second)}, time.Minute, 6, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := steps(c.step)
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute+1)
				defer cancel()
				_, err := (&redial.Dialer{Endpoints: []transport.Dialer{d}, Policy: &c.policy}).DialContext(ctx)
				require.ErrorIs(t, err, redial.ErrGaveUp)
				require.ErrorIs(t, err, c.is)
				require.Equal(t, c.took, time.Since(start).Truncate(time.Second))
				require.Len(t, d.at, c.dials)
			})
		})
	}
}

// FirstOnce tries each endpoint, and is about the first connection alone.
func TestFirstOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := steps(refuses), steps(refuses, connects, refuses, refuses, connects)
		r := redial.New([]transport.Dialer{a, b}, &redial.Policy{FirstOnce: true, Backoff: every(time.Second)})
		_, err := r.Dial(t.Context())
		require.ErrorContains(t, err, "the first dial is tried once (2 attempts")
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		_ = link.Conn.Close()
		link, err = r.Dial(t.Context())
		require.NoError(t, err, "later ones are tried as ever")
		_ = link.Conn.Close()
		require.Len(t, b.at, 5)
	})
}

func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{})
		require.Equal(t, redial.Connected, c.State())
		require.NoError(t, c.WaitState(t.Context(), redial.Connected))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, c.WaitState(ctx, redial.Redialling), context.DeadlineExceeded)
		require.ErrorIs(t, c.WaitState(ctx, redial.Kept), context.DeadlineExceeded, "a context that has ended")
		require.NoError(t, c.WaitState(ctx, redial.Connected))

		states := make(chan error, 3)
		go func() { states <- c.WaitState(t.Context(), redial.Redialling) }()
		synctest.Wait()
		p.setDown(true)
		_ = far.Close()
		r := reading(c, 1)
		require.NoError(t, <-states)
		require.Equal(t, redial.Redialling, c.State())
		go func() { states <- c.WaitState(t.Context(), redial.Connected) }()
		p.setDown(false)
		_ = p.next()
		require.NoError(t, <-states)

		go func() { states <- c.WaitState(t.Context(), redial.Ended) }()
		go func() { states <- c.WaitState(t.Context(), redial.Connecting) }()
		synctest.Wait()
		_ = c.Close()
		one, other := <-states, <-states
		if one == nil {
			one, other = other, one
		}
		require.ErrorIs(t, one, net.ErrClosed)
		require.NoError(t, other)
		<-r
	})
	require.Equal(t, "connecting connected redialling kept ended state 9 state -1",
		redial.Connecting.String()+" "+redial.Connected.String()+" "+redial.Redialling.String()+" "+redial.Kept.String()+" "+
			redial.Ended.String()+" "+redial.State(9).String()+" "+redial.State(-1).String())
}

// Redial gives up a connection that looks well, and ends waits and attempts to begin anew.
func TestRedial(t *testing.T) {
	for name, step := range map[string]func(context.Context) (net.Conn, error){"waiting": refuses, "dialling": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeers(t)
				d := steps(p.DialContext, p.DialContext, step, p.DialContext)
				c, err := (&redial.Dialer{
					Endpoints: []transport.Dialer{d},
					Policy:    &redial.Policy{Backoff: every(time.Hour), AttemptTimeout: -1},
					OnDisconnected: func(_ context.Context, d redial.Disconnect) redial.Decision {
						if errors.Is(d.Reason, errOwn) {
							return redial.Decision{Do: redial.Keep} // it was asked for, and is not kept
						}
						return redial.Decision{After: -1}
					},
				}).Dial(t.Context())
				require.NoError(t, err)
				defer c.Close()
				start := time.Now()
				far := p.next()
				r := reading(c, 4)
				synctest.Wait()
				c.Redial(errOwn)
				_, err = far.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err, "the old one is closed")
				_ = p.next().Close()
				synctest.Wait()
				require.Equal(t, redial.Redialling, c.State())
				require.Len(t, d.at, 3)
				c.Redial(nil)
				tells(t, p.next(), "back")
				require.Equal(t, result{4, "back", nil}, <-r)
				require.Zero(t, time.Since(start))
			})
		})
	}
}

// Restart holds for the Dial under way or the next one, and gives it a new outage with full limits.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := steps(refuses, hangs, refuses, connects)
		r := redial.New([]transport.Dialer{d}, &redial.Policy{Backoff: every(time.Hour), MaxAttempts: 2})
		done := make(chan *redial.Link)
		start := time.Now()
		go func() {
			link, err := r.Dial(t.Context())
			if err != nil {
				t.Error(err)
			}
			done <- link
		}()
		for range 3 { // out of a wait, out of an attempt, out of a wait
			synctest.Wait()
			r.Restart()
			r.Restart()
		}
		link := <-done
		require.Zero(t, time.Since(start))
		require.Equal(t, [2]int{1, 4}, [2]int{link.Attempts, link.Total})
		_ = link.Conn.Close()

		r.Restart() // there is none: it is for the next, which would have had to wait
		link.Delay(time.Minute, 0)
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.Equal(t, 1, link.Attempts)
		_ = link.Conn.Close()
	})
}

// Restart ends a DialPreferred, and the Dial that follows begins anew.
func TestRestartEndsDialPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := steps(refuses, hangs, connects)
		r, link := fallback(t, &redial.Policy{}, a)
		done := make(chan error)
		go func() {
			_, err := r.DialPreferred(t.Context(), link)
			done <- err
		}()
		synctest.Wait()
		start := time.Now()
		r.Restart()
		require.ErrorIs(t, <-done, redial.ErrGaveUp)
		link, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.Zero(t, link.Endpoint)
		_ = link.Conn.Close()
	})
}

// Values are read and changed while a redial runs.
func TestSetPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{Policy: &redial.Policy{Backoff: every(time.Hour), MaxAttempts: 1000}})
		require.Equal(t, 1000, c.Policy().MaxAttempts)
		require.Equal(t, 10*time.Second, c.Policy().AttemptTimeout, "what 0 means")
		p.setDown(true)
		_ = far.Close()
		r := reading(c, 1)
		start := time.Now()
		<-time.After(90 * time.Minute)
		policy := c.Policy()
		policy.Backoff = every(time.Minute)
		policy.MaxAttempts = p.count() + 3
		c.SetPolicy(&policy)
		require.Equal(t, policy.MaxAttempts, c.Policy().MaxAttempts)
		err := (<-r).err
		require.ErrorContains(t, err, "no attempts are left (5 attempts")
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.Equal(t, 2*time.Hour+2*time.Minute, time.Since(start), "the wait under way ended as it was begun")
	})
}

// A hook may change the policy that called it.
func TestHookSetsPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *redial.Redialer
		r = redial.New([]transport.Dialer{steps(refuses)}, &redial.Policy{Backoff: every(time.Hour), OnFailure: hears(func(redial.Failure) {
			r.SetPolicy(&redial.Policy{MaxAttempts: 2})
		})})
		_, err := r.Dial(t.Context())
		require.ErrorContains(t, err, "no attempts are left (2 attempts")
		require.Equal(t, 2, r.Policy().MaxAttempts)
		r.SetPolicy(nil)
		require.Zero(t, r.Policy().MaxAttempts)
	})
}

// A server that says something and hangs up is not dialled as fast as it can do that.
func TestHangsUpAfterAByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		c, err := (&redial.Dialer{Endpoints: []transport.Dialer{transport.DialerFunc(func(context.Context) (net.Conn, error) {
			dials++
			a, b := net.Pipe()
			go func() { _, _ = b.Write([]byte("x")); _ = b.Close() }()
			return a, nil
		})}}).Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		_, err = io.Copy(io.Discard, c)
		isTimeout(t, err)
		require.Greater(t, dials, 600, "at least one each 100 ms")
		require.Less(t, dials, 1600)
	})
}

// A day of refused dials under a Conn, in which a reader waits all the time.
func TestConnRefusedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{})
		p.setDown(true)
		_ = far.Close()
		r := reading(c, 4)
		start := time.Now()
		<-time.After(24 * time.Hour)
		require.Equal(t, redial.Redialling, c.State())
		p.setDown(false)
		tells(t, p.next(), "back")
		require.Equal(t, result{4, "back", nil}, <-r)
		require.Less(t, time.Since(start), 24*time.Hour+6*time.Second)
		require.Greater(t, p.count(), 30_000)
	})
}

// One goroutine for each method, all at once, while the peer comes and goes: for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		p.accept = make(chan net.Conn)
		c, err := (&redial.Dialer{
			Endpoints: []transport.Dialer{p}, Background: true,
			Policy:         &redial.Policy{Backoff: every(time.Millisecond)},
			OnDisconnected: always(redial.Decision{After: time.Millisecond}),
		}).Dial(t.Context())
		require.NoError(t, err)
		ended, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		go func() {
			for far := range p.accept {
				go func() { _, _ = io.Copy(far, far) }()
				<-time.After(3 * time.Millisecond)
				_ = far.Close()
			}
		}()
		done := make(chan struct{})
		calls := []func(){
			func() { _, _ = c.Read(make([]byte, 10)) },
			func() { _, _ = c.Write([]byte("hello")) },
			func() { _ = c.SetReadDeadline(time.Now().Add(time.Second)) },
			func() { _ = c.SetDeadline(time.Time{}) },
			func() { _, _ = c.LocalAddr(), c.RemoteAddr() },
			func() { c.Redial(nil) },
			func() { _ = c.WaitState(ended, redial.Connected) },
			func() { p := c.Policy(); c.SetPolicy(&p) },
			func() { _ = c.Configure(func(net.Conn) error { return nil }) },
			func() { p.setDown(p.count()%2 == 0) },
		}
		for i, call := range calls {
			go func() {
				for ended.Err() == nil && c.State() != redial.Ended {
					call()
					<-time.After(time.Duration(10+i) * time.Millisecond)
				}
				done <- struct{}{}
			}()
		}
		<-ended.Done()
		require.NotEqual(t, redial.Ended, c.State())
		require.Greater(t, p.count(), 100)
		_ = c.Close()
		for range calls {
			<-done
		}
		synctest.Wait()
		close(p.accept)
	})
}

// What is configured while another connection is made holds for that too.
func TestConfigureMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, _ := p.conn(redial.Dialer{})
		var seen []net.Conn
		require.NoError(t, c.Configure(func(nc net.Conn) error {
			if seen = append(seen, nc); len(seen) == 1 {
				c.Redial(nil) // it breaks just now
				<-time.After(time.Second)
			}
			return nil
		}))
		require.Len(t, seen, 2)
		require.NotEqual(t, seen[0], seen[1])
		require.Equal(t, redial.Connected, c.State())
	})
}

// A Write of which a part was taken when the connection is detached ends as all others do.
func TestDetachInAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := (&redial.Dialer{}).Wrap(a)
		w := writing(c, "hello")
		gets(t, b, "he")
		synctest.Wait()
		nc, err := c.Detach()
		require.NoError(t, err)
		defer nc.Close()
		r := <-w
		require.Equal(t, 2, r.n)
		require.ErrorIs(t, r.err, net.ErrClosed)
		require.NotErrorIs(t, r.err, os.ErrDeadlineExceeded)
	})
}
