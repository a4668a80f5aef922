package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// Dialer makes QUIC connections to one address. It is a transport.Dialer. Its zero value lacks an address; everything
// else may stay zero. It may be copied, and must not be changed while it dials.
type Dialer struct {
	// Addr is the peer's "host:port". A name is resolved at each dial, and its addresses tried one after the other,
	// each a quarter of a second after the one before it or when that failed; the first to complete the handshake wins.
	Addr string

	// Config is the TLS configuration; it is copied. Nil means the system's root certificates. ServerName is taken from
	// Addr if it is empty, NextProtos is "towline/1" if it is empty, and the version is TLS 1.3 at least.
	Config *tls.Config

	// GetConfig, if not nil, is called at each dial for what Config would otherwise be, such as the method Client of a
	// tls.Files, which reads files that have changed.
	GetConfig func() (*tls.Config, error)

	// Socket is the UDP socket to dial from. Nil means one of its own for each connection, closed with it.
	Socket *Socket

	// HandshakeTimeout bounds the whole dial, names included. 0 means 10 s.
	HandshakeTimeout time.Duration

	// IdleTimeout is how long nothing may be heard from the peer before the connection counts as broken. 0 means 30 s.
	// The shorter one of the two sides applies to both, but a peer's counts as 5 s at least.
	IdleTimeout time.Duration

	// KeepAlive is the silence after which the peer is pinged, so that only a peer that is gone falls silent for
	// IdleTimeout. 0 means 10 s; it is cut to half the idle timeout. Negative means never.
	KeepAlive time.Duration
}

// DialContext resolves the address, completes the QUIC handshake and returns a *[Conn]. It blocks until then, at most
// for HandshakeTimeout or until ctx ends; ctx has no effect on the connection afterwards.
//
// The error is a *[net.OpError]. No answer in time gives true to Timeout() and matches syscall.ETIMEDOUT, a ctx that
// ended matches ctx's error, a peer that takes no more connections syscall.ECONNREFUSED, a closed Socket
// [net.ErrClosed], and a QUIC version that the peer does not speak [errors.ErrUnsupported]. A certificate that did not
// verify is a
// *[tls.CertificateVerificationError], and what TLS refused on either side a [tls.AlertError]. A listener that refuses
// this side's certificate does so after the dial has returned: that error comes from the first Read or Write.
func (d Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	times := newTiming(d.HandshakeTimeout, d.IdleTimeout, d.KeepAlive)
	host, service, err := net.SplitHostPort(d.Addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "quic", Err: err}
	}
	fail := func(addr net.Addr, err error) error {
		return &net.OpError{Op: "dial", Net: "quic", Addr: addr, Err: err}
	}
	conf := d.Config
	if d.GetConfig != nil {
		if conf, err = d.GetConfig(); err != nil {
			return nil, fail(nil, err)
		}
	}
	conf = dialerTLS(conf, host)
	s := scene{handshake: times.handshake, idle: times.idle, protos: conf.NextProtos, peer: d.Addr}

	timeout := s.noAnswer()
	limited, cancel := context.WithTimeoutCause(ctx, times.handshake, timeout)
	defer cancel()
	addrs, err := resolve(limited, host, service)
	if err != nil {
		return nil, fail(nil, err)
	}
	won, err := race(limited, addrs, func(ctx context.Context, addr netip.AddrPort) (*attempt, error) {
		a, err := d.attempt(ctx, addr, conf, times)
		if err != nil {
			s := s
			s.peer = addr.String()
			return nil, fail(net.UDPAddrFromAddrPort(addr), s.explain(err))
		}
		return a, nil
	}, (*attempt).discard)
	if err != nil {
		switch {
		case ctx.Err() == context.DeadlineExceeded:
			return nil, fail(nil, fault{
				text: ctx.Err().Error() + ": no answer over UDP from " + d.Addr + " yet",
				kind: ctx.Err(),
			})
		case ctx.Err() != nil:
			return nil, fail(nil, ctx.Err())
		}
		return nil, err
	}
	conn, err := won.open(limited, times.idle)
	if err != nil {
		if limited.Err() != nil {
			err = context.Cause(limited)
		}
		won.discard()
		return nil, fail(won.qc.RemoteAddr(), s.explain(err))
	}
	return conn, nil
}

// attempt is a completed handshake with one of the peer's addresses. Nothing has been sent on it, so it can be dropped
// without the peer's program ever seeing it.
type attempt struct {
	qc   *quicgo.Conn
	sock *socket
	to   *net.UDPAddr
}

func (d Dialer) attempt(ctx context.Context, addr netip.AddrPort, conf *tls.Config, times timing) (*attempt, error) {
	sock, err := d.socket(ctx, addr)
	if err != nil {
		return nil, err
	}
	to := net.UDPAddrFromAddrPort(addr)
	qc, err := sock.tr.Dial(ctx, to, conf, times.config(true))
	if err != nil {
		sock.release()
		return nil, err
	}
	return &attempt{qc: qc, sock: sock, to: to}, nil
}

// socket returns the socket to dial addr from, with a reference for the connection.
func (d Dialer) socket(ctx context.Context, addr netip.AddrPort) (*socket, error) {
	if d.Socket != nil {
		return d.Socket.s, d.Socket.s.acquire()
	}
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6"
	}
	return openSocket(ctx, network, ":0", nil)
}

// open opens the stream and sends the preface, which the peer waits for.
func (a *attempt) open(ctx context.Context, idle time.Duration) (*Conn, error) {
	stream, err := a.qc.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := stream.Write(preface[:]); err != nil { // does not block: it is the first
		return nil, err
	}
	return newConn(a.qc, stream, a.sock, a.sock.localAddr(a.to), idle), nil
}

func (a *attempt) discard() {
	_ = a.qc.CloseWithError(codeClosed, "") // never fails
	a.sock.release()
}

// resolve returns the addresses of host, in the order in which to try them.
func resolve(ctx context.Context, host, service string) ([]netip.AddrPort, error) {
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "localhost"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range interleave(ips) {
		addrs = append(addrs, netip.AddrPortFrom(ip, uint16(port))) //nolint:gosec // LookupPort gives 0 to 65535
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: errors.New("no addresses").Error(), Name: host, IsNotFound: true}
	}
	return addrs, nil
}
