package reconnect

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// attach makes l the connection, on which begin tells the machine to go on. It waits until the writer of the one before
// has ended, which has been closed. It returns false if the session has ended.
func (s *sess) attach(l *link, begin func(now time.Duration) error) (bool, error) {
	s.mu.Lock()
	for s.writing {
		changed := s.wrote.wait()
		s.mu.Unlock()
		<-changed // bounded: its connection was closed
		s.mu.Lock()
	}
	if s.ended || s.link != nil {
		s.mu.Unlock()
		return false, nil
	}
	if err := begin(s.clock.now()); err != nil {
		s.settle(false)
		return false, err
	}
	s.link, s.last = l, l.nc
	s.settle(false)
	return true, nil
}

// lose gives l up, if it still is the connection. mu is held.
func (s *sess) lose(l *link, err error) {
	if l == nil || s.link != l {
		return
	}
	err = s.explain(err)
	s.link = nil
	l.err = err
	s.recall(l)
	worked := s.m.State() == session.Live
	s.m.Detach()
	s.disarm()
	if worked && !s.ended {
		s.events = append(s.events, Event{Kind: EventDisconnected, Time: time.Now(), Err: err})
	}
	go closeNow(l.nc) // a transport's Close may take a while
}

// frames gives the machine what has arrived whole. mu is held.
func (s *sess) frames(l *link, fresh bool) error {
	now := s.clock.now()
	any := false
	for {
		run, err := l.dec.Frames()
		switch {
		case err != nil:
			return s.m.Bad(err)
		case run.N == 0:
			switch {
			case fresh && !any:
				s.m.Read(now, false)
			case now-l.dataAt >= restAfter:
				l.dec.Idle()
			}
			return nil
		}
		if run.Version == datagram.Version && s.dial != nil && s.m.State() == session.Greeting {
			return ErrNoSessions
		}
		if !any {
			any = true
			s.m.Read(now, true)
		}
		if run.Version == datagram.Version {
			l.dataAt = now
			err = s.m.Data(now, run)
		} else {
			live := s.m.State() == session.Live
			if err = s.m.Control(now, run.Raw); err == nil && live {
				run.Release() // of the greetings something may be kept
			}
		}
		if err != nil {
			return err
		}
		if s.m.State() == session.Ended {
			return nil
		}
	}
}

// restAfter is how long no datagram comes until a link's memory for receiving is given back. That happens when a control
// frame has come, as of an idle peer one does each PingAfter.
const restAfter = time.Second

// broken takes the end of l's stream, and returns why the reading ends. That of a frame is another: it comes from frames.
// mu is held.
func (s *sess) broken(l *link, err error) error {
	if s.ended {
		return s.reason
	}
	if isEOF(err) {
		err = errHungUp
	}
	s.lose(l, err)
	return l.err
}

// explain says what a connection that ended before there was an answer means, whoever found it first. mu is held.
func (s *sess) explain(err error) error {
	if s.dial == nil || s.m.State() != session.Greeting {
		return err
	}
	if errors.Is(err, errHungUp) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return &sessionError{ErrNoSessions, "it hung up at the first word", err}
	}
	return err
}

var errHungUp = errors.New("reconnect: the peer closed the connection")

// part ends the connection of a session that has ended: what is still to be said is, and the peer's last words are
// waited for, so that no reset overtakes ours.
func (s *sess) part(l *link) {
	s.mu.Lock()
	s.parting = l.nc
	s.limitGoodbye()
	for s.writing || s.starting {
		changed := s.wrote.wait()
		s.mu.Unlock()
		<-changed // bounded by the deadline
		s.mu.Lock()
	}
	if s.link == l {
		s.link = nil
	}
	if s.brutal {
		s.limitGoodbye() // for the peer's part of it
	}
	s.mu.Unlock()
	if w, ok := l.nc.(closeWriter); ok && w.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, onlyReader{l.nc})
	}
	closeNow(l.nc)
}

// limitGoodbye bounds the rest of the parting, if it has begun. mu is held.
func (s *sess) limitGoodbye() {
	if s.parting == nil {
		return
	}
	if !s.brutal {
		_ = s.parting.SetDeadline(time.Now().Add(partTime))
		return
	}
	short := time.Now().Add(lastWords)
	_ = s.parting.SetReadDeadline(short)
	if !s.goodbye {
		_ = s.parting.SetWriteDeadline(short) // what is in the way of the CLOSE
	}
}

// partTime bounds how long a connection outlives its session, from the end or from when the CLOSE is written on.
const partTime = time.Second
