package session

import (
	"time"
)

// Out is what Pull gives out, to be written in this order. It may be used again for the next Pull.
type Out struct {
	Vec  [][]byte
	vec  [][]byte // the memory of Vec
	head []byte
	tail []byte
}

// Clear lets go of what the last Pull gave, once nobody reads it any more, and of memory that is more than a common one
// takes.
func (o *Out) Clear() {
	clear(o.vec)
	o.Vec, o.vec = nil, o.vec[:0]
	if cap(o.head) > largeOut || cap(o.tail) > largeOut {
		o.head, o.tail = nil, nil
	}
}

// largeOut is more than control frames take but where datagrams were skipped, or a greeting has a token.
const largeOut = 256

// Pull gives out what is to be written next, and reports whether there is anything. What it gave must be written whole,
// or the connection be closed; after the write comes Wrote. Until then the bytes do not change, whatever is called.
func (s *Session) Pull(now time.Duration, out *Out) bool {
	clear(out.vec)
	out.Vec, out.vec = nil, out.vec[:0]
	out.head, out.tail = out.head[:0], out.tail[:0]
	if s.state == Ended {
		if s.closeDue {
			s.closeDue = false
			out.head = append(out.head, s.first...)
			s.first = nil
			out.head = s.control(out.head, Control{Kind: KindClose, Reason: s.closeReason})
			out.Vec = append(out.Vec, out.head)
			return true
		}
		return false
	}
	if !s.state.attached() {
		return false
	}
	out.head = append(out.head, s.first...)
	s.first = nil
	answered := s.answered()
	if answered {
		out.head = s.pullStatus(now, out.head)
	}
	if s.stopDue {
		s.stopDue = false
		out.head = s.control(out.head, Control{Kind: KindStop})
	}
	out.vec = append(out.vec, nil)
	if !s.stopped {
		out.head = s.pullData(now, out)
	}
	if answered && s.flushDue && (s.stopped || s.log.unsent.N >= s.flushTo) {
		s.flushDue = false
		out.tail = s.ping(now, out.tail)
	}
	if answered && s.closeDue {
		s.closeDue, s.closeSent = false, true
		out.tail = s.control(out.tail, Control{Kind: KindClose, Reason: s.closeReason})
	}
	out.vec[0] = out.head
	if len(out.tail) > 0 {
		out.vec = append(out.vec, out.tail)
	}
	if out.Vec = out.vec; len(out.head) == 0 {
		out.Vec = out.vec[1:]
	}
	if len(out.Vec) > 0 {
		s.partialAt = 0
	}
	return len(out.Vec) > 0
}

// answered reports whether control frames may be sent: a dialer that waits for WELCOME or RESUMED sends but STOP, SKIP
// and FIN.
func (s *Session) answered() bool {
	return s.state == Live || s.state == Greeting && s.role == Listener
}

// Pulls reports whether Pull would give something.
func (s *Session) Pulls() bool {
	if s.state == Ended {
		return s.closeDue
	}
	if !s.state.attached() {
		return false
	}
	l := &s.log
	switch {
	case s.first != nil, s.stopDue:
		return true
	case s.hasData():
		return true
	case !s.stopped && l.fin && l.unsent.N == l.end.N:
		return true
	case !s.answered():
		return false
	}
	return s.pongDue || s.pingDue || s.ackDue || s.moved || s.goaway || s.closeDue ||
		s.flushDue && (s.stopped || l.unsent.N >= s.flushTo)
}

// Spares reports whether what Pull would give is at most an acknowledgement, and one that Deadline thinks of: then it may
// wait for a write that happens anyway.
func (s *Session) Spares() bool {
	if !s.ackDue || s.recv.ackAt == 0 || s.state != Live {
		return !s.Pulls()
	}
	s.ackDue = false
	spares := !s.Pulls()
	s.ackDue = true
	return spares
}

// hasData reports whether a datagram, or what takes its place, may be written.
func (s *Session) hasData() bool {
	l := &s.log
	return !s.stopped && l.unsent.N < l.end.N && l.unsent.B < s.limit()
}

// limit is the position below which datagrams may begin now. Before a RESUME is answered it is close: the answer may say
// that the peer has what is about to be sent again, and on a connection that lives for a few bytes only, a long replay
// would leave no time for it, so that each of them would be spent on the same bytes.
//
// If the connection before ended without an answer nothing goes behind the next RESUME: on connections so short it is the
// answer that brings the session on, and what was sent with the question may have been all that they carried.
func (s *Session) limit() uint64 {
	switch {
	case s.state == Resuming && s.unanswered:
		return s.log.base.B
	case s.state == Resuming:
		return min(s.credit, plus(s.log.base.B, InitialCredit))
	}
	return s.credit
}

// pullStatus appends the control frames that go before data.
func (s *Session) pullStatus(now time.Duration, out []byte) []byte {
	// One that is to come within half of its time goes with a write that happens anyway.
	if at := s.recv.ackAt; at != 0 && now >= at-s.cfg.AckDelay/2 && s.hasData() {
		s.ackDue = true
	}
	if s.confirmDue {
		// No other frame may stand for it, though all of them have the status.
		s.confirmDue, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindAck})
	}
	if s.pongDue {
		s.pongDue, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindPong, Token: s.pongToken})
	}
	if s.pingDue {
		s.ackDue, s.moved = false, false
		out = s.ping(now, out)
	}
	if s.goaway {
		s.goaway, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindGoaway, Delay: s.goawayDelay, Spread: s.goawaySpread})
	}
	if s.ackDue || s.moved {
		s.ackDue, s.moved = false, false
		out = s.control(out, Control{Kind: KindAck})
	}
	return out
}

// pullData appends datagrams, what takes their place, and the end of the stream. It returns the new head.
func (s *Session) pullData(now time.Duration, out *Out) []byte {
	l := &s.log
	head := out.head
	upTo := l.end
	for i := l.nextMark(); i < len(l.marks); i++ {
		m := &l.marks[i]
		if m.at.B >= s.limit() || m.at.B-l.unsent.B >= 2*chunk {
			break // not of this Pull
		}
		if !l.expired(m, now) {
			continue
		}
		if m.at != l.unsent {
			upTo = m.at
			break
		}
		if l.unsent.B >= s.limit() {
			break
		}
		if !m.skipped {
			m.skipped = true
			l.skips++
			s.stats.Expired++
			s.events = append(s.events, Event{Kind: EventExpired, Number: m.at.N + 1})
		}
		head = s.control(head, Control{Kind: KindSkip, Length: m.length})
		l.advance(Position{m.at.N + 1, m.at.B + uint64(m.length)})
		if len(head) > chunk {
			return head
		}
	}
	if l.unsent.N < upTo.N && l.unsent.B < s.limit() {
		from, again := l.unsent.N, l.max.N
		out.vec = l.give(out.vec, s.limit(), chunk, upTo)
		if from < again {
			s.stats.Replayed += min(l.unsent.N, again) - from
		}
	}
	if l.fin && l.unsent.N == l.end.N {
		out.tail = s.control(out.tail, Control{Kind: KindFin})
		l.advance(l.final())
	}
	return head
}

// Wrote tells that what Pull gave was written, or that its write has ended without.
func (s *Session) Wrote() { s.log.unpin() }

// ping appends a PING.
func (s *Session) ping(now time.Duration, out []byte) []byte {
	s.pingDue, s.pinged, s.waitPong = false, true, true
	s.pingAt = now
	s.token++
	return s.control(out, Control{Kind: KindPing, Token: s.token})
}

// control appends a control frame with the status of this moment.
func (s *Session) control(out []byte, c Control) []byte {
	c.Status = s.status()
	return c.Append(out)
}

// status states everything, and grants what credit there is to grant.
func (s *Session) status() Status {
	s.grant()
	r := &s.recv
	r.unstated, r.ackAt = 0, 0
	return Status{
		Sent:     s.log.unsent.sub(s.log.origin),
		Received: s.acking().sub(r.origin),
		Credit:   r.credit - r.origin.B,
	}
}

// acking is what received means here.
func (s *Session) acking() Position {
	if s.cfg.Consumed {
		return s.recv.done
	}
	return s.recv.arrived
}
