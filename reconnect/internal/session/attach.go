package session

import (
	"bytes"
	"math"
	"time"
)

// Dial begins a connection of a dialer, detached so far: it raises the epoch, and Pull then gives HELLO or RESUME.
// Exporter is the channel's exporter value, or nil; token is the application's. After the end it does nothing.
func (s *Session) Dial(now time.Duration, exporter, token []byte) {
	if s.state == Ended {
		return
	}
	s.epoch++
	s.reset(now)
	s.exporter = bytes.Clone(exporter)
	if s.state == Detached {
		s.state = Resuming
		r := Resume{
			Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, ID: s.id, Epoch: s.epoch,
			Status: s.status(), Token: token,
		}
		r.Received = s.recv.arrived.sub(s.recv.origin)
		s.greeting = AppendResume(nil, &r, s.keys.Dialer, exporter)
	} else {
		s.state = Greeting
		if s.epoch > MaxHellos {
			s.end(&LostError{ReasonUnknown})
			return
		}
		s.grant()
		h := Hello{
			Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, ID: s.id, Epoch: s.epoch,
			PublicKey: s.public, Link: Link(s.secret, s.epoch), Redelivered: s.redelivered,
			Credit: s.recv.credit - s.recv.origin.B, Token: token,
		}
		s.greeting = h.Append(nil)
	}
	s.first = s.greeting
}

func (s *Session) flags() uint16 {
	if s.cfg.Consumed {
		return FlagConsumed
	}
	return 0
}

// reset prepares for a new connection.
func (s *Session) reset(now time.Duration) {
	s.log.rewind()
	s.recv.here = s.recv.arrived
	s.lastRead, s.waitSince, s.pingAt = now, now, now
	s.pinged, s.waitPong = false, false
	s.partialAt, s.recv.ackAt = 0, 0
	s.ackDue, s.pongDue, s.pingDue, s.moved, s.closeSent = false, false, false, false, false
	s.confirmDue, s.refused = false, false
	s.stopDue, s.flushDue = s.recv.stopped, s.flushTo > s.log.base.N
	s.closing()
}

// Again reports whether a HELLO with the id of this listener's session may take it over: nil, or why not,
// . It changes nothing.
func (s *Session) Again(h *Hello) error {
	switch {
	case s.state == Ended || s.Confirmed():
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	case h.PublicKey != s.peer || !VerifyLink(s.link, s.epoch, h.Link, h.Epoch):
		return &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
	case h.MaxPayload != s.peerMax || h.Flags != s.peerFlags:
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	}
	return nil
}

// Verify reports whether a RESUME has the proof of this listener's session: frame is all of it. It changes nothing. A
// session for which nobody has had the proof yet may have been begun by a HELLO that somebody repeated to a listener
// that was started again: to the dialer its own session is unknown here, and not one that it may not have.
func (s *Session) Verify(frame, exporter []byte) error {
	switch {
	case s.state != Ended && VerifyResume(frame, s.keys.Dialer, exporter):
		return nil
	case s.state != Ended && !s.proved:
		return &RejectError{Reject: Reject{Reason: ReasonUnknown}}
	}
	return &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
}

// Check reports whether a RESUME, of which the proof and the principal are right, may take this listener's session
// over: nil, or why not. It changes nothing.
func (s *Session) Check(r *Resume) error {
	switch {
	case r.MaxPayload != s.peerMax || r.Flags != s.peerFlags:
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	case r.Epoch <= s.epoch:
		return &RejectError{Reject: Reject{Reason: ReasonTakenOver}}
	}
	return nil
}

// Fence raises the epoch of a listener's session to that of a connection which Again or Check let pass. From now on the
// old connection changes nothing; when its reader and its writer are gone, Welcome or Resumed follows.
func (s *Session) Fence(epoch uint64, link [32]byte) {
	s.missed = s.missed || epoch-s.epoch > 1
	s.epoch = epoch
	if !s.Confirmed() {
		s.link = link
	}
	s.Detach()
}

// Welcome attaches a listener's session to the connection that brought HELLO, of which frame is all. It does nothing if
// the session has ended, as it may while the old connection is waited for.
func (s *Session) Welcome(now time.Duration, frame, exporter []byte) {
	if s.state == Ended {
		return
	}
	s.reset(now)
	if h, err := ParseHello(frame); err == nil && s.missed {
		s.redelivered = max(s.redelivered, h.Redelivered)
	}
	s.missed = false
	s.recv.here = s.recv.origin.add(s.cfg.Start)
	s.state = Greeting
	w := Welcome{
		Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, Epoch: s.epoch, Instance: s.instance,
		PublicKey: s.public, Expiry: millis(s.cfg.Expiry), Status: s.status(),
	}
	w.Received = s.recv.arrived.sub(s.recv.origin)
	s.first = AppendWelcome(nil, &w, frame, s.keys.Listener, exporter)
	s.ackDue = s.cfg.Consumed && s.recv.arrived != s.cfg.Start // WELCOME then acknowledges nothing
}

// Resume attaches a listener's session to the connection that brought RESUME, of which frame is all. The error is a
// RejectError: positions do not fit, and the session has ended with a ProtocolError; or it had ended before, as
// it may while the old connection is waited for.
func (s *Session) Resume(now time.Duration, r *Resume, frame, exporter []byte) error {
	if s.state == Ended {
		return &RejectError{Reject: Reject{Reason: ReasonUnknown}}
	}
	s.proved = true
	s.reset(now)
	err := s.resumeAt(now, r)
	if err != nil {
		s.end(err)
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	}
	s.live(true)
	a := Resumed{Epoch: s.epoch, Expiry: millis(s.cfg.Expiry), Status: s.status()}
	a.Received = s.recv.arrived.sub(s.recv.origin)
	a.Sent = r.Received
	s.first = AppendResumed(nil, &a, frame, s.keys.Listener, exporter)
	s.ackDue, s.moved = s.cfg.Consumed, false // RESUMED then acknowledges nothing
	return nil
}

func (s *Session) resumeAt(now time.Duration, r *Resume) error {
	begin, has := r.Sent.after(s.recv.origin), r.Received.after(s.log.origin)
	switch {
	case begin.N > s.recv.arrived.N || begin.B > s.recv.arrived.B:
		return s.broke("RESUME, sent", begin, "at most "+s.recv.arrived.String(), "R-122")
	case has.N < s.log.base.N:
		return s.broke("RESUME, received", has, "at least "+s.log.base.String(), "R-122")
	}
	s.recv.here = begin
	check := s.acknowledged
	if s.peerFlags&FlagConsumed != 0 {
		check = func(_ time.Duration, p Position) error { return s.has(p) } // it acknowledges nothing
	}
	if err := check(now, has); err != nil {
		return err
	}
	s.log.unsent = has
	s.raise(r.Credit)
	return nil
}

// Detach tells that the connection is gone: its reader has ended, or no longer matters. The writer may still be at work;
// no other connection may be attached before it has ended.
func (s *Session) Detach() {
	switch s.state {
	case Greeting:
		s.state = New
		s.redelivered = s.perhapsDelivered()
	case Resuming, Live:
		s.unanswered = s.state == Resuming
		s.state = Detached
	default:
		return
	}
	s.first, s.greeting, s.exporter = nil, nil, nil
	s.recv.rest()
}

// perhapsDelivered returns what the next HELLO has to say: what was sent behind this one, which has no answer, may
// have been delivered by a listener that does not know it when the next comes.
func (s *Session) perhapsDelivered() uint64 {
	if s.role == Listener || s.state != Greeting && s.state != New || s.refused {
		return s.redelivered
	}
	return max(s.redelivered, min(s.log.sent.N, s.log.end.N)-s.log.base.N)
}

// plus adds without going over the largest.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func millis(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}
