package redial

import (
	"context"
	"errors"
	"net"
	"time"
)

// errAsked is why Redial gives a connection up, if it is not told.
var errAsked = errors.New("redial: asked to dial again")

// State returns how c is connected. It does not block.
func (c *Conn) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// WaitState waits until c is in a state. It returns nil then; ctx's error; or, when c has ended instead, what Read
// returns from then on. A state that does not last may pass unseen.
func (c *Conn) WaitState(ctx context.Context, s State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.state != s {
		if c.state == Ended {
			return c.endErr("wait")
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
		if c.state != s && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// Redial gives the connection up, if there is one, and dials at once, with full limits and the most preferred endpoint
// first, unless OnDisconnected, which is told reason, decides otherwise; nil stands for "asked to". If c is dialling or
// waiting already, it begins anew. It does not block, and does nothing after the end.
func (c *Conn) Redial(reason error) {
	if reason == nil {
		reason = errAsked
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case Connected, Kept:
		if c.link != nil {
			c.link.Progress()
		}
		c.lose(reason, true)
	case Connecting, Redialling:
		c.r.Restart()
	}
}

// Policy returns the policy in use, in which each 0 is replaced by what it means.
func (c *Conn) Policy() Policy { return c.r.Policy() }

// SetPolicy replaces the policy, as [Redialer.SetPolicy] does. To change a value, change what Policy returned.
func (c *Conn) SetPolicy(p *Policy) { c.r.SetPolicy(p) }

// Configure calls f with the connection, if there is one, and from now on with each later one before anybody uses it, after
// OnConnected and after what was configured before: for socket options that are to hold. f must not keep or close the
// connection. An error of f is returned if it is of the present connection, which goes on as it is, and f is then called for
// no other. For a later connection it is a failed attempt.
func (c *Conn) Configure(f func(net.Conn) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Ended {
		return c.endErr("set")
	}
	if c.state != Connected {
		c.configs = append(c.configs, f)
		return nil
	}
	conn := c.conn
	c.mu.Unlock()
	err := f(conn)
	c.mu.Lock()
	if err == nil {
		c.configs = append(c.configs, f)
		switch {
		case c.state != Connected:
		case c.conn == conn:
			c.applied = len(c.configs)
		default: // a newer one was made meanwhile
			return c.configure(c.conn)
		}
	}
	return err
}

// setUp configures a new connection.
func (c *Conn) setUp(_ context.Context, conn net.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = 0
	return c.configure(conn)
}

// configure calls with conn what is to be called with it and has not been yet. c.mu is held, and let go meanwhile.
func (c *Conn) configure(conn net.Conn) error {
	for c.applied < len(c.configs) {
		f := c.configs[c.applied]
		c.applied++
		c.mu.Unlock()
		err := f(conn)
		c.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// Detach gives the connection back to the caller, who owns it from then on, with no deadline set, and ends c: whoever
// reads or writes gets [net.ErrClosed]. It waits until they have let go of it, which takes no time unless the connection
// minds no deadlines; a Write that was under way may have written a part. If there is no connection, c stays as it is and
// the error matches [ErrDisconnected]; if c has ended, the error is what Read returns.
func (c *Conn) Detach() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case Connecting, Redialling:
		return nil, &breakError{c.reason}
	case Ended:
		return nil, c.endErr("detach")
	}
	conn := c.conn
	c.conn = gone{conn.LocalAddr(), conn.RemoteAddr()}
	c.end(net.ErrClosed)
	_ = conn.SetDeadline(time.Unix(1, 0))
	for users := c.users; *users > 0; {
		c.await(time.Time{})
	}
	return conn, conn.SetDeadline(time.Time{})
}

// gone keeps the addresses of a connection that was detached.
type gone struct{ local, remote net.Addr }

func (g gone) LocalAddr() net.Addr            { return g.local }
func (g gone) RemoteAddr() net.Addr           { return g.remote }
func (gone) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (gone) Write([]byte) (int, error)        { return 0, net.ErrClosed }
func (gone) Close() error                     { return nil }
func (gone) SetDeadline(time.Time) error      { return nil }
func (gone) SetReadDeadline(time.Time) error  { return nil }
func (gone) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection and ends the redial under way, and whoever waits, at once. The error is that of the
// connection's Close. A second Close does nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.state == Ended {
		c.mu.Unlock()
		return nil
	}
	conn := c.conn
	broken := c.state == Redialling
	if conn != nil {
		c.conn = gone{conn.LocalAddr(), conn.RemoteAddr()}
	}
	c.end(net.ErrClosed)
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	if err := conn.Close(); !broken {
		return err
	}
	return nil
}
