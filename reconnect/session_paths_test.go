package reconnect_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// The tests of this file walk the ways out that a session takes rarely. They guard D3 of docs/delivery.md, that each end
// has an error that says which it is, and D5 and D6 where a way out is one of a handshake.

// A HELLO whose key makes no secret with any other begins nothing, and is logged.
func TestListenerHelloWithoutSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newJournal()
		p := newPlace(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{Logger: slog.New(log)}})
		defer p.Close()
		nc := p.raw()
		defer nc.Close()
		g := newGreeter(t)
		g.h.PublicKey = [32]byte{}
		_, err := nc.Write(g.hello(1))
		require.NoError(t, err)
		answer, err := readFrame(nc)
		require.ErrorIs(t, err, io.EOF, "%x", answer)
		log.await(t, 1, "refused a connection", "public key")

		// Nothing is remembered of it: the id is still to be had.
		again, h := p.raw(), newGreeter(t)
		defer again.Close()
		h.h.ID = g.h.ID
		h.welcome(h.say(again, h.hello(1)))
	})
}

// A HELLO whose WELCOME was lost is repeated by the principal that said it first, or refused: the session that it made
// meanwhile is that one's.
func TestSessionHelloAgainBySomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m, d := manned(t, reconnect.ListenOptions{Authenticate: func(_ context.Context, p *reconnect.Peer) (string, error) {
			return string(p.Token), nil
		}})
		defer f.end()
		defer m.end()
		m.tamper(1, nil, setting(atWelcomeProof, make([]byte, 32)...))
		tokens := []string{"mallory", "alice"}
		w := new(watch)
		a := reconnect.Open(d, &reconnect.DialOptions{
			SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
			Token: func(context.Context) ([]byte, error) {
				token := tokens[0]
				tokens = tokens[1:]
				return []byte(token), nil
			},
		})
		defer a.CloseNow()
		<-a.Done()
		require.ErrorIs(t, a.Err(), reconnect.ErrRefused)
		require.ErrorContains(t, a.Err(), "not authorised")
		require.ErrorIs(t, w.await(t, reconnect.EventDialFailed, 1).Err, reconnect.ErrProtocol)
		require.Empty(t, tokens, "it dialled twice")
	})
}

// stuck is a listener whose first connection does not close before it is let go. A reader of it stays where it is.
type stuck struct {
	net.Listener
	once sync.Once
	free chan struct{}
}

type stuckConn struct {
	net.Conn
	free chan struct{}
}

func (l *stuck) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.once.Do(func() { nc = &stuckConn{nc, l.free} })
	}
	return nc, err
}

func (c *stuckConn) Close() error {
	<-c.free
	return c.Conn.Close()
}

// Of two takeovers the newer has the session at once, whatever holds the older one up; that one then ends without an
// answer, and harms nothing.
func TestListenerTakeoverIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		st := &stuck{Listener: listenMem(t, &p.net, "s"), free: make(chan struct{})}
		p.Listener = reconnect.NewListener(st, nil)
		defer p.Close()
		free := sync.OnceFunc(func() { close(st.free) })
		defer free()

		v := newVillain(newRNG(1), p.way())
		require.NoError(t, v.dial())
		defer v.nc.Close()
		require.NoError(t, v.greet())
		_, err := v.nc.Write(v.control(wire.KindAck))
		require.NoError(t, err)
		b := p.accept()

		require.NoError(t, v.dial())
		older := v.nc
		defer older.Close()
		_, err = older.Write(v.resume(2, older, nil))
		require.NoError(t, err)
		synctest.Wait() // it waits until the connection of before is closed
		require.NoError(t, v.dial())
		newer := v.nc
		defer newer.Close()
		_, err = newer.Write(v.resume(3, newer, nil))
		require.NoError(t, err)
		answer, err := readFrame(newer)
		require.NoError(t, err)
		require.Equal(t, wire.KindResumed, wire.KindOf(answer))

		free()
		answer, err = readFrame(older)
		require.ErrorIs(t, err, io.EOF, "%x", answer)
		want := v.data(10)
		_, err = newer.Write(want)
		require.NoError(t, err)
		got, err := b.Reader().Receive(bounded(t))
		require.NoError(t, err)
		require.Len(t, got.Payload, 10)
		require.Equal(t, reconnect.Connected, b.State())
		require.EqualValues(t, 3, b.Stats().Epoch)
		require.NoError(t, b.CloseNow())
	})
}

// Ack after the end says how the session ended, and after an end in good order that it is closed.
func TestSessionAckAfterTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end func(ctx context.Context, s *ends) error
		is  error
	}{
		"in good order":   {func(ctx context.Context, s *ends) error { return s.a.Close(ctx) }, reconnect.ErrClosed},
		"by the peer":     {func(_ context.Context, s *ends) error { return s.a.CloseNow() }, reconnect.ErrPeerClosed},
		"by this side":    {func(_ context.Context, s *ends) error { return s.b.CloseNow() }, reconnect.ErrClosed},
		"by its listener": {func(_ context.Context, s *ends) error { return s.l.Close() }, reconnect.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}}, nil)
				defer s.end()
				ctx := bounded(t)
				require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
				_, err := s.b.Reader().Receive(ctx)
				require.NoError(t, err)
				require.NoError(t, s.b.Reader().Ack(1))
				require.NoError(t, c.end(ctx, s))
				<-s.b.Done()
				require.ErrorIs(t, s.b.Reader().Ack(1), c.is)
				require.NotErrorIs(t, s.b.Reader().Ack(1), io.EOF)
			})
		})
	}
}

// late is a listener whose connections write a CLOSE later than they are asked to, as on a machine that is busy.
type late struct {
	net.Listener
	by time.Duration
}

type lateConn struct {
	*mem.Conn
	by time.Duration
}

func (l late) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lateConn{nc.(*mem.Conn), l.by}, nil
}

func (c *lateConn) Write(b []byte) (int, error) {
	if wire.KindOf(b) == wire.KindClose {
		<-time.After(c.by)
	}
	return c.Conn.Write(b)
}

// Who breaks the protocol is told so by a machine that is slow to write, too, and whose application ends everything at
// once when it hears of it.
func TestSessionProtocolErrorIsToldLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		p.Listener = reconnect.NewListener(late{listenMem(t, &p.net, "s"), 200 * time.Millisecond}, nil)
		defer p.Close()
		g, nc := newGreeter(t), p.raw()
		defer nc.Close()
		g.welcome(g.say(nc, g.hello(1)))
		wrong := wire.Status{Received: wire.Position{N: 1, B: 8}, Credit: 1 << 20}
		_, err := nc.Write((&wire.Control{Kind: wire.KindAck, Status: wrong}).Append(nil))
		require.NoError(t, err)
		b := p.accept()
		_, err = b.Reader().Receive(bounded(t))
		require.ErrorIs(t, err, reconnect.ErrProtocol)
		require.NoError(t, b.CloseNow())
		frame, err := readFrame(nc)
		require.NoError(t, err, "a CLOSE")
		c, err := wire.ParseControl(frame)
		require.NoError(t, err)
		require.Equal(t, wire.CloseProtocol, c.Reason)
		start := time.Now()
		<-b.Done()
		require.LessOrEqual(t, time.Since(start), 20*time.Millisecond, "then nothing more is waited for")
	})
}

// impostor is a listener that keeps to the protocol until its script says otherwise.
type impostor struct {
	t *testing.T
	m *wire.Session

	// hello and resume answer such a frame instead of the impostor if they return true.
	hello, resume func(nc net.Conn) bool
	live          func(nc net.Conn) // what follows a WELCOME that is confirmed, or a RESUMED
}

var impostorInstance = [16]byte{1}

func (i *impostor) serve(nc net.Conn) {
	defer nc.Close()
	frame, err := readFrame(nc)
	if err != nil {
		return
	}
	switch wire.KindOf(frame) {
	case wire.KindHello:
		if i.hello != nil && i.hello(nc) {
			break
		}
		h, err := wire.ParseHello(frame)
		if !assert.NoError(i.t, err) {
			return
		}
		i.m, err = wire.NewListener(wire.Config{
			MaxPayload: 1 << 20, MinWindow: 64 << 10, MaxWindow: 1 << 20, PingAfter: time.Hour, Expiry: time.Minute,
		}, rand.Reader, &h, impostorInstance)
		if !assert.NoError(i.t, err) {
			return
		}
		i.m.Welcome(1, frame, nil)
		i.pull(nc)
		if _, err := readFrame(nc); err != nil { // the ACK that confirms
			return
		}
		if i.live != nil {
			i.live(nc)
		}
	case wire.KindResume:
		if i.resume != nil && i.resume(nc) {
			break
		}
		r, err := wire.ParseResume(frame)
		if !assert.NoError(i.t, err) || !assert.NoError(i.t, i.m.Verify(frame, nil)) {
			return
		}
		i.m.Fence(r.Epoch, [32]byte{})
		if !assert.NoError(i.t, i.m.Resume(1, &r, frame, nil)) {
			return
		}
		i.pull(nc)
		if i.live != nil {
			i.live(nc)
		}
	}
	_, _ = io.Copy(io.Discard, nc)
}

func (i *impostor) pull(nc net.Conn) {
	var out wire.Out
	i.m.Pull(1, &out)
	for _, b := range out.Vec {
		_, _ = nc.Write(b)
	}
	i.m.Wrote()
}

// dialer is a way to the impostor.
func (i *impostor) dialer() transport.Dialer { return answering(i.t, i.serve) }

func closing(reason wire.CloseReason) []byte {
	return (&wire.Control{Kind: wire.KindClose, Reason: reason, Status: wire.Status{Credit: 1 << 20}}).Append(nil)
}

func rejecting(reason wire.Reason) func(nc net.Conn) bool {
	return func(nc net.Conn) bool {
		_, _ = nc.Write((&wire.Reject{Reason: reason, Instance: impostorInstance}).Append(nil))
		return true
	}
}

// closes is what each reason of CLOSE means to who reads it.
var closes = []struct {
	reason wire.CloseReason
	is     error
	says   string
}{
	{wire.CloseDone, reconnect.ErrPeerClosed, "closed the session"}, // before this side had ended its stream
	{wire.CloseProtocol, reconnect.ErrProtocol, "it says that this side did"},
	{wire.CloseAborted, reconnect.ErrPeerClosed, "aborted"},
	{wire.CloseTakenOver, reconnect.ErrTakenOver, "taken over"},
	{wire.CloseShutdown, reconnect.ErrSessionLost, "shutting down"},
	{wire.CloseShutdown + 1, reconnect.ErrProtocol, "reason"},
}

// typed is every error that the end of a session may match.
var typed = []error{
	reconnect.ErrPeerClosed, reconnect.ErrProtocol, reconnect.ErrTakenOver, reconnect.ErrSessionLost,
	reconnect.ErrRefused, reconnect.ErrBusy, reconnect.ErrNoSessions, reconnect.ErrClosed,
}

// only asserts that err is one of the errors that there are, and no other.
func only(t *testing.T, err, is error, says string) {
	t.Helper()
	for _, other := range typed {
		assert.Equal(t, other == is, errors.Is(err, other), "%v is %v", err, other)
	}
	assert.ErrorContains(t, err, says)
	assert.Equal(t, is == reconnect.ErrSessionLost, errors.As(err, new(*reconnect.SessionLostError)))
}

// ended asserts that everything which tells of the end of c tells the same.
func ended(t *testing.T, c *reconnect.Conn, w *watch, is error, says string) {
	t.Helper()
	<-c.Done()
	only(t, c.Err(), is, says)
	only(t, w.await(t, reconnect.EventClosed, 1).Err, is, says)
	_, err := c.Reader().Receive(bounded(t))
	only(t, err, is, says)
	only(t, c.Writer().Send(bounded(t), text(1, "")), is, says)
	only(t, c.Writer().TrySend(text(1, "")), is, says)
	assert.Equal(t, reconnect.Closed, c.State())
}

// Each reason of CLOSE is an error of its own type at the dialer that reads it.
func TestSessionCloseReasonsAtTheDialer(t *testing.T) {
	for _, c := range closes {
		t.Run(c.reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := make(chan struct{})
				i := &impostor{t: t, live: func(nc net.Conn) {
					<-sent
					_, _ = nc.Write(closing(c.reason))
				}}
				w := new(watch)
				a := reconnect.Open(i.dialer(), &reconnect.DialOptions{
					Strict: true, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
				})
				defer a.CloseNow()
				require.NoError(t, a.Writer().Send(bounded(t), text(1, "unconfirmed")))
				close(sent)
				ended(t, a, w, c.is, c.says)
				assert.Equal(t, []datagram.Datagram{text(1, "unconfirmed")}, a.Unconfirmed())
				if lost := new(reconnect.SessionLostError); errors.As(a.Err(), &lost) {
					assert.Equal(t, a.Unconfirmed(), lost.Unconfirmed)
				}
			})
		})
	}
}

// And at the listener's side.
func TestSessionCloseReasonsAtTheListener(t *testing.T) {
	for _, c := range closes {
		t.Run(c.reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := new(watch)
				p := newPlace(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				defer p.Close()
				g, nc := newGreeter(t), p.raw()
				defer nc.Close()
				g.welcome(g.say(nc, g.hello(1)))
				_, err := nc.Write((&wire.Control{Kind: wire.KindAck, Status: wire.Status{Credit: 1 << 20}}).Append(nil))
				require.NoError(t, err)
				b := p.accept()
				require.NoError(t, b.Writer().Send(bounded(t), text(1, "unconfirmed")))
				_, err = nc.Write(closing(c.reason))
				require.NoError(t, err)
				ended(t, b, w, c.is, c.says)
				assert.Equal(t, []datagram.Datagram{text(1, "unconfirmed")}, b.Unconfirmed())
			})
		})
	}
}

// rejects is what each reason of REJECT means to a dialer; nil where it dials again.
var rejects = []struct {
	reason wire.Reason
	is     error // of the session
	again  error // why it dials again
	dial   error // of Dial, where that differs
	says   string
}{
	{reason: wire.ReasonUnknown, is: reconnect.ErrSessionLost, says: "not known"},
	{reason: wire.ReasonExpired, is: reconnect.ErrSessionLost, says: "expired"},
	{reason: wire.ReasonEvicted, is: reconnect.ErrSessionLost, says: "make room"},
	{reason: wire.ReasonTakenOver, is: reconnect.ErrTakenOver, says: "taken over"},
	{reason: wire.ReasonDraining, again: reconnect.ErrBusy, dial: reconnect.ErrBusy, says: "shutting down"},
	{reason: wire.ReasonUnauthorised, is: reconnect.ErrRefused, says: "not authorised"},
	{reason: wire.ReasonVersion, is: reconnect.ErrRefused, says: "version"},
	{reason: wire.ReasonBusy, again: reconnect.ErrBusy, dial: reconnect.ErrBusy, says: "busy"},
	{reason: wire.ReasonClosed, is: reconnect.ErrPeerClosed, says: "ended before"},
	{reason: wire.ReasonMismatch, is: reconnect.ErrSessionLost, says: "do not match"},
	{reason: wire.ReasonMismatch + 1, again: reconnect.ErrProtocol, dial: reconnect.ErrProtocol, says: "reason"},
}

// Each reason of REJECT is an error of its own type to a dialer whose first word it answers.
func TestSessionRejectOfHello(t *testing.T) {
	for _, c := range rejects {
		t.Run(c.reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &impostor{t: t, hello: rejecting(c.reason)}
				_, err := reconnect.Dial(bounded(t), i.dialer(), &reconnect.DialOptions{Strict: true})
				want := c.is
				if c.dial != nil {
					want = c.dial
				}
				only(t, err, want, c.says)
			})
		})
	}
}

// And to one whose session exists: it is lost, it has ended, or it goes on later.
func TestSessionRejectOfResume(t *testing.T) {
	for _, c := range rejects {
		t.Run(c.reason.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refuse := rejecting(c.reason)
				rejected := 0
				i := &impostor{t: t, resume: func(nc net.Conn) bool {
					rejected++
					return rejected <= 3 && refuse(nc)
				}}
				w := new(watch)
				d := &line{d: i.dialer()}
				a, err := reconnect.Dial(bounded(t), d, &reconnect.DialOptions{
					Strict: true, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
				})
				require.NoError(t, err)
				defer a.CloseNow()
				require.NoError(t, a.Writer().Send(bounded(t), text(1, "unconfirmed")))
				d.cut()
				if c.is != nil {
					ended(t, a, w, c.is, c.says)
					assert.Equal(t, []datagram.Datagram{text(1, "unconfirmed")}, a.Unconfirmed())
					if lost := new(reconnect.SessionLostError); errors.As(a.Err(), &lost) {
						assert.Equal(t, a.Unconfirmed(), lost.Unconfirmed)
					}
					return
				}
				for n := range 3 {
					only(t, w.await(t, reconnect.EventDialFailed, n+1).Err, c.again, c.says)
				}
				w.await(t, reconnect.EventResumed, 1)
				require.NoError(t, a.Err())
				require.Equal(t, reconnect.Connected, a.State())
				require.Zero(t, a.Stats().Lost)
			})
		})
	}
}

// overheard keeps what a session draws at random when it begins.
type overheard struct {
	from io.Reader
	what bytes.Buffer
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.from.Read(p)
	o.what.Write(p[:n])
	return n, err
}

// Two hold one session, because the state of a process was doubled: the second is one who knows what the first one drew at
// random. Each that dials takes the session; the other learns at its next dial that it is not its any more, for good, and
// the listener goes on with one.
func TestSessionTwoHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m, d := manned(t, reconnect.ListenOptions{})
		defer f.end()
		defer m.end()
		start := make(chan struct{})
		once := &line{d: transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			<-start
			return d.DialContext(ctx)
		})}
		drawn := &overheard{from: rand.Reader}
		rand.Reader = drawn // nothing else draws in between: nobody has dialled
		w := new(watch)
		a := reconnect.Open(once, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		rand.Reader = drawn.from
		defer a.CloseNow()
		close(start)
		require.NoError(t, a.Writer().Send(bounded(t), text(1, "from the first")))
		_, err := a.Reader().Receive(bounded(t))
		require.NoError(t, err)
		require.NoError(t, a.Writer().Flush(bounded(t)))

		// The second holder: the same id and key, and the WELCOME.
		state := drawn.what.Bytes()
		require.Len(t, state, 16+32+32)
		key, err := ecdh.X25519().NewPrivateKey(state[16+32:])
		require.NoError(t, err)
		m.mu.Lock()
		hello, err := wire.ParseHello(m.seen[0][0])
		require.NoError(t, err)
		welcome, err := wire.ParseWelcome(m.seen[1][0])
		require.NoError(t, err)
		m.mu.Unlock()
		require.Equal(t, state[:16], hello.ID[:])
		second := newVillain(newRNG(1), d)
		second.hello, second.key = hello, key
		second.keys, err = wire.DeriveKeys(key, welcome.PublicKey, hello.ID, hello.PublicKey, welcome.PublicKey, welcome.Instance)
		require.NoError(t, err)
		frame, err := datagram.Append(nil, text(1, "from the first"))
		require.NoError(t, err)
		here := wire.Position{N: 1, B: uint64(len(frame))}

		// It takes the session, with an epoch that the first has not reached; the first one dials, with the same.
		second.sent = here
		takes := func(epoch uint64) {
			require.NoError(t, second.dial())
			_, err := second.nc.Write(second.resume(epoch, second.nc, func(r *wire.Resume) { r.Received = here }))
			require.NoError(t, err)
			answer, err := readFrame(second.nc)
			require.NoError(t, err)
			require.Equal(t, wire.KindResumed, wire.KindOf(answer))
		}
		takes(2)
		defer second.nc.Close()
		<-a.Done()
		ended(t, a, w, reconnect.ErrTakenOver, "another holder")
		require.Zero(t, a.Stats().Lost)
		require.EqualValues(t, 1, f.live.Load(), "the listener has one session")
		second.nc.Close()
		takes(3)
		_, err = second.nc.Write(second.data(5))
		require.NoError(t, err)
		for {
			got, err := readFrame(second.nc)
			require.NoError(t, err)
			if got[5] == datagram.Version {
				require.Len(t, got, datagram.HeaderSize+5)
				break
			}
		}
		second.nc.Close()
	})
}
