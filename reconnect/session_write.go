package reconnect

import (
	"errors"
	"net"
	"time"

	"github.com/towline-mq/towline/reconnect/internal/session"
)

// settle draws the consequences of what was told to the machine, and gives up mu: it wakes who waits, notes what
// happened, sets the timer, and sees to it that what is to be written is. lone says that the caller may write by itself.
func (s *sess) settle(lone bool) {
	s.note()
	l := s.link
	if s.writing || l == nil || !s.m.Pulls() {
		s.mu.Unlock()
		return
	}
	s.writing = true
	if !lone || !s.lone(l) {
		s.mu.Unlock()
		go s.write(l, false)
		return
	}
	s.m.Pull(s.clock.now(), &s.out)
	s.mu.Unlock()
	rest, err := l.tryWrite(s.out.Vec)
	if err == nil {
		s.mu.Lock()
		s.m.Wrote()
		if s.link != l || !s.m.Pulls() {
			s.rest(l)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		go s.write(l, false)
		return
	}
	if !errors.Is(err, errWouldBlock) {
		s.failed(l, err)
		return
	}
	s.out.Vec = rest
	go s.write(l, true)
}

// note is settle without the writing. mu stays held.
func (s *sess) note() {
	s.collect()
	if s.m.State() == session.Ended && !s.ended {
		s.finishEnd()
	}
	s.startTelling()
	if s.room.ch != nil {
		if acked := s.m.Acked(); acked != s.acked || s.ended || s.m.Stopped() {
			s.acked = acked
			s.room.broadcast()
		}
	}
	if !s.refused && s.m.Accepting() != nil {
		s.refused = true
		close(s.refuse)
		s.room.broadcast()
	}
	s.arm()
}

// lone is outbound.lone: whether a message should be written by who sends it. mu is held.
func (s *sess) lone(l *link) bool {
	if l.try == nil || s.m.Pending() > loneSize {
		return false
	}
	return s.wroteAtN != l.reads.Load() || s.clock.now()-s.wroteAt >= loneGap
}

// rest ends the writing. mu is held.
func (s *sess) rest(l *link) {
	s.writing = false
	s.wroteAt, s.wroteAtN = s.clock.now(), l.reads.Load()
	s.wrote.broadcast()
}

// write writes until nothing is left, in a goroutine of its own. pulled says that out holds something.
func (s *sess) write(l *link, pulled bool) {
	for {
		if pulled {
			if err := l.write(s.out.Vec); err != nil {
				s.failed(l, err)
				return
			}
		}
		s.mu.Lock()
		if pulled {
			s.m.Wrote()
		}
		if pulled = s.link == l && s.m.Pull(s.clock.now(), &s.out); !pulled {
			s.rest(l)
			s.settle(false) // for another link, it may be
			return
		}
		if s.ended { // it is the CLOSE: its time begins when its writing does, however late that is
			s.goodbye = true
			_ = l.nc.SetWriteDeadline(time.Now().Add(partTime))
		}
		s.mu.Unlock()
	}
}

// failed takes the end of a write that has failed: nothing may follow a frame that was cut.
func (s *sess) failed(l *link, err error) {
	s.mu.Lock()
	s.m.Wrote()
	s.rest(l)
	s.lose(l, err)
	s.settle(false)
}

// write writes all of vec. It may block for as long as the peer takes nothing, until the link is closed.
func (l *link) write(vec [][]byte) error {
	switch l.nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		all := append(l.vec[:0], vec...)
		l.vec = all
		_, err := l.vec.WriteTo(l.nc) // consumes l.vec
		clear(all)
		l.vec = all
		return err
	}
	for _, b := range vec {
		if _, err := l.nc.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// tryWrite writes what can be written without waiting, and returns the rest with an error.
func (l *link) tryWrite(vec [][]byte) (rest [][]byte, err error) {
	for i, b := range vec {
		n, err := l.try.Write(b)
		if err != nil {
			vec[i] = b[n:]
			return vec[i:], err
		}
	}
	return nil, nil
}
