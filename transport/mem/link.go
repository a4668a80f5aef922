package mem

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	defaultBuffer  = 64 << 10
	defaultBacklog = 128
)

// A link is one connection: two lanes, the two ends that use them, and its own control. One mutex guards everything
// but the control, and is never held while anything waits.
type link struct {
	mu       sync.Mutex
	up, down lane // from a to b, from b to a
	a, b     Conn // a dialled
	changed  sync.Cond
	dead     error // what a fault cut it with; nil if none did

	faults Faults // covers this link alone
}

// newLink connects two addresses under the given controls, the widest first, so that the narrower ones override it.
// Hooks of the controls have run when it returns.
func newLink(buffer int, a, b net.Addr, controls ...*Faults) *link {
	if buffer <= 0 {
		buffer = defaultBuffer
	}
	l := new(link)
	l.changed.L = &l.mu
	l.up.init(l, &l.down, buffer)
	l.down.init(l, &l.up, buffer)
	l.a = Conn{link: l, in: &l.down, out: &l.up, local: a, remote: b}
	l.b = Conn{link: l, in: &l.up, out: &l.down, local: b, remote: a}
	for _, f := range distinct(append(controls, &l.faults)...) {
		if k, hook := f.join(l); hook != nil {
			hook(k, &l.faults)
		}
	}
	return l
}

// cut ends both lanes with err; the caller holds the mutex. io.EOF is a clean end behind what was written. Any other
// error destroys what is under way, but for the lane called through, whose bytes come first.
func (l *link) cut(err error, through *lane) {
	if l.dead != nil || l.ended() {
		return
	}
	l.dead = err
	for _, ln := range []*lane{&l.up, &l.down} {
		ln.sendErr = err
		switch {
		case errors.Is(err, io.EOF):
			ln.sendErr = syscall.EPIPE
			ln.finish(io.EOF)
		case ln == through:
			ln.finish(err)
		default:
			ln.lose()
			ln.frozen = false
			ln.end = err
		}
	}
	l.wake()
}

// ended reports whether both ends are closed.
func (l *link) ended() bool { return l.a.closed && l.b.closed }

// isOver is ended for callers without the mutex.
func (l *link) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended()
}

func (l *link) wake() {
	l.up.wake()
	l.down.wake()
	l.changed.Broadcast()
}
