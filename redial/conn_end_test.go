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
	"github.com/towline-mq/towline/transport/mem"
)

// Close is the token that calls a redial off, while it waits and while it dials, for all who wait, and at once. A second
// Close does nothing.
func TestCloseEndsARedialAtOnce(t *testing.T) {
	for name, step := range map[string]func(context.Context) (net.Conn, error){
		"waiting": refuses, "dialling": hangs, "logging in": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := mem.Pipe(nil)
				silent, other := mem.Pipe(nil)
				defer other.Close()
				policy := &redial.Policy{Backoff: every(time.Hour), AttemptTimeout: -1, StableAfter: 1}
				if step == nil {
					step = func(context.Context) (net.Conn, error) { return silent, nil }
					policy.OnConnected = func(_ context.Context, c redial.Connection) error {
						if c.First {
							return nil
						}
						_, err := c.Conn.Read(make([]byte, 1)) // waits for a greeting that does not come
						return err
					}
				}
				c, err := (&redial.Dialer{Endpoints: []transport.Dialer{steps(
					func(context.Context) (net.Conn, error) { return near, nil }, step,
				)}, Policy: policy}).Dial(t.Context())
				require.NoError(t, err)
				<-time.After(time.Second) // long enough to count as good: the next dial is at once
				_ = far.Close()
				r, w := reading(c, 1), writing(c, "x")
				synctest.Wait()
				r2, w2 := reading(c, 1), writing(c, "x")
				synctest.Wait()
				require.Equal(t, redial.Redialling, c.State())
				start := time.Now()
				require.NoError(t, c.Close())
				require.NoError(t, c.Close())
				for _, done := range []<-chan result{r, r2, w, w2} {
					res := <-done
					require.Zero(t, res.n)
					require.ErrorIs(t, res.err, net.ErrClosed)
					require.NotErrorIs(t, res.err, redial.ErrGaveUp)
					require.NotErrorIs(t, res.err, io.EOF)
				}
				require.Zero(t, time.Since(start))
				require.Equal(t, redial.Ended, c.State())
				require.ErrorIs(t, c.SetDeadline(time.Now()), net.ErrClosed)
				_, err = c.Detach()
				require.ErrorIs(t, err, net.ErrClosed)
				require.Error(t, c.Configure(func(net.Conn) error { return nil }))
				c.Redial(nil)
				require.Equal(t, redial.Ended, c.State())
				require.Equal(t, "mem", c.RemoteAddr().Network(), "the addresses stay")
			})
		})
	}
}

// A connection that does not want to close holds nobody up: not the redial, and not those who ask for the state.
func TestSlowClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := mem.Pipe(nil)
		p := newPeers(t)
		leave := make(chan struct{})
		c := (&redial.Dialer{Endpoints: []transport.Dialer{p}}).Wrap(reluctant{near, leave})
		start := time.Now()
		_ = far.Close()
		r := reading(c, 1)
		tells(t, p.next(), "x")
		require.Equal(t, "x", (<-r).got)
		require.LessOrEqual(t, time.Since(start), time.Second)
		close(leave)
		_ = c.Close()
	})
}

// reluctant is a connection whose Close takes its time.
type reluctant struct {
	net.Conn
	leave chan struct{}
}

func (r reluctant) Close() error {
	<-r.leave
	return r.Conn.Close()
}

func TestCloseWhileConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{})
		r := reading(c, 1)
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, (<-r).err, net.ErrClosed)
		_, err := far.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.Equal(t, 1, p.count())
	})
}

// When the policy gives up, all who wait and all who come later get the same error: it wraps the last cause, and is no
// end of a stream.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := steps(nil, refuses, refuses, says(io.EOF))
		near, far := mem.Pipe(nil)
		d.steps[0] = func(context.Context) (net.Conn, error) { return near, nil }
		c, err := (&redial.Dialer{Endpoints: []transport.Dialer{d}, Policy: &redial.Policy{
			MaxAttempts: 4, Backoff: every(time.Second),
		}}).Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		_ = far.Close()
		r, w := reading(c, 1), writing(c, "x")
		first := (<-r).err
		for _, err := range []error{first, (<-w).err, (<-reading(c, 1)).err, (<-writing(c, "x")).err, c.SetDeadline(time.Now())} {
			require.Same(t, first, err)
		}
		require.ErrorIs(t, first, redial.ErrGaveUp)
		require.NotErrorIs(t, first, io.EOF)
		require.NotErrorIs(t, first, net.ErrClosed)
		e := isError(t, first)
		require.Equal(t, io.EOF, e.Last)
		require.Equal(t, 4, e.Attempts)
		require.EqualError(t, first, "redial: gave up: no attempts are left (4 attempts in 3s): EOF")
		require.Equal(t, redial.Ended, c.State())
		require.Same(t, first, c.WaitState(t.Context(), redial.Connected))
		require.NoError(t, c.WaitState(t.Context(), redial.Ended))
		_, err = c.Detach()
		require.Same(t, first, err)
		require.NoError(t, c.Close())
	})
}

// A cause is there for errors.Is.
func TestGiveUpWrapsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{Policy: &redial.Policy{MaxAttempts: 2, Backoff: every(0)}})
		p.setDown(true)
		_ = far.Close()
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, redial.ErrGaveUp)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	})
}

// The end of a connection that says that another is of no use is the end, unless the program knows better.
func TestFatalDisconnect(t *testing.T) {
	for name, c := range map[string]struct {
		reason error
		policy redial.Policy
		again  bool
	}{
		"protocol error":     {reason: redial.Fatal(errOwn)},
		"by the policy":      {reason: reset, policy: redial.Policy{IsFatal: func(error) bool { return true }}},
		"closed by somebody": {reason: net.ErrClosed, again: true},
		"reset":              {reason: reset, again: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := mem.Pipe(nil)
				defer far.Close()
				next, peer := mem.Pipe(nil)
				d := redial.Dialer{Policy: &c.policy, Endpoints: []transport.Dialer{
					transport.DialerFunc(func(context.Context) (net.Conn, error) { return next, nil }),
				}}
				conn := d.Wrap(odd{Conn: near, read: func([]byte) (int, error) { return 0, c.reason }})
				defer conn.Close()
				if tells(t, peer, "next"); c.again {
					gets(t, conn, "next")
					return
				}
				_, err := conn.Read(make([]byte, 1))
				require.ErrorIs(t, err, redial.ErrGaveUp)
				require.ErrorIs(t, err, c.reason)
				require.True(t, isError(t, err).Fatal)
			})
		})
	}
}

// A connection that exists is wrapped, serves until it breaks, and what is there then can be taken out again, from under
// those who use it.
func TestWrapAndDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		near, end := mem.Pipe(nil)
		var far net.Conn = end
		firsts := 0
		c := (&redial.Dialer{
			Endpoints: []transport.Dialer{p},
			Policy: &redial.Policy{OnConnected: func(_ context.Context, c redial.Connection) error {
				if c.First {
					firsts++
				}
				return nil
			}},
		}).Wrap(near)
		require.Equal(t, redial.Connected, c.State())
		require.Equal(t, near.LocalAddr(), c.LocalAddr())
		tells(t, c, "hello")
		gets(t, far, "hello")
		p.setDown(true)
		_ = far.Close()
		r := reading(c, 5)
		synctest.Wait()
		_, err := c.Detach()
		require.ErrorIs(t, err, redial.ErrDisconnected)
		require.Equal(t, redial.Redialling, c.State())
		p.setDown(false)
		far = p.next()
		tells(t, far, "again")
		require.Equal(t, "again", (<-r).got)
		require.Zero(t, firsts, "the first was the one that was wrapped")

		require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
		r = reading(c, 1)
		synctest.Wait()
		start := time.Now()
		out, err := c.Detach()
		require.NoError(t, err)
		require.Zero(t, time.Since(start), "the Read is made to let go of it")
		require.ErrorIs(t, (<-r).err, net.ErrClosed)
		require.NoError(t, c.Close())
		<-time.After(time.Hour) // no deadline is left on it
		tells(t, out, "mine")
		gets(t, far, "mine")
		tells(t, far, "yours")
		gets(t, out, "yours")
		require.Equal(t, out.RemoteAddr(), c.RemoteAddr())
		_, err = c.Detach()
		require.ErrorIs(t, err, net.ErrClosed)
		_ = out.Close()
	})
}

// Who is stuck with an old connection does not keep the new one from being taken out.
func TestDetachBesideAnOldRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		near, _ := mem.Pipe(nil)
		p := newPeers(t)
		c := (&redial.Dialer{Endpoints: []transport.Dialer{p}}).Wrap(odd{
			Conn:  near,
			read:  func([]byte) (int, error) { <-late; return 0, reset }, // minds neither Close nor deadlines
			write: func([]byte) (int, error) { return 0, reset },
		})
		r := reading(c, 1)
		synctest.Wait()
		require.NoError(t, (<-writing(c, "x")).err)
		_ = p.next()
		out, err := c.Detach()
		require.NoError(t, err)
		_ = out.Close()
		close(late)
		require.ErrorIs(t, (<-r).err, net.ErrClosed)
	})
}

func TestWrapWithoutEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := mem.Pipe(nil)
		c := (&redial.Dialer{}).Wrap(near)
		defer c.Close()
		_ = far.Close()
		_, err := c.Read(make([]byte, 1))
		require.EqualError(t, err, "redial: gave up: there is no endpoint to dial: EOF")
		require.Equal(t, io.EOF, isError(t, err).Last)
		require.NotErrorIs(t, err, io.EOF)
		_, err = (&redial.Dialer{}).Dial(t.Context())
		require.ErrorIs(t, err, redial.ErrGaveUp)
		_, err = (&redial.Dialer{Background: true}).Dial(t.Context())
		require.ErrorIs(t, err, redial.ErrGaveUp)
	})
}
