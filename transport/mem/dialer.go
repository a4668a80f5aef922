package mem

import (
	"context"
	"net"
	"slices"
	"syscall"
)

// Dialer connects to a listener of the same [Network]. It is a plain value; all fields are read at each dial.
type Dialer struct {
	// Network is where Addr is looked up; it must be given.
	Network *Network
	// Addr is the name of the listener, looked up anew at each dial.
	Addr string
	// Faults also controls the dials and connections of this dialer; nil is none besides those of the network, the
	// listener and the connection.
	Faults *Faults
}

// DialContext connects, and yields a *[Conn]. As with TCP the connection is ready once it is in the listener's backlog,
// accepted or not; with the backlog full DialContext waits until there is room, ctx ends, or the listener closes.
// Ending ctx later changes nothing.
//
// The error is a *[net.OpError] that matches syscall.ECONNREFUSED if nobody listens on the name, the error of ctx,
// [ErrNoNetwork], or what [Faults.RefuseDials] ordered.
func (d Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: Addr(d.Addr), Err: err}
	}
	return c, nil
}

func (d Dialer) dial(ctx context.Context) (*Conn, error) {
	if d.Network == nil {
		return nil, ErrNoNetwork
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	controls := distinct(d.Faults, &d.Network.faults)
	for _, f := range controls {
		if err := f.dial(ctx); err != nil {
			return nil, err
		}
	}
	l := d.Network.find(d.Addr)
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	if l.faults != nil && !slices.Contains(controls, l.faults) {
		if err := l.faults.dial(ctx); err != nil {
			return nil, err
		}
	}
	select {
	case l.slots <- struct{}{}:
	case <-l.done:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	link := newLink(l.buffer, d.Network.source(d.Addr), l.addr, &d.Network.faults, l.faults, d.Faults)
	for _, f := range distinct(d.Faults, &d.Network.faults, l.faults) {
		if f.keeps(l, &link.b) {
			return &link.a, nil
		}
	}
	l.offer(&link.b)
	return &link.a, nil
}
