package redial

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Conn is a [net.Conn] to a server that may come and go. [Dial] and [Dialer] make it. When its connection breaks, whoever
// reads or writes waits until there is another, and goes on there; only Close, a deadline, or giving up ends that wait,
// each at once.
//
// The first half to notice begins the redial, and all others wait for the same one. What an old connection says late
// changes nothing. Deadlines hold across connections, and so does what [Conn.Configure] and [Policy].OnConnected set.
//
// What it cannot promise: a Write that returned nil was taken by the kernel of this machine, and that is all. If the
// connection then breaks, what the kernel still held, and what the server's kernel held for a server that died, is lost,
// and nobody says so; and a Write that is sent again may come twice, if the server read the whole of it before the
// connection broke. On Unix systems a Write looks first whether the server has already ended the connection, which spares
// the Write after a server was restarted, and not the one before. Protocols that must lose or repeat nothing need
// sessions: package reconnect of this module.
//
// An idle connection that nobody reads from notices nothing by itself. A Read that waits notices what the system notices:
// a server that was closed at once, one whose machine is gone by keepalive or by TCP_USER_TIMEOUT; package transport/tcp sets
// both.
//
// Its methods may be called by any number of goroutines. Of several Writes, each comes whole, on one connection.
type Conn struct {
	d      Dialer
	r      *Redialer
	ctx    context.Context // ends with the Conn
	cancel context.CancelFunc

	mu      sync.Mutex
	state   State
	changed chan struct{} // closed at the next change of what is guarded by mu, of interest to those who wait
	err     error         // of Ended
	conn    net.Conn      // the newest; nil before the first
	link    *Link         // what made it; nil if it was wrapped
	gen     uint64        // connections before this one that broke
	told    uint64        // the gen that Read's callers know of
	reason  error         // why the connection broke, or the one before
	users   *int          // Reads and Writes that use conn
	configs []func(net.Conn) error
	applied int // of configs, to the connection that is being made

	readBy, writeBy time.Time // deadlines
}

func newConn(d *Dialer) *Conn {
	c := &Conn{d: *d, changed: make(chan struct{}), users: new(int)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.r = New(d.Endpoints, d.Policy)
	c.r.setUp = c.setUp
	return c
}

// use is one connection, as a Read or a Write got hold of it.
type use struct {
	conn  net.Conn
	link  *Link
	gen   uint64
	kept  bool
	users *int
}

// acquire waits for a connection to use until it is released.
func (c *Conn) acquire(op string) (use, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch c.state {
		case Connected, Kept:
			*c.users++
			return use{c.conn, c.link, c.gen, c.state == Kept, c.users}, nil
		case Ended:
			return use{}, c.endErr(op)
		}
		by := c.writeBy
		if op == "read" {
			by = c.readBy
		}
		if !c.await(by) {
			return use{}, c.opError(op, os.ErrDeadlineExceeded)
		}
	}
}

// await waits for a change, until by, if that is not zero. It reports whether by has not passed yet. c.mu is held, and
// let go meanwhile.
func (c *Conn) await(by time.Time) bool {
	var late <-chan time.Time
	if !by.IsZero() {
		left := time.Until(by)
		if left <= 0 {
			return false
		}
		t := time.NewTimer(left)
		defer t.Stop()
		late = t.C
	}
	changed := c.changed
	c.mu.Unlock()
	defer c.mu.Lock()
	select {
	case <-changed:
	case <-late:
	}
	return true
}

// release ends a use.
func (c *Conn) release(u use) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*u.users--
	if c.state == Ended {
		c.tell()
	}
}

// tell wakes those who wait for a change. c.mu is held.
func (c *Conn) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// lost begins a redial for the sake of err, which the connection of u met, unless another has its place already or it is
// being replaced. It reports whether the connection is to be kept as it is.
func (c *Conn) lost(u use, err error) (keep bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gen != u.gen {
		return false
	}
	if c.state == Connected {
		c.lose(err, false)
	}
	return c.state == Kept
}

// lose begins a redial. c.mu is held.
func (c *Conn) lose(reason error, asked bool) {
	c.state, c.reason = Redialling, reason
	c.tell()
	go c.again(reason, asked)
}

// again asks what to do about the end of the connection, and does it.
func (c *Conn) again(reason error, asked bool) {
	c.mu.Lock()
	old, link := c.conn, c.link
	c.mu.Unlock()
	what := Disconnect{Reason: reason, Fatal: !asked && c.fatal(reason)}
	if link != nil {
		what.Endpoint, what.Total = link.Endpoint, link.Total
		stable := c.r.set.Load().StableAfter
		if !link.progress.Load() && (stable < 0 || time.Since(link.made) < stable) {
			what.Attempts = link.Attempts
		}
		if !asked {
			link.breathe()
		}
	}
	var d Decision
	if c.d.OnDisconnected != nil {
		d = c.d.OnDisconnected(c.ctx, what)
	}
	c.mu.Lock()
	switch {
	case c.state != Redialling: // Close came first
	case d.Do == Keep && !asked:
		c.state = Kept
		c.tell()
	case d.Do == Stop:
		c.end(gaveUp(d.stopped(), what))
	case what.Fatal:
		c.end(gaveUp(errFatal, what))
	default:
		c.gen++
	}
	state := c.state
	c.mu.Unlock()
	if state == Kept {
		return
	}
	c.dismiss(old)
	if state == Redialling {
		_ = c.connect(c.ctx, what.Endpoint, d)
	}
}

// dismiss closes a connection that broke. It waits for that, so that the server sees one connection after the other, but
// not for long, since TLS would spend seconds on a goodbye that nobody takes.
func (c *Conn) dismiss(old net.Conn) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = old.Close()
	}()
	late := time.NewTimer(goodbye)
	defer late.Stop()
	select {
	case <-closed:
	case <-late.C:
	case <-c.ctx.Done():
	}
}

const goodbye = 100 * time.Millisecond

// fatal reports whether a connection that ended with reason is not to be followed by another.
func (c *Conn) fatal(reason error) bool {
	return isMarked(reason) || !errors.Is(reason, net.ErrClosed) && c.r.set.Load().IsFatal(reason)
}

// gaveUp is the error of a Conn that ends with a connection.
func gaveUp(why error, d Disconnect) *Error {
	return &Error{Reason: why, Fatal: d.Fatal, Attempts: d.Attempts, Last: d.Reason, Causes: causeAt(d.Endpoint, d.Reason)}
}

func causeAt(endpoint int, err error) []error {
	causes := make([]error, endpoint+1)
	causes[endpoint] = err
	return causes
}

// connect makes a connection and lets all use it, or ends the Conn.
func (c *Conn) connect(ctx context.Context, endpoint int, d Decision) error {
	link, err := c.r.dial(ctx, endpoint, d)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e, ok := errors.AsType[*Error](err); ok && e.Last == nil && c.reason != nil { // nothing was tried since
			e.Last, e.Causes = c.reason, causeAt(endpoint, c.reason)
		}
		c.end(err)
		return err
	}
	c.mu.Lock()
	bad := c.configure(link.Conn)
	ended := c.state == Ended
	if !ended {
		c.use(link)
	}
	err = c.err
	c.mu.Unlock()
	if bad != nil || ended {
		_ = link.Conn.Close() // who uses it finds out
	}
	return err
}

// use lets all use a new connection. c.mu is held.
func (c *Conn) use(link *Link) {
	c.conn, c.link, c.state, c.users = link.Conn, link, Connected, new(int)
	if !c.readBy.IsZero() {
		_ = c.conn.SetReadDeadline(c.readBy)
	}
	if !c.writeBy.IsZero() {
		_ = c.conn.SetWriteDeadline(c.writeBy)
	}
	c.tell()
}

// end ends the Conn, once. The caller closes the connection. c.mu is held.
func (c *Conn) end(err error) {
	if c.state == Ended {
		return
	}
	c.state, c.err = Ended, err
	c.cancel()
	_ = c.r.Close()
	c.tell()
}

// endErr is what op meets on a Conn that has ended. c.mu is held.
func (c *Conn) endErr(op string) error {
	if c.err == net.ErrClosed {
		return c.opError(op, c.err)
	}
	return c.err
}

func (c *Conn) opError(op string, err error) error {
	e := &net.OpError{Op: op, Net: "redial", Err: err}
	if c.conn != nil {
		e.Source, e.Addr = c.conn.LocalAddr(), c.conn.RemoteAddr()
		if e.Addr != nil {
			e.Net = e.Addr.Network()
		}
	}
	return e
}
