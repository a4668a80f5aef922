package tls

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/internal/trywrite"
)

// maxRest bounds what a wire keeps. One Write's piece makes some 17 KiB of it; the rest is room for what crypto/tls
// sends by itself.
const maxRest = 64 << 10

// wire lies between crypto/tls and the connection. A write that meets its deadline leaves a part of a record behind,
// after which crypto/tls gives the connection up. A wire keeps that part instead, tells crypto/tls that all is well,
// and sends it before anything else later on. The same makes writes possible that do not wait.
//
// Invariant: bytes reach the connection in the order in which crypto/tls wrote them, none twice, none left out.
//
// It also remembers whether the connection ended, which crypto/tls, for the sake of old web servers, takes for the
// peer's goodbye.
type wire struct {
	net.Conn

	ended atomic.Bool // Read has returned io.EOF

	// try is nil if the connection has no write that does not wait.
	try trywrite.Writer

	mu     sync.Mutex
	noWait bool   // Write takes all, and keeps what the connection does not take at once
	rest   []byte // taken from crypto/tls, not yet by the connection
	cut    error  // why there is a rest, a timeout or trywrite.ErrWouldBlock; nil if there is none
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n == 0 && errors.Is(err, io.EOF) { // what came with it crypto/tls has yet to look at
		w.ended.Store(true)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	err := w.flush()
	if err == nil {
		n, err = w.out().Write(p)
	}
	// Not by Timeout(): ETIMEDOUT, the system's word that the peer is gone, answers true to that too.
	whole := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, trywrite.ErrWouldBlock)
	if err == nil || !whole || len(w.rest)+len(p)-n > maxRest {
		return n, err
	}
	w.rest = append(w.rest, p[n:]...)
	w.cut = err
	return len(p), nil
}

// out is where writes go. mu is held.
func (w *wire) out() io.Writer {
	if w.noWait {
		return w.try
	}
	return w.Conn
}

// hurry: from now on no write waits, until calm.
func (w *wire) hurry() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noWait = true
}

// calm ends what hurry began, and reports whether something is held back.
func (w *wire) calm() (held bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noWait = false
	return len(w.rest) > 0
}

// resume sends what an earlier write left, within the present deadline if it waits.
func (w *wire) resume() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

// leave sends what an earlier write left, within d, unless a write is under way.
func (w *wire) leave(d time.Duration) error {
	if !w.mu.TryLock() {
		return nil
	}
	defer w.mu.Unlock()
	if len(w.rest) == 0 {
		return nil
	}
	if err := w.SetWriteDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return w.flush()
}

// cutShort returns the timeout that holds back what was written, if any. What hurry has held back is on its way.
func (w *wire) cutShort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.cut, trywrite.ErrWouldBlock) {
		return nil
	}
	return w.cut
}

func (w *wire) flush() error {
	if len(w.rest) == 0 {
		return nil
	}
	n, err := w.out().Write(w.rest)
	if w.rest = w.rest[n:]; len(w.rest) == 0 {
		w.rest, w.cut = nil, nil // a connection that was slow once need not hold memory for it
	}
	return err
}
