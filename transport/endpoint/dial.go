package endpoint

import (
	"fmt"
	"net"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// Dialer returns a dialer for the URL, one of the value types tcp.Dialer, tls.Dialer, quic.Dialer, unix.Dialer and
// mem.Dialer. It does not dial yet. Cfg may be nil.
//
// The error is an *Error for a URL that nobody can dial, such as one with port 0 or the zero URL, or mem.ErrNoNetwork
// for mem without a network.
func (u URL) Dialer(cfg *Config) (transport.Dialer, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	if _, port, err := net.SplitHostPort(u.Addr); err == nil && port == "0" && u.Scheme != Unix && u.Scheme != Mem {
		return nil, &Error{u.String(), "port 0 can be listened on and not dialled", u.Scheme + "://127.0.0.1:7000"}
	}
	under := tcp.Dialer{Addr: u.Addr, UserTimeout: cfg.UserTimeout}
	switch u.Scheme {
	case TCP:
		return under, nil
	case TLS:
		return tls.Dialer{
			Addr: u.Addr, Config: cfg.TLS, GetConfig: cfg.GetTLS, Under: under, HandshakeTimeout: cfg.HandshakeTimeout,
		}, nil
	case QUIC:
		return quic.Dialer{Addr: u.Addr, Config: cfg.TLS, GetConfig: cfg.GetTLS, HandshakeTimeout: cfg.HandshakeTimeout}, nil
	case Unix:
		return unix.Dialer{Path: u.Addr}, nil
	case Mem:
		if cfg.Mem == nil {
			return nil, fmt.Errorf("dial %s: %w", u, mem.ErrNoNetwork)
		}
		return mem.Dialer{Network: cfg.Mem, Addr: u.Addr}, nil
	}
	return nil, u.unknown()
}

// Dialer parses a URL and returns a dialer for it: Parse and URL.Dialer in one.
func Dialer(url string, cfg *Config) (transport.Dialer, error) {
	u, err := Parse(url)
	if err != nil {
		return nil, err
	}
	return u.Dialer(cfg)
}

// unknown is the error for a URL that Parse cannot have made.
func (u URL) unknown() error {
	if u.Scheme == "" {
		return noScheme(u.Addr)
	}
	_, err := Parse(u.String())
	if err == nil { // as with a scheme in upper case
		err = &Error{u.String(), "it did not come from Parse", defaultExample}
	}
	return err
}
