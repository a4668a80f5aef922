package reconnect

import (
	"context"
	"iter"
	"sync"

	"github.com/towline-mq/towline/datagram"
)

// Reader receives datagrams in the order in which the peer sent them. It is safe for any number of goroutines; each
// datagram goes to one of them.
//
// A payload belongs to who received it, for as long as wanted. Payloads of small datagrams that arrived together share
// a buffer of up to 64 KiB, which lives as long as one of them does: keep a Clone of one that is kept for long.
type Reader struct {
	c *Conn

	once sync.Once
	ch   chan datagram.Datagram
}

// Receive returns the next datagram. It blocks until one has arrived, ctx ends, or the Conn does.
//
// io.EOF: the peer has ended its sending, and everything was received. ErrClosed: this side closed. Of a session: one
// that matches ErrSessionLost, ErrPeerClosed, ErrTakenOver, ErrRefused or ErrProtocol, or, of a dialer that gave up, a
// *redial.Error. Of a plain connection: io.ErrUnexpectedEOF, the stream ended inside a frame; one that matches
// datagram.ErrVersion, ErrSize or ErrTooLarge, the peer broke the protocol or the limit; others are the stream's own.
// All of these are final, and come after the last datagram that wholly arrived. When ctx ends nothing is lost.
func (r *Reader) Receive(ctx context.Context) (datagram.Datagram, error) {
	if ctx.Err() != nil {
		return datagram.Datagram{}, context.Cause(ctx)
	}
	return r.c.e.receive(ctx)
}

// ReceiveBatch blocks as Receive does, then puts into dst as many datagrams as have arrived. n is 1 or more unless
// there is an error, or dst is empty.
func (r *Reader) ReceiveBatch(ctx context.Context, dst []datagram.Datagram) (n int, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return r.c.e.receiveBatch(ctx, dst)
}

// Each calls f with each datagram, in order, until the peer has ended its stream, which is no error; until f returns one,
// which is returned, and f's datagram counts as received; or until ctx ends or the connection does, as Receive does.
//
// The payload is valid until f returns: its memory is then used again, which makes Each the fastest way to receive. What f
// keeps it has to copy (Datagram.Clone), and it must not give the payload to datagram.Release.
//
// F is called without a lock, in the goroutine that called Each. A second goroutine may receive at the same time, by Each
// too; what they get is as with Receive.
func (r *Reader) Each(ctx context.Context, f func(datagram.Datagram) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.c.e.each(ctx, f); !isEOF(err) {
		return err
	}
	return nil
}

// Ack tells the peer that the application has finished with n more of the datagrams that it received, in the order in
// which it did. It is for sessions with SessionOptions.AckConsumed, and does nothing on others. It does not block. The
// error says that there are fewer than n, and nothing has changed; or why the session has ended.
func (r *Reader) Ack(n int) error {
	if s, ok := r.c.e.(*sess); ok {
		return s.ack(n)
	}
	return nil
}

// All returns an iterator over what Receive yields. The peer's end of sending ends it; any other error is yielded once,
// with a zero Datagram, as the last pair.
func (r *Reader) All(ctx context.Context) iter.Seq2[datagram.Datagram, error] {
	return func(yield func(datagram.Datagram, error) bool) {
		for {
			d, err := r.Receive(ctx)
			if isEOF(err) {
				return
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// chanBuffer is the capacity of the channel that C returns.
const chanBuffer = 64

// C returns a channel for use in a select, always the same one. It is closed when nothing more will come, and the
// reason is then in Conn.Err: io.EOF when the peer has ended its sending. Up to 64 datagrams wait in it, and are lost
// with Close and CloseNow as others that were not received.
//
// Once C was called the datagrams go there; a Receive beside it takes some away.
func (r *Reader) C() <-chan datagram.Datagram {
	r.once.Do(func() {
		r.ch = make(chan datagram.Datagram, chanBuffer)
		go r.pump()
	})
	return r.ch
}

func (r *Reader) pump() {
	defer close(r.ch)
	batch := make([]datagram.Datagram, chanBuffer)
	r.c.mu.Lock()
	closing := r.c.closing.wait()
	r.c.mu.Unlock()
	for {
		n, err := r.ReceiveBatch(context.Background(), batch)
		if err != nil {
			return
		}
		for _, d := range batch[:n] {
			select {
			case r.ch <- d:
			case <-closing:
				return
			}
		}
		clear(batch)
	}
}
