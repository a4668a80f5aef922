// Package transport names the seam between Towline and the byte streams it runs on.
//
// A transport is a pair: something that dials a [net.Conn] and something that listens with a [net.Listener].
// The packages below this one (tcp, tls, quic, unix, mem) are such pairs and nothing else; anything that yields
// an ordered, reliable byte stream with working deadlines plugs in the same way, with no registration.
//
// Errors of dials and connections use the standard library's words, so that one classification fits all transports: a
// timeout answers true to Timeout(), a deadline of the caller's own matches [os.ErrDeadlineExceeded], a peer that
// stopped answering syscall.ETIMEDOUT, a reset matches syscall.ECONNRESET, a refusal syscall.ECONNREFUSED, a use after
// Close [net.ErrClosed], a TLS alert of the peer is a crypto/tls.AlertError, and a rejected certificate a
// *crypto/tls.CertificateVerificationError.
package transport

import (
	"context"
	"net"
)

// Dialer makes a new connection to one peer, each time it is asked.
//
// DialContext blocks until the connection is ready for use, handshakes included, or until ctx ends; the error then
// wraps ctx's. Ending ctx after DialContext returned changes nothing. It is safe to call from several goroutines, and
// resolves names again at each call. The caller owns the connection and closes it.
type Dialer interface {
	DialContext(ctx context.Context) (net.Conn, error)
}

// DialerFunc lets a function be a Dialer.
type DialerFunc func(ctx context.Context) (net.Conn, error)

// DialContext calls f.
func (f DialerFunc) DialContext(ctx context.Context) (net.Conn, error) { return f(ctx) }
