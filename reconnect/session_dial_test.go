package reconnect_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
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
	towtls "github.com/towline-mq/towline/transport/tls"
)

// answering is a listener whose connections get answered by fn, one after the other.
func answering(t *testing.T, fn func(net.Conn)) transport.Dialer {
	n := new(mem.Network)
	ln := listenMem(t, n, "s")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			fn(nc)
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return mem.Dialer{Network: n, Addr: "s"}
}

// What Dial says of peers that have no sessions.
func TestSessionDialOfOthers(t *testing.T) {
	say := func(what string) func(net.Conn) {
		return func(nc net.Conn) {
			_, _ = io.ReadFull(nc, make([]byte, 8))
			_, _ = nc.Write([]byte(what))
			_, _ = io.Copy(io.Discard, nc)
			nc.Close()
		}
	}
	plain, err := datagram.Append(nil, text(1, "hello"))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		peer func(net.Conn)
		is   error
		says string
	}{
		"plain datagrams": {say(string(plain)), reconnect.ErrNoSessions, "a plain connection may do"},
		"hangs up":        {func(nc net.Conn) { _, _ = io.ReadFull(nc, make([]byte, 8)); nc.Close() }, reconnect.ErrNoSessions, "hung up"},
		"HTTP":            {say("HTTP/1.1 400 Bad Request\r\n\r\n"), reconnect.ErrProtocol, "HTTP server"},
		"TLS":             {say("\x15\x03\x01\x00\x02\x02\x0a"), reconnect.ErrProtocol, "TLS"},
		"a control frame": {say("\x00\x00\x00\x06\x00\x02\x00\x63\x00\x00"), reconnect.ErrProtocol, "kind 99"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := reconnect.Dial(bounded(t), answering(t, c.peer), nil)
			require.ErrorIs(t, err, c.is)
			assert.Contains(t, err.Error(), c.says)
			t.Log(err)
		})
	}
}

// A real plain Conn at the other end, which answers nothing to a frame that it does not know.
func TestSessionDialOfPlainConn(t *testing.T) {
	d := answering(t, func(nc net.Conn) {
		c := reconnect.NewPlain(nc, nil)
		_, err := c.Reader().Receive(t.Context())
		assert.ErrorIs(t, err, datagram.ErrVersion)
		assert.NoError(t, c.Close(bounded(t)))
	})
	_, err := reconnect.Dial(bounded(t), d, nil)
	require.ErrorIs(t, err, reconnect.ErrNoSessions)
}

func TestSessionDialOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		ln := listenMem(t, n, "s")
		defer ln.Close()
		start := time.Now()
		_, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, nil)
		require.ErrorIs(t, err, reconnect.ErrNoAnswer)
		assert.Equal(t, reconnect.DefaultHandshakeTimeout, time.Since(start))
		synctest.Wait()

		start = time.Now()
		ctx, cancel := context.WithTimeoutCause(context.Background(), time.Second, errors.New("no longer"))
		defer cancel()
		_, err = reconnect.Dial(ctx, mem.Dialer{Network: n, Addr: "s"}, nil)
		require.ErrorContains(t, err, "no longer")
		assert.Equal(t, time.Second, time.Since(start))
	})
}

// Dial tries each endpoint once, and says why each of them failed.
func TestSessionDialRefused(t *testing.T) {
	n := new(mem.Network)
	missing := func(name string) transport.Dialer { return mem.Dialer{Network: n, Addr: name} }
	_, err := reconnect.Dial(t.Context(), missing("one"), nil)
	require.ErrorContains(t, err, "dial mem one")
	_, err = reconnect.Dial(t.Context(), missing("one"), &reconnect.DialOptions{Fallbacks: []transport.Dialer{missing("two"), missing("three")}})
	require.ErrorContains(t, err, "dial mem one")
	require.ErrorContains(t, err, "dial mem two")
	require.ErrorContains(t, err, "dial mem three")

	// One that hangs up is no better than one that refuses.
	hangsUp := answering(t, func(nc net.Conn) { nc.Close() })
	_, err = reconnect.Dial(bounded(t), missing("one"), &reconnect.DialOptions{Fallbacks: []transport.Dialer{hangsUp, missing("three")}})
	require.ErrorContains(t, err, "dial mem one")
	require.ErrorIs(t, err, reconnect.ErrNoSessions)
	require.ErrorContains(t, err, "dial mem three")

	told := 0
	_, err = reconnect.Dial(t.Context(), missing("one"), &reconnect.DialOptions{
		Redial: &redial.Policy{OnFailure: func(context.Context, redial.Failure) (d redial.Decision) { told++; return d }},
	})
	require.Error(t, err)
	require.Equal(t, 1, told, "the policy's own hook is called too")
}

func TestSessionToken(t *testing.T) {
	bad := errors.New("wrong password")
	n := new(mem.Network)
	l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{
		Authenticate: func(_ context.Context, p *reconnect.Peer) (string, error) {
			if string(p.Token) == "secret" {
				return "me", nil
			}
			return "", bad
		},
	})
	defer l.Close()
	d := mem.Dialer{Network: n, Addr: "s"}
	with := func(token string, err error) *reconnect.DialOptions {
		return &reconnect.DialOptions{Token: func(context.Context) ([]byte, error) { return []byte(token), err }}
	}
	_, err := reconnect.Dial(bounded(t), d, with("guess", nil))
	require.ErrorIs(t, err, reconnect.ErrRefused)
	assert.Contains(t, err.Error(), "not authorised")
	_, err = reconnect.Dial(bounded(t), d, nil)
	require.ErrorIs(t, err, reconnect.ErrRefused)
	_, err = reconnect.Dial(bounded(t), d, with(string(make([]byte, 769)), nil))
	require.ErrorContains(t, err, "769 bytes")
	_, err = reconnect.Dial(bounded(t), d, with("", bad))
	require.ErrorIs(t, err, bad)
	a, err := reconnect.Dial(bounded(t), d, with("secret", nil))
	require.NoError(t, err)
	require.NoError(t, a.CloseNow())
	<-a.Done()
}

// A token that cannot be had for the moment is asked for again; one that is refused later ends the session.
func TestSessionTokenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := make(chan struct{})
		asked := 0
		s, ofA, _ := watched(t, &reconnect.ListenOptions{
			Authenticate: func(context.Context, *reconnect.Peer) (string, error) {
				select {
				case <-refuse:
					return "", errors.New("no longer")
				default:
					return "me", nil
				}
			},
		}, &reconnect.DialOptions{Token: func(context.Context) ([]byte, error) {
			if asked++; asked == 2 || asked == 3 {
				return nil, errors.New("the safe is locked")
			}
			return []byte("secret"), nil
		}})
		defer s.end()
		exchange(t, s.a, s.b, 1, func() {})
		s.line.cut()
		ofA.await(t, reconnect.EventResumed, 1)
		require.ErrorContains(t, ofA.await(t, reconnect.EventDialFailed, 2).Err, "safe is locked")
		close(refuse)
		s.line.cut()
		<-s.a.Done()
		require.ErrorIs(t, s.a.Err(), reconnect.ErrRefused)
		require.Equal(t, reconnect.Disconnected, s.b.State(), "the other side waits for who may go on")
	})
}

// A session is resumed by the principal that began it, and by nobody else.
func TestSessionPrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		token := make(chan string, 1)
		var peers []reconnect.Peer
		s, _, _ := func() (*ends, *watch, *watch) {
			token <- "alice"
			return watched(t, &reconnect.ListenOptions{
				Authenticate: func(_ context.Context, p *reconnect.Peer) (string, error) {
					peers = append(peers, *p)
					return string(p.Token), nil
				},
			}, &reconnect.DialOptions{Token: func(context.Context) ([]byte, error) { return []byte(<-token), nil }})
		}()
		defer s.end()
		exchange(t, s.a, s.b, 1, func() {})
		token <- "alice"
		s.line.cut()
		exchange(t, s.a, s.b, 1, func() {})
		token <- "mallory"
		s.line.cut()
		<-s.a.Done()
		require.ErrorIs(t, s.a.Err(), reconnect.ErrRefused)
		require.Len(t, peers, 3)
		assert.False(t, peers[0].Resume)
		assert.True(t, peers[1].Resume)
		assert.Nil(t, peers[0].TLS)
		assert.NotNil(t, peers[0].Addr)
	})
}

// Authenticate sees the certificate of a peer.
func TestSessionCertificate(t *testing.T) {
	served, trusted := identity(t)
	mine, err := towtls.SelfSigned()
	require.NoError(t, err)
	trusted.Certificates = []tls.Certificate{mine}
	served.ClientAuth = tls.RequireAnyClientCert
	ln, err := towtls.Listen(t.Context(), "127.0.0.1:0", &towtls.Config{TLS: served})
	require.NoError(t, err)
	seen := make(chan string, 10)
	s := begin(t, ln, towtls.Dialer{Addr: ln.Addr().String(), Config: trusted}, &reconnect.ListenOptions{
		Authenticate: func(_ context.Context, p *reconnect.Peer) (string, error) {
			seen <- towtls.Fingerprint(p.TLS.PeerCertificates[0])
			return towtls.Fingerprint(p.TLS.PeerCertificates[0]), nil
		},
	}, nil)
	defer s.end()
	exchange(t, s.a, s.b, 10, func() {})
	s.line.cut()
	exchange(t, s.a, s.b, 10, func() {})
	for range 2 {
		require.Equal(t, towtls.Fingerprint(mine.Leaf), <-seen)
	}
}

// An Authenticate that takes too long ends with the handshake's time, and with the listener.
func TestSessionSlowAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{
			Authenticate: func(ctx context.Context, _ *reconnect.Peer) (string, error) {
				<-ctx.Done()
				return "", ctx.Err()
			},
		})
		start := time.Now()
		_, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, nil)
		require.ErrorIs(t, err, reconnect.ErrBusy)
		assert.Less(t, time.Since(start), reconnect.DefaultHandshakeTimeout)
		a := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, nil)
		defer a.CloseNow()
		synctest.Wait()
		start = time.Now()
		require.NoError(t, l.Close())
		assert.Less(t, time.Since(start), time.Second)
	})
}

// Two ways to one listener, the first of which is dead at times.
func TestSessionFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		var ways [2]mem.Faults
		way := func(i int) transport.Dialer {
			return mem.Dialer{Network: n, Addr: []string{"first", "second"}[i], Faults: &ways[i]}
		}
		w := new(watch)
		l := reconnect.NewListener(listenMem(t, n, "first"), nil)
		defer l.Close()
		l.Add(listenMem(t, n, "second"))
		require.Equal(t, "first", l.Addr().String())
		ways[0].RefuseDials(-1, nil)
		ctx := context.Background()
		a, err := reconnect.Dial(ctx, way(0), &reconnect.DialOptions{
			Fallbacks: []transport.Dialer{way(1)}, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
		})
		require.NoError(t, err)
		defer a.CloseNow()
		b, err := l.Accept(ctx)
		require.NoError(t, err)
		defer b.CloseNow()
		require.Equal(t, "second", a.RemoteAddr().String())
		exchange(t, a, b, 100, func() {})

		<-time.After(10 * time.Minute)
		require.Equal(t, "second", a.RemoteAddr().String())
		require.Greater(t, w.count(reconnect.EventDialFailed), 5, "what is preferred was tried from time to time")
		ways[0].RefuseDials(0, nil)
		<-time.After(90 * time.Second) // what is preferred is tried again after 30 to 90 s
		exchange(t, a, b, 100, func() {})
		w.await(t, reconnect.EventResumed, 1)
		require.Equal(t, "first", a.RemoteAddr().String())
		exchange(t, a, b, 100, func() {})
		<-time.After(10 * time.Minute)
		require.EqualValues(t, 2, a.Stats().Epoch, "and there it stays")

		// The first way is cut and dead: the session falls back.
		ways[0].RefuseDials(-1, nil)
		ways[0].Cut(nil)
		exchange(t, a, b, 100, func() {})
		require.Equal(t, "second", a.RemoteAddr().String())

		// It comes back just when the session ends: no connection is left.
		ways[0].RefuseDials(0, nil)
		ways[0].HangDials(-1, time.Second)
		<-time.After(10 * time.Minute)
		require.NoError(t, a.CloseNow())
		<-a.Done()
	})
}

// What is preferred comes back before the fallback has answered: Dial goes on there, and leaves no connection behind.
func TestSessionFallbackBeforeTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "first"), &reconnect.ListenOptions{
			Authenticate: func(ctx context.Context, p *reconnect.Peer) (string, error) {
				<-time.After(time.Second)
				return "", ctx.Err()
			},
		})
		l.Add(listenMem(t, n, "second"))
		defer l.Close()
		var first mem.Faults
		first.RefuseDials(1, nil)
		w := new(watch)
		a, err := reconnect.Dial(bounded(t), mem.Dialer{Network: n, Addr: "first", Faults: &first}, &reconnect.DialOptions{
			Fallbacks:      []transport.Dialer{mem.Dialer{Network: n, Addr: "second"}},
			Redial:         &redial.Policy{ReturnAfter: 200 * time.Millisecond},
			SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent},
		})
		require.NoError(t, err)
		require.Equal(t, "first", a.RemoteAddr().String())
		require.Equal(t, 1, w.count(reconnect.EventDialFailed), "a move is no failure: %v", w.kinds())
		b, err := l.Accept(t.Context())
		require.NoError(t, err)
		exchange(t, a, b, 100, func() {})
		a.CloseNow()
		<-a.Done()
		b.CloseNow()
		<-b.Done()
		l.Close()
		synctest.Wait()
		require.Zero(t, n.Faults().Stats().Live)
	})
}

// The session ends in the moment in which it moves to what it prefers: no connection is left behind.
func TestSessionEndsWhileItMoves(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			n := new(mem.Network)
			l := reconnect.NewListener(listenMem(t, n, "first"), nil)
			defer l.Close()
			l.Add(listenMem(t, n, "second"))
			var way mem.Faults
			way.RefuseDials(1, nil)
			ctx := context.Background()
			moves := make(chan struct{})
			first := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
				nc, err := mem.Dialer{Network: n, Addr: "first", Faults: &way}.DialContext(ctx)
				if err == nil {
					close(moves)
				}
				return nc, err
			})
			a, err := reconnect.Dial(ctx, first, &reconnect.DialOptions{Fallbacks: []transport.Dialer{mem.Dialer{Network: n, Addr: "second"}}})
			require.NoError(t, err)
			<-moves
			a.CloseNow()
			<-a.Done()
			require.NoError(t, l.Close())
			synctest.Wait()
			require.Zero(t, n.Faults().Stats().Live)
		})
	}
}

// A connection that is cut at its first word is not yet a peer without sessions.
func TestSessionDialCutAtFirst(t *testing.T) {
	n := new(mem.Network)
	l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{
		Authenticate: func(context.Context, *reconnect.Peer) (string, error) { return "somebody", nil },
	})
	defer l.Close()
	for cuts, is := range []error{nil, nil, nil, nil, reconnect.ErrNoSessions} {
		left := cuts
		d := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			if left--; left >= 0 {
				a, b := mem.Pipe(nil)
				return a, b.Close()
			}
			return mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
		})
		c, err := reconnect.Dial(bounded(t), d, nil)
		require.ErrorIs(t, err, is, "%d cuts", cuts)
		if err == nil {
			b, err := l.Accept(bounded(t))
			require.NoError(t, err)
			require.Equal(t, "somebody", b.Principal())
			require.Empty(t, c.Principal())
			require.NoError(t, c.CloseNow())
		}
	}
}
