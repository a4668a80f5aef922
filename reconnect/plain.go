package reconnect

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/transport"
)

const (
	// DefaultPlainBuffer is the size of a plain connection's queue unless PlainOptions say otherwise: 128 KiB. A longer
	// queue is slower, not faster: its memory falls out of the processor's cache between the sender and the writing.
	DefaultPlainBuffer = 128 << 10

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
	// the other is written, and the last frame of each may go over its half. 0: DefaultPlainBuffer.
	SendBuffer int
}

// NewPlain returns a plain connection over nc, which then belongs to it: the caller must no more read, write or close
// nc. nc may be anything that yields an ordered, reliable stream and whose SetReadDeadline interrupts a Read. It starts
// nothing and sends nothing.
func NewPlain(nc net.Conn, o *PlainOptions) *Conn { return newPlain(nc, nil, o) }

// DialPlain dials once and returns a plain connection over what came of it. It blocks as the dialer does, until ctx
// ends at the latest, and its errors are the dialer's.
func DialPlain(ctx context.Context, d transport.Dialer, o *PlainOptions) (*Conn, error) {
	nc, err := d.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	return NewPlain(nc, o), nil
}

// plain is the engine of bare datagrams over one net.Conn. Its two sides are parts of it, and have most of the engine's
// methods; what concerns both is here.
type plain struct {
	c  *Conn
	nc net.Conn
	outbound
	inbound

	over chan struct{} // closed once reason is set and everything has ended

	mu     sync.Mutex
	reason error // why the connection ended; nil while it lives
}

// newPlain is NewPlain for an nc of which head was already read. head must not change any more.
func newPlain(nc net.Conn, head []byte, o *PlainOptions) *Conn {
	if o == nil {
		o = new(PlainOptions)
	}
	p := &plain{nc: nc, over: make(chan struct{})}
	codec := &datagram.Options{MaxPayload: o.MaxPayload, Framing: o.Framing}
	p.outbound.init(p, codec, o.SendBuffer)
	p.inbound.init(p, codec, head)
	p.c = newConn(p)
	return p.c
}

func (p *plain) refusing() <-chan struct{} { return p.outbound.refusing }

func (p *plain) netConn() net.Conn { return p.nc }

func (p *plain) done() <-chan struct{} { return p.over }

func (p *plain) err() error {
	p.mu.Lock()
	err := p.reason
	p.mu.Unlock()
	if err != nil {
		return err
	}
	return p.receiveErr()
}

func (p *plain) stats() Stats {
	var s Stats
	p.outbound.stats(&s)
	p.inbound.stats(&s)
	return s
}

// canFinish is about CloseWrite: without it the stream ends in both directions or in none.
func (p *plain) canFinish() bool {
	_, ok := p.nc.(closeWriter)
	return ok
}

// close waits for the peer to end its own sending, if it could be told of the end of this side's.
func (p *plain) close(ctx context.Context) {
	p.linger(ctx)
	p.end(ErrClosed, func() {
		// A transport may wait here until the peer's machine has everything, within a bound of its own: QUIC's 5 s.
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_ = p.nc.Close() // everything was written, and the peer told
		}()
		select {
		case <-closed:
		case <-ctx.Done():
			closeNow(p.nc)
		}
	})
}

func (p *plain) closeNow() {
	p.fail(ErrClosed)
	select {
	case <-p.over:
	default:
		closeNow(p.nc) // cuts short a close that waits in the transport
	}
}

func (p *plain) giveUp(context.Context) { p.fail(ErrClosed) }

func (p *plain) fail(err error) { p.end(err, func() { closeNow(p.nc) }) }

// end wakes everybody and closes the stream. Only the first call counts.
func (p *plain) end(err error, closeStream func()) {
	p.mu.Lock()
	if p.reason != nil {
		p.mu.Unlock()
		return
	}
	p.reason = err
	p.mu.Unlock()

	p.outbound.end(err)
	p.inbound.end(err)
	closeStream() // only now that both sides know the reason, so that nobody takes the closing for an error of its own
	close(p.over)
	p.c.over()
}
