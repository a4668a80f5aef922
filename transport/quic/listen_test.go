package quic

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// greet completes the QUIC handshake with the listener and goes no further.
func (e *endpoints) greet(ctx context.Context, s *Socket) (*quicgo.Conn, error) {
	conf := dialerTLS(e.dialer().Config, "localhost")
	return s.s.tr.Dial(ctx, e.ln.Addr(), conf, newTiming(0, 0, 0).config(true))
}

func (e *endpoints) bare(t testing.TB, s *Socket) *quicgo.Conn {
	t.Helper()
	qc, err := e.greet(t.Context(), s)
	require.NoError(t, err)
	t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
	return qc
}

func newTestSocket(t testing.TB) *Socket {
	t.Helper()
	s, err := NewSocket("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSilentPeersDelayNobody(t *testing.T) {
	for name, limit := range map[string]int{"below the limit": 0, "above the limit": 100} {
		t.Run(name, func(t *testing.T) {
			e := listen(t, func(cfg *Config) { cfg.MaxHandshakes = limit })
			s := newTestSocket(t)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for range 50 {
						if qc, err := e.greet(t.Context(), s); err != nil {
							t.Error(err)
						} else {
							t.Cleanup(func() { _ = qc.CloseWithError(0, "") })
						}
					}
				})
			}
			garbage, err := net.Dial("udp", e.ln.Addr().String())
			require.NoError(t, err)
			for range 2000 {
				_, _ = garbage.Write(randomBytes(1250))
			}
			require.NoError(t, garbage.Close())
			wg.Wait()

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			conn, err := e.dialer().DialContext(ctx)
			require.NoError(t, err)
			peer, err := e.ln.Accept()
			require.NoError(t, err)
			require.Equal(t, conn.LocalAddr().String(), peer.RemoteAddr().String())
			hangUp(conn.(*Conn), peer.(*Conn))
		})
	}
}

func TestSilentPeerIsDroppedInTime(t *testing.T) {
	reports := make(chan error, 1)
	e := listen(t, func(cfg *Config) {
		cfg.HandshakeTimeout = 300 * time.Millisecond
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
	})
	qc := e.bare(t, newTestSocket(t))
	<-qc.Context().Done()
	require.ErrorIs(t, context.Cause(qc.Context()), &quicgo.ApplicationError{Remote: true, ErrorCode: codeSlow})
	require.ErrorIs(t, <-reports, errSilent)
}

func TestWrongPreface(t *testing.T) {
	reports := make(chan error, 1)
	e := listen(t, func(cfg *Config) {
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
	})
	s := newTestSocket(t)
	for _, text := range []string{"GET / HTTP/3", "T\x02", "T"} {
		qc := e.bare(t, s)
		stream, err := qc.OpenStream()
		require.NoError(t, err)
		_, err = stream.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, stream.Close())
		<-qc.Context().Done()
		require.ErrorIs(t, context.Cause(qc.Context()), &quicgo.ApplicationError{Remote: true, ErrorCode: codePreface})
		err = <-reports
		require.ErrorIs(t, err, errPreface)
	}
}

func TestListenerClose(t *testing.T) {
	t.Run("unblocks Accept", func(t *testing.T) {
		e := listen(t, nil)
		errs := make(chan error)
		go func() {
			_, err := e.ln.Accept()
			errs <- err
		}()
		require.NoError(t, e.ln.Close())
		require.ErrorIs(t, <-errs, net.ErrClosed)
		_, err := e.ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, e.ln.Close(), net.ErrClosed)
		again, err := Listen(t.Context(), e.ln.Addr().String(), e.cfg)
		require.NoError(t, err, "the port is free")
		require.NoError(t, again.Close())
	})
	t.Run("refuses who waits", func(t *testing.T) {
		e := listen(t, nil)
		silent := e.bare(t, newTestSocket(t))
		conn, err := e.dialer().DialContext(t.Context())
		require.NoError(t, err)
		waiting := conn.(*Conn)
		defer hangUp(waiting)
		l := e.ln.(*listener)
		for len(l.ready) == 0 { // until the preface has arrived
			require.NoError(t, t.Context().Err())
		}
		require.NoError(t, e.ln.Close())
		_, err = waiting.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		<-silent.Context().Done()
	})
	t.Run("spares who was accepted", func(t *testing.T) {
		e := listen(t, nil)
		a, b := e.pair(t)
		require.NoError(t, e.ln.Close())
		_, err := a.Write([]byte("still here"))
		require.NoError(t, err)
		require.NoError(t, a.Close())
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "still here", string(got))
		require.NoError(t, b.Close())
	})
}

func TestListenNeedsCertificate(t *testing.T) {
	for _, cfg := range []*Config{nil, {}, {TLS: &tls.Config{}}} {
		_, err := Listen(t.Context(), "127.0.0.1:0", cfg)
		require.ErrorContains(t, err, "QUIC needs a certificate")
	}
}

func TestCertificateByCallback(t *testing.T) {
	e := listen(t, func(cfg *Config) {
		inner := cfg.TLS
		cfg.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }}
	})
	dialed, _ := e.pair(t)
	require.Equal(t, "towline/1", dialed.ConnectionState().NegotiatedProtocol)
}

// What ends the connections of a listener is no other's to give away, whatever certificate that has, and the same after a
// restart.
func TestResetKeyIsOfOneListener(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	conf := func(of authority) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{of.issue(t, "localhost")}}
	}
	ca, cb := conf(a), conf(b)
	here, there := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2}
	key := resetKey(ca)(here)
	require.NotNil(t, key)
	require.Equal(t, key, resetKey(ca)(here))
	require.NotEqual(t, key, resetKey(ca)(there))
	require.NotEqual(t, key, resetKey(cb)(here))
	require.Nil(t, resetKey(&tls.Config{})(here))
}

// A peer has one stream, and one more in the other direction for each half: it cannot make the listener hold any number.
func TestStreamsOfAPeer(t *testing.T) {
	e := listen(t, nil)
	qc := e.bare(t, newTestSocket(t))
	_, err := qc.OpenStream()
	require.NoError(t, err)
	_, err = qc.OpenStream()
	require.ErrorAs(t, err, new(*quicgo.StreamLimitReachedError))
	_, err = qc.OpenUniStream()
	require.NoError(t, err)
	_, err = qc.OpenUniStream()
	require.ErrorAs(t, err, new(*quicgo.StreamLimitReachedError))
}
