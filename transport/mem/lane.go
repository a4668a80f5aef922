package mem

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"
)

// A lane is one direction of a link: a buffer with what a stream needs to end, wait, and go wrong. The link's mutex
// guards all of it.
//
// A byte is placed in the ring, then arrives (may be read, unless the lane is frozen), then is read.
// Invariant: read ≤ arrived ≤ placed, and ring.n == placed-read.
type lane struct {
	link *link
	rev  *lane // the other direction

	ring    ring
	way     schedule
	placed  int64 // bytes put into the ring since the beginning
	arrived int64
	read    int64

	accepted  int64 // bytes that Write took: placed, and those that a cut swallowed
	delivered int64 // bytes that Read returned: read, less those that were lost

	end     error     // how the stream ends, behind its last byte: io.EOF, or an error; nil while it goes on
	endAt   time.Time // when that arrives
	sendErr error     // what Write says from now on; nil while the writer may go on
	gone    bool      // the reader has closed

	readable sync.Cond // signalled at any change that can let a Read return
	writable sync.Cond // and a Write
	writing  bool      // a Write is under way: its bytes stay together
	alarm    *time.Timer
	alarmAt  time.Time // what alarm is, or was last, set to

	// Faults.
	frozen  bool
	cutAt   int64 // position at which the link is cut with cutErr; -1 never
	cutErr  error
	failIn  int // the failIn-th Write from now fails with failErr after failLen bytes; 0 none
	failLen int
	failErr error
	flipAt  int64 // position of the byte to be inverted; -1 none
}

func (ln *lane) init(l *link, rev *lane, limit int) {
	ln.link, ln.rev = l, rev
	ln.ring.limit = limit
	ln.cutAt, ln.flipAt = -1, -1
	ln.readable.L, ln.writable.L = &l.mu, &l.mu
}

// accept takes what fits of p and says how much that was. Bytes beyond the position of a cut are taken and lost, as a
// kernel takes what its network then fails to deliver.
func (ln *lane) accept(p []byte) int {
	p = p[:min(len(p), ln.ring.room())]
	if len(p) == 0 {
		return 0
	}
	ln.accepted += int64(len(p))
	through, cut := p, false
	if ln.cutAt >= 0 && ln.placed+int64(len(p)) >= ln.cutAt {
		through, cut = p[:ln.cutAt-ln.placed], true
	}
	if len(through) > 0 {
		ln.ring.put(through)
		if i := ln.flipAt - ln.placed; ln.flipAt >= 0 && i < int64(len(through)) {
			*ln.ring.at(ln.ring.n - len(through) + int(i)) ^= 0xff
			ln.flipAt = -1
		}
		ln.placed += int64(len(through))
		if ln.way.shape.delays() || ln.way.pending() {
			ln.way.send(ln.placed, len(through), time.Now())
		} else {
			ln.arrived = ln.placed
		}
		ln.readable.Broadcast()
	}
	if cut {
		ln.link.cut(ln.cutErr, ln)
	}
	return len(p)
}

// deliver moves what has arrived into p.
func (ln *lane) deliver(p []byte) int {
	if ln.frozen {
		return 0
	}
	ln.settle()
	if most := ln.way.shape.MaxRead; most > 0 {
		p = p[:min(len(p), most)]
	}
	n := ln.ring.take(p[:min(int64(len(p)), ln.arrived-ln.read)])
	if n > 0 {
		ln.read += int64(n)
		ln.delivered += int64(n)
		ln.writable.Broadcast()
	}
	return n
}

// settle counts as arrived what is due by now.
func (ln *lane) settle() {
	if ln.way.pending() {
		if pos, ok := ln.way.arrived(time.Now()); ok {
			ln.arrived = pos
		}
	}
}

// finish ends the stream behind the bytes placed so far.
func (ln *lane) finish(err error) {
	if ln.end != nil {
		return
	}
	ln.end = err
	if ln.way.shape.delays() || ln.way.pending() {
		ln.endAt = ln.way.finish(time.Now())
	}
}

// ended reports whether the end of the stream has come to the reader, who may still have bytes to read before it.
func (ln *lane) ended() bool {
	if ln.end == nil || ln.frozen {
		return false
	}
	ln.settle()
	return !ln.way.pending() && (ln.endAt.IsZero() || !time.Now().Before(ln.endAt))
}

// refusal is why the lane takes no more bytes, or nil. That a reader has closed is news which comes from there: it
// needs both directions open, and takes as long as the end of the stream the other way.
func (ln *lane) refusal() error {
	switch {
	case ln.sendErr != nil:
		return ln.sendErr
	case !ln.gone || ln.frozen || !ln.rev.ended():
		return nil
	case errors.Is(ln.rev.end, io.EOF):
		return syscall.EPIPE
	default:
		return ln.rev.end
	}
}

// lose drops every byte that was not read.
func (ln *lane) lose() {
	ln.ring.drop()
	ln.way.clear()
	ln.arrived, ln.read = ln.placed, ln.placed
	ln.endAt = time.Time{}
}

// failNext counts one Write of p; if it is the one to fail it gives the bytes that still pass, and the error.
func (ln *lane) failNext(p []byte) ([]byte, error) {
	if ln.failIn == 0 {
		return p, nil
	}
	if ln.failIn--; ln.failIn > 0 {
		return p, nil
	}
	return p[:min(len(p), ln.failLen)], ln.failErr
}

// setAlarm sees to it that waiters wake when the next bytes, or the end, arrive.
func (ln *lane) setAlarm() {
	var at time.Time
	switch {
	case ln.frozen:
		return // Thaw wakes everybody
	case ln.way.pending():
		at = ln.way.next()
	case ln.end != nil && !ln.endAt.IsZero():
		at = ln.endAt
	default:
		return
	}
	if at.Equal(ln.alarmAt) {
		return
	}
	ln.alarmAt = at
	if ln.alarm == nil {
		ln.alarm = time.AfterFunc(time.Until(at), ln.alarmed)
		return
	}
	ln.alarm.Reset(time.Until(at))
}

// alarmed wakes the reader for what has arrived, and the writer of the other lane, whom the end here concerns.
func (ln *lane) alarmed() {
	ln.link.mu.Lock()
	defer ln.link.mu.Unlock()
	ln.readable.Broadcast()
	ln.rev.writable.Broadcast()
}

// wake lets everybody who waits on the lane look again.
func (ln *lane) wake() {
	ln.readable.Broadcast()
	ln.writable.Broadcast()
}
