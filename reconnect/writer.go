package reconnect

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Writer sends datagrams, in the order in which they were accepted. It is safe for any number of goroutines. That of a
// session accepts whether there is a connection or not.
type Writer struct {
	c *Conn

	once sync.Once
	ch   chan datagram.Datagram

	// Made by C, and nil before; guarded by c.mu. Who receives from handed knows that all that the channel took before
	// is in the queue; it is closed when the channel takes no more, for which a send to stop asks.
	handed chan struct{}
	stop   chan struct{}
}

// Send queues d for the peer. It blocks while the queue is full, until ctx ends, or the Conn does.
//
// nil means accepted: d will be written, after all that was accepted before, and on a session delivered, or reported as
// unconfirmed when that ends. An error means that d was not sent and will not be: ctx's own cause, one that matches
// datagram.ErrTooLarge or datagram.ErrFraming, ErrClosed, ErrPeerClosed, or why the Conn ended. The payload is copied,
// and the caller's again when Send returns.
func (w *Writer) Send(ctx context.Context, d datagram.Datagram) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.c.e.send(ctx, d, 0)
}

// TrySend is Send that never blocks: a full queue is ErrWouldBlock.
func (w *Writer) TrySend(d datagram.Datagram) error {
	return w.c.e.send(context.Background(), d, noWait)
}

// SendExpiring is Send of a datagram that is of no use after age, counted from when it was accepted: if it was not sent
// by then, because there is no connection or the peer takes nothing, it never will be. EventExpired and Stats.Expired
// tell so, not at once, but when its turn to be sent has come; until then it takes room in the buffer and is
// Unconfirmed. One that was sent before is sent again after a new dial, whatever its age. Only sessions can do this; on
// a plain connection the error matches errors.ErrUnsupported.
func (w *Writer) SendExpiring(ctx context.Context, d datagram.Datagram, age time.Duration) error {
	s, ok := w.c.e.(*sess)
	if !ok {
		return errors.ErrUnsupported
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.sendBy(ctx, d, 0, max(age, 1))
}

// SendBatch queues ds in order, at less cost than as many calls of Send, and returns how many were accepted: n <
// len(ds) only with an error, which concerns ds[n], or all from there on. Other goroutines' datagrams may come in
// between where SendBatch had to wait for room, and after each 64 KiB. It blocks as Send does, and the payloads are the
// caller's again when it returns.
func (w *Writer) SendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return w.c.e.sendBatch(ctx, ds)
}

// Flush waits until everything accepted before the call is acknowledged by the peer: it has it in memory, or its
// application has finished with it if the peer's SessionOptions.AckConsumed says so. The wait goes on across
// connections, until ctx ends or the session does; then, and when the peer takes nothing more, it is an error, and what
// is acknowledged stays so. There is no need to call it for datagrams to get on their way: they are, as soon as they
// are accepted.
//
// On a plain connection it waits until everything was taken by the operating system, and says nothing about the peer.
func (w *Writer) Flush(ctx context.Context) error {
	if err := w.chanFlush(ctx); err != nil {
		return err
	}
	return w.c.e.flush(ctx)
}

// Done returns a channel that is closed when nothing more is accepted: CloseSend, Close or CloseNow was called, the
// peer takes nothing more, the session has ended, or a plain connection failed. Select on it beside a send to C.
func (w *Writer) Done() <-chan struct{} { return w.c.e.refusing() }

// C returns a channel for use in a select: what is sent to it is sent to the peer, as by Send. It is unbuffered, and
// always the same one. A payload belongs to the Writer from then on, and must not be changed.
//
// Once nothing more is accepted nobody takes from the channel: select on Done beside it. A datagram that cannot be
// sent, such as one that is too large, ends the Conn with the error that Send would return, for Conn.Err to tell.
//
// Closing the channel is CloseSend that does not wait. (On a plain connection whose stream cannot be closed in one
// direction, only Close tells the peer.)
func (w *Writer) C() chan<- datagram.Datagram {
	w.once.Do(func() {
		w.ch = make(chan datagram.Datagram)
		w.c.mu.Lock()
		w.handed, w.stop = make(chan struct{}), make(chan struct{})
		w.c.mu.Unlock()
		go w.pump()
	})
	return w.ch
}

// pump hands on what comes in by the channel, until nothing more is accepted.
func (w *Writer) pump() {
	defer close(w.handed)
	for {
		select {
		case <-w.c.e.refusing():
			return
		case <-w.stop:
			return
		case w.handed <- struct{}{}:
		case d, ok := <-w.ch:
			if !ok {
				w.c.e.finishing()
				return
			}
			w.c.e.hold()
			if err := w.c.e.send(context.Background(), d, held); err != nil {
				if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrPeerClosed) { // of that the end tells
					w.c.e.fail(err)
				}
				return // what it held stays counted as unsent
			}
		}
	}
}

// chanFlush waits until all that the channel took is in the queue, so that a Flush after a send to the channel covers
// it.
func (w *Writer) chanFlush(ctx context.Context) error {
	handed, _ := w.pumpChannels()
	if handed == nil {
		return nil
	}
	select {
	case <-handed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// chanEnd does the same, and the channel takes no more. If ctx ends first, what the channel took counts as unsent.
func (w *Writer) chanEnd(ctx context.Context) {
	handed, stop := w.pumpChannels()
	for handed != nil {
		select {
		case stop <- struct{}{}:
			return
		case _, more := <-handed:
			if !more {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (w *Writer) pumpChannels() (handed <-chan struct{}, stop chan<- struct{}) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	return w.handed, w.stop
}
