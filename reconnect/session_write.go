package reconnect

import (
	"errors"
	"net"
	"time"

	"github.com/towline-mq/towline/internal/trywrite"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// settle draws the consequences of what was told to the machine, and gives up mu: it wakes who waits, notes what
// happened, sets the timer, and sees to it that what is to be written is. mine says that the caller may write by itself,
// as much as goes without waiting.
func (s *sess) settle(mine bool) {
	s.note()
	l := s.link
	switch {
	case s.writing || l == nil || !s.m.Pulls():
		s.mu.Unlock()
	case mine && s.worth(l):
		s.writing = true
		s.writeMine(l)
	default:
		s.startWriter()
		s.mu.Unlock()
	}
}

// settleLone is settle where a receiver is about to get a lone message: it may be going to answer, and a mere
// acknowledgement goes with the answer, or when the receiver comes for more, or when it is due by time.
func (s *sess) settleLone() {
	if !s.m.Spares() {
		s.settle(false)
		return
	}
	s.note()
	s.mu.Unlock()
}

// startWriter makes a goroutine that writes, unless there is one that has yet to begin. mu is held.
func (s *sess) startWriter() {
	if !s.starting {
		s.starting = true
		go s.writeAll()
	}
}

// worth reports whether what is to be written should be by who sends it, which saves the hand-over to another goroutine:
// if it is a lone message, or a lot, unless it has to be encrypted, which another core does better. A short one that
// follows others closely leaves it to a goroutine that begins a moment later: more gathers in that moment, and most of
// the system calls are saved. mu is held.
func (s *sess) worth(l *link) bool {
	if l.try == nil {
		return false
	}
	if n := s.m.Pending(); n > loneSize {
		return n >= aLot && !l.encrypts
	}
	return s.wroteAtN != l.reads || s.clock.now()-s.wroteAt >= loneGap
}

// aLot is how many bytes are worth a write of their own: the size of a segment of the log, which is still in the
// processor's cache then.
const aLot = session.LargeSegment

// writeMine writes what goes without waiting, once, and leaves the rest to another goroutine. mu is held and writing set;
// both are given up.
func (s *sess) writeMine(l *link) {
	s.m.Pull(s.clock.now(), &l.out)
	s.flows()
	s.mu.Unlock()
	rest, err := l.try.WriteVec(l.out.Vec)
	if err == nil {
		s.mu.Lock()
		s.m.Wrote()
		s.rest(l)
		if s.link != nil && s.m.Pulls() {
			s.startWriter()
		}
		s.mu.Unlock()
		return
	}
	if !errors.Is(err, trywrite.ErrWouldBlock) {
		s.failed(l, err)
		return
	}
	l.out.Vec = rest
	go s.write(l, true)
}

// writeAll writes what there is to be written, unless somebody does.
func (s *sess) writeAll() {
	s.mu.Lock()
	s.starting = false
	l := s.link
	if s.writing || l == nil || !s.m.Pulls() {
		s.wrote.broadcast()
		s.mu.Unlock()
		return
	}
	s.writing = true
	s.mu.Unlock()
	s.write(l, false)
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
		s.refuse.close()
		s.room.broadcast()
	}
	s.arm()
}

// rest ends the writing. mu is held.
func (s *sess) rest(l *link) {
	s.writing = false
	l.out.Clear() // it refers to segments of the log, of which others may be the owners
	s.wroteAt, s.wroteAtN = s.clock.now(), l.reads
	s.wrote.broadcast()
}

// write writes until nothing is left, in a goroutine of its own. pulled says that out holds something.
func (s *sess) write(l *link, pulled bool) {
	for {
		if pulled {
			if err := l.write(l.out.Vec); err != nil {
				s.failed(l, err)
				return
			}
		}
		s.mu.Lock()
		if pulled {
			s.m.Wrote()
		}
		if pulled = s.link == l && s.m.Pull(s.clock.now(), &l.out); !pulled {
			s.rest(l)
			s.settle(false) // for another link, it may be
			return
		}
		s.flows()
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
