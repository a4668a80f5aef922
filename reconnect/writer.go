package reconnect

import (
	"context"
	"sync"

	"github.com/towline-mq/towline/datagram"
)

// Writer sends datagrams, in the order in which they were accepted. It is safe for any number of goroutines.
type Writer struct {
	c *Conn

	once sync.Once
	ch   chan datagram.Datagram
	sync chan pumpSync // nil until C is called; guarded by c.mu
}

// pumpSync asks the goroutine behind C to say when all that it took was accepted, and then to take no more if last is
// set.
type pumpSync struct {
	handed chan struct{}
	last   bool
}

// Send queues d for the peer. It blocks while the queue is full, until ctx ends, or the connection does.
//
// nil means accepted: d will be written, after all that was accepted before. An error means that d was not sent and
// will not be: ctx's own cause, one that matches datagram.ErrTooLarge or datagram.ErrFraming, ErrClosed, or what broke
// the connection. The payload is copied, and the caller's again when Send returns.
func (w *Writer) Send(ctx context.Context, d datagram.Datagram) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.c.out.send(ctx, d, 0)
}

// TrySend is Send that never blocks: a full queue is ErrWouldBlock.
func (w *Writer) TrySend(d datagram.Datagram) error {
	return w.c.out.send(context.Background(), d, noWait)
}

// SendBatch queues ds in order, at less cost than as many calls of Send, and returns how many were accepted: n <
// len(ds) only with an error, which concerns ds[n], or all from there on. Other goroutines' datagrams may come in
// between only where SendBatch had to wait for room. It blocks as Send does, and the payloads are the caller's again
// when it returns.
func (w *Writer) SendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return w.c.out.sendBatch(ctx, ds)
}

// Flush waits until everything accepted before the call was taken by the operating system, or ctx ends, or the
// connection does. There is no need to call it for datagrams to get on their way: they are, as soon as they are
// accepted. It says nothing about the peer.
func (w *Writer) Flush(ctx context.Context) error {
	if err := w.chanFlush(ctx); err != nil {
		return err
	}
	return w.c.out.flush(ctx)
}

// C returns a channel for use in a select: what is sent to it is sent to the peer, as by Send. It is unbuffered, and
// always the same one. A payload belongs to the Writer from then on, and must not be changed.
//
// When the connection has ended nobody takes from the channel: select on Conn.Done beside it. A datagram that cannot be
// sent, such as one that is too large, ends the connection with the error that Send would return, for Conn.Err to tell.
// Closing the channel is CloseSend.
func (w *Writer) C() chan<- datagram.Datagram {
	w.once.Do(func() {
		w.ch = make(chan datagram.Datagram)
		w.c.mu.Lock()
		w.sync = make(chan pumpSync)
		w.c.mu.Unlock()
		go w.pump()
	})
	return w.ch
}

// pump hands on what comes in by the channel. It ends with the connection, or with its sending side.
func (w *Writer) pump() {
	ch := w.ch
	for {
		select {
		case <-w.c.done:
			return
		case s := <-w.sync:
			close(s.handed)
			if s.last {
				ch = nil
			}
		case d, ok := <-ch:
			if !ok {
				ch = nil
				w.c.out.finishing()
				continue
			}
			w.c.out.hold()
			if err := w.c.out.send(context.Background(), d, held); err != nil && err != ErrClosed {
				w.c.fail(err)
			}
		}
	}
}

// chanFlush waits until all that the channel took was accepted, so that a Flush after a send to the channel covers it.
func (w *Writer) chanFlush(ctx context.Context) error { return w.chanSync(ctx, false) }

// chanEnd does the same, and the channel takes no more. If ctx ends first, what it took counts as unsent.
func (w *Writer) chanEnd(ctx context.Context) { _ = w.chanSync(ctx, true) }

func (w *Writer) chanSync(ctx context.Context, last bool) error {
	w.c.mu.Lock()
	ch := w.sync
	w.c.mu.Unlock()
	if ch == nil {
		return nil
	}
	s := pumpSync{handed: make(chan struct{}), last: last}
	select {
	case ch <- s:
		<-s.handed
		return nil
	case <-w.c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
