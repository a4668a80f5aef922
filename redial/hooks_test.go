package redial_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/towline-mq/towline/transport/mem"
)

// The hook is told why, and how many attempts there were now and in all.
func TestOnDisconnectedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		var told []redial.Disconnect
		c, far := p.conn(redial.Dialer{
			Policy: &redial.Policy{Backoff: every(time.Second)},
			OnDisconnected: func(_ context.Context, d redial.Disconnect) redial.Decision {
				told = append(told, d)
				return redial.Decision{}
			},
		})
		tells(t, far, "x") // it is of use
		gets(t, c, "x")
		_ = far.Close()
		r := reading(c, 1)
		_ = p.next()
		p.faults.Cut(nil) // this one is not, nor is the next
		far = p.next()
		p.setDown(true)
		_ = far.Close()
		<-time.After(3500 * time.Millisecond)
		p.setDown(false)
		far = p.next()
		tells(t, far, "y")
		require.Equal(t, "y", (<-r).got)
		c.Redial(errOwn)
		_ = p.next()
		require.Len(t, told, 4)
		for i, want := range []redial.Disconnect{
			{Reason: io.EOF, Attempts: 0, Total: 1},
			{Attempts: 1, Total: 2},
			{Reason: io.EOF, Attempts: 2, Total: 3},
			{Reason: errOwn, Attempts: 0, Total: p.count() - 1},
		} {
			if want.Reason == nil {
				require.ErrorIs(t, told[i].Reason, syscall.ECONNRESET)
				want.Reason = told[i].Reason
			}
			require.Equal(t, want, told[i], i)
		}
	})
}

// The hook chooses the wait.
func TestOnDisconnectedAfter(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{
		0:                time.Minute, // the policy's, since the connection was of no use
		-1:               0,
		10 * time.Second: 10 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeers(t)
			c, far := p.conn(redial.Dialer{
				Policy:         &redial.Policy{Backoff: every(time.Minute)},
				OnDisconnected: always(redial.Decision{After: after}),
			})
			start := time.Now()
			_ = far.Close()
			r := reading(c, 1)
			_ = p.next()
			require.Equal(t, want, time.Since(start), "%v", after)
			_ = c.Close()
			<-r
		})
	}
}

func TestOnDisconnectedStop(t *testing.T) {
	for _, reason := range []error{nil, errOwn} {
		synctest.Test(t, func(t *testing.T) {
			p := newPeers(t)
			c, far := p.conn(redial.Dialer{OnDisconnected: always(redial.Decision{Do: redial.Stop, Err: reason})})
			w := writing(c, "hello")
			gets(t, far, "hello")
			require.NoError(t, (<-w).err)
			_ = far.Close()
			_, err := c.Read(make([]byte, 1))
			require.ErrorIs(t, err, redial.ErrGaveUp)
			require.NotErrorIs(t, err, io.EOF)
			require.Equal(t, reason != nil, errors.Is(err, errOwn))
			require.Equal(t, io.EOF, isError(t, err).Last)
			require.Equal(t, 1, p.count())
			require.Equal(t, redial.Ended, c.State())
		})
	}
}

// With Keep the stream is a bare one, whose errors are its own, until it is asked to redial.
func TestOnDisconnectedKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		told := 0
		c, far := p.conn(redial.Dialer{OnDisconnected: func(context.Context, redial.Disconnect) redial.Decision {
			told++
			return redial.Decision{Do: redial.Keep}
		}})
		tells(t, far, "bye")
		require.NoError(t, far.(*mem.Conn).CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "bye", string(got))
		require.Equal(t, redial.Kept, c.State())
		_, err = c.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		tells(t, c, "I heard")
		gets(t, far, "I heard")
		p.faults.Cut(nil)
		n, err := c.Write([]byte("x"))
		require.Zero(t, n)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.NotErrorIs(t, err, redial.ErrDisconnected)
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, 1, told)
		require.Equal(t, 1, p.count())

		c.Redial(nil)
		far = p.next()
		tells(t, far, "hello")
		gets(t, c, "hello")
		require.Equal(t, redial.Connected, c.State())
		require.Equal(t, 2, told)

		// A Write that meets the end returns what it met, and how much was taken.
		p.control(2).FailWrite(mem.Up, 1, 3, syscall.ECONNRESET)
		n, err = c.Write([]byte("foobar"))
		require.Equal(t, 3, n)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.Equal(t, redial.Kept, c.State())
	})
}

// The hook sends all elsewhere, and so does the one that is told of a dial that failed.
func TestHooksChangeTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, third := newPeers(t), newPeers(t), newPeers(t)
		var failed []redial.Failure
		c, far := first.conn(redial.Dialer{
			Policy: &redial.Policy{
				Backoff: every(time.Hour),
				OnFailure: func(_ context.Context, f redial.Failure) redial.Decision {
					failed = append(failed, f)
					return redial.Decision{After: -1, Endpoint: third}
				},
			},
			OnDisconnected: always(redial.Decision{After: -1, Endpoint: second}),
		})
		second.setDown(true)
		start := time.Now()
		_ = far.Close()
		r := reading(c, 5)
		tells(t, third.next(), "third")
		require.Equal(t, "third", (<-r).got)
		require.Zero(t, time.Since(start))
		require.Equal(t, [3]int{1, 1, 1}, [3]int{first.count(), second.count(), third.count()})
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[0].Err, syscall.ECONNREFUSED)
	})
}

// A dialer may lead elsewhere at each attempt, and the first connection may be made otherwise than later ones.
func TestAddressChangesBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "c")
		var tried []string
		next := []string{"a", "b", "c"}
		d := redial.Dialer{Endpoints: []transport.Dialer{transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			name := next[min(len(tried), 2)]
			tried = append(tried, name)
			return mem.Dialer{Network: &s.network, Addr: name}.DialContext(ctx)
		})}, EndOnEOF: false}
		c, err := d.Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		require.Equal(t, "a", c.RemoteAddr().String())
		r := reading(c, 1)
		require.Eventually(t, func() bool { return c.RemoteAddr().String() == "c" }, time.Minute, time.Second)
		require.Equal(t, []string{"a", "b", "c"}, tried[:3])
		_ = c.Close()
		<-r
	})
}

// A fatal failure at an endpoint that is replaced is not fatal.
func TestOnFailureReplacesWhatIsRuledOut(t *testing.T) {
	for name, err := range map[string]error{"fatal": &net.AddrError{Err: "bad"}, "marked": redial.Fatal(errOwn)} {
		t.Run(name, func(t *testing.T) {
			good := steps(connects)
			link, err := redial.New([]transport.Dialer{steps(says(err))}, &redial.Policy{
				OnFailure: func(_ context.Context, f redial.Failure) redial.Decision {
					require.True(t, f.Fatal)
					require.Negative(t, f.Wait)
					return redial.Decision{Endpoint: good}
				},
				Backoff: every(0),
			}).Dial(t.Context())
			require.NoError(t, err)
			_ = link.Conn.Close()
			require.Equal(t, 2, link.Attempts)
		})
	}
}

func TestOnFailureDecides(t *testing.T) {
	for name, c := range map[string]struct {
		policy   redial.Policy
		decision redial.Decision
		is       error
		attempts int
		took     time.Duration
	}{
		"stop":              {redial.Policy{}, redial.Decision{Do: redial.Stop}, redial.ErrGaveUp, 1, 0},
		"stop for a reason": {redial.Policy{}, redial.Decision{Do: redial.Stop, Err: errOwn}, errOwn, 1, 0},
		"a wait":            {redial.Policy{MaxAttempts: 3}, redial.Decision{After: time.Minute}, redial.ErrGaveUp, 3, 2 * time.Minute},
		"no wait":           {redial.Policy{MaxAttempts: 3, Backoff: every(time.Hour)}, redial.Decision{After: -1}, redial.ErrGaveUp, 3, 0},
		"keep is go on":     {redial.Policy{MaxAttempts: 2, Backoff: every(time.Hour)}, redial.Decision{Do: redial.Keep}, redial.ErrGaveUp, 2, time.Hour},
		"a wait beyond the limit": {
			redial.Policy{MaxTime: time.Minute}, redial.Decision{After: time.Minute}, redial.ErrGaveUp, 1, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.policy.OnFailure = func(context.Context, redial.Failure) redial.Decision { return c.decision }
				start := time.Now()
				_, err := redial.New([]transport.Dialer{steps(refuses)}, &c.policy).Dial(t.Context())
				require.ErrorIs(t, err, c.is)
				require.ErrorIs(t, err, redial.ErrGaveUp)
				require.ErrorIs(t, err, syscall.ECONNREFUSED)
				require.Equal(t, c.attempts, isError(t, err).Attempts)
				require.Equal(t, c.took, time.Since(start))
			})
		})
	}
}

// A hook that takes its time sees its context end with Dial's, by Close and by Restart, and its time counts towards the wait.
func TestSlowHooks(t *testing.T) {
	for name, stop := range map[string]func(*redial.Redialer, context.CancelFunc){
		"cancel":  func(_ *redial.Redialer, cancel context.CancelFunc) { cancel() },
		"close":   func(r *redial.Redialer, _ context.CancelFunc) { _ = r.Close() },
		"restart": func(r *redial.Redialer, _ context.CancelFunc) { r.Restart() },
		"nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *redial.Redialer
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				d := steps(refuses, connects)
				r = redial.New([]transport.Dialer{d}, &redial.Policy{
					Backoff: every(time.Minute),
					OnFailure: func(hctx context.Context, f redial.Failure) redial.Decision {
						if stop == nil {
							<-time.After(20 * time.Second)
							return redial.Decision{}
						}
						stop(r, cancel)
						<-hctx.Done()
						return redial.Decision{}
					},
				})
				start := time.Now()
				link, err := r.Dial(ctx)
				switch name {
				case "cancel", "close":
					require.Error(t, err)
					require.Zero(t, time.Since(start))
					return
				case "restart":
					require.Zero(t, time.Since(start))
				default:
					require.Equal(t, time.Minute, time.Since(start))
				}
				require.NoError(t, err)
				_ = link.Conn.Close()
			})
		})
	}
}

// What OnDisconnected does takes as long as it takes; those who wait have their deadlines, and Close ends its context.
func TestSlowOnDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		ended := make(chan struct{})
		c, far := p.conn(redial.Dialer{OnDisconnected: func(ctx context.Context, _ redial.Disconnect) redial.Decision {
			<-ctx.Done()
			close(ended)
			return redial.Decision{}
		}})
		_ = far.Close()
		start := time.Now()
		require.NoError(t, c.SetReadDeadline(start.Add(time.Second)))
		isTimeout(t, (<-reading(c, 1)).err)
		require.Equal(t, time.Second, time.Since(start))
		w := writing(c, "x")
		synctest.Wait()
		_ = c.Close()
		require.ErrorIs(t, (<-w).err, net.ErrClosed)
		<-ended
		synctest.Wait()
		require.Equal(t, 1, p.count())
	})
}

// login is a server's greeting and a client's answer.
func login(_ context.Context, c redial.Connection) error {
	greeting := make([]byte, 5)
	if _, err := io.ReadFull(c.Conn, greeting); err != nil {
		return err
	}
	if string(greeting) == "never" {
		return redial.Fatal(errOwn)
	}
	_, err := fmt.Fprintf(c.Conn, "login %v %d;", c.First, c.Total)
	return err
}

// Nobody's bytes go over a connection before the login is done, be it the first or a later one.
func TestLoginBeforeTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, err := (&redial.Dialer{
			Endpoints: []transport.Dialer{p}, Background: true,
			Policy: &redial.Policy{OnConnected: login},
		}).Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		for i := range 4 {
			w := writing(c, "traffic")
			far := p.next()
			synctest.Wait()
			require.Empty(t, w)
			require.NotEqual(t, redial.Connected, c.State())
			tells(t, far, "hello")
			gets(t, far, fmt.Sprintf("login %v %d;traffic", i == 0, i+1))
			require.NoError(t, (<-w).err)
			tells(t, far, "x")
			gets(t, c, "x")
			require.Equal(t, redial.Connected, c.State())
			p.faults.Cut(nil)
		}
	})
}

// A login that is refused, broken or slow is a failed attempt.
func TestLoginFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		var failures []error
		c, err := (&redial.Dialer{
			Endpoints: []transport.Dialer{p}, Background: true,
			Policy: &redial.Policy{
				OnConnected: login, AttemptTimeout: time.Second, Backoff: every(time.Minute),
				OnFailure: hears(func(f redial.Failure) { failures = append(failures, f.Err) }),
			},
		}).Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		start := time.Now()
		_ = p.next().Close()
		slow := p.next() // says nothing for a second
		_, err = slow.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "closed by us")
		last := p.next()
		tells(t, last, "never")
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, errOwn)
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.True(t, isError(t, err).Fatal)
		require.Equal(t, 2*time.Minute+time.Second, time.Since(start))
		require.Len(t, failures, 3)
		require.Equal(t, io.EOF, failures[0])
		require.ErrorIs(t, failures[1], syscall.ETIMEDOUT)
		require.NotErrorIs(t, failures[1], context.DeadlineExceeded)
		require.ErrorIs(t, failures[1], os.ErrDeadlineExceeded)
	})
}

// A hook that minds no context and says that all is well when its time is over is not believed.
func TestLoginTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		r := redial.New([]transport.Dialer{p}, &redial.Policy{
			MaxAttempts: 1, AttemptTimeout: time.Second,
			OnConnected: func(context.Context, redial.Connection) error { <-time.After(time.Minute); return nil },
		})
		_, err := r.Dial(t.Context())
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		_, err = p.next().Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

// What is configured holds for the connection that there is and for all later ones, in order, and deadlines that a hook
// leaves behind do not.
func TestConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{Policy: &redial.Policy{OnConnected: func(_ context.Context, c redial.Connection) error {
			return c.Conn.SetDeadline(time.Now().Add(time.Second))
		}}})
		say := func(s string) func(net.Conn) error {
			return func(conn net.Conn) error { _, err := io.WriteString(conn, s); return err }
		}
		require.NoError(t, c.Configure(say("one")))
		require.NoError(t, c.Configure(say("two")))
		require.Equal(t, errOwn, c.Configure(func(net.Conn) error { return errOwn }))
		gets(t, far, "onetwo")
		r := reading(c, 1)
		for range 3 {
			_ = far.Close()
			far = p.next()
			gets(t, far, "onetwo")
		}
		<-time.After(time.Minute)
		tells(t, far, "x")
		require.Equal(t, "x", (<-r).got)

		// One that comes while there is no connection is there for the next.
		p.setDown(true)
		_ = far.Close()
		r = reading(c, 1)
		synctest.Wait()
		require.NoError(t, c.Configure(say("three")))
		p.setDown(false)
		far = p.next()
		gets(t, far, "onetwothree")

		// One that fails for a later connection is a failed attempt.
		count, fail := p.count(), 2
		require.NoError(t, c.Configure(func(conn net.Conn) error {
			if conn.LocalAddr() != nil && p.count() > count && fail > 0 {
				fail--
				return errOwn
			}
			return nil
		}))
		_ = far.Close()
		_, _ = p.next(), p.next()
		far = p.next()
		gets(t, far, "onetwothree")
		tells(t, far, "y")
		require.Equal(t, "y", (<-r).got)
	})
}

// A Configure from within what another one calls reaches the same connection.
func TestConfigureWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		once := false
		var c *redial.Conn
		c, far := p.conn(redial.Dialer{})
		require.NoError(t, c.Configure(func(net.Conn) error {
			if c.State() != redial.Connected && !once {
				once = true
				return c.Configure(func(conn net.Conn) error { _, err := io.WriteString(conn, "late"); return err })
			}
			return nil
		}))
		_ = far.Close()
		r := reading(c, 1)
		far = p.next()
		gets(t, far, "late")
		_ = c.Close()
		<-r
	})
}

// lateConn calls something when its deadlines are taken away, the last thing before it is handed over.
type lateConn struct {
	net.Conn
	call func()
}

func (l lateConn) SetDeadline(time.Time) error {
	l.call()
	return nil
}

// A Configure that comes when a new connection is set up already, and not yet in use, is not forgotten; if it fails, that
// connection is not used.
func TestConfigureAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		var c *redial.Conn
		var late func(net.Conn) error
		d := redial.Dialer{
			Endpoints: []transport.Dialer{transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
				conn, err := p.DialContext(ctx)
				return lateConn{conn, func() {
					if late != nil {
						f := late
						late = nil
						require.NoError(t, c.Configure(f))
					}
				}}, err
			})},
			Policy: &redial.Policy{OnConnected: func(context.Context, redial.Connection) error { return nil }},
		}
		c, err := d.Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		late = func(conn net.Conn) error { _, err := io.WriteString(conn, "late"); return err }
		_ = p.next().Close()
		r := reading(c, 1)
		far := p.next()
		gets(t, far, "late")

		failed := false
		late = func(net.Conn) error {
			if failed {
				return nil
			}
			failed = true
			return errOwn
		}
		_ = far.Close()
		far = p.next()
		gets(t, far, "late")
		_, err = far.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "closed by us")
		far = p.next()
		gets(t, far, "late")
		tells(t, far, "x")
		require.Equal(t, "x", (<-r).got)
	})
}

// After counts from when the hook returned.
func TestOnFailureAfterCountsFromThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a")
		s.faults["a"].RefuseDials(1, nil)
		r := redial.New(s.dialers("a"), &redial.Policy{OnFailure: func(context.Context, redial.Failure) redial.Decision {
			<-time.After(3 * time.Second)
			return redial.Decision{After: time.Second}
		}})
		start := time.Now()
		l, err := r.Dial(t.Context())
		require.NoError(t, err)
		require.Equal(t, 4*time.Second, time.Since(start))
		_ = l.Conn.Close()
	})
}

// What the hook says goes before the pause after a connection that was of little use.
func TestOnDisconnectedBeforeThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network mem.Network
		ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: &network})
		require.NoError(t, err)
		defer ln.Close()
		go func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = nc.Write([]byte("x"))
				_ = nc.Close()
			}
		}()
		d := redial.Dialer{
			Endpoints:      []transport.Dialer{mem.Dialer{Network: &network, Addr: "s"}},
			OnDisconnected: func(context.Context, redial.Disconnect) redial.Decision { return redial.Decision{After: -1} },
		}
		c, err := d.Dial(t.Context())
		require.NoError(t, err)
		start := time.Now()
		for range 20 {
			_, err := c.Read(make([]byte, 1))
			require.NoError(t, err)
		}
		require.Zero(t, time.Since(start), "the hook says: no wait")
		_ = c.Close()
	})
}
