package endpoint

import (
	"net"
	"strings"
)

// The schemes, as they stand in URL.Scheme.
const (
	TCP  = "tcp"
	TLS  = "tls"
	QUIC = "quic"
	Unix = "unix"
	Mem  = "mem"
)

// URL is an address and the transport that it is for. URLs are comparable, and equal ones name the same place. [Parse]
// makes one; the zero value names nothing. It can be the target of [flag.TextVar], and a string in JSON.
type URL struct {
	// Scheme is one of the constants of this package.
	Scheme string
	// Addr is what the transport takes: "host:port", a path or an abstract name of a Unix socket, a name in a
	// mem.Network.
	Addr string
}

// String returns the URL in its usual form, which Parse takes back to the same value. The zero URL is "".
func (u URL) String() string {
	switch {
	case u == URL{}:
		return ""
	case u.Scheme == Unix && !strings.HasPrefix(u.Addr, "/"):
		return u.Scheme + ":" + u.Addr
	}
	return u.Scheme + "://" + u.Addr
}

// At returns u with the address a in place of its own: given a listener's Addr it is where the listener really
// listens, with the port that the system chose in place of 0.
func (u URL) At(a net.Addr) URL {
	u.Addr = a.String()
	return u
}

// Secure reports whether connections are encrypted, so that a TLS configuration applies.
func (u URL) Secure() bool { return u.Scheme == TLS || u.Scheme == QUIC }

// MarshalText implements encoding.TextMarshaler: it is String.
func (u URL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it is Parse, and leaves u as it was on an error.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err == nil {
		*u = parsed
	}
	return err
}
