package session

import (
	"errors"
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Accepting returns nil while the application may append datagrams.
func (s *Session) Accepting() error {
	switch {
	case s.state == Ended && s.err != nil:
		return s.err
	case s.state == Ended, s.log.fin:
		return ErrFinished
	case s.stopped:
		return ErrStopped
	}
	return nil
}

// Why a session takes no more datagrams, though it has not ended with an error.
var (
	// ErrFinished: this side has ended its stream.
	ErrFinished = errors.New("session: this side has ended its stream")
	// ErrStopped: the peer takes no more.
	ErrStopped = errors.New("session: the peer takes no more")
)

// Room reports whether the log takes a datagram.
func (s *Session) Room() bool { return s.log.size() < s.cfg.SendBuffer }

// Append accepts one datagram, whatever Room says. The payload is copied. An error means that it was not accepted:
// Accepting's, ErrExhausted, or one that matches datagram.ErrTooLarge. Deadline is when it is not to be sent any more; 0
// is never.
func (s *Session) Append(now time.Duration, d datagram.Datagram, deadline time.Duration) error {
	if err := s.Accepting(); err != nil {
		return err
	}
	if limit := min(s.cfg.MaxPayload, s.peerMax); uint64(len(d.Payload)) > uint64(limit) {
		return &datagram.FrameError{
			Err: datagram.ErrTooLarge, Sending: true, Value: uint64(len(d.Payload)), Limit: uint64(limit),
		}
	}
	n := frameLen(len(d.Payload))
	l := &s.log
	if l.end.N >= math.MaxUint64-2 || l.end.B > math.MaxUint64-n { // the end of the stream needs a number too
		return ErrExhausted
	}
	if l.base == l.end {
		s.waitSince = now
	}
	if deadline != 0 && n <= math.MaxUint32 { // SKIP has no room for more
		l.marks = append(l.marks, mark{at: l.end, length: uint32(n), deadline: deadline})
	}
	l.append(d)
	if !s.welcomed {
		s.longest = max(s.longest, uint64(len(d.Payload)))
	}
	s.stats.Accepted++
	return nil
}

// Finish ends this side's stream. It is idempotent.
func (s *Session) Finish(now time.Duration) {
	if s.log.fin || s.state == Ended {
		return
	}
	if s.log.base == s.log.end {
		s.waitSince = now
	}
	s.log.fin = true
	s.closing()
}

// Stop says that the application takes no more: what has arrived and was not taken is dropped, as is what comes.
// It is idempotent.
func (s *Session) Stop() {
	r := &s.recv
	if r.stopped || s.state == Ended {
		return
	}
	r.stopped = true
	r.queue, r.small, r.waiting = nil, nil, 0
	s.stopDue = !r.fin || s.acking() != r.arrived // what nobody will finish with is not acknowledged
	s.closing()
}

// Abort ends the session at once. A last Pull gives the CLOSE, if there is a connection that may carry one.
func (s *Session) Abort() { s.abort(ErrAborted, CloseAborted) }

// Shutdown ends a listener's session at once, and tells the dialer to come back later.
func (s *Session) Shutdown() { s.abort(&ClosedError{CloseShutdown}, CloseShutdown) }

func (s *Session) abort(err error, reason CloseReason) {
	if s.state == Ended {
		return
	}
	s.farewell(err, reason)
}

// Drop ends a listener's session that expired or has to make room.
func (s *Session) Drop(reason Reason) {
	if s.state == Ended {
		return
	}
	if s.finished() {
		s.end(s.lastWord()) // only that of the dialer is missing
		return
	}
	s.end(&LostError{reason})
}

// Goaway makes a listener tell its peer to leave.
func (s *Session) Goaway(delay, spread time.Duration) {
	s.goaway, s.goawayDelay, s.goawaySpread = true, millis(delay), millis(spread)
}

// Flush asks the peer to acknowledge, as soon as it has it, all that was accepted so far. It returns the number that
// Acked must reach.
func (s *Session) Flush() uint64 {
	s.flushTo = s.log.final().N
	s.flushDue = s.flushTo > s.log.base.N
	return s.flushTo
}

// Acked returns how many datagrams the peer has acknowledged, and Accepted how many were accepted, since the beginning;
// the end of the stream counts as one.
func (s *Session) Acked() uint64 { return s.log.base.N }

// Accepted returns how many datagrams were accepted.
func (s *Session) Accepted() uint64 { return s.log.end.N }

// Idle reports whether everything that was accepted is acknowledged, but for the end of the stream.
func (s *Session) Idle() bool { return s.log.base == s.log.end }

// Pending returns how many bytes of datagrams were accepted and not pulled on this connection.
func (s *Session) Pending() uint64 { return s.log.end.B - s.log.unsent.B }

// Stopped reports whether the peer takes no more.
func (s *Session) Stopped() bool { return s.stopped }

// Oldest returns for how long something has been unconfirmed and nothing of it acknowledged; 0 if nothing is.
func (s *Session) Oldest(now time.Duration) time.Duration {
	if !s.unconfirmed() {
		return 0
	}
	return now - s.waitSince
}

// Arrived returns how many datagrams have arrived, since the beginning; the end of the stream counts as one.
func (s *Session) Arrived() uint64 { return s.recv.arrived.N }

// ArrivedOnWire returns the position up to which the peer's stream has arrived, as REJECT states it; with
// Config.Consumed, up to which the application has finished with it.
func (s *Session) ArrivedOnWire() Position { return s.acking().sub(s.recv.origin) }

// Finished reports whether this side's stream has ended: acknowledged to its end, or stopped by the peer.
func (s *Session) Finished() bool { return s.finAcked || s.stopped }

// finished reports whether both streams have ended, and each side can know that of its own.
func (s *Session) finished() bool {
	return s.Finished() && (s.recv.stopped || s.recv.fin && s.acking() == s.recv.arrived)
}

// Done reports whether both streams have ended, so that only CLOSE is missing.
func (s *Session) Done() bool { return s.finished() }

// Unconfirmed yields what was accepted and not acknowledged, in order, but for skipped datagrams.
func (s *Session) Unconfirmed(yield func(datagram.Datagram) bool) { s.log.unconfirmed(yield) }

// Release gives back the memory of a session that has ended, after which there is nothing unconfirmed to yield. What a
// write still reads goes back with Wrote.
func (s *Session) Release() {
	if s.state == Ended {
		s.log.drop()
	}
}
