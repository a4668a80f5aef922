package mem

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// farewell is how long a wrapped connection whose program has closed it goes on trying to write the next piece of what
// is left.
const farewell = 5 * time.Second

// Wrap puts a link of this package, under the control f, between a program and any connection: what is written to the
// returned Conn goes through the link to c ([Up]), and what c yields comes back through it ([Down]). c belongs to the
// link from then on. Deadlines, half-close and addresses work as before; other methods of c are out of reach, so wrap
// below TLS and not above. A cut resets c if it can (SetLinger). The link adds up to 64 KiB each way to what can be on
// the way between two programs.
//
// Three goroutines serve the link. They end soon after the returned Conn is closed: once the peer has taken what is
// left, or has not taken the next 32 KiB of it for 5 s. What comes from the peer meanwhile is discarded, and c is reset
// then, as TCP does with bytes that nobody will read. A direction frozen at that time must be thawed or cut first.
//
// To break every connection of a dialer, wrap each:
//
//	transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
//		c, err := dialer.DialContext(ctx)
//		if err != nil {
//			return nil, err
//		}
//		return faults.Wrap(c), nil
//	})
func (f *Faults) Wrap(c net.Conn) *Conn {
	l := newLink(0, c.LocalAddr(), c.RemoteAddr(), f)
	w := &wrapped{link: l, inner: &l.b, outer: c, upDone: make(chan struct{})}
	go w.pumpUp()
	go w.pumpDown()
	go w.bury()
	return &l.a
}

// wrapped moves bytes between the inner end of a link and the connection it stands in front of.
type wrapped struct {
	link    *link
	inner   *Conn
	outer   net.Conn
	closing atomic.Bool   // the program has closed its end
	reset   atomic.Bool   // outer is to be aborted, not closed
	upDone  chan struct{} // closed when pumpUp has ended
}

func (w *wrapped) pumpUp() {
	defer close(w.upDone)
	buf := make([]byte, 32<<10)
	for {
		n, err := w.inner.Read(buf)
		if n > 0 {
			if w.closing.Load() {
				_ = w.outer.SetWriteDeadline(time.Now().Add(farewell))
			}
			if _, err := w.outer.Write(buf[:n]); err != nil {
				w.link.fail(cause(err))
				return
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			w.reset.Store(true)
			return
		}
		if half, ok := w.outer.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		return
	}
}

func (w *wrapped) pumpDown() {
	buf := make([]byte, 32<<10)
	for {
		n, err := w.outer.Read(buf)
		if n > 0 {
			if _, err := w.inner.Write(buf[:n]); err != nil {
				// The program has closed its end, or a fault has cut the link. Whoever is behind outer may be writing
				// still, and read nothing until that is done: two of them would wait for each other. Bury ends this.
				w.reset.Store(true)
				_, _ = io.Copy(io.Discard, w.outer)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = w.inner.CloseWrite()
			return
		}
		if err != nil {
			w.link.finishDown(cause(err))
			return
		}
	}
}

// bury closes both ends once the program has closed its own, or a fault has cut the link.
func (w *wrapped) bury() {
	if cut := w.link.awaitEnd(); cut != nil && !errors.Is(cut, io.EOF) {
		abort(w.outer)
		<-w.upDone
		_ = w.inner.Close()
		return
	}
	w.closing.Store(true)
	_ = w.outer.SetWriteDeadline(time.Now().Add(farewell))
	<-w.upDone
	if w.reset.Load() {
		abort(w.outer)
	} else {
		_ = w.outer.Close()
	}
	_ = w.inner.Close()
}

// awaitEnd waits until end a is closed (nil) or a fault cuts the link (its error).
func (l *link) awaitEnd() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.a.closed && l.dead == nil {
		l.changed.Wait()
	}
	return l.dead
}

// fail ends both lanes, because the connection behind end b takes no more bytes.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up.sendErr = err
	l.down.finish(err)
	l.wake()
}

// finishDown ends the lane to end a with an error of the connection behind end b.
func (l *link) finishDown(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down.finish(err)
	l.wake()
}

// cause takes the [net.OpError] off, for the link puts its own on.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	if errors.Is(err, io.ErrClosedPipe) {
		return syscall.EPIPE
	}
	return err
}
