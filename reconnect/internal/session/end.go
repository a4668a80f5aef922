package session

import (
	"fmt"
	"io"
	"math"
)

// end ends the session. Only the first call counts.
func (s *Session) end(err error) {
	if s.state == Ended {
		return
	}
	s.state, s.err = Ended, err
	s.first, s.greeting, s.exporter, s.private = nil, nil, nil, nil
	s.closeDue = false
	s.recv.ackAt, s.partialAt = 0, 0
	if s.cfg.Reserve != nil && s.recv.reserved > 0 {
		s.cfg.Reserve(-int64(s.recv.reserved))
	}
	s.recv.reserved = 0
}

// lastWord is why a session ends of which both streams have ended, when the CLOSE that says so was lost: nil, or that the
// peer had stopped before it took everything.
func (s *Session) lastWord() error {
	if s.Stats().Unacked > 0 {
		return &ClosedError{CloseDone}
	}
	return nil
}

// fail ends the session for a fault of the peer's, which a last CLOSE tells it.
func (s *Session) fail(err error) error {
	s.farewell(err, CloseProtocol)
	return err
}

// farewell ends the session with a last CLOSE, if there is a connection that may carry one. A WELCOME or RESUMED that
// was not pulled goes before it: without, the peer would not take it.
func (s *Session) farewell(err error, reason CloseReason) {
	tell, first := s.answered(), s.first
	s.end(err)
	if tell {
		s.first, s.closeDue, s.closeReason = first, true, reason
	}
}

// mistrust is fail for what anybody may have sent: before the listener has proved itself on a connection, only that is
// given up, and the error returned.
func (s *Session) mistrust(err error) error {
	if s.state.attached() && !s.answered() {
		return err
	}
	return s.fail(err)
}

func (s *Session) broke(what string, got any, expected, rule string) error {
	return &ProtocolError{
		Role: s.role, State: s.state, What: what, Got: fmt.Sprint(got), Expected: expected, Rule: rule,
	}
}

func (s *Session) unexpected(what string) error {
	return s.mistrust(s.broke("a frame", what, "one that the state allows", "R-104"))
}

func (s *Session) tooFar() error {
	return s.fail(s.broke("a position", "more", "at most 2^64-1", "R-110"))
}

// Renew makes a lost session of a dialer a new one, with what is unconfirmed, and reports whether it could: not if one
// of the streams has ended, or after Release. It reads 80 bytes from rand. The counts that the application sees go on.
func (s *Session) Renew(rand io.Reader) (bool, error) {
	if s.role != Dialer || s.state != Ended || s.recv.fin || s.stopped || s.finAcked || s.log.gone {
		return false, nil
	}
	if err := s.identity(rand); err != nil {
		return false, err
	}
	l, r := &s.log, &s.recv
	if l.max.N > l.end.N {
		l.max = l.end
	}
	s.redelivered = l.max.N - l.base.N
	l.origin = l.base.sub(s.cfg.Start)
	l.unsent, l.sent = l.base, l.base
	s.credit = plus(l.base.B, InitialCredit)

	r.origin = r.arrived.sub(s.cfg.Start)
	r.here = r.arrived
	r.credit = r.arrived.B
	for i := range r.queue {
		r.queue[i].old = true
	}
	r.stale += r.open
	r.sizes, r.open, r.done = nil, 0, r.arrived
	r.unstated = 0
	r.window, r.reserved = s.cfg.MinWindow, s.cfg.MinWindow
	r.heldAt, r.went, r.stalled, r.enough = 0, 0, 0, false

	s.state, s.err = New, nil
	s.peerMax, s.peerFlags = math.MaxUint32, 0
	s.longest = 0
	for d := range l.unconfirmed {
		s.longest = max(s.longest, uint64(len(d.Payload)))
	}
	s.closeDue, s.closeSent = false, false
	return true, nil
}
