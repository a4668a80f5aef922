package quic

import (
	"net"
	"os"
	"sync"
)

// tail holds the end of an inbound stream: what lay unread when the peer's FIN arrived, and the error that follows it.
// It is bounded by the stream's receive window. Its zero value is empty and open.
type tail struct {
	mu     sync.Mutex
	chunks [][]byte
	err    error
	wake   chan struct{} // closed at each change
}

// push appends chunk, which the tail keeps.
func (t *tail) push(chunk []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chunks = append(t.chunks, chunk)
	t.changed()
}

// finish says that nothing follows but err.
func (t *tail) finish(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	t.changed()
}

func (t *tail) changed() {
	if t.wake != nil {
		close(t.wake)
		t.wake = nil
	}
}

// read fills p with what has arrived. It blocks while there is nothing, until d passes or closed is closed.
func (t *tail) read(p []byte, d *deadline, closed <-chan struct{}) (int, error) {
	for {
		expired := d.done()
		if isDone(expired) {
			return 0, os.ErrDeadlineExceeded
		}
		t.mu.Lock()
		if len(p) == 0 || len(t.chunks) > 0 {
			n := t.take(p)
			t.mu.Unlock()
			return n, nil
		}
		if err := t.err; err != nil {
			t.mu.Unlock()
			return 0, err
		}
		if t.wake == nil {
			t.wake = make(chan struct{})
		}
		wake := t.wake
		t.mu.Unlock()

		select {
		case <-wake:
		case <-expired:
		case <-closed:
			return 0, net.ErrClosed
		}
	}
}

func (t *tail) take(p []byte) (n int) {
	for n < len(p) && len(t.chunks) > 0 {
		m := copy(p[n:], t.chunks[0])
		n += m
		if t.chunks[0] = t.chunks[0][m:]; len(t.chunks[0]) == 0 {
			t.chunks[0] = nil
			t.chunks = t.chunks[1:]
		}
	}
	return n
}
