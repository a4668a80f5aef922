package tls_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
