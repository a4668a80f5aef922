package reconnect

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Conn is one side of a session, or a plain connection. All its methods, and those of its Writer and Reader, are safe
// for any number of goroutines.
//
// A session has one connection after the other, and at times none. It ends when both sides have closed, when one of
// them calls CloseNow, when the listener has lost it (see SessionLostError), when the peer broke the protocol, or when
// the dialer gives up: because DialOptions.Redial has limits, or because no dial can help, as after a certificate that
// does not verify. Then Err says why, and Unconfirmed what was accepted and not acknowledged.
type Conn struct {
	e engine
	w Writer
	r Reader

	mu      sync.Mutex
	closing gate                    // when Close or CloseNow begins; guarded by mu
	ctx     context.Context         // Context's; nil until it was asked for; guarded by mu
	cancel  context.CancelCauseFunc // of ctx; guarded by mu
}

func newConn(e engine) *Conn {
	c := &Conn{e: e}
	c.w.c, c.r.c = c, c
	return c
}

// Writer returns the sending side, always the same one.
func (c *Conn) Writer() *Writer { return &c.w }

// Reader returns the receiving side, always the same one.
func (c *Conn) Reader() *Reader { return &c.r }

// NetConn returns the connection below, for what only it knows, such as the peer's certificate. Do not read, write or
// close it. That of a session is the newest, which may have ended; nil if there was none yet.
func (c *Conn) NetConn() net.Conn { return c.e.netConn() }

// LocalAddr returns this side's address; nil if NetConn is.
func (c *Conn) LocalAddr() net.Addr {
	if nc := c.e.netConn(); nc != nil {
		return nc.LocalAddr()
	}
	return nil
}

// RemoteAddr returns the peer's address; nil if NetConn is.
func (c *Conn) RemoteAddr() net.Addr {
	if nc := c.e.netConn(); nc != nil {
		return nc.RemoteAddr()
	}
	return nil
}

// IsSession reports whether c is a session, and not a plain connection.
func (c *Conn) IsSession() bool {
	_, ok := c.e.(*sess)
	return ok
}

// Principal returns who the peer of a listener's session is, as ListenOptions.Authenticate said; else "".
func (c *Conn) Principal() string {
	if s, ok := c.e.(*sess); ok && s.serve != nil {
		return s.serve.principal
	}
	return ""
}

// State returns how c is connected.
func (c *Conn) State() State {
	if s, ok := c.e.(*sess); ok {
		return s.state()
	}
	select {
	case <-c.Done():
		return Closed
	default:
		return Connected
	}
}

// Unconfirmed returns copies of what was accepted and not acknowledged by the peer, in order. Each of them may have
// been delivered or not. It is meant for the end of a session; before that it is out of date at once. On a plain
// connection, where nothing is acknowledged, it returns nil.
func (c *Conn) Unconfirmed() []datagram.Datagram {
	if s, ok := c.e.(*sess); ok {
		return s.unconfirmed()
	}
	return nil
}

// Redial makes a dialer's session give its connection up, for the reason given, and dial at once, whatever wait it is
// in: for who knows better, such as that the network has changed. It does not wait. Otherwise it does nothing.
func (c *Conn) Redial(reason error) {
	if s, ok := c.e.(*sess); ok && s.dial != nil {
		s.dial.redial(reason)
	}
}

// Done returns a channel that is closed when nothing more can be sent or comes in: after CloseNow, at the end of Close,
// when a session has ended, and when a write of a plain connection failed. What has arrived may still be received,
// unless this side closed.
func (c *Conn) Done() <-chan struct{} { return c.e.done() }

// Context returns a context, always the same one, that ends when Done closes, and whose cause is then what Err returns. It
// has no values and no deadline. context.AfterFunc has a function called at the end of c, without a goroutine that waits for it.
func (c *Conn) Context() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancelCause(context.Background())
		select {
		case <-c.Done():
			c.cancel(c.Err())
		default:
		}
	}
	return c.ctx
}

// over ends Context, once Done is closed.
func (c *Conn) over() {
	c.mu.Lock()
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel(c.Err())
	}
}

// Err returns why the session or plain connection, or its receiving side, ended, and nil before that. io.EOF means that
// the peer ended its sending in good order; ErrClosed, that this side closed. That the connection of a session broke is
// no error: State, and SessionOptions.OnEvent, tell of that.
func (c *Conn) Err() error { return c.e.err() }

// Stats are counters and gauges of a Conn at one moment. Those of a session count from its beginning, and go on when
// it was lost and another took its place, but for Epoch.
type Stats struct {
	Sent        uint64 // datagrams accepted for sending
	Received    uint64 // datagrams that Receive and its like have handed out
	Queued      uint64 // datagrams accepted and not known to be written yet, to the newest connection
	QueuedBytes int    // their frames, in bytes

	// The rest is of sessions, and zero on plain connections.

	Unconfirmed       uint64        // datagrams accepted and not acknowledged
	UnconfirmedBytes  int           // their frames, in bytes
	OldestUnconfirmed time.Duration // how long ago the oldest of them was accepted, or anything acknowledged since
	Epoch             uint64        // how many connections this session has had, those without an answer included
	Resumes           uint64        // connections with which it went on
	Lost              uint64        // sessions that were lost, and replaced by another
	Replayed          uint64        // datagrams that were written again
	Duplicates        uint64        // datagrams that arrived again, and were dropped
	Expired           uint64        // datagrams that were not sent in their time
	Credit            int           // bytes that the peer takes beyond what was written
	Waiting           int           // bytes that have arrived, and wait to be received
	Window            int           // bytes that may
	RTT               time.Duration // smoothed, of PINGs, the answering of HELLO being the first; 0: not measured yet
}

// Stats returns the connection's counters.
func (c *Conn) Stats() Stats { return c.e.stats() }

// CloseSend ends this side's sending: the peer's Receive yields io.EOF behind the last datagram. Receiving goes on.
// From the start of the first call Send answers ErrClosed. It blocks until the peer has acknowledged everything, over
// as many connections as that takes; on a plain connection, until everything is written.
//
// If ctx ends before that, the error is a *CloseError, and the sending still ends. So is it if the session ends before,
// or the peer takes nothing more, and something is unconfirmed. A plain connection whose stream cannot be closed in one
// direction only gets an error that matches errors.ErrUnsupported, and nothing has changed.
func (c *Conn) CloseSend(ctx context.Context) error {
	if !c.e.canFinish() {
		return errors.ErrUnsupported
	}
	c.w.chanEnd(ctx)
	return c.e.finish(ctx) // which tells if ctx ended before that
}

// Close ends both directions in good order. What has arrived, and what still arrives, is dropped. Waiters in other
// goroutines get ErrClosed.
//
// On a session it tells the peer that nothing more is taken, whose Send then answers ErrPeerClosed, and waits until the
// peer has acknowledged everything, over as many connections as that takes, and then for up to 5 s until both sides
// know that all is said. To let the peer finish first, call CloseSend, receive until io.EOF, and then Close. On a plain
// connection it writes everything, ends the sending, and waits for the peer to end its own for up to 5 s, so that no
// reset overtakes the last datagrams.
//
// ctx bounds all of it; when ctx ends first, the Conn is closed at once. A session that has ended by itself takes up to a
// second more, to tell the peer why. A dialer's session tries without end if neither ctx nor DialOptions.Redial has a
// limit. The error is nil if everything was acknowledged (plain: written),
// else a *CloseError that counts the rest, which Unconfirmed yields. A second Close waits for the first, and returns
// nil.
func (c *Conn) Close(ctx context.Context) error {
	if !c.beginClose() {
		select {
		case <-c.e.done():
		case <-ctx.Done():
			_ = c.CloseNow()
		}
		return nil
	}
	c.w.chanEnd(ctx)
	c.e.stop()
	if err := c.e.finish(ctx); err != nil {
		c.e.giveUp(ctx)
		return err
	}
	c.e.close(ctx)
	return nil
}

// CloseNow ends the Conn at once. What was accepted and is not yet written is lost; Unconfirmed tells what is not
// acknowledged. The peer's session ends with ErrPeerClosed: now, for which CloseNow takes 20 ms at most, or, if there
// is no connection, when its dialer comes back, or when it expires at the listener. It is idempotent and returns nil.
func (c *Conn) CloseNow() error {
	c.beginClose()
	c.e.closeNow()
	return nil
}

// beginClose reports whether this call is the first of Close and CloseNow.
func (c *Conn) beginClose() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.closed() {
		return false
	}
	c.closing.close()
	return true
}
