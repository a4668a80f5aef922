package redial

import (
	"context"
	"net"
	"strings"

	"github.com/towline-mq/towline/transport"
)

// Dialer makes a [Conn]: a net.Conn that gets itself a new connection each time the old one broke. The zero value of each
// field but Endpoints is a safe default. It is copied; one may make any number of Conns.
type Dialer struct {
	// Endpoints lead to the same server, in order of preference, such as tcp.Dialer, tls.Dialer and unix.Dialer of
	// transport, each with the address, the local address and the socket options that hold for every dial. A
	// transport.DialerFunc may choose another address each time. At least one.
	Endpoints []transport.Dialer

	// Policy says how to dial, first and again: waits, limits, what is fatal, what to do with a new connection. Nil: at
	// once, then with growing waits, without end. [Conn.SetPolicy] changes it.
	Policy *Policy

	// Background makes Dial return at once, while the first connection is still being made. Read and Write wait for it.
	Background bool

	// EndOnEOF makes Read's io.EOF what it is on any connection, the end of what the server says, and not a disconnect.
	// The connection stays, and can be written to. Otherwise a server that ends its stream is one to be dialled again.
	EndOnEOF bool

	// ReportWrite makes a Write that failed return what it met, in an error that matches [ErrDisconnected], with how
	// many bytes the broken connection took. Otherwise the whole of it is sent again on the next connection.
	ReportWrite bool

	// ReportRead makes one Read after each break return an error that matches [ErrDisconnected], as soon as there is a
	// new connection; what is read after it comes from there. Otherwise the streams of the connections follow each
	// other without a mark, so that one io.ReadFull may be filled from two.
	ReportRead bool

	// OnDisconnected is told when a connection broke, and decides what comes of it. It may take its time: who reads or
	// writes waits, up to their deadlines. It runs in a goroutine of its own, one at a time for each Conn, and may call all
	// methods of the Conn but Read and Write, which would wait for it. ctx ends when the Conn is closed. Nil: the Conn
	// dials again, unless the reason is fatal. After Redial, Keep means GoOn.
	OnDisconnected func(ctx context.Context, d Disconnect) Decision
}

// Dial connects to addr and returns a *[Conn], for programs that called [net.Dial] until now. The networks are those of
// net.Dial that are streams: "tcp", "tcp4", "tcp6" and "unix".
//
// The first dial is tried once and fails as net.Dial's does (Policy.FirstOnce); later ones follow the zero [Policy],
// without end, unless [Conn.SetPolicy] sets limits. A Write that failed is sent again whole, reads go on with the next
// connection, and the end of the stream is a disconnect. It blocks for 10 s at most. The error is an [*Error]. A [Dialer]
// has all the options.
func Dial(network, addr string) (net.Conn, error) {
	d := Dialer{Endpoints: []transport.Dialer{stream(network, addr)}, Policy: &Policy{FirstOnce: true}}
	c, err := d.Dial(context.Background())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// stream dials as package net does.
func stream(network, addr string) transport.DialerFunc {
	return func(ctx context.Context) (net.Conn, error) {
		if !strings.HasPrefix(network, "tcp") && network != "unix" {
			return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

// Dial makes the first connection. It blocks until that is there, the policy gives up or ctx ends; ending ctx later
// changes nothing. With Background it does not block, and ctx does not matter. The error is an [*Error]. The caller
// closes the Conn.
func (d *Dialer) Dial(ctx context.Context) (*Conn, error) {
	c := newConn(d)
	if len(d.Endpoints) == 0 {
		return nil, &Error{Reason: errNoEndpoints, Fatal: true}
	}
	if d.Background {
		go func() { _ = c.connect(c.ctx, 0, Decision{}) }() // what it says, Read and Write say
		return c, nil
	}
	if err := c.connect(ctx, 0, Decision{}); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// DialContext is Dial for those who need a [transport.Dialer].
func (d *Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	c, err := d.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Wrap returns a Conn that uses conn, which it owns from now on, until it breaks, and then dials. OnConnected is not
// called for conn. [Conn.Detach] is the way back. Without Endpoints the Conn ends when conn breaks.
func (d *Dialer) Wrap(conn net.Conn) *Conn {
	c := newConn(d)
	c.conn, c.state = conn, Connected
	c.r.made = true
	return c
}
