package endpoint

import (
	"crypto/tls"
	"io/fs"
	"net"
	"time"

	"github.com/towline-mq/towline/transport/mem"
)

// Config is what dialers and listeners need beside the address. Nil, and the zero value, do for tcp and unix. Each
// field concerns the transports that it names and is ignored by the others. Whoever needs more than this makes the
// transport's own Dialer.
type Config struct {
	// TLS is the TLS configuration, for tls and quic; it is copied. A listener needs one with a certificate, a
	// dialer without one trusts the system's authorities.
	TLS *tls.Config

	// GetTLS, if not nil, is asked at each dial over tls and quic for what TLS would otherwise be.
	// tls.Files.Client is such a function.
	GetTLS func() (*tls.Config, error)

	// Mem is the network in which names of mem are looked up, and must be given for them.
	Mem *mem.Network

	// UserTimeout is that of tcp.Dialer and tcp.Config, for tcp and tls: how long bytes may wait for the peer's system
	// to take them. 0: the system's own rule, which suits peers that stop reading for long.
	UserTimeout time.Duration

	// HandshakeTimeout bounds the handshake of tls and quic. 0: 10 s.
	HandshakeTimeout time.Duration

	// MaxHandshakes bounds the handshakes that a listener of tls or quic has under way at once. 0: the transport's
	// default.
	MaxHandshakes int

	// HandshakeError, if not nil, is told of each peer that a listener of tls or quic did not accept, and why. Many
	// goroutines may call it at once.
	HandshakeError func(remote net.Addr, err error)

	// AcceptError, if not nil, is told of each failure that a listener of tcp, tls or unix waits for, such as a want of
	// descriptors.
	AcceptError func(err error)

	// UnixMode is the permissions of a listener's socket file. 0: what the umask leaves.
	UnixMode fs.FileMode
}
