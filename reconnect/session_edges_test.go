package reconnect_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// Who asks who peers are serves nobody who cannot say it, unless told to; and may do with a token what it likes.
func TestAuthenticateIsAskedOfAll(t *testing.T) {
	for _, plain := range []reconnect.PlainPeers{reconnect.PlainIfAnybody, reconnect.AllowPlain} {
		synctest.Test(t, func(t *testing.T) {
			n := new(mem.Network)
			l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{
				Plain: plain,
				Authenticate: func(_ context.Context, p *reconnect.Peer) (string, error) {
					if string(p.Token) != "secret" {
						return "", errors.New("not you")
					}
					clear(p.Token)
					return "me", nil
				},
			})
			defer l.Close()
			c, err := reconnect.DialPlain(t.Context(), mem.Dialer{Network: n, Addr: "s"}, nil)
			require.NoError(t, err)
			defer c.CloseNow()
			require.NoError(t, c.Writer().Send(t.Context(), text(1, "do it")))
			synctest.Wait()
			if plain == reconnect.AllowPlain {
				s, err := l.Accept(t.Context())
				require.NoError(t, err)
				require.NoError(t, s.CloseNow())
			} else {
				_, err = c.Reader().Receive(t.Context())
				require.Error(t, err)
			}

			s, err := reconnect.Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
				Token: func(context.Context) ([]byte, error) { return []byte("secret"), nil },
			})
			require.NoError(t, err)
			defer s.CloseNow()
			b, err := l.Accept(t.Context())
			require.NoError(t, err, "nobody else was let in")
			assert.Equal(t, "me", b.Principal())
			s.NetConn().(*mem.Conn).Faults().Cut(nil)
			require.NoError(t, s.Writer().Send(t.Context(), text(1, "x")))
			require.NoError(t, s.Writer().Flush(t.Context()))
			assert.EqualValues(t, 1, s.Stats().Resumes)
		})
	}
}

// away is a dialer that is refused as long as it says so.
type away struct {
	transport.Dialer
	is atomic.Bool
}

func (d *away) DialContext(ctx context.Context) (net.Conn, error) {
	if d.is.Load() {
		return nil, syscall.ECONNREFUSED
	}
	return d.Dialer.DialContext(ctx)
}

// Redial in an outage forgets nothing of what was: it is no first dial, and the program's functions are not called with
// the session locked.
func TestRedialInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		var first []bool
		var total []int
		var conn atomic.Pointer[reconnect.Conn]
		d := &away{Dialer: mem.Dialer{Network: n, Addr: "s"}}
		c, err := reconnect.Dial(t.Context(), d, &reconnect.DialOptions{Redial: &redial.Policy{
			FirstOnce: true,
			Backoff: func() redial.Backoff {
				if c := conn.Load(); c != nil {
					_ = c.State()
				}
				return new(redial.Jitter)
			},
			OnConnected: func(_ context.Context, c redial.Connection) error {
				first, total = append(first, c.First), append(total, c.Total)
				return nil
			},
		}})
		require.NoError(t, err)
		defer c.CloseNow()
		conn.Store(c)
		d.is.Store(true)
		c.NetConn().(*mem.Conn).Faults().Cut(nil)
		<-time.After(20 * time.Second)
		require.Equal(t, reconnect.Disconnected, c.State())
		c.Redial(nil)
		synctest.Wait()
		require.Equal(t, reconnect.Disconnected, c.State())
		d.is.Store(false)
		c.Redial(nil)
		synctest.Wait()
		require.Equal(t, reconnect.Connected, c.State())
		assert.Equal(t, []bool{true, false}, first)
		assert.Greater(t, total[1], 4)
	})
}

// Dial ends with its context, also where a listener refuses and then does not let go.
func TestDialOfOneThatLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := mem.Pipe(nil)
		defer b.Close()
		go func() {
			head := make([]byte, datagram.HeaderSize)
			_, _ = io.ReadFull(b, head)
			_, _ = io.ReadFull(b, make([]byte, binary.BigEndian.Uint32(head)-4))
			rejected := make([]byte, 46)
			rejected[1] = 6 // unauthorised
			frame := append([]byte{0, 0, 0, 50, 0, 2, 0, 5}, rejected...)
			_, _ = b.Write(frame)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := reconnect.Dial(ctx, transport.DialerFunc(func(context.Context) (net.Conn, error) { return a, nil }), nil)
		require.ErrorIs(t, err, reconnect.ErrRefused)
		assert.LessOrEqual(t, time.Since(begin), 150*time.Millisecond)
	})
}

// An end of the program's own that is io.EOF is not that of the peer's stream.
func TestEndIsNotEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		why := errors.New("why")
		c := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
			Token: func(context.Context) ([]byte, error) { return nil, redial.Fatal(errors.Join(io.EOF, why)) },
		})
		defer c.CloseNow()
		err := c.Reader().Each(t.Context(), func(datagram.Datagram) error { return nil })
		require.ErrorIs(t, err, why)
		require.NotErrorIs(t, err, io.EOF)
		assert.Equal(t, err, c.Err())
		assert.True(t, redial.IsFatal(err))
	})
}

// Close has nothing to say where everything was acknowledged before the session was lost.
func TestCloseAfterALossOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, &reconnect.DialOptions{Strict: true})
		defer s.end()
		require.NoError(t, s.a.Writer().Send(t.Context(), text(1, "x")))
		require.NoError(t, s.a.Writer().Flush(t.Context()))
		require.NoError(t, s.l.Close())
		<-s.a.Done()
		require.ErrorIs(t, s.a.Err(), reconnect.ErrSessionLost)
		require.NoError(t, s.a.Close(t.Context()))
	})
}

// A program that sends by the channel, and has to wait for room when the peer closes, still gets what the peer sent before.
func TestChannelLeavesWhatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 1000}})
		defer s.end()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case s.a.Writer().C() <- datagram.Datagram{Payload: make([]byte, 10<<10)}:
				case <-s.a.Writer().Done():
					return
				case <-stop:
					return
				}
			}
		}()
		<-time.After(time.Second)
		const n = 300
		closed := make(chan error, 1)
		go func() {
			for range n {
				if err := s.b.Writer().Send(t.Context(), datagram.Datagram{Payload: make([]byte, 1000)}); err != nil {
					closed <- err
					return
				}
			}
			closed <- s.b.Close(t.Context())
		}()
		got := 0
		for {
			if _, err := s.a.Reader().Receive(t.Context()); err != nil {
				require.ErrorIs(t, err, io.EOF)
				break
			}
			got++
			<-time.After(time.Millisecond)
		}
		assert.Equal(t, n, got)
		require.NoError(t, <-closed)
		close(stop)
		<-stopped
	})
}

// A dialer may leave the handshake of TLS to the first write, as crypto/tls does.
func TestDialLazyTLS(t *testing.T) {
	served, trusted := identity(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", served)
	require.NoError(t, err)
	l := reconnect.NewListener(ln, nil)
	defer l.Close()
	trusted.ServerName = "x"
	c, err := reconnect.Dial(bounded(t), transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		if err != nil {
			return nil, err
		}
		return tls.Client(nc, trusted), nil
	}), nil)
	require.NoError(t, err)
	c.CloseNow()
}

// failing is a net.Listener whose first Accept fails.
type failing struct {
	net.Listener
	err    error
	failed bool // of the goroutine that accepts
}

func (l *failing) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, l.err
	}
	return l.Listener.Accept()
}

// errPasses says by itself that it does.
type errPasses struct{ error }

func (errPasses) Temporary() bool { return true }

// An Accept that fails because of the connection, or of something else that passes, is not the end of a net.Listener.
func TestAcceptErrorsThatPass(t *testing.T) {
	for _, err := range []error{
		syscall.EMFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EPROTO, errPasses{errors.New("soon")},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := new(mem.Network)
			err := &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
			l := reconnect.NewListener(&failing{Listener: listenMem(t, n, "s"), err: err}, nil)
			defer l.Close()
			c, dialErr := reconnect.Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, nil)
			require.NoError(t, dialErr, "%v", err)
			c.CloseNow()
		})
	}
}

// wordy is a stream whose reads, when they are interrupted, return what they have, with the error.
type wordy struct{ net.Conn }

func (c wordy) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:9])
	if err != nil || n < 9 {
		return n, err
	}
	more, err := c.Conn.Read(p[9:])
	return n + more, err
}

// A timeout that came with bytes is that of one receiver, and ends nothing.
func TestBytesWithATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, nc := mem.Pipe(nil)
		defer a.Close()
		b := reconnect.NewPlain(wordy{nc}, nil)
		defer b.CloseNow()
		for _, want := range []string{"x", "y"} {
			_, err := a.Write(append([]byte{0, 0, 0, 5, 0, 1, 0, 0}, want...))
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			d, err := b.Reader().Receive(ctx)
			cancel()
			require.NoError(t, err)
			assert.Equal(t, want, string(d.Payload))
		}
	})
}

// A turn for a move to a preferred endpoint lasts until that has answered, whatever becomes of the connection before it.
func TestDialLimitOfAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		limit := reconnect.NewDialLimit(1)
		preferred := &away{Dialer: transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
			if err == nil {
				nc.(*mem.Conn).Faults().Freeze(mem.Up) // it will not be answered
			}
			return nc, err
		})}
		preferred.is.Store(true)
		c := reconnect.Open(preferred, &reconnect.DialOptions{
			Limit: limit, Fallbacks: []transport.Dialer{mem.Dialer{Network: n, Addr: "s"}},
			Redial: &redial.Policy{ReturnAfter: time.Minute},
		})
		defer c.CloseNow()
		<-time.After(time.Second)
		require.Equal(t, reconnect.Connected, c.State())
		preferred.is.Store(false)
		for c.State() == reconnect.Connected {
			<-time.After(time.Millisecond)
			synctest.Wait()
		}
		begin := time.Now()
		other, err := reconnect.Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{Limit: limit})
		require.NoError(t, err)
		other.CloseNow()
		assert.InDelta(t, time.Second, time.Since(begin), float64(10*time.Millisecond))
	})
}

// A Dialer that is none is a mistake of the caller, and told to the caller.
func TestDialNil(t *testing.T) {
	assert.Panics(t, func() { _, _ = reconnect.Dial(t.Context(), nil, nil) })
	assert.Panics(t, func() {
		reconnect.Open(mem.Dialer{Addr: "s"}, &reconnect.DialOptions{Fallbacks: []transport.Dialer{nil}})
	})
}

// bare is a stream that knows no deadlines, as a channel of SSH.
type bare struct{ net.Conn }

func (bare) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (bare) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (bare) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// A stream without deadlines can carry a session.
func TestDialWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := reconnect.Dial(ctx, transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
			return bare{nc}, err
		}), nil)
		require.NoError(t, err)
		defer c.CloseNow()
		require.NoError(t, c.Writer().Send(ctx, text(1, "x")))
		require.NoError(t, c.Writer().Flush(ctx))
	})
}
