package redial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Fatal marks err as one after which no dial is of any use: a Redialer whose dialer returns it gives up at once, other
// endpoints or not, and whatever Policy.IsFatal says. A dialer that logs in uses it for a password that was refused.
// Errors.Is and errors.As see err through it, and the text is err's. Fatal(nil) is nil.
func Fatal(err error) error {
	if err == nil {
		return nil
	}
	return &fatalError{err}
}

type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

func isMarked(err error) bool {
	_, ok := errors.AsType[*fatalError](err)
	return ok
}

// IsFatal reports whether err, from a dial or a connection, will be the same however often one tries. It is what a zero
// [Policy] goes by. An error that it does not know is not fatal: to try again for nothing costs little, to stop for
// nothing costs the connection. Nil is not fatal.
//
// Fatal are, on any transport:
//
//   - what [Fatal] marked, and an [*Error] whose Fatal is true;
//   - an identity that was not proved: a certificate that does not verify, is not the pinned one, or is expired or not
//     yet valid, and any other verdict of crypto/x509;
//   - a peer that does not accept who we are: the TLS alerts about certificates, unknown_ca, access_denied, and
//     certificate_required; and permission denied on a Unix socket, which somebody has to grant (a server that opens its
//     socket to others a while after it binds it wants a Policy.IsFatal that lets this pass);
//   - no version, protocol or cipher in common: the alerts handshake_failure, protocol_version, insufficient_security,
//     inappropriate_fallback and no_application_protocol, a peer that does not speak TLS, [errors.ErrUnsupported];
//   - wrong use: an address that is none, a path that is too long or names a socket of another kind, a network that does
//     not exist, a file (of certificates, say) that cannot be read, a Socket or a Redialer that was closed ([net.ErrClosed]);
//   - [context.Canceled], since somebody called it off.
//
// Not fatal are therefore: refused, reset, aborted, timed out, unreachable, network down, no local address,
// interrupted, all failures to resolve a name, "not found" included, a Unix socket that is not there, the end of the
// stream during a handshake, a QUIC peer that does not answer or went idle, and the remaining TLS alerts, such as
// internal_error and unrecognized_name. Permission denied on other transports is not fatal either: packet filters say
// so while a VPN is down.
func IsFatal(err error) bool {
	if err == nil {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fatal
	}
	return isMarked(err) ||
		errors.Is(err, context.Canceled) ||
		errors.Is(err, net.ErrClosed) ||
		isIdentity(err) ||
		isMismatch(err) ||
		isUsage(err)
}

// isIdentity reports whether this side did not believe the peer's certificate.
func isIdentity(err error) bool {
	return is[*tls.CertificateVerificationError](err) ||
		is[x509.UnknownAuthorityError](err) ||
		is[x509.HostnameError](err) ||
		is[x509.CertificateInvalidError](err) ||
		is[x509.ConstraintViolationError](err) ||
		is[x509.UnhandledCriticalExtension](err) ||
		is[x509.InsecureAlgorithmError](err) ||
		is[x509.SystemRootsError](err)
}

// The alerts of RFC 8446, section 6.2, that no other attempt will change. Of the rest, some mean overload or a fault of
// the moment (internal_error, user_canceled), some a damaged stream, and unrecognized_name is a name that may yet come.
func isFatalAlert(a tls.AlertError) bool {
	switch a {
	case 40, // handshake_failure: no acceptable parameters in common
		42,  // bad_certificate
		43,  // unsupported_certificate
		44,  // certificate_revoked
		45,  // certificate_expired
		46,  // certificate_unknown
		48,  // unknown_ca
		49,  // access_denied
		70,  // protocol_version
		71,  // insufficient_security
		86,  // inappropriate_fallback
		116, // certificate_required
		120: // no_application_protocol
		return true
	}
	return false
}

// isMismatch reports whether the peer refused us, or the two have no protocol in common.
func isMismatch(err error) bool {
	if a, ok := errors.AsType[tls.AlertError](err); ok && isFatalAlert(a) {
		return true
	}
	return is[tls.RecordHeaderError](err) || errors.Is(err, errors.ErrUnsupported)
}

// isUsage reports whether what was asked for can never be.
func isUsage(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENAMETOOLONG, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT, syscall.EPROTOTYPE,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	// Package unix says EINVAL of a path that is none. The system says it, too, of a link-local address whose interface
	// is gone for the moment.
	if errors.Is(err, syscall.EINVAL) && !is[*os.SyscallError](err) {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && strings.HasPrefix(op.Net, "unix") && errors.Is(err, fs.ErrPermission) {
		return true
	}
	return is[*net.AddrError](err) ||
		is[net.InvalidAddrError](err) ||
		is[net.UnknownNetworkError](err) ||
		is[*net.ParseError](err) ||
		is[*fs.PathError](err)
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
