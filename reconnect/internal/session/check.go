package session

import "fmt"

// check returns an error if an invariant does not hold. Tests call it after each input. It looks at all that is in
// memory.
func (s *Session) check() error {
	if err := s.log.check(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if err := s.recv.check(s.cfg.Consumed); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	return s.checkState()
}

// checkBriefly is the part of check that takes constant time.
func (s *Session) checkBriefly() error {
	if err := s.log.checkPositions(); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if err := s.recv.checkPositions(); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	return s.checkState()
}

func (s *Session) checkState() error {
	l, r := &s.log, &s.recv
	switch {
	case !s.state.attached() && (s.first != nil && !s.closeDue || s.greeting != nil):
		return fmt.Errorf("%v with something to say first", s.state)
	case s.finAcked && l.base != l.final():
		return fmt.Errorf("the end is acknowledged, and base %v is before %v", l.base, l.final())
	case s.role == Listener && s.state == Resuming:
		return fmt.Errorf("a listener resumes")
	case s.Confirmed() && !s.welcomed:
		return fmt.Errorf("%v without keys", s.state)
	case s.state != Ended && !s.closeDue && !s.closeSent && s.finished() && s.state.attached():
		return fmt.Errorf("finished, and no CLOSE is due")
	case s.state == Ended && r.reserved != 0:
		return fmt.Errorf("ended with %d bytes of the budget", r.reserved)
	case s.state != Ended && r.reserved < r.window:
		return fmt.Errorf("a window of %d, reserved are %d", r.window, r.reserved)
	}
	return nil
}

func (l *sendLog) checkPositions() error {
	final := l.final()
	switch {
	case !before(l.base, l.unsent), !before(l.unsent, l.sent), !before(l.sent, l.max), !before(l.max, final):
		return fmt.Errorf("base %v, unsent %v, sent %v, max %v, the end %v: out of order",
			l.base, l.unsent, l.sent, l.max, final)
	case l.pinned && l.pin > l.max.B:
		return fmt.Errorf("pin %d beyond max %v", l.pin, l.max)
	}
	return nil
}

func (l *sendLog) check() error {
	if err := l.checkPositions(); err != nil {
		return err
	}
	if l.gone || l.base.B == l.end.B {
		if len(l.segs) > 0 && !l.pinned {
			return fmt.Errorf("%d segments for nothing", len(l.segs))
		}
		return nil
	}
	if len(l.segs) == 0 {
		return fmt.Errorf("no segments for %d bytes", l.size())
	}
	if first := &l.segs[0]; first.at > l.base.B || !l.pinned && first.at+uint64(first.n) <= l.base.B {
		return fmt.Errorf("the first segment is [%d, +%d), base %v", first.at, first.n, l.base)
	}
	at := l.segs[0].at
	for i := range l.segs {
		s := &l.segs[i]
		if s.at != at || s.n == 0 || s.n > len(s.buf) || i < len(l.segs)-1 && s.n != len(s.buf) {
			return fmt.Errorf("segment %d is [%d, +%d) of %d, expected at %d", i, s.at, s.n, len(s.buf), at)
		}
		at += uint64(s.n)
	}
	if at != l.end.B {
		return fmt.Errorf("the segments end at %d, the log at %v", at, l.end)
	}
	marks := 0 // those that are where a frame begins
	for p, i := l.base, l.find(l.base.B); p.N < l.end.N; {
		if marks < len(l.marks) && l.marks[marks].at == p {
			marks++
		}
		if s := &l.segs[i]; s.first >= 0 && s.at+uint64(s.first) == p.B && s.firstN != p.N {
			return fmt.Errorf("segment %d says that %d begins at %v", i, s.firstN, p)
		} else if s.first < 0 || s.at+uint64(s.first) > p.B {
			if p != l.base { // before base may lie the first of a segment that was cut by a restore
				return fmt.Errorf("segment %d does not know of %v", i, p)
			}
		}
		var n uint64
		n, i = l.length(i, p.B)
		p.N++
		p.B += n
	}
	skips := uint64(0)
	for i, m := range l.marks {
		if i >= marks || m.skipped && m.at.N > l.max.N {
			return fmt.Errorf("mark %d at %v", i, m.at)
		}
		if m.skipped {
			skips++
		}
	}
	if skips != l.skips && !l.gone {
		return fmt.Errorf("%d marks are skipped, counted are %d", skips, l.skips)
	}
	return nil
}

func before(a, b Position) bool { return a.N <= b.N && a.B <= b.B }

// end is the position behind the last datagram that has arrived.
func (r *recvSide) end() Position {
	if r.fin {
		return Position{r.arrived.N - 1, r.arrived.B}
	}
	return r.arrived
}

func (r *recvSide) checkPositions() error {
	switch {
	case !before(r.taken, r.end()):
		return fmt.Errorf("taken %v beyond arrived %v", r.taken, r.arrived)
	case !r.stopped && !before(r.here, r.arrived):
		return fmt.Errorf("here %v beyond arrived %v", r.here, r.arrived)
	case !before(r.done, r.arrived):
		return fmt.Errorf("done %v beyond arrived %v", r.done, r.arrived)
	}
	return nil
}

func (r *recvSide) check(consumed bool) error {
	if err := r.checkPositions(); err != nil {
		return err
	}
	end := r.end()
	n, b, waiting := r.taken.N, r.taken.B, uint64(0)
	for _, q := range r.queue {
		n += uint64(q.N)
		b += uint64(len(q.Raw)) + q.skip
		waiting += uint64(len(q.Raw))
		if q.N == 0 || len(q.Raw) == 0 == (q.skip == 0) {
			return fmt.Errorf("a queued run of %d, %d bytes, skipped %d", q.N, len(q.Raw), q.skip)
		}
	}
	switch {
	case !r.stopped && (n != end.N || b != end.B):
		return fmt.Errorf("the queue ends at (%d, %d), expected %v", n, b, end)
	case waiting != r.waiting:
		return fmt.Errorf("%d bytes wait, counted %d", waiting, r.waiting)
	}
	if !consumed {
		return nil
	}
	n, b = r.done.N, r.done.B
	open := 0
	for _, z := range r.sizes {
		n++
		b += z.length
		if !z.skip {
			open++
		}
	}
	if open != r.open {
		return fmt.Errorf("%d datagrams to finish with, counted %d", open, r.open)
	}
	if taken := r.taken; r.done != r.arrived && before(r.done, taken) && (n != taken.N || b != taken.B) {
		return fmt.Errorf("done and sizes reach (%d, %d), taken is %v", n, b, taken)
	}
	return nil
}
