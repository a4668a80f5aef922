package tls_test

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tls"
)

// once is a listener with some connections, and then an end.
type once struct {
	conns chan net.Conn
	fail  error
}

func (o *once) Accept() (net.Conn, error) {
	if c, ok := <-o.conns; ok {
		return c, nil
	}
	return nil, o.fail
}
func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.TCPAddr{} }

// The end of the listener below waits for handshakes under way, and for no longer, also when they fail.
func TestEndBehindAHandshakeThatFails(t *testing.T) {
	a := newAuthority(t)
	near, far := net.Pipe()
	o := &once{make(chan net.Conn, 1), errors.New("the end")}
	ln, err := tls.NewListener(o, &tls.Config{TLS: a.serving()})
	require.NoError(t, err)
	defer ln.Close()
	o.conns <- near
	close(o.conns)
	got := make(chan error, 1)
	go func() { _, err := ln.Accept(); got <- err }()
	select {
	case err := <-got:
		require.Fail(t, "not while a handshake is under way", err)
	case <-time.After(50 * time.Millisecond):
	}
	_ = far.Close()
	select {
	case err := <-got:
		require.ErrorIs(t, err, o.fail)
	case <-time.After(5 * time.Second):
		require.Fail(t, "Accept hangs")
	}
}

// through dials over a connection of the test's own.
func through(t *testing.T, a *authority, nc net.Conn) *tls.Conn {
	c, err := tls.Dialer{Addr: "localhost:0", Config: a.trust(), Under: transport.DialerFunc(func(context.Context) (net.Conn, error) {
		return nc, nil
	})}.DialContext(t.Context())
	require.NoError(t, err)
	return c.(*tls.Conn)
}

// answers shakes hands on nc, as a server of crypto/tls.
func answers(a *authority, nc net.Conn) (peer *cryptotls.Conn, shaken <-chan error) {
	cfg := a.serving()
	cfg.NextProtos, cfg.SessionTicketsDisabled = []string{tls.ALPN}, true
	peer = cryptotls.Server(nc, cfg)
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	return peer, done
}

// eager is a connection whose last bytes come together with io.EOF, as those of an io.Reader may.
type eager struct {
	net.Conn
	all []byte // once the peer has ended, what it has said
}

func (c *eager) Read(p []byte) (int, error) {
	if c.all == nil {
		return c.Conn.Read(p)
	}
	n := copy(p, c.all)
	if c.all = c.all[n:]; len(c.all) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// An end in good order is one, also where its last bytes come with the end of the connection.
func TestEndComesWithBytes(t *testing.T) {
	a := newAuthority(t)
	near, far := net.Pipe()
	peer, shaken := answers(a, far)
	wire := &eager{Conn: near}
	c := through(t, a, wire)
	require.NoError(t, <-shaken)
	said := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(near)
		said <- b
	}()
	_, err := peer.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	wire.all = <-said
	b, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(b))
	_ = c.Close()
}

// What Write took before its deadline goes out at Close at the latest, also after a CloseWrite that found no room either; and
// Close says if it does not.
func TestCloseSendsTheRest(t *testing.T) {
	for _, reads := range []bool{true, false} {
		a := newAuthority(t)
		near, far := net.Pipe()
		peer, shaken := answers(a, far)
		c := through(t, a, near)
		require.NoError(t, <-shaken)
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
		n, err := c.Write([]byte("hello"))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 5, n)
		require.Error(t, c.CloseWrite())
		_, err = c.Write([]byte("more"))
		require.ErrorIs(t, err, syscall.EPIPE)
		got := make(chan string, 1)
		if reads {
			go func() {
				b, _ := io.ReadAll(peer)
				got <- string(b)
			}()
			require.NoError(t, c.Close())
			assert.Equal(t, "hello", <-got)
		} else {
			require.ErrorIs(t, c.Close(), os.ErrDeadlineExceeded)
		}
		_ = far.Close()
	}
}
