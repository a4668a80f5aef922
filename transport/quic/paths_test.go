package quic

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Beyond MaxHandshakes peers are refused at once, without a word in HandshakeError, and served again when there is room.
func TestMaxHandshakes(t *testing.T) {
	held := make(chan struct{}, 2)
	release := make(chan struct{})
	reports := make(chan error, 10)
	e := listen(t, func(cfg *Config) {
		cfg.MaxHandshakes = 1
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
		inner := cfg.TLS
		cfg.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			held <- struct{}{}
			<-release
			return inner, nil
		}}
	})
	type result struct {
		conn net.Conn
		err  error
	}
	first := make(chan result)
	go func() {
		conn, err := e.dialer().DialContext(context.Background())
		first <- result{conn, err}
	}()
	<-held // it is in its handshake
	_, err := e.dialer().DialContext(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Empty(t, held, "its handshake did not begin")

	close(release)
	r := <-first
	require.NoError(t, r.err)
	conn, err := e.ln.Accept()
	require.NoError(t, err)
	hangUp(r.conn.(*Conn), conn.(*Conn))
	e.pair(t)
	require.Empty(t, reports)
}

// When too many connections wait for Accept, further ones are refused and reported, and those that wait are served.
func TestTooManyWaitForAccept(t *testing.T) {
	reports := make(chan error, 1)
	e := listen(t, func(cfg *Config) {
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
	})
	l := e.ln.(*listener)
	l.mu.Lock()
	l.ready = make(chan *Conn, 1) // instead of 1024, before anybody dials
	l.mu.Unlock()
	dial := func() *Conn {
		conn, err := e.dialer().DialContext(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { hangUp(conn.(*Conn)) })
		return conn.(*Conn)
	}
	served := dial()
	for len(l.ready) == 0 { // until its preface has arrived
		require.NoError(t, t.Context().Err())
	}
	_, err := dial().Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	err = <-reports
	require.ErrorIs(t, err, errFull)
	require.ErrorContains(t, err, "too many connections wait for Accept")
	conn, err := e.ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { hangUp(conn.(*Conn)) })
	require.Equal(t, served.LocalAddr().String(), conn.RemoteAddr().String())
	dial()
	again, err := e.ln.Accept()
	require.NoError(t, err, "there is room again")
	hangUp(again.(*Conn))
}

// CloseWrite behind a peer that reads no more says so, and behind a Close that this side is closed.
func TestCloseWriteAfterClose(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		b.stream.CancelRead(0) // the first that its Close does
		var err error
		for err == nil { // until the news is here
			_, err = a.Write([]byte("x"))
		}
		require.ErrorIs(t, a.CloseWrite(), syscall.ECONNRESET)
		closed := make(chan error)
		go func() { closed <- b.Close() }()
		_ = a.Close() // whether b had read everything is not known
		require.ErrorIs(t, a.CloseWrite(), net.ErrClosed)
		<-closed
		require.ErrorIs(t, b.CloseWrite(), net.ErrClosed)
	})
}

// A peer that opens its stream and sends a part of the preface has as little time as one that opens none.
func TestHalfAPreface(t *testing.T) {
	reports := make(chan error, 1)
	e := listen(t, func(cfg *Config) {
		cfg.HandshakeTimeout = 300 * time.Millisecond
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
	})
	qc := e.bare(t, newTestSocket(t))
	stream, err := qc.OpenStream()
	require.NoError(t, err)
	_, err = stream.Write(preface[:1])
	require.NoError(t, err)
	<-qc.Context().Done()
	require.ErrorIs(t, <-reports, errSilent)
}
