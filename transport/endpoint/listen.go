package endpoint

import (
	"context"
	"fmt"
	"net"

	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// Listen listens on the URL and returns the transport's own listener. Cfg may be nil, but not for tls and quic, which
// need a certificate, and mem, which needs a network. URL.At tells the address that came of it:
//
//	ln, err := u.Listen(ctx, nil)
//	fmt.Println("listening", u.At(ln.Addr()))
//
// Ctx bounds only this call. The error is the transport's, or an *Error for the zero URL.
func (u URL) Listen(ctx context.Context, cfg *Config) (net.Listener, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	switch u.Scheme {
	case TCP:
		return tcp.Listen(ctx, u.Addr, &tcp.Config{UserTimeout: cfg.UserTimeout, AcceptError: cfg.AcceptError})
	case TLS:
		under, err := tcp.Listen(ctx, u.Addr, &tcp.Config{UserTimeout: cfg.UserTimeout, AcceptError: cfg.AcceptError})
		if err != nil {
			return nil, err
		}
		ln, err := tls.NewListener(under, &tls.Config{
			TLS:              cfg.TLS,
			HandshakeTimeout: cfg.HandshakeTimeout,
			MaxHandshakes:    cfg.MaxHandshakes,
			HandshakeError:   cfg.HandshakeError,
		})
		if err != nil {
			_ = under.Close()
			return nil, err
		}
		return ln, nil
	case QUIC:
		return quic.Listen(ctx, u.Addr, &quic.Config{
			TLS:              cfg.TLS,
			HandshakeTimeout: cfg.HandshakeTimeout,
			MaxHandshakes:    cfg.MaxHandshakes,
			HandshakeError:   cfg.HandshakeError,
		})
	case Unix:
		return unix.Listen(ctx, u.Addr, &unix.Config{Mode: cfg.UnixMode, AcceptError: cfg.AcceptError})
	case Mem:
		if cfg.Mem == nil {
			return nil, fmt.Errorf("listen %s: %w", u, mem.ErrNoNetwork)
		}
		return mem.Listen(ctx, u.Addr, &mem.Config{Network: cfg.Mem})
	}
	return nil, u.unknown()
}

// Listen parses a URL and listens on it: Parse and URL.Listen in one. For the listener's address as a URL, use those.
func Listen(ctx context.Context, url string, cfg *Config) (net.Listener, error) {
	u, err := Parse(url)
	if err != nil {
		return nil, err
	}
	return u.Listen(ctx, cfg)
}
