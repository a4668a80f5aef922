package reconnect_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport/mem"
)

// What had arrived and was not received goes with CloseNow, and is not handed out behind it.
func TestSessionCloseNowHandsOutNothing(t *testing.T) {
	s := memSession(t, nil, nil)
	defer s.end()
	ctx := bounded(t)
	for range 10 {
		require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
	}
	require.NoError(t, s.a.Writer().Flush(ctx))
	_, err := s.b.Reader().Receive(ctx)
	require.NoError(t, err)
	require.NoError(t, s.b.CloseNow())
	_, err = s.b.Reader().Receive(ctx)
	require.ErrorIs(t, err, reconnect.ErrClosed)
}

// Who did not close is told that the peer did, before the session has ended and after.
func TestSessionPeerClosed(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			ctx := bounded(t)
			require.NoError(t, s.a.Writer().Send(ctx, text(1, "last")))
			require.NoError(t, s.a.Close(ctx))
			<-s.b.Writer().Done()
			require.ErrorIs(t, s.b.Writer().Send(ctx, text(1, "")), reconnect.ErrPeerClosed)
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err, "what had arrived is still received")
			assert.Equal(t, text(1, "last"), d)
			_, err = s.b.Reader().Receive(ctx)
			require.Equal(t, io.EOF, err)
			<-s.b.Done()
			require.ErrorIs(t, s.b.Writer().TrySend(text(1, "")), reconnect.ErrPeerClosed)
			require.Equal(t, io.EOF, s.b.Err())
			require.Equal(t, reconnect.Closed, s.b.State())
			require.NoError(t, s.b.Close(ctx))
			require.ErrorIs(t, s.a.Err(), reconnect.ErrClosed)
		})
	}
}

// Close while the peer sends on: the peer learns that nothing more is taken, and everything of this side arrives.
func TestSessionCloseWhilePeerIsStillSending(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			ctx := bounded(t)
			sent := make(chan error)
			go func() {
				for {
					if err := s.b.Writer().Send(ctx, text(1, "unasked for")); err != nil {
						sent <- err
						return
					}
				}
			}()
			for range 1000 {
				require.NoError(t, s.a.Writer().Send(ctx, text(1, "the last words")))
			}
			require.NoError(t, s.a.Close(ctx))
			require.ErrorIs(t, <-sent, reconnect.ErrPeerClosed)
			count := 0
			for _, err := range s.b.Reader().All(ctx) {
				require.NoError(t, err)
				count++
			}
			assert.Equal(t, 1000, count)
			var unsent *reconnect.CloseError
			if err := s.b.Close(ctx); err != nil { // unless all had come before the end
				require.ErrorAs(t, err, &unsent)
				require.ErrorIs(t, err, reconnect.ErrPeerClosed)
			}
		})
	}
}

func TestSessionCloseNowTellsThePeer(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			s := newSession(t, w, nil, nil)
			defer s.end()
			ctx := bounded(t)
			require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
			require.NoError(t, s.a.Writer().Flush(ctx))
			require.NoError(t, s.a.CloseNow())
			<-s.a.Done()
			<-s.b.Done()
			require.ErrorIs(t, s.b.Err(), reconnect.ErrPeerClosed)
			require.ErrorIs(t, s.b.Writer().Send(ctx, text(1, "")), reconnect.ErrPeerClosed)
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
			assert.Equal(t, text(1, "x"), d)
			_, err = s.b.Reader().Receive(ctx)
			require.ErrorIs(t, err, reconnect.ErrPeerClosed)
		})
	}
}

// Close goes on through cuts until the peer has everything.
func TestSessionCloseOverCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		s.net.Faults().RefuseDials(5, nil)
		s.line.cut()
		for i := range 100 {
			require.NoError(t, s.a.Writer().Send(ctx, numbered(i)))
		}
		closed := make(chan error, 1)
		go func() { closed <- s.a.Close(ctx) }()
		i := 0
		for d, err := range s.b.Reader().All(ctx) {
			require.NoError(t, err)
			require.Equal(t, numbered(i), d)
			i++
		}
		require.Equal(t, 100, i)
		require.NoError(t, <-closed)
		require.NoError(t, s.b.Close(ctx))
	})
}

// Close that cannot reach the peer ends with its context, and counts.
func TestSessionCloseOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		ctx := context.Background()
		synctest.Wait() // the listener knows that the session is confirmed
		s.net.Faults().RefuseDials(-1, nil)
		s.line.cut()
		for i := range 3 {
			require.NoError(t, s.a.Writer().Send(ctx, numbered(i)))
		}
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		start := time.Now()
		err := s.a.Close(short)
		assert.Equal(t, time.Minute, time.Since(start))
		var unsent *reconnect.CloseError
		require.ErrorAs(t, err, &unsent)
		require.EqualValues(t, 3, unsent.Unsent)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-s.a.Done()
		require.ErrorIs(t, s.a.Err(), reconnect.ErrClosed)
		require.Equal(t, []datagram.Datagram{numbered(0), numbered(1), numbered(2)}, s.a.Unconfirmed())
		// The listener's side learns of it by nobody, and expires.
		<-s.b.Done()
		require.ErrorIs(t, s.b.Err(), reconnect.ErrSessionLost)
		assert.Equal(t, reconnect.DefaultExpiry, time.Since(start))
	})
}

// A session that was closed while it had no connection tells its dialer when it comes.
func TestSessionClosedWhileDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		s.net.Faults().RefuseDials(3, nil)
		s.line.cut()
		synctest.Wait()
		require.Equal(t, reconnect.Disconnected, s.b.State())
		require.NoError(t, s.b.CloseNow())
		<-s.b.Done()
		<-s.a.Done()
		require.ErrorIs(t, s.a.Err(), reconnect.ErrPeerClosed)
	})
}

// Nothing follows a write that failed in the middle, even if the connection takes more: by the goroutine that sends, and
// by the one that writes.
func TestSessionFailedWriteKillsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{10, 40 << 10} {
			s := memSession(t, nil, nil)
			ctx := context.Background()
			synctest.Wait()
			<-time.After(time.Millisecond) // so that a short one is a lone one
			first := s.line.newest().(*mem.Conn)
			first.Faults().FailWrite(mem.Up, 1, 5, nil)
			want := datagram.Datagram{Recipient: 1, Payload: make([]byte, size)}
			require.NoError(t, s.a.Writer().Send(ctx, want))
			require.NoError(t, s.a.Writer().Flush(ctx))
			d, err := s.b.Reader().Receive(ctx)
			require.NoError(t, err)
			require.Equal(t, want, d)
			assert.NotSame(t, first, s.line.newest())
			assert.EqualValues(t, 1, s.a.Stats().Resumes)
			s.end()
		}
	})
}

// A peer that breaks the protocol is told so, even if the application here ends everything at once when it hears of it.
func TestSessionProtocolErrorIsTold(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			ctx := context.Background()
			synctest.Wait()
			s.net.Faults().Corrupt(mem.Up, 4) // the version
			require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
			_, err := s.b.Reader().Receive(ctx)
			require.ErrorIs(t, err, reconnect.ErrProtocol)
			require.ErrorIs(t, err, datagram.ErrVersion)
			s.b.CloseNow()
			<-s.a.Done()
			require.ErrorIs(t, s.a.Err(), reconnect.ErrProtocol)
			require.ErrorIs(t, s.b.Err(), reconnect.ErrProtocol)
		})
	}
}

// The unsendable in a channel ends the session with what Send would say.
func TestSessionUnsendableInTheChannel(t *testing.T) {
	s := memSession(t, nil, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{MaxPayload: 3}})
	defer s.end()
	s.a.Writer().C() <- text(1, "four")
	<-s.a.Done()
	require.ErrorIs(t, s.a.Err(), datagram.ErrTooLarge)
	require.ErrorIs(t, s.a.Writer().Send(t.Context(), text(1, "")), datagram.ErrTooLarge)
}

// The smaller limit of both sides holds in each direction, and is known as soon as there is an answer.
func TestSessionLimits(t *testing.T) {
	s := memSession(t, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{MaxPayload: 3}}, nil)
	defer s.end()
	ctx := bounded(t)
	require.ErrorIs(t, s.a.Writer().Send(ctx, text(1, "four")), datagram.ErrTooLarge)
	require.ErrorIs(t, s.b.Writer().Send(ctx, text(1, "four")), datagram.ErrTooLarge)
	n, err := s.a.Writer().SendBatch(ctx, []datagram.Datagram{text(1, "a"), text(1, "four"), text(1, "b")})
	require.ErrorIs(t, err, datagram.ErrTooLarge)
	require.Equal(t, 1, n)
	require.NoError(t, s.a.Writer().Flush(ctx))
	require.NoError(t, s.a.CloseSend(ctx))
	var got []datagram.Datagram
	for d, err := range s.b.Reader().All(ctx) {
		require.NoError(t, err)
		got = append(got, d)
	}
	require.Equal(t, []datagram.Datagram{text(1, "a")}, got)
}

// What is accepted before the listener's limit is known, and is above it, ends the session.
func TestSessionAcceptedTooLarge(t *testing.T) {
	n := new(mem.Network)
	l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{MaxPayload: 3}})
	defer l.Close()
	n.Faults().HangDials(1, 10*time.Millisecond)
	a := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, nil)
	defer a.CloseNow()
	require.NoError(t, a.Writer().Send(t.Context(), text(1, "four")))
	<-a.Done()
	require.ErrorIs(t, a.Err(), datagram.ErrTooLarge)
}

func TestSessionContextsOfCalls(t *testing.T) {
	s := memSession(t, nil, nil)
	defer s.end()
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, s.a.Writer().Send(ctx, text(1, "x")), why)
	require.ErrorIs(t, s.a.Writer().SendExpiring(ctx, text(1, "x"), time.Second), why)
	_, err := s.a.Writer().SendBatch(ctx, []datagram.Datagram{text(1, "x")})
	require.ErrorIs(t, err, why)
	n, err := s.a.Writer().SendBatch(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, n)
	require.NoError(t, s.a.Writer().Send(t.Context(), text(1, "y")))
	_, err = s.b.Reader().Receive(ctx)
	require.ErrorIs(t, err, why)
	_, err = s.b.Reader().ReceiveBatch(ctx, make([]datagram.Datagram, 1))
	require.ErrorIs(t, err, why)
	n, err = s.b.Reader().ReceiveBatch(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, n)
	d, err := s.b.Reader().Receive(t.Context())
	require.NoError(t, err)
	assert.Equal(t, text(1, "y"), d)
	_, err = reconnect.Dial(ctx, s.line, nil)
	require.ErrorIs(t, err, why)
	_, err = s.l.Accept(ctx)
	require.ErrorIs(t, err, why)
}

// A session that ended because its peer broke the protocol tells the peer so, also over a slow line, although the
// application closes it at once and something is unconfirmed.
func TestSessionCloseTellsWhyItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		g, nc := newGreeter(t), p.raw()
		defer nc.Close()
		g.welcome(g.say(nc, g.hello(1)))
		b := p.accept()
		require.NoError(t, b.Writer().Send(t.Context(), datagram.Datagram{Payload: make([]byte, 200_000)})) // more than the line holds
		synctest.Wait()
		_, err := nc.Write([]byte{0, 0, 0, 4, 0, 2, 0, 99}) // a control frame without a body
		require.NoError(t, err)
		_, err = b.Reader().Receive(t.Context())
		require.ErrorIs(t, err, reconnect.ErrProtocol)
		closed := make(chan error, 1)
		go func() { closed <- b.Close(context.Background()) }()
		<-time.After(500 * time.Millisecond)
		var last []byte
		for {
			f, err := readFrame(nc)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			last = f
		}
		c, err := wire.ParseControl(last)
		require.NoError(t, err)
		require.Equal(t, wire.KindClose, c.Kind)
		require.Equal(t, wire.CloseProtocol, c.Reason)
		nc.Close()
		var e *reconnect.CloseError
		require.ErrorAs(t, <-closed, &e)
	})
}
