package mem

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Conn is one end of an in-process connection: a [net.Conn] with the half-close, the linger option and the errors of
// a [net.TCPConn]. [Pipe] and [Faults.Wrap] return it, and every connection that [Dialer] and [Listen] yield is a
// *Conn. All methods may be called from any number of goroutines at once.
//
// Each direction has a buffer of [Config.Buffer] bytes, so that a Write returns without its peer having read.
type Conn struct {
	// Fixed.
	link          *link
	in, out       *lane
	local, remote net.Addr

	// Guarded by link.mu.
	closed   bool
	noLinger bool
	readBy   deadline
	writeBy  deadline
}

// Read reads what has arrived, at least one byte, at most len(p). It blocks while there is nothing, until bytes
// arrive, the peer ends the stream, the read deadline passes (os.ErrDeadlineExceeded), or Close is called
// ([net.ErrClosed]).
//
// After the last byte it returns io.EOF if the peer called Close or CloseWrite, or an error that matches
// syscall.ECONNRESET if the peer closed with bytes unread, as TCP does, or was made to by SetLinger(0).
func (c *Conn) Read(p []byte) (int, error) {
	l, in := c.link, c.in
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.opError("read", net.ErrClosed)
		case c.readBy.passed():
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		}
		if n := in.deliver(p); n > 0 {
			return n, nil
		}
		if in.ended() {
			if errors.Is(in.end, io.EOF) {
				return 0, io.EOF
			}
			return 0, c.opError("read", in.end)
		}
		in.setAlarm()
		in.readable.Wait()
	}
}

// Write puts p into the buffer; p is copied, never kept. It blocks while the buffer is full, until the peer reads, the
// write deadline passes, or the connection ends; then n says how many bytes the buffer took. The bytes of one Write
// stay together, whoever else writes.
//
// After the peer closed, Write fails with an error that matches syscall.EPIPE, or syscall.ECONNRESET if the peer
// closed with bytes unread; after CloseWrite with EPIPE, after Close with [net.ErrClosed].
func (c *Conn) Write(p []byte) (n int, err error) { return c.write(p, true) }

// TryWrite writes as much of p as the buffer has room for and never waits: a full buffer, or another Write that is
// still waiting, is n < len(p) with a nil error, not an error of its own. Other errors are those of Write.
func (c *Conn) TryWrite(p []byte) (n int, err error) { return c.write(p, false) }

func (c *Conn) write(p []byte, wait bool) (n int, err error) {
	l, out := c.link, c.out
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if err := c.writeError(); err != nil {
			return 0, err
		}
		if len(p) == 0 || !wait && (out.writing || out.ring.room() == 0) {
			return 0, nil
		}
		if !out.writing {
			break
		}
		c.awaitRoom()
	}

	p, failure := out.failNext(p)
	out.writing = true
	for n < len(p) && err == nil {
		k := out.accept(p[n:])
		n += k
		if n == len(p) {
			break
		}
		if k == 0 {
			if !wait {
				break
			}
			c.awaitRoom()
		}
		err = c.writeError()
	}
	out.writing = false
	out.writable.Broadcast()
	if err == nil && failure != nil {
		err = c.opError("write", failure)
	}
	return n, err
}

// writeError is why nothing more can be written, or nil.
func (c *Conn) writeError() error {
	switch {
	case c.closed:
		return c.opError("write", net.ErrClosed)
	case c.writeBy.passed():
		return c.opError("write", os.ErrDeadlineExceeded)
	}
	if err := c.out.refusal(); err != nil {
		return c.opError("write", err)
	}
	return nil
}

// awaitRoom waits until anything changed for a writer.
func (c *Conn) awaitRoom() {
	if c.out.gone {
		c.in.setAlarm() // the news that the peer has closed may be under way
	}
	c.out.writable.Wait()
}

// CloseWrite ends the outgoing direction: the peer reads what was written and then io.EOF. Reading goes on. It never
// blocks. A second call does nothing; after Close it returns an error that matches [net.ErrClosed].
func (c *Conn) CloseWrite() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.out.finish(io.EOF)
	if c.out.sendErr == nil {
		c.out.sendErr = syscall.EPIPE
	}
	c.link.wake()
	return nil
}

// Close closes both directions of this end and never blocks; every Read and Write here returns [net.ErrClosed], those
// that wait too, and so does a second Close. What was written before stays readable for the peer and is followed by
// io.EOF, or by ECONNRESET if bytes from the peer were left unread here: they are lost, and the peer is to know.
func (c *Conn) Close() error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.readBy.stop()
	c.writeBy.stop()
	switch {
	case c.noLinger:
		c.out.lose()
		c.out.end = syscall.ECONNRESET
	case c.in.read < c.in.placed:
		c.out.finish(syscall.ECONNRESET)
	default:
		c.out.finish(io.EOF)
	}
	c.in.gone = true
	c.in.lose()
	if c.out.gone {
		c.out.lose() // nobody is left to read it
	}
	if c.in.alarm != nil {
		c.in.alarm.Stop()
	}
	c.link.wake()
	return nil
}

// SetLinger with 0 makes Close abort the connection: what the peer has not read is lost and it gets ECONNRESET. Any
// other value restores the normal Close, which never waits however many seconds are given. Like
// [net.TCPConn.SetLinger] it is for code that closes a connection it no longer trusts.
func (c *Conn) SetLinger(sec int) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	c.noLinger = sec == 0
	return nil
}

// LocalAddr is the address of this end: the listener's name, or the name with the number of the connection behind a #.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Faults is the control of this connection alone; both ends have the same one. It stays usable, without effect,
// after the connection has ended.
func (c *Conn) Faults() *Faults { return &c.link.faults }

// SetDeadline sets both deadlines. One that has passed ends waiting and later calls with an error that matches
// os.ErrDeadlineExceeded, until it is moved; the zero time takes it away.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy, &c.writeBy) }

// SetReadDeadline sets the deadline of Read, for waiting and for later calls. The zero time takes it away.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readBy) }

// SetWriteDeadline sets the deadline of Write, for waiting and for later calls. The zero time takes it away. A Write
// that it ends may have written a part.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeBy) }

func (c *Conn) setDeadlines(t time.Time, deadlines ...*deadline) error {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, d := range deadlines {
		d.set(t, c)
	}
	c.in.readable.Broadcast()
	c.out.writable.Broadcast()
	return nil
}

// wake lets those who wait at this end look at their deadlines.
func (c *Conn) wake() {
	c.link.mu.Lock()
	defer c.link.mu.Unlock()
	c.in.readable.Broadcast()
	c.out.writable.Broadcast()
}

func (c *Conn) opError(op string, err error) error {
	network := "mem"
	if c.local != nil {
		network = c.local.Network()
	}
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: err}
}
