package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Dialer dials one TCP address. Only Addr must be set. It is a value: copy it freely; several goroutines may dial with
// it at once.
type Dialer struct {
	// Addr is the peer, "host:port". The host is a name, an IPv4 address or an IPv6 address in brackets; empty, it is
	// this machine. The port is a number above 0 or the name of a service.
	Addr string

	// LocalAddr is the address to dial from: an IP address ("192.0.2.7", "fe80::1%eth0"), with a port if that matters
	// ("192.0.2.7:4000", "[2001:db8::1]:4000"), or a port alone (":4000"). Only peers of the same IP family are then
	// tried. Empty: the system chooses, or NetDialer.LocalAddr does.
	LocalAddr string

	// NetDialer holds further settings: timeouts, keepalive, resolver, Control hooks. It is copied, never changed. Its
	// ControlContext or Control runs after this package's own options are set and may overrule them. Nil: the
	// defaults of package net, which probe a connection after 15 s without traffic.
	NetDialer *net.Dialer

	// UserTimeout is how long bytes may wait for the peer's system to take them before the connection ends with
	// ETIMEDOUT, in whole milliseconds. 0: the system's own rule, some 15 minutes. Only Linux has this setting
	// (TCP_USER_TIMEOUT); elsewhere it is ignored. It also bounds the wait for unanswered keepalive probes.
	//
	// It is off unless asked for because Linux does not tell a peer that is gone from one that is alive and has stopped
	// reading: either ends the connection. Set it where the peer always reads, to notice its death in seconds.
	UserTimeout time.Duration
}

// DialContext connects to Addr and returns a *[net.TCPConn].
//
// A name is resolved at each call. Its addresses are tried in turn, IPv4 and IPv6 racing a little apart (RFC 6555), and
// the first to answer wins. It blocks until then, until all have failed, or until ctx or NetDialer's own Timeout ends;
// the error of an ended ctx wraps ctx's. All errors are *[net.OpError].
func (d Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	nd := net.Dialer{}
	if d.NetDialer != nil {
		nd = *d.NetDialer
	}
	if err := checkAddr(ctx, d.Addr, false); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	if d.LocalAddr != "" {
		local, err := parseLocal(d.LocalAddr)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
		nd.LocalAddr = local
	}
	nd.ControlContext = control(nd.ControlContext, nd.Control, d.UserTimeout)
	return nd.DialContext(ctx, "tcp", d.Addr)
}

type controlContext = func(ctx context.Context, network, address string, c syscall.RawConn) error

// control returns a hook that sets our options and then runs the user's hook, of which package net knows two kinds and
// obeys the one with a context if both are set.
func control(withCtx controlContext, plain func(string, string, syscall.RawConn) error, userTimeout time.Duration) controlContext {
	return func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := setUserTimeout(c, userTimeout); err != nil {
			return err
		}
		switch {
		case withCtx != nil:
			return withCtx(ctx, network, address, c)
		case plain != nil:
			return plain(network, address, c)
		}
		return nil
	}
}

// checkAddr finds what is wrong with a host:port before package net does, to say how a good one looks.
func checkAddr(ctx context.Context, addr string, listen bool) error {
	bad := func(why string) error {
		return &net.AddrError{Err: why + ` (write host:port, such as "127.0.0.1:7000" or "[::1]:7000")`, Addr: addr}
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		if ae, ok := errors.AsType[*net.AddrError](err); ok {
			return bad(ae.Err)
		}
		return bad(err.Error())
	}
	if port == "" {
		return bad("missing port in address")
	}
	n, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return bad(fmt.Sprintf("no such port: %q", port))
	case n == 0 && !listen:
		return bad("port 0 cannot be dialled")
	}
	return nil
}

// parseLocal reads a Dialer's LocalAddr. Names are not looked up: which of a name's addresses to bind would be a guess.
func parseLocal(s string) (*net.TCPAddr, error) {
	host, port := s, "0"
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		host = strings.Trim(s, "[]")
	} else if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	}
	var ip netip.Addr
	var err error
	if host != "" {
		ip, err = netip.ParseAddr(host)
	}
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil {
		return nil, &net.AddrError{
			Err:  `bad local address (write an IP address with or without a port, such as "192.0.2.7", "192.0.2.7:4000" or "[2001:db8::1]:4000")`,
			Addr: s,
		}
	}
	return &net.TCPAddr{IP: ip.AsSlice(), Port: int(n), Zone: ip.Zone()}, nil
}
