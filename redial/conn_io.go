package redial

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

var _ net.Conn = (*Conn)(nil)

// Read reads up to len(p) bytes from the newest connection. If that breaks, Read waits for the next one and reads from
// there; with [Dialer].ReportRead it says so first. n is never negative, nor more than len(p), and bytes that came with an
// error are returned without it.
//
// Errors: [os.ErrDeadlineExceeded], also during a redial; [net.ErrClosed] after Close or Detach; an [*Error] when the
// policy or a hook gave up, which all later calls return too and which is never io.EOF; what a [Kept] connection says;
// io.EOF with [Dialer].EndOnEOF, or from such a connection.
func (c *Conn) Read(p []byte) (n int, err error) {
	var failed error // what the connection of gen met
	var gen uint64
	for {
		u, err := c.acquire("read")
		if err != nil {
			return 0, err
		}
		if failed != nil && u.kept && u.gen == gen {
			c.release(u)
			return 0, failed
		}
		if err := c.report(u); err != nil {
			c.release(u)
			return 0, err
		}
		n, err := u.conn.Read(p)
		c.release(u)
		n = min(max(n, 0), len(p))
		if n > 0 && u.link != nil {
			u.link.Progress()
		}
		switch {
		case err == nil, err == io.EOF && c.d.EndOnEOF && n == 0:
			return n, err
		case errors.Is(err, os.ErrDeadlineExceeded):
			if n > 0 || !c.hasEnded() {
				return n, err
			}
		case err == io.EOF && c.d.EndOnEOF:
			return n, nil
		default:
			keep := c.lost(u, err)
			if n > 0 {
				return n, nil
			}
			if keep {
				return 0, err
			}
			failed, gen = err, u.gen
		}
	}
}

// report returns, once for each connection that broke, what ReportRead asks for.
func (c *Conn) report(u use) error {
	if !c.d.ReportRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told >= u.gen {
		return nil
	}
	c.told = u.gen
	return &breakError{c.reason}
}

// Write writes p to the newest connection. If that breaks before it has taken all of p, Write waits for the next one and
// writes all of p there, however much the old one took; or, with [Dialer].ReportWrite, returns n, what the old one took,
// and an error that matches [ErrDisconnected]. The comment of Conn says what nil does not mean.
//
// With any other error n is what the connection took that is still in use, as with a deadline in the middle of a Write,
// and 0 if that is gone. Errors are as those of Read.
func (c *Conn) Write(p []byte) (n int, err error) {
	var failed error // what the connection of gen met, after it had taken n bytes
	var gen uint64
	for {
		u, err := c.acquire("write")
		if err != nil {
			return 0, err
		}
		if failed != nil && u.kept && u.gen == gen {
			c.release(u)
			return n, failed
		}
		if !u.kept && !c.d.EndOnEOF {
			err = ended(u.conn)
		}
		tried := err == nil
		if tried {
			n, err = u.conn.Write(p)
			n = min(max(n, 0), len(p))
			if err == nil && n < len(p) {
				err = io.ErrShortWrite
			}
		}
		c.release(u)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !c.hasEnded() {
				return n, err
			}
			if n > 0 {
				_, err = c.acquire("write") // why it has ended
				return n, err
			}
		case !tried:
			c.lost(u, err)
			failed = nil // if the connection is kept, it is written to
		case c.lost(u, err):
			return n, err
		case c.d.ReportWrite && !c.hasEnded():
			return n, &breakError{err}
		default:
			failed, gen = err, u.gen
		}
	}
}

func (c *Conn) hasEnded() bool { return c.State() == Ended }

// ReadFrom writes what it reads from r, as [io.Copy] does, until r ends. What a Write of it has not finished is written
// again after a redial, so that nothing read from r is lost on this side.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo reads until Read returns an error, and writes what it got to w. Where the end of the stream is a disconnect it
// ends only when c or w does.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// SetDeadline sets both deadlines; see SetReadDeadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline sets the time at which Read, under way or later, fails with [os.ErrDeadlineExceeded], on this and all
// later connections and during redials. The redial itself goes on. Zero: never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline is SetReadDeadline for Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *Conn) setDeadlines(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Ended {
		return c.endErr("set")
	}
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	if c.conn != nil { // one that is breaking may be in use still; what it says of this does not matter
		if read != nil {
			_ = c.conn.SetReadDeadline(*read)
		}
		if write != nil {
			_ = c.conn.SetWriteDeadline(*write)
		}
	}
	c.tell()
	return nil
}

// LocalAddr returns the local address of the newest connection, also if that broke; before the first, one whose network
// is "redial". Never nil.
func (c *Conn) LocalAddr() net.Addr { return c.addr(net.Conn.LocalAddr) }

// RemoteAddr is LocalAddr for the server's side.
func (c *Conn) RemoteAddr() net.Addr { return c.addr(net.Conn.RemoteAddr) }

func (c *Conn) addr(of func(net.Conn) net.Addr) net.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		if a := of(c.conn); a != nil {
			return a
		}
	}
	return noAddr{}
}

// noAddr is the address of a Conn that was never connected.
type noAddr struct{}

func (noAddr) Network() string { return "redial" }
func (noAddr) String() string  { return "not connected" }
