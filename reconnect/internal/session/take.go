package session

import (
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Take returns the next run of datagrams, if there is one. What it returns counts as taken: the peer may send as much
// more.
func (s *Session) Take() (Run, bool) {
	r := &s.recv
	for len(r.queue) > 0 {
		q := r.pop()
		first := r.taken.N
		length := uint64(len(q.Raw)) + q.skip
		r.taken = r.taken.add(Position{uint64(q.N), length})
		s.remember(q)
		s.widen()
		if q.skip > 0 {
			continue
		}
		run := Run{Run: q.Run}
		s.stats.Taken += uint64(q.N)
		if s.role == Listener && first-s.cfg.Start.N < s.redelivered {
			run.Redelivered = int(min(uint64(q.N), s.redelivered-(first-s.cfg.Start.N)))
		}
		return run, true
	}
	return Run{}, false
}

// remember notes what the application has to finish with.
func (s *Session) remember(q queued) {
	r := &s.recv
	if !s.cfg.Consumed {
		r.done = r.taken
		s.finish()
		return
	}
	if q.old {
		if q.skip == 0 {
			r.stale += q.N
		}
		return
	}
	if q.skip > 0 {
		// Its own length does not matter but in sum.
		for i := range q.N {
			z := size{skip: true}
			if i == 0 {
				z.length = q.skip
			}
			r.sizes = append(r.sizes, z)
		}
		if s.advance() > 0 {
			s.ackDue = true
		}
		return
	}
	for raw := q.Raw; len(raw) > 0; {
		n := uint64(datagram.ParseHeader(raw).Size) + 4
		r.sizes = append(r.sizes, size{length: n})
		r.open++
		raw = raw[n:]
	}
}

// advance moves done over what was skipped. It returns by how many bytes.
func (s *Session) advance() (length uint64) {
	r := &s.recv
	n := 0
	for n < len(r.sizes) && r.sizes[n].skip {
		length += r.sizes[n].length
		n++
	}
	r.done = r.done.add(Position{uint64(n), length})
	r.sizes = r.sizes[n:]
	if len(r.sizes) == 0 {
		r.sizes = nil
	}
	s.finish()
	return length
}

// Consume tells that the application has finished with the next n of the datagrams that it took. It returns false if
// there are fewer, and then changes nothing. Without Config.Consumed it does nothing.
func (s *Session) Consume(now time.Duration, n int) bool {
	r := &s.recv
	if !s.cfg.Consumed {
		return true
	}
	if n < 0 || n > r.stale+r.open {
		return false
	}
	var length uint64
	for ; n > 0; n-- {
		if r.stale > 0 {
			r.stale--
			continue
		}
		length += s.advance()
		length += r.sizes[0].length
		r.done = r.done.add(Position{1, r.sizes[0].length})
		r.sizes = r.sizes[1:]
		r.open--
	}
	length += s.advance()
	if s.state.attached() && length > 0 {
		s.owe(now, length)
		s.widen()
	}
	return true
}

// EOF reports whether the peer's stream has ended and everything was taken.
func (s *Session) EOF() bool { return s.recv.fin && len(s.recv.queue) == 0 }

// Readable reports whether Take would return something.
func (s *Session) Readable() bool { return len(s.recv.queue) > 0 }

// Lone reports whether what may be taken is one datagram of size bytes at most, header included.
func (s *Session) Lone(size int) bool {
	q := s.recv.queue
	return len(q) == 1 && q[0].N == 1 && len(q[0].Raw) <= size
}

// widen doubles the window when the peer was held up by it and not by the application, and sees to it that the peer
// learns of new credit.
func (s *Session) widen() {
	r := &s.recv
	if s.state == Ended {
		return // it has promised nothing any more
	}
	if r.narrowed() && r.waiting <= r.window/4 {
		r.stalled = 0
		more := min(r.window, s.cfg.MaxWindow-r.window)
		if more > 0 && s.cfg.reserve(more) {
			r.window += more
			r.reserved += more
		}
	}
	if r.reserved > r.window {
		s.giveBack()
	}
	// The last of it, at the end of all counting, may be less than a quarter: it is said as well.
	if want := s.mayGrant(); want > r.credit && (want-r.credit >= r.window/4 || want == math.MaxUint64) {
		s.ackDue = true
	}
}

// narrow makes the window of an idle session the smallest one.
func (s *Session) narrow() {
	if r := &s.recv; r.window > s.cfg.MinWindow && len(r.queue) == 0 {
		r.window = s.cfg.MinWindow
		r.heldAt, r.went, r.stalled, r.enough = 0, 0, 0, false
		s.giveBack()
	}
}

// giveBack returns to the budget what is not promised any more. A credit cannot be taken back.
func (s *Session) giveBack() {
	r := &s.recv
	need := max(r.window, r.credit-min(r.credit, r.taken.B))
	if r.reserved > need {
		if s.cfg.Reserve != nil {
			s.cfg.Reserve(-int64(r.reserved - need))
		}
		r.reserved = need
	}
}

// mayGrant returns up to where there is room: for a window more than the application has taken, and, if it has to finish
// with what it took, for no more than the largest window beside that.
func (s *Session) mayGrant() uint64 {
	r := &s.recv
	taken := r.taken.B
	if s.cfg.Consumed {
		taken = min(taken, plus(max(r.done.B, r.origin.B), s.cfg.MaxWindow))
	}
	return plus(taken, r.window)
}

// grant raises the credit to what there is room for.
func (s *Session) grant() {
	r := &s.recv
	r.credit = max(r.credit, s.mayGrant())
}
