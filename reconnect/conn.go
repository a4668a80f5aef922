package reconnect

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/transport"
)

const (
	// DefaultSendBuffer is the size of a plain connection's queue unless PlainOptions say otherwise: 128 KiB. A longer
	// queue is slower, not faster: its memory falls out of the processor's cache between the sender and the writing.
	DefaultSendBuffer = 128 << 10

	// lingerTime bounds how long Close waits for the peer to end its side, after all was sent.
	lingerTime = 5 * time.Second
)

// PlainOptions set up a plain connection. nil, and the zero value, are safe defaults. Both ends must agree on
// MaxPayload and Framing.
type PlainOptions struct {
	// MaxPayload is the largest payload in bytes, sent or received. 0: datagram.DefaultMaxPayload, 16 MiB.
	MaxPayload int

	// Framing replaces the 8-byte header, for peers that speak something else. nil: the 8-byte header.
	Framing datagram.Framing

	// SendBuffer is how many bytes of frames may be accepted and not yet taken by the net.Conn. One half gathers while
	// the other is written, and the last frame of each may go over its half. 0: DefaultSendBuffer.
	SendBuffer int
}

// Conn carries datagrams over one net.Conn. All its methods, and those of its Writer and Reader, are safe for any
// number of goroutines.
type Conn struct {
	nc  net.Conn
	out outbound
	in  inbound

	done    chan struct{} // closed once err is set and everything has ended
	closing chan struct{} // closed when Close or CloseNow begins; guarded by mu against a second close

	mu  sync.Mutex
	err error // why the connection ended; nil while it lives

	w Writer
	r Reader
}

// NewPlain returns a plain connection over nc, which then belongs to it: the caller must no more read, write or close
// nc. nc may be anything that yields an ordered, reliable stream and whose SetReadDeadline interrupts a Read. It starts
// nothing and sends nothing.
func NewPlain(nc net.Conn, o *PlainOptions) *Conn {
	if o == nil {
		o = new(PlainOptions)
	}
	c := &Conn{nc: nc, done: make(chan struct{}), closing: make(chan struct{})}
	codec := &datagram.Options{MaxPayload: o.MaxPayload, Framing: o.Framing}
	c.out.init(c, codec, o.SendBuffer)
	c.in.init(c, codec)
	c.w.c, c.r.c = c, c
	return c
}

// DialPlain dials once and returns a plain connection over what came of it. It blocks as the dialer does, until ctx
// ends at the latest, and its errors are the dialer's.
func DialPlain(ctx context.Context, d transport.Dialer, o *PlainOptions) (*Conn, error) {
	nc, err := d.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	return NewPlain(nc, o), nil
}

// Writer returns the sending side, always the same one.
func (c *Conn) Writer() *Writer { return &c.w }

// Reader returns the receiving side, always the same one.
func (c *Conn) Reader() *Reader { return &c.r }

// NetConn returns the connection below, for what only it knows, such as the peer's certificate. Do not read, write or
// close it.
func (c *Conn) NetConn() net.Conn { return c.nc }

// LocalAddr returns this side's address.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Done returns a channel that is closed when nothing more can be sent or received for good: after CloseNow, at the end
// of Close, and when a write failed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection, or its receiving side, ended, and nil before that. io.EOF means that the peer ended
// its sending in good order; ErrClosed, that this side closed.
func (c *Conn) Err() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.in.ended()
}

// Stats are counters of a connection at one moment.
type Stats struct {
	Sent        uint64 // datagrams accepted for sending
	Received    uint64 // datagrams that Receive and its like have handed out
	Queued      uint64 // datagrams accepted and not known to be written yet
	QueuedBytes int    // their frames, in bytes
}

// Stats returns the connection's counters.
func (c *Conn) Stats() Stats {
	var s Stats
	c.out.stats(&s)
	c.in.stats(&s)
	return s
}

// CloseSend ends this side's sending: it waits until all that was accepted is written, and tells the peer, whose
// Receive then yields io.EOF. Receiving goes on. From the start of the first call Send answers ErrClosed.
//
// If ctx ends before all is written, the error is a *CloseError, and the sending still ends once all is written. A
// connection whose stream cannot be closed in one direction only gets an error that matches errors.ErrUnsupported, and
// nothing has changed.
func (c *Conn) CloseSend(ctx context.Context) error {
	if _, ok := c.nc.(closeWriter); !ok {
		return errors.ErrUnsupported
	}
	c.w.chanEnd(ctx)
	return c.out.finish(ctx) // which tells if ctx ended before that
}

// Close ends the connection in good order. It writes all that was accepted, ends the sending, waits for the peer to end
// its own for up to 5 s (what still arrives is dropped), so that no reset overtakes the last datagrams, and closes.
//
// ctx bounds all of it; when ctx ends first, the connection is closed at once. The error is nil if everything was
// written, else a *CloseError that counts the rest. Waiters in other goroutines get ErrClosed. A second Close waits for
// the first, and returns nil.
func (c *Conn) Close(ctx context.Context) error {
	if !c.beginClose() {
		select {
		case <-c.done:
		case <-ctx.Done():
			_ = c.CloseNow()
		}
		return nil
	}
	c.w.chanEnd(ctx)
	c.in.stop()
	if err := c.out.finish(ctx); err != nil {
		c.fail(ErrClosed)
		return err
	}
	c.in.linger(ctx)
	c.end(ErrClosed, func() {
		// A transport may wait here until the peer's machine has everything, within a bound of its own: QUIC's 5 s.
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = c.nc.Close() // everything was written, and the peer told
		}()
		select {
		case <-closed:
		case <-ctx.Done():
			closeNow(c.nc)
		}
	})
	return nil
}

// CloseNow closes the connection at once. What was accepted and is not yet written is lost. It is idempotent, waits for
// nothing, and returns nil.
func (c *Conn) CloseNow() error {
	c.beginClose()
	c.fail(ErrClosed)
	select {
	case <-c.done:
	default:
		closeNow(c.nc) // cuts short a Close that waits in the transport
	}
	return nil
}

// beginClose reports whether this call is the first of Close and CloseNow.
func (c *Conn) beginClose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closing:
		return false
	default:
		close(c.closing)
		return true
	}
}

// fail ends the connection at once, for the first reason given.
func (c *Conn) fail(err error) { c.end(err, func() { closeNow(c.nc) }) }

// end wakes everybody and closes the stream. Only the first call counts.
func (c *Conn) end(err error, closeStream func()) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.mu.Unlock()

	c.out.end(err)
	c.in.end(err)
	closeStream() // only now that both sides know the reason, so that nobody takes the closing for an error of its own
	close(c.done)
}
