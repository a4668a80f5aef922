package reconnect

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// finishEnd takes the machine's end. mu is held.
func (s *sess) finishEnd() {
	if s.dial != nil && s.dial.renew() {
		return
	}
	s.ended = true
	s.reason = s.why(s.m.Err())
	if s.timer != nil {
		s.timer.Stop()
	}
	err := s.reason
	if err == nil {
		if err = io.EOF; s.closing {
			err = ErrClosed
		}
		s.reason = err
	}
	s.end.close()
	s.recall(s.link)
	s.notify()
	s.room.broadcast()
	s.events = append(s.events, Event{Kind: EventClosed, Time: time.Now(), Err: err})
}

// why puts the machine's error into this package's words. mu is held.
func (s *sess) why(err error) error {
	var (
		closed   *session.ClosedError
		rejected *session.RejectError
		lost     *session.LostError
		protocol *session.ProtocolError
	)
	switch {
	case err == nil:
		if s.cause != nil {
			return s.cause
		}
		return nil
	case errors.Is(err, session.ErrAborted):
		return s.cause
	case errors.As(err, &closed):
		switch closed.Reason {
		case session.CloseTakenOver:
			return ErrTakenOver
		case session.CloseProtocol:
			return &sessionError{ErrProtocol, "it says that this side did", err}
		case session.CloseDone:
			return ErrPeerClosed
		case session.CloseShutdown:
			if s.cause != nil {
				return s.cause // it was this side's listener
			}
			return s.lostError(closed.Reason.String(), err)
		}
		return &sessionError{ErrPeerClosed, closed.Reason.String(), err}
	case errors.As(err, &rejected):
		switch reason := rejected.Reason; {
		case reason == session.ReasonTakenOver:
			return ErrTakenOver
		case reason == session.ReasonClosed:
			return &sessionError{ErrPeerClosed, "it had ended before", err}
		case reason.Lost():
			return s.lostError(rejected.Error(), err)
		case reason.Again():
			return &sessionError{ErrBusy, reason.String(), err}
		}
		return &sessionError{ErrRefused, rejected.Reason.String(), err}
	case errors.As(err, &lost):
		return s.lostError(lost.Reason.String(), err)
	case errors.As(err, &protocol):
		return &sessionError{ErrProtocol, strings.TrimPrefix(protocol.Error(), "the peer broke the session protocol "), err}
	}
	return err
}

func (s *sess) lostError(reason string, err error) error {
	e := &SessionLostError{Reason: reason, Err: err}
	for d := range s.m.Unconfirmed {
		e.Unconfirmed = append(e.Unconfirmed, d)
	}
	return e
}

// abort ends the session at once, for the first reason given, and tells the peer if that takes no wait.
func (s *sess) abort(err error) {
	if isEOF(err) {
		err = notEOF{err} // some dialer's, or the program's: not the end of the peer's stream
	}
	s.mu.Lock()
	if s.ended {
		s.brutal = true
		s.limitGoodbye() // cut short, but not before the peer was told why
		s.mu.Unlock()
		return
	}
	s.cause, s.brutal = err, true
	s.m.Abort()
	s.note()
	l, free := s.link, !s.writing
	tell := false
	if l != nil && free {
		s.writing = true
		tell = s.m.Pull(s.clock.now(), &l.out)
	}
	s.mu.Unlock()
	if s.dial != nil {
		s.dial.cancel()
	}
	if l == nil {
		s.finalize()
		return
	}
	_ = l.nc.SetReadDeadline(longAgo) // its reader parts, and closes it
	if !free {
		return
	}
	if tell {
		_ = l.nc.SetWriteDeadline(time.Now().Add(lastWords))
		_ = l.write(l.out.Vec) // nothing can be done about an error
	}
	s.mu.Lock()
	s.m.Wrote()
	s.rest(l)
	s.mu.Unlock()
}

// lastWords bounds how long a connection outlives CloseNow, to tell the peer.
const lastWords = 20 * time.Millisecond

// finalize tells that everything has ended. It must be called once the session has no connection any more.
func (s *sess) finalize() {
	if s.serve != nil {
		s.serve.l.remove(s)
	}
	s.mu.Lock()
	s.over.close()
	s.mu.Unlock()
	s.c.over()
}

func (s *sess) fail(err error) { s.abort(err) }

func (s *sess) giveUp(ctx context.Context) {
	select {
	case <-s.ending(): // its last word is under way
		select {
		case <-s.done():
		case <-ctx.Done():
		}
	default:
	}
	s.abort(ErrClosed)
}

// shutdown ends a listener's session, and takes the time to tell the dialer.
func (s *sess) shutdown() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.cause = ErrClosed
	s.m.Shutdown()
	l := s.link
	s.settle(false)
	s.notify()
	if l == nil {
		s.finalize()
		return
	}
	_ = l.nc.SetReadDeadline(longAgo) // its reader parts
}

func (s *sess) closeNow() {
	s.drop()
	s.abort(ErrClosed)
}

// close waits until both sides know that all is said. finish came before it.
func (s *sess) close(ctx context.Context) {
	s.mu.Lock()
	s.awaiting++ // the peer's last word, for good
	s.recall(s.link)
	s.mu.Unlock()
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-s.ending():
	case <-ctx.Done():
	case <-timer.C:
	}
	s.mu.Lock()
	if s.ended && s.cause == nil && isEOF(s.reason) {
		s.reason = ErrClosed
	}
	ended := s.ended
	s.mu.Unlock()
	if !ended {
		s.abort(ErrClosed)
	}
	select {
	case <-s.done():
	case <-ctx.Done():
		s.abort(ErrClosed)
	}
}

func (s *sess) done() <-chan struct{} { return s.waitFor(&s.over) }

// ending returns a channel that is closed when the machine has ended, which is before done.
func (s *sess) ending() <-chan struct{} { return s.waitFor(&s.end) }

func (s *sess) waitFor(g *gate) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return g.wait()
}

func (s *sess) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return s.reason
	case s.m.EOF():
		return io.EOF
	}
	return nil
}

func (s *sess) netConn() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *sess) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return Closed
	case s.m.State() == session.Live:
		return Connected
	case s.m.Confirmed():
		return Disconnected
	case s.serve != nil && s.m.State() == session.Greeting:
		return Connected
	case s.serve != nil:
		return Disconnected
	}
	return Connecting
}

// unconfirmed returns copies of what was accepted and not acknowledged.
func (s *sess) unconfirmed() []datagram.Datagram {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ds []datagram.Datagram
	for d := range s.m.Unconfirmed {
		ds = append(ds, d)
	}
	return ds
}

func (s *sess) stats() Stats {
	s.rmu.Lock()
	received := s.received
	s.rmu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.m.Stats()
	return Stats{
		Sent: m.Accepted, Received: received, Queued: m.Unsent, QueuedBytes: int(m.UnsentSize),
		Unconfirmed: m.Unacked, UnconfirmedBytes: int(m.UnackedSize), OldestUnconfirmed: s.m.Oldest(s.clock.now()),
		Epoch: m.Epoch, Resumes: m.Resumes, Lost: s.lost, Replayed: m.Replayed, Duplicates: m.Duplicates,
		Expired: m.Expired, Credit: int(min(m.Credit, maxInt)), Waiting: int(m.Waiting), Window: int(m.Window), RTT: m.RTT,
	}
}
