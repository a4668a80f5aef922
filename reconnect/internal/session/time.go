package session

import (
	"time"
)

// unconfirmed reports whether something that was accepted, the end of the stream included, is not acknowledged.
func (s *Session) unconfirmed() bool { return !s.stopped && s.log.base.N < s.log.final().N }

// alive returns when there was the last sign of life, and how long the silence may be until a PING.
func (s *Session) alive() (last, ping time.Duration) {
	if !s.answered() {
		return s.lastRead, s.cfg.AnswerTimeout / 2
	}
	if s.unconfirmed() {
		return max(s.lastRead, s.waitSince), s.cfg.PingAfter / 2
	}
	return s.lastRead, s.cfg.PingAfter
}

// silence returns when it has to be broken by a PING, and when it has been too long. There is one time for both where
// there is nothing to ask any more. A listener asks a quarter later than a dialer, so that on a quiet connection one of
// them asks and both hear.
func (s *Session) silence() (ask, dead time.Duration) {
	last, ping := s.alive()
	ask, dead = last+ping, last+2*ping
	switch {
	case s.pinged || !s.answered():
		ask = dead
	case s.role == Listener:
		ask += ping / 4
	}
	return ask, dead
}

// Deadline returns when to call Tick, if ever, and how much later will do as well: some time, where it is only about
// asking a peer of whom nothing is wanted, so that who has many sessions may tick them together. Deadline may come earlier
// after any other call, Read included: what has come in is to be acknowledged.
func (s *Session) Deadline() (at, slack time.Duration, ok bool) {
	if !s.state.attached() {
		return 0, 0, false
	}
	at, dead := s.silence()
	if at < dead && !s.unconfirmed() {
		slack = min(s.cfg.PingAfter/64, maxSlack)
	}
	if due := s.recv.ackAt; due != 0 && due < at {
		at, slack = due, 0
	}
	if due := s.partialAt; due != 0 && due < at {
		at, slack = due, 0
	}
	return at, slack, true
}

// maxSlack is far less than the lateness by which a timer shows that the machine has slept.
const maxSlack = lateTimer / 8

// Tick does what is due, and reports whether the connection has to be given up as dead.
func (s *Session) Tick(now time.Duration) (dead bool) {
	if !s.state.attached() {
		return false
	}
	if at := s.recv.ackAt; at != 0 && now >= at {
		s.recv.ackAt = 0
		s.ackDue = true
	}
	if s.partialAt != 0 && now >= s.partialAt {
		s.partialAt = 0
		s.ackDue = true
	}
	ask, end := s.silence()
	switch {
	case now < ask:
	case now-ask > lateTimer, ask < end && now >= end:
		s.lastRead = now // it was this machine that slept
		s.pingDue, s.pinged = s.answered(), true
	case ask < end:
		s.pingDue, s.pinged = true, true
		if !s.unconfirmed() {
			s.narrow()
		}
	default:
		return true
	}
	return false
}

// Events returns what has happened since the last call.
func (s *Session) Events() []Event {
	e := s.events
	s.events = nil
	return e
}

// Stats returns the counters and gauges of this moment.
func (s *Session) Stats() Stats {
	l, r := &s.log, &s.recv
	st := Stats{Counters: s.stats, State: s.state, Epoch: s.epoch}
	st.Arrived = r.arrived.N - s.cfg.Start.N
	if r.fin {
		st.Arrived--
	}
	st.Unsent, st.UnsentSize = l.end.N-min(l.end.N, l.unsent.N), l.end.B-l.unsent.B
	st.Unacked, st.UnackedSize = l.end.N-min(l.end.N, l.base.N+l.skips), l.size()
	st.Waiting, st.Window = r.waiting, r.window
	st.Credit = s.credit - min(s.credit, l.unsent.B)
	st.RTT = s.rtt
	return st
}
