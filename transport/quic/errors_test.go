package quic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// chain returns err and everything that it wraps.
func chain(err error) []error {
	all := []error{err}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if u := e.Unwrap(); u != nil {
			all = append(all, chain(u)...)
		}
	case interface{ Unwrap() []error }:
		for _, u := range e.Unwrap() {
			all = append(all, chain(u)...)
		}
	}
	return all
}

func TestExplain(t *testing.T) {
	const alert42 = quicgo.TransportErrorCode(0x100 + 42)
	handshake := scene{handshake: 3 * time.Second, peer: "192.0.2.1:7000", protos: []string{"ours/1", "ours/2"}}
	running := scene{idle: 30 * time.Second}
	tests := []struct {
		name    string
		scene   scene
		err     error
		is      error
		text    string // part of it
		timeout bool
	}{
		{"deadline", running, os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, "i/o timeout", true},
		{"context", handshake, context.Canceled, context.Canceled, "canceled", false},
		{"context deadline", handshake, context.DeadlineExceeded, context.DeadlineExceeded, "deadline", true},
		{"idle", running, &quicgo.IdleTimeoutError{}, syscall.ETIMEDOUT, "nothing heard from the peer for 30s", true},
		{"idle in handshake", handshake, &quicgo.IdleTimeoutError{}, syscall.ETIMEDOUT, "no answer over UDP from 192.0.2.1:7000 within 3s: is the server up, and is UDP allowed", true},
		{"slow handshake", handshake, &quicgo.HandshakeTimeoutError{}, syscall.ETIMEDOUT, "no answer over UDP", true},
		{"stateless reset", running, &quicgo.StatelessResetError{}, syscall.ECONNRESET, "does not know this connection", false},
		{"stop sending", running, &quicgo.StreamError{Remote: true}, syscall.ECONNRESET, "closed or aborted", false},
		{"own cancel", running, &quicgo.StreamError{}, net.ErrClosed, "closed", false},
		{"after CloseWrite", running, quicgo.ErrStreamClosed, syscall.EPIPE, "CloseWrite", false},
		{"peer closed", running, &quicgo.ApplicationError{Remote: true}, syscall.ECONNRESET, "closed the connection", false},
		{"peer aborted", running, &quicgo.ApplicationError{Remote: true, ErrorCode: 1, ErrorMessage: "x\x1b"}, syscall.ECONNRESET, `code 1 ("x\x1b")`, false},
		{"foreign code", running, &quicgo.ApplicationError{Remote: true, ErrorCode: 0x103}, syscall.ECONNRESET, "code 259", false},
		{"listener full", running, &quicgo.ApplicationError{Remote: true, ErrorCode: codeBusy}, syscall.ECONNREFUSED, "full or closed", false},
		{"closed here", running, &quicgo.ApplicationError{}, net.ErrClosed, "closed", false},
		{"refused", handshake, &quicgo.TransportError{Remote: true, ErrorCode: quicgo.ConnectionRefused}, syscall.ECONNREFUSED, "refused", false},
		{"peer reports", running, &quicgo.TransportError{Remote: true, ErrorCode: quicgo.FlowControlError}, syscall.ECONNRESET, "FLOW_CONTROL_ERROR", false},
		{"broken here", running, &quicgo.TransportError{ErrorCode: quicgo.ProtocolViolation}, syscall.ECONNRESET, "PROTOCOL_VIOLATION", false},
		{"bad certificate", running, &quicgo.TransportError{Remote: true, ErrorCode: alert42}, tls.AlertError(42), "refused the handshake (tls: bad certificate)", false},
		{"certificate required", running, &quicgo.TransportError{Remote: true, ErrorCode: 0x100 + 116}, tls.AlertError(116), "demands a client certificate", false},
		{"ALPN", handshake, &quicgo.TransportError{Remote: true, ErrorCode: 0x100 + 120}, tls.AlertError(120), "this side speaks ours/1, ours/2", false},
		{"own alert", handshake, &quicgo.TransportError{ErrorCode: alert42}, tls.AlertError(42), "bad certificate", false},
		{"version", handshake, &quicgo.VersionNegotiationError{Ours: []quicgo.Version{quicgo.Version1}, Theirs: []quicgo.Version{0x1a2a3a4a}}, errors.ErrUnsupported, "this side speaks [v1], the peer [0x1a2a3a4a]", false},
		{"server closed", running, quicgo.ErrServerClosed, net.ErrClosed, "closed", false},
		{"system", running, &net.OpError{Op: "write", Err: os.NewSyscallError("sendmsg", syscall.ENETUNREACH)}, syscall.ENETUNREACH, "unreachable", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := &net.OpError{Op: "read", Net: "quic", Err: test.scene.explain(test.err)}
			require.ErrorIs(t, err, test.is)
			require.Equal(t, test.is == net.ErrClosed, errors.Is(err, net.ErrClosed), "only what was closed here is closed")
			require.ErrorContains(t, err, test.text)
			require.Equal(t, test.timeout, err.Timeout())
			for _, e := range chain(err) {
				require.NotContains(t, reflect.TypeOf(e).String()+reflect.Indirect(reflect.ValueOf(e)).Type().PkgPath(), "quic-go")
			}
		})
	}
}

func TestWrongCertificates(t *testing.T) {
	reports := make(chan error, 10)
	mutual := func(cfg *Config) {
		cfg.HandshakeError = func(_ net.Addr, err error) { reports <- err }
	}
	e := listen(t, mutual)
	var unverified *tls.CertificateVerificationError

	t.Run("unknown authority", func(t *testing.T) {
		d := e.dialer()
		d.Config.RootCAs = newAuthority(t).pool()
		_, err := d.DialContext(t.Context())
		require.ErrorAs(t, err, &unverified)
		var unknown x509.UnknownAuthorityError
		require.ErrorAs(t, err, &unknown)
		require.NotErrorIs(t, err, net.ErrClosed)
		var alert tls.AlertError
		require.ErrorAs(t, <-reports, &alert)
	})
	t.Run("wrong name", func(t *testing.T) {
		d := e.dialer()
		d.Config.ServerName = "example.org"
		_, err := d.DialContext(t.Context())
		require.ErrorAs(t, err, &unverified)
		require.ErrorContains(t, err, "localhost", "the names it has")
		require.Error(t, <-reports)
	})
	t.Run("protocol", func(t *testing.T) {
		d := e.dialer()
		d.Config.NextProtos = []string{"other/7"}
		_, err := d.DialContext(t.Context())
		require.ErrorIs(t, err, tls.AlertError(120))
		require.ErrorContains(t, err, "other/7")
		err = <-reports
		require.ErrorContains(t, err, "other/7")
		require.ErrorContains(t, err, "towline/1")
	})
	t.Run("no client certificate", func(t *testing.T) {
		ca := newAuthority(t)
		e := listen(t, func(cfg *Config) {
			mutual(cfg)
			cfg.TLS.ClientAuth = tls.RequireAndVerifyClientCert
			cfg.TLS.ClientCAs = ca.pool()
		})
		conn, err := e.dialer().DialContext(t.Context())
		if err == nil { // TLS 1.3 tells a client only afterwards
			_, err = conn.Read(make([]byte, 1))
			hangUp(conn.(*Conn))
		}
		require.ErrorIs(t, err, tls.AlertError(116))
		require.ErrorContains(t, err, "demands a client certificate")
		require.Error(t, <-reports)
	})
	t.Run("foreign client certificate", func(t *testing.T) {
		ca := newAuthority(t)
		e := listen(t, func(cfg *Config) {
			mutual(cfg)
			cfg.TLS.ClientAuth = tls.RequireAndVerifyClientCert
			cfg.TLS.ClientCAs = ca.pool()
		})
		d := e.dialer()
		stranger := newAuthority(t).issue(t, "stranger")
		d.Config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
		conn, err := d.DialContext(t.Context())
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			hangUp(conn.(*Conn))
		}
		var alert tls.AlertError
		require.ErrorAs(t, err, &alert)
		require.ErrorAs(t, <-reports, &unverified)
	})
}

func TestNobodyAnswers(t *testing.T) {
	hole, err := net.ListenPacket("udp", "127.0.0.1:0") // takes everything and says nothing
	require.NoError(t, err)
	defer func() { _ = hole.Close() }()
	_, err = Dialer{Addr: hole.LocalAddr().String(), HandshakeTimeout: 200 * time.Millisecond}.DialContext(t.Context())
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	require.ErrorContains(t, err, "within 200ms: is the server up, and is UDP allowed on the way?")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Dialer{Addr: hole.LocalAddr().String()}.DialContext(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, err = Dialer{Addr: hole.LocalAddr().String()}.DialContext(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestPeerVanishes(t *testing.T) {
	e := listen(t, nil)
	d := e.dialer()
	d.IdleTimeout, d.KeepAlive = 500*time.Millisecond, 100*time.Millisecond
	a, b := e.connect(t, d)
	_, err := a.Write([]byte("unconfirmed"))
	require.NoError(t, err)
	_ = b.sock.udp.Close() // as if the process were gone

	start := time.Now()
	_, err = a.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	require.NotErrorIs(t, err, net.ErrClosed)
	require.Less(t, time.Since(start), 5*time.Second)
	_, err = a.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	require.ErrorIs(t, a.Close(), syscall.ETIMEDOUT, "what was written may be lost")
	_ = e.ln.Close()
}

// A server that was killed and started again does not know the connections of its predecessor, and says so.
func TestServerRestarted(t *testing.T) {
	e := listen(t, nil)
	a, b := e.pair(t)
	addr := b.sock.udp.LocalAddr().String()
	_ = b.sock.udp.Close()
	ln, err := Listen(t.Context(), addr, e.cfg)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()

	require.NoError(t, a.SetDeadline(time.Now().Add(20*time.Second)))
	for err == nil {
		_, err = a.Write(make([]byte, 1200))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.ErrorContains(t, err, "started again")
}

func TestErrorsNameTheirOperation(t *testing.T) {
	a, b := listen(t, nil).pair(t)
	require.NoError(t, a.Close())
	_, err := a.Read(make([]byte, 1))
	require.True(t, strings.HasPrefix(err.Error(), "read quic "+a.LocalAddr().String()+"->"+a.RemoteAddr().String()+": "), err)
	_, err = b.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}
