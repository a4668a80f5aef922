package reconnect_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"io"
	"math"
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

// greeter says HELLO on bare connections, as a dialer would.
type greeter struct {
	t      *testing.T
	secret [32]byte
	h      wire.Hello
}

func newGreeter(t *testing.T) *greeter {
	key, err := wire.GenerateKey(rand.Reader)
	require.NoError(t, err)
	g := &greeter{t: t}
	g.h = wire.Hello{Version: 1, MaxPayload: datagram.DefaultMaxPayload, PublicKey: wire.PublicKey(key), Credit: 1 << 20}
	_, _ = rand.Read(g.h.ID[:])
	_, _ = rand.Read(g.secret[:])
	return g
}

func (g *greeter) hello(epoch uint64) []byte {
	h := g.h
	h.Epoch, h.Link = epoch, wire.Link(g.secret, epoch)
	return h.Append(nil)
}

// say writes frames, of which the last is answered, and returns the answer.
func (g *greeter) say(nc net.Conn, frames ...[]byte) []byte {
	g.t.Helper()
	_, err := nc.Write(bytes.Join(frames, nil))
	require.NoError(g.t, err)
	answer, err := readFrame(nc)
	require.NoError(g.t, err)
	return answer
}

func (g *greeter) welcome(answer []byte) wire.Welcome {
	g.t.Helper()
	w, err := wire.ParseWelcome(answer)
	require.NoError(g.t, err)
	return w
}

func (g *greeter) reject(answer []byte) wire.Reject {
	g.t.Helper()
	r, err := wire.ParseReject(answer)
	require.NoError(g.t, err)
	return r
}

// abort ends the session of a connection that nothing has come or gone on, and leaves that open.
func (g *greeter) abort(nc net.Conn) {
	c := wire.Control{Kind: wire.KindClose, Status: wire.Status{Credit: 1 << 20}, Reason: wire.CloseAborted}
	_, err := nc.Write(c.Append(nil))
	require.NoError(g.t, err)
}

// A tape records what is written to the first connection of a dialer.
type tape struct {
	transport.Dialer
	mu    sync.Mutex
	conns int
	bytes []byte
}

type taped struct {
	net.Conn
	tape *tape
}

func (p *tape) DialContext(ctx context.Context) (net.Conn, error) {
	nc, err := p.Dialer.DialContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns++; err != nil || p.conns > 1 {
		return nc, err
	}
	return &taped{nc, p}, nil
}

func (c *taped) Write(b []byte) (int, error) {
	c.tape.mu.Lock()
	c.tape.bytes = append(c.tape.bytes, b...)
	c.tape.mu.Unlock()
	return c.Conn.Write(b)
}

// first returns the first frame.
func (p *tape) first() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes[:4+binary.BigEndian.Uint32(p.bytes)]
}

// Who has seen a HELLO repeats it to the listener when that was started again, and confirms: he has a session of his
// own there, and the owner goes on in another.
func TestSessionHelloRepeatedAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		tp := &tape{Dialer: p.way()}
		w := new(watch)
		a, err := reconnect.Dial(bounded(t), tp, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		require.NoError(t, err)
		defer a.CloseNow()
		exchange(t, a, p.accept(), 10, func() {})
		p.net.Faults().RefuseDials(-1, nil)
		p.net.Faults().Cut(nil)
		synctest.Wait()
		require.NoError(t, p.Close()) // nobody is told
		p.Listener = reconnect.NewListener(listenMem(t, &p.net, "s"), nil)
		defer p.Close()
		p.net.Faults().RefuseDials(0, nil)

		g := newGreeter(t)
		nc := p.raw()
		defer nc.Close()
		g.welcome(g.say(nc, tp.first()))
		_, err = nc.Write((&wire.Control{Kind: wire.KindAck, Status: wire.Status{Credit: 1 << 16}}).Append(nil))
		require.NoError(t, err)
		thief := p.accept()
		defer thief.CloseNow()

		require.ErrorIs(t, w.await(t, reconnect.EventLost, 1).Err, reconnect.ErrSessionLost)
		b := p.accept()
		exchange(t, a, b, 10, func() {})
		require.Equal(t, reconnect.Connected, thief.State())
		require.Zero(t, thief.Stats().Received)
	})
}

func TestSessionExpiringNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		<-time.After(time.Hour)
		require.NoError(t, s.a.Writer().SendExpiring(bounded(t), text(1, "x"), math.MaxInt64))
		d, err := s.b.Reader().Receive(bounded(t))
		require.NoError(t, err)
		require.Equal(t, text(1, "x"), d)
		require.Zero(t, s.a.Stats().Expired)
	})
}

// Without PINGs what arrives is acknowledged in time.
func TestSessionPingAfterNever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := reconnect.SessionOptions{PingAfter: math.MaxInt64}
		s := memSession(t, &reconnect.ListenOptions{SessionOptions: o}, &reconnect.DialOptions{SessionOptions: o})
		defer s.end()
		<-time.After(time.Hour)
		for _, c := range []*reconnect.Conn{s.a, s.b} {
			require.NoError(t, c.Writer().Send(bounded(t), text(1, "x")))
			<-time.After(25 * time.Millisecond)
			synctest.Wait()
			require.Zero(t, c.Stats().Unconfirmed)
			require.Equal(t, reconnect.Connected, c.State())
		}
	})
}

// Ack is of what was received, not of what came with it.
func TestSessionAckTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{AckConsumed: true}}, nil)
		defer s.end()
		ctx := context.Background()
		var ds []datagram.Datagram
		for i := range 10 {
			ds = append(ds, numbered(i))
		}
		_, err := s.a.Writer().SendBatch(ctx, ds)
		require.NoError(t, err)
		unconfirmed := func() uint64 {
			<-time.After(time.Second)
			return s.a.Stats().Unconfirmed
		}
		r := s.b.Reader()
		require.EqualValues(t, 10, unconfirmed())
		require.Error(t, r.Ack(1))
		_, err = r.Receive(ctx)
		require.NoError(t, err)
		for _, n := range []int{10, 2, -1, math.MinInt, math.MaxInt} {
			require.ErrorContains(t, r.Ack(n), "so many have not been received")
			require.EqualValues(t, 10, unconfirmed(), n)
		}
		require.NoError(t, r.Ack(1))
		require.EqualValues(t, 9, unconfirmed())
		n, err := r.ReceiveBatch(ctx, make([]datagram.Datagram, 5))
		require.NoError(t, err)
		require.Equal(t, 5, n)
		require.Error(t, r.Ack(6))
		require.EqualValues(t, 9, unconfirmed())
		require.NoError(t, r.Ack(5))
		require.Error(t, r.Ack(1))
		require.EqualValues(t, 4, unconfirmed())
	})
}

// A listener that takes every session and loses it is not dialled all the time.
func TestSessionLostEveryTime(t *testing.T) {
	welcome := func(h *wire.Hello, frame []byte) *wire.Session {
		m, err := wire.NewListener(wire.Config{
			MaxPayload: 1 << 20, MinWindow: 64 << 10, MaxWindow: 1 << 20, PingAfter: time.Second, Expiry: time.Minute,
		}, rand.Reader, h, [16]byte{1})
		if err == nil {
			m.Welcome(1, frame, nil)
		}
		return m
	}
	for name, answer := range map[string]func(m *wire.Session){
		"by CLOSE":  func(m *wire.Session) { m.Shutdown() },
		"by REJECT": func(*wire.Session) {}, // of the RESUME that follows
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &line{d: answering(t, func(nc net.Conn) {
					defer nc.Close()
					frame, err := readFrame(nc)
					if err != nil {
						return
					}
					h, err := wire.ParseHello(frame)
					if err != nil {
						_, _ = nc.Write((&wire.Reject{Reason: wire.ReasonUnknown, Instance: [16]byte{1}}).Append(nil))
						_, _ = io.Copy(io.Discard, nc)
						return
					}
					m := welcome(&h, frame)
					answer(m)
					var out wire.Out
					m.Pull(1, &out)
					for _, b := range out.Vec {
						_, _ = nc.Write(b)
					}
					if m.State() == wire.Ended {
						_, _ = io.Copy(io.Discard, nc)
						return
					}
					_, _ = readFrame(nc) // the ACK that confirms
				})}
				c := reconnect.Open(transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
					if d.dialled() == 100 { // time does not pass for who never waits
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return d.DialContext(ctx)
				}), nil)
				<-time.After(2 * time.Second)
				assert.Less(t, d.dialled(), 20)
				assert.Positive(t, c.Stats().Lost)
				require.NoError(t, c.CloseNow())
			})
		})
	}
}

// A session that says goodbye has told its last event.
func TestListenerShutdownAtGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := new(watch)
		p := newPlace(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		defer p.Close()
		g, nc := newGreeter(t), p.raw()
		defer nc.Close()
		g.welcome(g.say(nc, g.hello(1)))
		g.abort(nc)
		w.await(t, reconnect.EventClosed, 1)
		require.NoError(t, p.Shutdown(bounded(t), 0, 0))
		synctest.Wait()
		require.Equal(t, []reconnect.EventKind{reconnect.EventClosed}, w.kinds())
	})
}

// A HELLO for a session that has ended, and has not gone yet, is answered as one that comes later.
func TestListenerHelloAtGoodbye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		g := newGreeter(t)
		old := p.raw()
		defer old.Close()
		g.welcome(g.say(old, g.hello(1)))
		g.abort(old)
		synctest.Wait()
		start := time.Now()
		for epoch := uint64(2); epoch < 4; epoch++ {
			nc := p.raw()
			r := g.reject(g.say(nc, g.hello(epoch)))
			require.Equal(t, wire.ReasonClosed, r.Reason, r.Reason)
			require.NotZero(t, r.Flags&wire.FlagReceivedKnown)
			nc.Close()
			if epoch == 2 {
				require.Zero(t, time.Since(start), "the session is still there")
			}
			<-time.After(10 * time.Second)
		}
	})
}

// gate lets a listener's connections be attached one by one: each is held when it is asked for its TLS state, which is
// when it has been decided that it may have the session.
type gate struct {
	net.Listener
	state tls.ConnectionState
	held  chan *gated
	open  chan struct{} // closed when all may pass
}

type gated struct {
	*mem.Conn
	gate *gate
	pass chan struct{}
}

func newGate(t *testing.T, p *place) *gate {
	a, b := tlsPair(t)
	t.Cleanup(func() { a.Close(); b.Close() })
	return &gate{
		Listener: listenMem(t, &p.net, "s"), state: a.(interface{ ConnectionState() tls.ConnectionState }).ConnectionState(),
		held: make(chan *gated), open: make(chan struct{}),
	}
}

func (g *gate) Accept() (net.Conn, error) {
	nc, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gated{nc.(*mem.Conn), g, make(chan struct{})}, nil
}

func (c *gated) ConnectionState() tls.ConnectionState {
	select {
	case c.gate.held <- c:
		select {
		case <-c.pass:
		case <-c.gate.open:
		}
	case <-c.gate.open:
	}
	return c.gate.state
}

// hello writes a HELLO, and waits until it is about to be attached.
func (g *gate) hello(nc net.Conn, frame []byte) *gated {
	_, _ = nc.Write(frame)
	return <-g.held
}

// Of two HELLOs of one session the newer one has it, if the older one is the first to be attached too.
func TestListenerOlderHelloIsAttachedFirst(t *testing.T) {
	p := &place{t: t}
	gt := newGate(t, p)
	p.Listener = reconnect.NewListener(gt, nil)
	defer p.Close()
	defer close(gt.open)
	g, older, newer := newGreeter(t), p.raw(), p.raw()
	defer older.Close()
	defer newer.Close()
	first := gt.hello(older, g.hello(1))
	second := gt.hello(newer, g.hello(2))
	close(first.pass)
	got, err := readFrame(older)
	require.Error(t, err, "%x", got)
	close(second.pass)
	got, err = readFrame(newer)
	require.NoError(t, err)
	require.EqualValues(t, 2, g.welcome(got).Epoch)
	require.EqualValues(t, 2, p.accept().Stats().Epoch)
}

// A session that ends before its connection is attached: the dialer is told.
func TestListenerEndsBeforeAttached(t *testing.T) {
	p := &place{t: t}
	gt := newGate(t, p)
	p.Listener = reconnect.NewListener(gt, nil)
	defer p.Close()
	defer close(gt.open)
	g, nc := newGreeter(t), p.raw()
	defer nc.Close()
	held := gt.hello(nc, g.hello(1))
	require.NoError(t, p.accept().CloseNow())
	close(held.pass)
	answer, err := readFrame(nc)
	require.NoError(t, err)
	require.Equal(t, wire.ReasonClosed, g.reject(answer).Reason)
}

// Any number of sessions does not mean that none is remembered.
func TestListenerMaxSessionsWithoutLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{MaxSessions: math.MaxInt})
		defer p.Close()
		g, nc := newGreeter(t), p.raw()
		g.welcome(g.say(nc, g.hello(1)))
		g.abort(nc)
		nc.Close()
		synctest.Wait()
		nc = p.raw()
		defer nc.Close()
		resume := wire.Resume{Version: 1, MaxPayload: g.h.MaxPayload, ID: g.h.ID, Epoch: 2}
		require.Equal(t, wire.ReasonClosed, g.reject(g.say(nc, resume.Append(nil))).Reason)
	})
}

// The times that a listener asks to be left for are in the range of the wire.
func TestListenerShutdownDelays(t *testing.T) {
	for _, c := range []struct {
		delay time.Duration
		want  uint32
	}{{-time.Second, 0}, {math.MinInt64, 0}, {1500 * time.Microsecond, 1}, {math.MaxInt64, math.MaxUint32}} {
		t.Run(c.delay.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, nil)
				w := new(watch)
				a := p.dial(&reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				defer a.CloseNow()
				ctx, cancel := context.WithCancel(context.Background())
				shut := make(chan error)
				go func() { shut <- p.Shutdown(ctx, c.delay, c.delay) }()
				e := w.await(t, reconnect.EventGoAway, 1)
				require.Equal(t, time.Duration(c.want)*time.Millisecond, e.Wait)
				require.Equal(t, e.Wait, e.Spread)
				g, nc := newGreeter(t), p.raw()
				r := g.reject(g.say(nc, g.hello(1)))
				nc.Close()
				assert.Equal(t, wire.ReasonDraining, r.Reason)
				assert.Equal(t, c.want, r.Delay)
				assert.Equal(t, c.want, r.Spread)
				cancel()
				require.ErrorIs(t, <-shut, context.Canceled)
			})
		})
	}
}
