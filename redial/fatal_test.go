package redial_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
)

func TestFatalMarks(t *testing.T) {
	require.NoError(t, redial.Fatal(nil))
	err := redial.Fatal(io.ErrUnexpectedEOF)
	require.EqualError(t, err, io.ErrUnexpectedEOF.Error())
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.True(t, redial.IsFatal(err))
	require.True(t, redial.IsFatal(fmt.Errorf("around: %w", err)))
	require.True(t, redial.IsFatal(errors.Join(syscall.ECONNREFUSED, err)))
}

func dialError(network string, err error) error {
	return &net.OpError{Op: "dial", Net: network, Err: err}
}

func system(network, call string, errno syscall.Errno) error {
	return dialError(network, os.NewSyscallError(call, errno))
}

// What the system and the libraries say, in the form in which they say it.
func TestPassing(t *testing.T) {
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ETIMEDOUT, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENETRESET, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE,
		syscall.EINTR, syscall.EAGAIN, syscall.EPIPE, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EINVAL, syscall.EPERM, syscall.EACCES,
	} {
		require.False(t, redial.IsFatal(system("tcp", "connect", errno)), errno)
		require.False(t, redial.IsFatal(fmt.Errorf("around: %w", system("udp", "connect", errno))), errno)
	}
	for _, err := range []error{
		nil,
		errors.New("something that nobody knows"),
		system("unix", "connect", syscall.ENOENT),
		system("unix", "connect", syscall.ECONNREFUSED),
		io.EOF, io.ErrUnexpectedEOF,
		context.DeadlineExceeded, os.ErrDeadlineExceeded,
		dialError("tcp", &net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true}),
		dialError("tcp", &net.DNSError{Err: "server misbehaving", Name: "a.example", IsTemporary: true}),
		dialError("tcp", &net.DNSError{Err: "i/o timeout", Name: "a.example", IsTimeout: true}),
		&redial.Error{Reason: context.DeadlineExceeded, Causes: []error{redial.Fatal(io.EOF)}},
	} {
		require.False(t, redial.IsFatal(err), err)
	}
}

func TestNotPassing(t *testing.T) {
	for _, err := range []error{
		context.Canceled, dialError("tcp", context.Canceled),
		net.ErrClosed, dialError("quic", net.ErrClosed),
		system("unix", "connect", syscall.EACCES), system("unix", "connect", syscall.EPERM),
		system("unix", "connect", syscall.EPROTOTYPE),
		system("tcp", "socket", syscall.EAFNOSUPPORT), system("tcp", "socket", syscall.EPROTONOSUPPORT),
		system("tcp", "socket", syscall.EOPNOTSUPP),
		dialError("unix", fmt.Errorf("no path: %w", syscall.EINVAL)),
		dialError("unix", fmt.Errorf("too long: %w", syscall.ENAMETOOLONG)),
		dialError("quic", errors.ErrUnsupported),
		net.UnknownNetworkError("tcp5"), net.InvalidAddrError("none"), &net.ParseError{Type: "IP address", Text: "x"},
		&fs.PathError{Op: "open", Path: "ca.pem", Err: fs.ErrNotExist},
		x509.SystemRootsError{}, x509.ConstraintViolationError{}, x509.UnhandledCriticalExtension{}, x509.InsecureAlgorithmError(1),
		&tls.CertificateVerificationError{Err: errors.New("pinned otherwise")},
		&redial.Error{Reason: errors.New("x"), Fatal: true},
	} {
		require.True(t, redial.IsFatal(err), err)
	}
}

func TestAlerts(t *testing.T) {
	fatal := map[tls.AlertError]bool{
		40: true, 42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true,
		70: true, 71: true, 86: true, 116: true, 120: true,
	}
	for a := range tls.AlertError(255) {
		require.Equal(t, fatal[a], redial.IsFatal(dialError("quic", a)), a)
	}
}

// From here on, the errors are those that the transports really give.

// outcome is a dial, with the first Read after it if it succeeds: a TLS 1.3 server's refusal of a client arrives with
// it.
func outcome(t *testing.T, dial func(context.Context) (net.Conn, error), ctx context.Context) error { //nolint:revive // read better this way round
	t.Helper()
	conn, err := dial(ctx)
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		_ = conn.Close()
	}
	require.Error(t, err)
	return err
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

func like(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func TestErrorsOfTransports(t *testing.T) {
	w := newWorld(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()

	for _, c := range []struct {
		name  string
		dial  func(context.Context) (net.Conn, error)
		ctx   context.Context
		is    func(error) bool // whether the case is the one that it says it is
		fatal bool
	}{
		{"tcp refused", w.tcp("127.0.0.1:1"), nil, like(syscall.ECONNREFUSED), false},
		{"tcp expired", w.tcp("127.0.0.1:1"), expired, like(context.DeadlineExceeded), false},
		{"tcp canceled", w.tcp("127.0.0.1:1"), canceled, like(context.Canceled), true},
		{"tcp no such name", w.tcp("nosuchhost.invalid:1"), nil, as[*net.DNSError], false},
		{"tcp no local address", w.tcpFrom("192.0.2.1", "127.0.0.1:1"), nil, like(syscall.EADDRNOTAVAIL), false},
		{"tcp bad local address", w.tcpFrom("here", "127.0.0.1:1"), nil, as[*net.AddrError], true},
		{"tcp no port", w.tcp("localhost"), nil, as[*net.AddrError], true},
		{"tcp port 0", w.tcp("localhost:0"), nil, as[*net.AddrError], true},
		{"tcp no such service", w.tcp("localhost:nosuchservice"), nil, as[*net.AddrError], true},
		{"tcp interface gone", w.tcp("[fe80::1%nosuch0]:1"), nil, as[*net.OpError], false},
		{"tcp end of stream", w.tcp(w.hangUp), nil, like(io.EOF), false},

		{"mem refused", w.mem("nobody"), nil, like(syscall.ECONNREFUSED), false},
		{"mem reset", w.mem("reset"), nil, like(syscall.ECONNRESET), false},
		{"mem expired", w.mem("hangs"), expired, like(context.DeadlineExceeded), false},

		{"unix not there", w.unix(filepath.Join(w.dir, "none")), nil, like(syscall.ENOENT), false},
		{"unix nobody behind it", w.unix(w.stale), nil, like(syscall.ECONNREFUSED), false},
		{"unix of another kind", w.unix(w.datagrams), nil, like(syscall.EPROTOTYPE), true},
		{"unix no path", w.unix(""), nil, like(syscall.EINVAL), true},
		{"unix long path", w.unix(filepath.Join(w.dir, fmt.Sprintf("%0200d", 1))), nil, like(syscall.ENAMETOOLONG), true},

		{"tls unknown authority", w.tls(w.tlsAddr, &tls.Config{}), nil, as[x509.UnknownAuthorityError], true},
		{"tls wrong name", w.tls(w.tlsAddr, w.trust(func(c *tls.Config) { c.ServerName = "other.example" })), nil, as[x509.HostnameError], true},
		{"tls expired certificate", w.tls(w.tlsAddr, w.trust(inYears(10))), nil, as[x509.CertificateInvalidError], true},
		{"tls not yet valid", w.tls(w.tlsAddr, w.trust(inYears(-10))), nil, as[x509.CertificateInvalidError], true},
		{"tls pinned otherwise", w.tls(w.tlsAddr, w.pinOther()), nil, as[*tls.CertificateVerificationError], true},
		{"tls no protocol in common", w.tls(w.tlsAddr, w.trust(speaks("other/7"))), nil, like(tls.AlertError(120)), true},
		{"tls no version in common", w.tls(w.tls12, w.trust(nil)), nil, like(tls.AlertError(70)), true},
		{"tls plain peer", w.tls(w.plain, w.trust(nil)), nil, as[tls.RecordHeaderError], true},
		{"tls peer hangs up", w.tls(w.hangUp, w.trust(nil)), nil, like(io.EOF), false},
		{"tls peer says nothing", w.tls(w.silent, w.trust(nil)), nil, like(os.ErrDeadlineExceeded), false},
		{"tls overloaded", w.tls(w.alerts[80], w.trust(nil)), nil, like(tls.AlertError(80)), false},
		{"tls access denied", w.tls(w.alerts[49], w.trust(nil)), nil, like(tls.AlertError(49)), true},
		{"tls no client certificate", w.tls(w.mutualTLS, w.trust(nil)), nil, like(tls.AlertError(116)), true},
		{"tls foreign client certificate", w.tls(w.mutualTLS, w.trust(w.stranger)), nil, as[tls.AlertError], true},
		{"tls refused", w.tls("127.0.0.1:1", w.trust(nil)), nil, like(syscall.ECONNREFUSED), false},
		{"tls canceled", w.tls(w.tlsAddr, w.trust(nil)), canceled, like(context.Canceled), true},
		{"tls no such file", w.tlsFiles(filepath.Join(w.dir, "none.pem")), nil, like(fs.ErrNotExist), true},

		{"quic unknown authority", w.quic(w.quicAddr, &tls.Config{}), nil, as[x509.UnknownAuthorityError], true},
		{"quic wrong name", w.quic(w.quicAddr, w.trust(func(c *tls.Config) { c.ServerName = "other.example" })), nil, as[x509.HostnameError], true},
		{"quic expired certificate", w.quic(w.quicAddr, w.trust(inYears(10))), nil, as[x509.CertificateInvalidError], true},
		{"quic pinned otherwise", w.quic(w.quicAddr, w.pinOther()), nil, as[*tls.CertificateVerificationError], true},
		{"quic no protocol in common", w.quic(w.quicAddr, w.trust(speaks("other/7"))), nil, like(tls.AlertError(120)), true},
		{"quic no version in common", w.quic(w.oldQUIC, w.trust(nil)), nil, like(errors.ErrUnsupported), true},
		{"quic nobody answers", w.quic(w.hole, w.trust(nil)), nil, like(syscall.ETIMEDOUT), false},
		{"quic expired", w.quic(w.hole, w.trust(nil)), expired, like(context.DeadlineExceeded), false},
		{"quic canceled", w.quic(w.hole, w.trust(nil)), canceled, like(context.Canceled), true},
		{"quic no client certificate", w.quic(w.mutualQUIC, w.trust(nil)), nil, like(tls.AlertError(116)), true},
		{"quic foreign client certificate", w.quic(w.mutualQUIC, w.trust(w.stranger)), nil, as[tls.AlertError], true},
		{"quic no such name", w.quic("nosuchhost.invalid:1", w.trust(nil)), nil, as[*net.DNSError], false},
		{"quic no port", w.quic("localhost", w.trust(nil)), nil, as[*net.AddrError], true},
		{"quic closed socket", w.quicClosed(), nil, like(net.ErrClosed), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			err := outcome(t, c.dial, c.ctx)
			require.True(t, c.is(err), "%v", err)
			require.Equal(t, c.fatal, redial.IsFatal(err), "%v", err)
		})
	}
}
