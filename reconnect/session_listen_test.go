package reconnect_test

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// place is a listener in a network of its own.
type place struct {
	*reconnect.Listener
	t   *testing.T
	net mem.Network
}

func newPlace(t *testing.T, o *reconnect.ListenOptions) *place {
	p := &place{t: t}
	p.Listener = reconnect.NewListener(listenMem(t, &p.net, "s"), o)
	return p
}

func (p *place) way() transport.Dialer { return mem.Dialer{Network: &p.net, Addr: "s"} }

// dial begins a session; the caller closes it.
func (p *place) dial(o *reconnect.DialOptions) *reconnect.Conn {
	p.t.Helper()
	c, err := reconnect.Dial(bounded(p.t), p.way(), o)
	require.NoError(p.t, err)
	return c
}

func (p *place) accept() *reconnect.Conn {
	p.t.Helper()
	c, err := p.Accept(bounded(p.t))
	require.NoError(p.t, err)
	return c
}

// raw is a bare connection.
func (p *place) raw() net.Conn {
	p.t.Helper()
	nc, err := p.way().DialContext(bounded(p.t))
	require.NoError(p.t, err)
	return nc
}

// Accept returns a session once, however often it gets a new connection.
func TestListenerAcceptsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		a := p.dial(nil)
		defer a.CloseNow()
		b := p.accept()
		for range 5 {
			exchange(t, a, b, 10, func() {})
			p.net.Faults().Cut(nil)
		}
		exchange(t, a, b, 10, func() {})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := p.Accept(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// Sessions and plain connections on one port.
func TestListenerServesBoth(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			ln, d := w.make(t)
			l := reconnect.NewListener(ln, nil)
			defer l.Close()
			ctx := bounded(t)
			for i := range 6 {
				var a *reconnect.Conn
				var err error
				if i%2 == 0 {
					a, err = reconnect.Dial(ctx, d, nil)
				} else {
					a, err = reconnect.DialPlain(ctx, d, nil)
				}
				require.NoError(t, err)
				require.NoError(t, a.Writer().Send(ctx, text(1, "hello %d", i)))
				b, err := l.Accept(ctx)
				require.NoError(t, err)
				require.Equal(t, i%2 == 0, b.IsSession())
				got, err := b.Reader().Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, text(1, "hello %d", i), got)
				require.NoError(t, b.CloseSend(ctx))
				require.NoError(t, a.Close(ctx))
				require.NoError(t, b.Close(ctx))
			}
		})
	}
}

func TestListenerOnlyPlain(t *testing.T) {
	p := newPlace(t, &reconnect.ListenOptions{Plain: reconnect.OnlyPlain, PlainFraming: datagram.Lines{}})
	defer p.Close()
	nc := p.raw()
	defer nc.Close()
	b := p.accept() // nothing has been sent
	defer b.CloseNow()
	require.False(t, b.IsSession())
	_, err := nc.Write([]byte("hello\n"))
	require.NoError(t, err)
	d, err := b.Reader().Receive(bounded(t))
	require.NoError(t, err)
	require.Equal(t, "hello", string(d.Payload))
}

func TestListenerRefusePlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{Plain: reconnect.RefusePlain})
		defer p.Close()
		ended := func(nc net.Conn) time.Duration {
			start := time.Now()
			_, err := io.Copy(io.Discard, nc)
			if err != nil {
				require.ErrorIs(t, err, syscallReset)
			}
			nc.Close()
			return time.Since(start)
		}
		for _, first := range []string{"\x00\x00\x00\x05\x00\x01\x00\x00x", "GET / HTTP/1.1\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01",
			"\x00\x00\x00\x03\x00\x02\x00\x00", "\x7f\x00\x00\x00\x00\x02\x00\x01", "\x00\x00\x00\x04\x00\x02\x00\x06"} {
			nc := p.raw()
			_, err := nc.Write([]byte(first))
			require.NoError(t, err)
			require.Zero(t, ended(nc), "%q", first)
		}
		assert.Equal(t, reconnect.DefaultHandshakeTimeout, ended(p.raw()), "silence")
		a := p.dial(nil)
		require.NoError(t, a.CloseNow())
	})
}

// A peer that says nothing in time is a plain one, where these are served: it may be waiting for a first word.
func TestListenerSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		nc := p.raw()
		defer nc.Close()
		start := time.Now()
		_, err := nc.Write([]byte{0, 0, 0})
		require.NoError(t, err)
		b := p.accept()
		defer b.CloseNow()
		require.Equal(t, reconnect.DefaultHandshakeTimeout, time.Since(start))
		require.NoError(t, b.Writer().Send(context.Background(), text(1, "x")))
		_, err = io.ReadFull(nc, make([]byte, 9))
		require.NoError(t, err)
		<-time.After(time.Minute)
		_, err = nc.Write([]byte{5, 0, 1, 0, 7, 'y'})
		require.NoError(t, err)
		d, err := b.Reader().Receive(context.Background())
		require.NoError(t, err, "the three bytes are not lost")
		require.Equal(t, text(7, "y"), d)
	})
}

// A byte a second does not hold a handshake up longer than silence.
func TestListenerSlowHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{Plain: reconnect.RefusePlain})
		defer p.Close()
		nc := p.raw()
		defer nc.Close()
		start := time.Now()
		for _, b := range []byte{0, 0, 0, 118, 0, 2, 0, 1, 0, 1, 0, 0, 0, 0, 0} {
			if _, err := nc.Write([]byte{b}); err != nil {
				break
			}
			<-time.After(time.Second)
		}
		_, err := nc.Read(make([]byte, 1))
		require.Error(t, err)
		assert.LessOrEqual(t, time.Since(start), reconnect.DefaultHandshakeTimeout+2*time.Second)
	})
}

// Above MaxHandshakes the oldest that has not said its first frame within half a second makes room.
func TestListenerMaxHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		p := newPlace(t, &reconnect.ListenOptions{
			MaxHandshakes: 2, Plain: reconnect.RefusePlain, SessionOptions: reconnect.SessionOptions{Logger: slog.New(j)},
		})
		defer p.Close()
		oldest, other := p.raw(), p.raw()
		defer oldest.Close()
		defer other.Close()
		_, err := oldest.Write([]byte{0, 0, 0})
		require.NoError(t, err)
		start := time.Now()
		a := p.dial(nil)
		defer a.CloseNow()
		b := p.accept()
		defer b.CloseNow()
		require.Equal(t, 500*time.Millisecond, time.Since(start))
		exchange(t, a, b, 10, func() {})
		_, err = oldest.Read(make([]byte, 1))
		require.Error(t, err)
		// What the exchange takes is a turn of reading at most, which nobody may have wanted for up to 32 ms.
		require.InDelta(t, 516*time.Millisecond, time.Since(start), float64(17*time.Millisecond), "the oldest")
		j.await(t, 1, "refused a connection", "had to make room")
		_, err = other.Read(make([]byte, 1))
		require.Error(t, err)
		require.Equal(t, reconnect.DefaultHandshakeTimeout, time.Since(start), "the other has its time")
	})
}

// Those whose first frame has come are decided on: nobody takes their place, and the next one waits. One that was refused
// and does not leave makes room again.
func TestListenerMaxHandshakesDeciding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := make(chan struct{}, 2), make(chan error)
		p := newPlace(t, &reconnect.ListenOptions{
			MaxHandshakes: 1,
			Authenticate: func(context.Context, *reconnect.Peer) (string, error) {
				asked <- struct{}{}
				return "", <-answer
			},
		})
		defer p.Close()
		g, first := newGreeter(t), p.raw()
		defer first.Close()
		_, err := first.Write(g.hello(1))
		require.NoError(t, err)
		<-asked
		a := reconnect.Open(p.way(), nil)
		defer a.CloseNow()
		synctest.Wait()
		require.Empty(t, asked, "the second one waits")
		start := time.Now()
		answer <- errors.New("nobody")
		<-asked
		require.Zero(t, time.Since(start), "it waits no longer than for that")
		close(answer)
		b := p.accept()
		defer b.CloseNow()
		exchange(t, a, b, 10, func() {})
	})
}

// A full listener says so; the dialer comes later.
func TestListenerMaxSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{MaxSessions: 2})
		defer p.Close()
		a1, a2 := p.dial(nil), p.dial(nil)
		defer a2.CloseNow()
		b1, b2 := p.accept(), p.accept()
		exchange(t, a1, b1, 10, func() {})
		exchange(t, a2, b2, 10, func() {})
		_, err := reconnect.Dial(bounded(t), p.way(), nil)
		require.ErrorIs(t, err, reconnect.ErrBusy)
		require.ErrorContains(t, err, "busy")
		w := new(watch)
		a3 := reconnect.Open(p.way(), &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		defer a3.CloseNow()
		start := time.Now()
		for i := 1; i < 4; i++ {
			require.ErrorIs(t, w.await(t, reconnect.EventDialFailed, i).Err, reconnect.ErrBusy)
			require.GreaterOrEqual(t, time.Since(start), time.Duration(i-1)*time.Second)
		}
		require.NoError(t, b1.CloseNow())
		b3 := p.accept()
		exchange(t, a3, b3, 10, func() {})
		exchange(t, a2, b2, 10, func() {})
		<-a1.Done()
		require.ErrorIs(t, a1.Err(), reconnect.ErrPeerClosed)
	})
}

// Above MaxDetached the session that has been without a connection for the longest goes, and both sides are told.
func TestListenerMaxDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{MaxDetached: 1})
		defer p.Close()
		var ws [3]watch
		var as, bs []*reconnect.Conn
		for i := range 3 {
			as = append(as, p.dial(&reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: ws[i].onEvent}}))
			defer as[i].CloseNow()
			bs = append(bs, p.accept())
			defer bs[i].CloseNow()
			exchange(t, as[i], bs[i], 10, func() {})
		}
		p.net.Faults().RefuseDials(-1, nil)
		for i := range 3 {
			as[i].Redial(errors.New("cut"))
			<-time.After(10 * time.Millisecond) // a listener's end that has just received reads on a moment later
		}
		for i := range 2 {
			<-bs[i].Done()
			require.ErrorIs(t, bs[i].Err(), reconnect.ErrSessionLost)
			require.ErrorContains(t, bs[i].Err(), "make room")
		}
		require.Equal(t, reconnect.Disconnected, bs[2].State())
		p.net.Faults().RefuseDials(0, nil)
		exchange(t, as[2], bs[2], 10, func() {})
		for i := range 2 {
			e := ws[i].await(t, reconnect.EventLost, 1)
			require.ErrorIs(t, e.Err, reconnect.ErrSessionLost)
			require.ErrorContains(t, e.Err, "make room")
			ws[i].await(t, reconnect.EventConnected, 2)
			require.NoError(t, as[i].Writer().Send(bounded(t), text(uint16(i), "it is me")))
		}
		for range 2 {
			b := p.accept()
			d, err := b.Reader().Receive(bounded(t))
			require.NoError(t, err)
			exchange(t, as[d.Recipient], b, 10, func() {})
		}
	})
}

// A session that was without a connection for too long is lost, and both sides are told.
func TestListenerExpiry(t *testing.T) {
	for _, strict := range []bool{true, false} {
		t.Run(fmt.Sprint("strict ", strict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := new(watch)
				p := newPlace(t, &reconnect.ListenOptions{Expiry: time.Minute})
				defer p.Close()
				a := p.dial(&reconnect.DialOptions{Strict: strict, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				defer a.CloseNow()
				b := p.accept()
				exchange(t, a, b, 10, func() {})
				loseAndGoOn(t, p, a, b, w, strict, "expired", func() { <-b.Done() })
			})
		})
	}
}

// loseAndGoOn cuts a's connection while some of what it sends has arrived and is not acknowledged, lets lose see to the
// loss of the session, and expects a to notice and, if it may, to go on.
func loseAndGoOn(t *testing.T, p *place, a, b *reconnect.Conn, w *watch, strict bool, says string, lose func()) {
	ctx := context.Background()
	p.net.Faults().Freeze(mem.Down)
	for i := range 3 {
		require.NoError(t, a.Writer().Send(ctx, text(uint16(i), "arrives")))
	}
	<-time.After(time.Second)
	p.net.Faults().RefuseDials(-1, nil)
	p.net.Faults().Cut(nil)
	p.net.Faults().Thaw(mem.Down)
	for i := range 3 {
		require.NoError(t, a.Writer().Send(ctx, text(uint16(3+i), "sent behind RESUME")))
	}
	unconfirmed := a.Unconfirmed()
	require.Len(t, unconfirmed, 6)
	lose()
	require.ErrorIs(t, b.Err(), reconnect.ErrSessionLost)
	for i := range 3 {
		d, err := b.Reader().Receive(ctx)
		require.NoError(t, err, "what had arrived is still received")
		require.EqualValues(t, i, d.Recipient)
	}
	_, err := b.Reader().Receive(ctx)
	require.ErrorIs(t, err, reconnect.ErrSessionLost)
	require.ErrorIs(t, b.Writer().Send(ctx, text(1, "")), reconnect.ErrSessionLost)

	p.net.Faults().RefuseDials(0, nil)
	if strict {
		<-a.Done()
		require.ErrorIs(t, a.Err(), reconnect.ErrSessionLost)
		lost := new(reconnect.SessionLostError)
		require.ErrorAs(t, a.Err(), &lost)
		require.Equal(t, unconfirmed[len(unconfirmed)-len(lost.Unconfirmed):], lost.Unconfirmed)
		require.Len(t, lost.Unconfirmed, 3, "the listener has said how far it came")
		require.ErrorContains(t, a.Err(), says)
		require.Error(t, lost.Unwrap())
		require.Equal(t, lost.Unconfirmed, a.Unconfirmed())
		require.ErrorIs(t, a.Writer().Send(ctx, text(1, "")), reconnect.ErrSessionLost)
		return
	}
	b = p.accept()
	defer b.CloseNow()
	e := w.await(t, reconnect.EventLost, 1)
	require.ErrorIs(t, e.Err, reconnect.ErrSessionLost)
	require.ErrorContains(t, e.Err, says)
	for i := range 3 {
		d, err := b.Reader().Receive(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 3+i, d.Recipient)
		require.True(t, d.Redelivered, "it was sent behind the RESUME, for all that the dialer knows")
	}
	require.EqualValues(t, 3, e.N)
	require.EqualValues(t, 1, a.Stats().Lost)
	w.await(t, reconnect.EventConnected, 2)
	exchange(t, a, b, 100, func() {})
	require.NoError(t, b.CloseSend(ctx))
	require.NoError(t, a.Close(ctx))
}

// The process of the listener was started again: it knows nothing.
func TestListenerStartedAgain(t *testing.T) {
	for _, strict := range []bool{true, false} {
		t.Run(fmt.Sprint("strict ", strict), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := new(watch)
				p := newPlace(t, nil)
				a := p.dial(&reconnect.DialOptions{Strict: strict, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				defer a.CloseNow()
				b := p.accept()
				exchange(t, a, b, 10, func() {})
				ctx := context.Background()
				p.net.Faults().Freeze(mem.Down)
				require.NoError(t, a.Writer().Send(ctx, text(1, "arrives")))
				<-time.After(time.Second)
				p.net.Faults().RefuseDials(-1, nil)
				p.net.Faults().Cut(nil)
				p.net.Faults().Thaw(mem.Down)
				require.NoError(t, a.Writer().Send(ctx, text(2, "sent behind RESUME")))
				require.NoError(t, p.Close())
				require.ErrorIs(t, b.Err(), reconnect.ErrClosed)
				p.Listener = reconnect.NewListener(listenMem(t, &p.net, "s"), nil)
				defer p.Close()
				p.net.Faults().RefuseDials(0, nil)
				want := []datagram.Datagram{text(1, "arrives"), text(2, "sent behind RESUME")}
				if strict {
					<-a.Done()
					lost := new(reconnect.SessionLostError)
					require.ErrorAs(t, a.Err(), &lost)
					require.Equal(t, want, lost.Unconfirmed)
					require.ErrorContains(t, a.Err(), "another process")
					return
				}
				b = p.accept()
				want[0].Redelivered, want[1].Redelivered = true, true
				for i := range 2 {
					d, err := b.Reader().Receive(ctx)
					require.NoError(t, err)
					require.Equal(t, want[i], d)
				}
				require.EqualValues(t, 2, w.await(t, reconnect.EventLost, 1).N)
				exchange(t, a, b, 100, func() {})
			})
		})
	}
}

// Close of a listener ends everything; dialers that may go on elsewhere do.
func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		w := new(watch)
		strict := p.dial(&reconnect.DialOptions{Strict: true})
		defer strict.CloseNow()
		a := p.dial(&reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		defer a.CloseNow()
		b := p.accept()
		half := p.raw() // in its handshake
		defer half.Close()
		plain := p.raw() // not accepted
		defer plain.Close()
		_, err := plain.Write([]byte{0, 0, 0, 4, 0, 1, 0, 0})
		require.NoError(t, err)
		accepting := make(chan error, 1)
		synctest.Wait()
		p.accept()
		p.accept()
		_, err = plain.Write([]byte{0, 0, 0, 4, 0, 1, 0, 0})
		require.NoError(t, err)
		go func() { _, err := p.Accept(context.Background()); accepting <- err }()
		synctest.Wait()
		start := time.Now()
		require.NoError(t, p.Close())
		require.NoError(t, p.Close())
		assert.LessOrEqual(t, time.Since(start), time.Second)
		require.ErrorIs(t, <-accepting, reconnect.ErrClosed)
		_, err = p.Accept(context.Background())
		require.ErrorIs(t, err, reconnect.ErrClosed)
		require.Nil(t, p.Addr())
		<-b.Done()
		require.ErrorIs(t, b.Err(), reconnect.ErrClosed)
		require.ErrorIs(t, b.Writer().Send(context.Background(), text(1, "")), reconnect.ErrClosed)
		_, err = half.Read(make([]byte, 1))
		require.Error(t, err)
		<-strict.Done()
		require.ErrorIs(t, strict.Err(), reconnect.ErrSessionLost)
		require.ErrorContains(t, strict.Err(), "shutting down")
		w.await(t, reconnect.EventLost, 1)
		p.Add(listenMem(t, &p.net, "s")) // closed at once
		_, err = p.way().DialContext(context.Background())
		require.Error(t, err)
	})
}

// Shutdown asks dialers to go, takes no new sessions, lets those that there are resume, and waits for their ends.
func TestListenerShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		w := new(watch)
		a := p.dial(&reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
		defer a.CloseNow()
		b := p.accept()
		exchange(t, a, b, 10, func() {})
		shut := make(chan error, 1)
		ctx := context.Background()
		go func() { shut <- p.Shutdown(ctx, 10*time.Second, 5*time.Second) }()
		e := w.await(t, reconnect.EventGoAway, 1)
		require.Equal(t, 10*time.Second, e.Wait)
		require.Equal(t, 5*time.Second, e.Spread)
		_, err := p.Accept(ctx)
		require.ErrorIs(t, err, reconnect.ErrClosed)
		_, err = reconnect.Dial(ctx, p.way(), nil)
		require.ErrorIs(t, err, reconnect.ErrBusy)
		require.ErrorContains(t, err, "shutting down")
		plain, err := reconnect.DialPlain(ctx, p.way(), nil)
		require.NoError(t, err)
		require.NoError(t, plain.Writer().Send(ctx, text(1, "")))
		_, err = plain.Reader().Receive(ctx)
		require.Error(t, err)
		require.NoError(t, plain.CloseNow())
		exchange(t, a, b, 10, func() {})

		start := time.Now()
		p.net.Faults().Cut(nil)
		w.await(t, reconnect.EventResumed, 1)
		assert.GreaterOrEqual(t, time.Since(start), 9*time.Second)
		assert.LessOrEqual(t, time.Since(start), 15*time.Second)
		exchange(t, a, b, 10, func() {})
		require.Empty(t, shut)
		require.NoError(t, b.CloseSend(ctx))
		require.NoError(t, a.Close(ctx))
		require.NoError(t, <-shut)
		require.NoError(t, b.Close(ctx))
	})
}

// Shutdown whose ctx ends cuts the rest.
func TestListenerShutdownOutOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		a := p.dial(&reconnect.DialOptions{Strict: true})
		defer a.CloseNow()
		b := p.accept()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, p.Shutdown(ctx, 0, 0), context.DeadlineExceeded)
		assert.InDelta(t, time.Minute, time.Since(start), float64(time.Second))
		<-a.Done()
		require.ErrorIs(t, a.Err(), reconnect.ErrSessionLost)
		require.ErrorIs(t, b.Err(), reconnect.ErrClosed)
	})
}

// Sessions that nobody accepts are refused when too many wait.
func TestListenerBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		var ncs []net.Conn
		for range 4096 {
			nc := p.raw()
			_, err := nc.Write([]byte{0, 0, 0, 4, 0, 1, 0, 0})
			require.NoError(t, err)
			ncs = append(ncs, nc)
		}
		synctest.Wait()
		_, err := reconnect.Dial(context.Background(), p.way(), nil)
		require.ErrorContains(t, err, "busy")
		nc := p.raw()
		_, err = nc.Write([]byte{0, 0, 0, 4, 0, 1, 0, 0})
		require.NoError(t, err)
		_, err = nc.Read(make([]byte, 1))
		require.Error(t, err, "a plain one is closed")
		nc.Close()
		for range ncs {
			require.NoError(t, p.accept().CloseNow())
		}
		a := p.dial(nil)
		require.NoError(t, a.CloseNow())
		for _, nc := range ncs {
			nc.Close()
		}
	})
}

// The net.Listener fails: Accept says so, and the sessions go on.
func TestListenerFails(t *testing.T) {
	p := &place{t: t}
	ln := listenMem(t, &p.net, "s")
	p.Listener = reconnect.NewListener(ln, nil)
	defer p.Close()
	a := p.dial(nil)
	defer a.CloseNow()
	b := p.accept()
	require.NoError(t, ln.Close())
	_, err := p.Accept(bounded(t))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorContains(t, err, "accepting")
	exchange(t, a, b, 10, func() {})
	require.Nil(t, p.Addr())
}

// A session that began over QUIC goes on over TLS, when UDP does not work any more.
func TestSessionMovesToAnotherTransport(t *testing.T) {
	served, trusted := identity(t)
	lq, err := quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: served})
	require.NoError(t, err)
	lt, err := towtls.Listen(t.Context(), "127.0.0.1:0", &towtls.Config{TLS: served})
	require.NoError(t, err)
	l := reconnect.NewListener(lq, nil)
	defer l.Close()
	l.Add(lt)
	var mu sync.Mutex
	blocked := false
	overQUIC := &line{d: quic.Dialer{Addr: lq.Addr().String(), Config: trusted}}
	defer overQUIC.wait()
	first := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if blocked {
			return nil, errors.New("UDP is blocked")
		}
		return overQUIC.DialContext(ctx)
	})
	ctx := bounded(t)
	a, err := reconnect.Dial(ctx, first, &reconnect.DialOptions{
		Fallbacks: []transport.Dialer{towtls.Dialer{Addr: lt.Addr().String(), Config: trusted}},
	})
	require.NoError(t, err)
	defer a.CloseNow()
	b, err := l.Accept(ctx)
	require.NoError(t, err)
	defer b.CloseNow()
	exchange(t, a, b, 100, func() {})
	require.Equal(t, lq.Addr().String(), a.RemoteAddr().String())
	mu.Lock()
	blocked = true
	mu.Unlock()
	overQUIC.cut()
	exchange(t, a, b, 100, func() {})
	require.Equal(t, lt.Addr().String(), a.RemoteAddr().String())
	require.EqualValues(t, 1, a.Stats().Resumes)
}

// The memory that is promised to all peers together is bounded; each session still works.
func TestListenerMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, &reconnect.ListenOptions{Memory: 256 << 10})
		defer p.Close()
		var as, bs []*reconnect.Conn
		for range 8 {
			as, bs = append(as, p.dial(nil)), append(bs, p.accept())
		}
		var wg sync.WaitGroup
		for i := range as {
			wg.Go(func() { exchange(t, as[i], bs[i], 2000, func() {}) })
		}
		wg.Wait()
		for i := range bs {
			assert.LessOrEqual(t, bs[i].Stats().Window, 256<<10)
			as[i].CloseNow()
		}
	})
}

// Two HELLOs of one session are decided on at the same time: the newer connection has it, and nothing is lost.
func TestListenerHellosAtOnce(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			decide := make(chan struct{})
			p := newPlace(t, &reconnect.ListenOptions{
				HandshakeTimeout: time.Minute,
				Authenticate: func(context.Context, *reconnect.Peer) (string, error) {
					<-decide
					return "", nil
				},
			})
			defer p.Close()
			a := reconnect.Open(p.way(), nil)
			defer a.CloseNow()
			<-time.After(6 * time.Second) // the first dial was given up, and the second has been made
			require.EqualValues(t, 2, a.Stats().Epoch)
			close(decide)
			b := p.accept()
			exchange(t, a, b, 10, func() {})
			require.Zero(t, a.Stats().Lost)
			require.Equal(t, a.Stats().Epoch, b.Stats().Epoch)
		})
	}
}
