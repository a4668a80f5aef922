package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

const defaultHandshakeTimeout = 10 * time.Second

// Dialer dials one TLS server. Only Addr must be set. It is a value: copy it freely; several goroutines may dial with
// it at once.
type Dialer struct {
	// Addr is the server, "host:port". Its host is the name that the server's certificate must have, unless Config
	// names another.
	Addr string

	// Config is copied at each dial, never changed. Nil: the system's authorities and no certificate of one's own.
	//
	// NextProtos nil: only a server that speaks [ALPN] will do. Where it is set, the server must speak one of its
	// protocols; where it is empty but not nil, none is asked for, which suits servers that know no ALPN.
	Config *tls.Config

	// GetConfig, if not nil, is called at each dial for what Config would otherwise be. [Files.Client] is such a
	// function: with it, authorities and certificates are those that the files hold at the time of the dial.
	GetConfig func() (*tls.Config, error)

	// Under makes the byte stream that TLS runs on. Nil: tcp.Dialer{Addr: Addr}.
	Under transport.Dialer

	// HandshakeTimeout bounds the handshake, which begins when Under has connected. 0: 10 s. Negative: only the
	// context bounds it.
	HandshakeTimeout time.Duration
}

// DialContext connects, makes the handshake, verifies the server, and returns a [*Conn].
//
// It blocks until then, until HandshakeTimeout has passed, or until ctx ends; the error of an ended ctx wraps ctx's,
// and the error of a slow handshake answers true to Timeout and matches [os.ErrDeadlineExceeded]. Errors of Under are
// returned as they are; the package comment tells those of the handshake.
func (d Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	cfg := d.Config
	if d.GetConfig != nil {
		var err error
		if cfg, err = d.GetConfig(); err != nil {
			return nil, err
		}
	}
	cfg, err := clientConfig(cfg, d.Addr)
	if err != nil {
		return nil, err
	}
	under := d.Under
	if under == nil {
		under = tcp.Dialer{Addr: d.Addr}
	}
	raw, err := under.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	c := newConn(raw, cfg, tls.Client)
	if err := d.handshake(ctx, c, cfg); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

func (d Dialer) handshake(ctx context.Context, c *Conn, cfg *tls.Config) error {
	timeout := d.HandshakeTimeout
	if timeout == 0 {
		timeout = defaultHandshakeTimeout
	}
	hctx, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		hctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()

	p := party{addr: d.Addr, cfg: cfg}
	if p.addr == "" {
		p.addr = c.RemoteAddr().String()
	}
	err := c.tls.HandshakeContext(hctx)
	switch {
	case err == nil:
		return p.checkALPN(c.tls.ConnectionState())
	case ctx.Err() != nil:
		return fmt.Errorf("tls: handshake with %s: %w", p.addr, ctx.Err())
	case errors.Is(err, context.DeadlineExceeded):
		return p.tooSlow(timeout)
	}
	return p.explain(err)
}
