package reconnect

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/redial"
)

// turn says whose it is to read a link.
//
// A link has one reader: the goroutine that dialled or accepted it. When it brings something that a receiver waits for it
// lets the receivers go on by themselves, so that a message that is waited for needs no hand-over from one goroutine to
// another: then the turn is nobody's, and who finds nothing to receive takes it, reads, and leaves it again. The reader
// gets it back when it has been nobody's for lendTime, so that acknowledgements, credit and pings flow whatever the
// application does; and at once when the link is lost, or somebody waits for what the peer says.
type turn uint8

const (
	turnReader   turn = iota // the reader's
	turnFree                 // nobody's; the watch is set
	turnReceiver             // a receiver's
)

// lendTime is how long, and twice that at most, nobody reads while the application deals with what it has received. It is
// doubled, up to longLend, when receivers took the turn often within it: longLend is less than an acknowledgement may take.
const (
	lendTime  = time.Millisecond
	longLend  = 16 * time.Millisecond
	oftenLent = 8
)

// turns is the part of a link that says who reads it. All of it is guarded by sess.mu.
type turns struct {
	turn     turn
	back     chan struct{} // a token for the reader, when it gets the turn back
	count    uint64        // how often a receiver took it
	seen     uint64        // count, when the watch was set
	lends    time.Duration // for how long it is set; 0: lendTime
	watch    *time.Timer
	watching bool
	over     bool // a receiver has found the end of the reading
	why      error

	// The receiver whose turn it is, and the context whose end interrupts it.
	reader <-chan struct{} // its context's Done; nil if that never ends
	done   <-chan struct{} // of the context for which interrupt is registered
	stop   func() bool
	poked  bool // its read was interrupted
}

// read reads l until it is no more the session's, or the session has ended. It returns why. The frames that it has read
// of already come first.
func (s *sess) read(l *link) error {
	defer close(l.gone)
	over, err := s.handle(l, turnReader, false, nil)
	for !over {
		if s.lent(l) {
			<-l.back
			if over, err = s.foundOver(l); over {
				break
			}
		}
		over, err = s.handle(l, turnReader, true, l.dec.Fill())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.stop != nil {
		l.stop()
	}
	if l.watch != nil {
		l.watch.Stop()
	}
	return err
}

// lent reports whether the reader has to wait for its turn.
func (s *sess) lent(l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.turn != turnReader || len(l.back) > 0
}

func (s *sess) foundOver(l *link) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return l.over, l.why
}

// handle takes what a read of l has brought, or why it failed, and passes the turn on. Whose turn it was calls it; without
// fresh there was no read. It reports whether that was the end of the reading, and why it ended.
func (s *sess) handle(l *link, whose turn, fresh bool, ioErr error) (over bool, err error) {
	s.mu.Lock()
	if l.poked {
		s.unpoke(l)
		if errors.Is(ioErr, os.ErrDeadlineExceeded) && s.link == l && !s.ended {
			s.lend(l) // the receiver was called off, and nothing has happened to the link
			s.settle(false)
			return false, nil
		}
	}
	over, err = s.absorb(l, fresh, ioErr)
	readable := s.m.Readable() || s.m.EOF() || s.ended
	switch {
	case over && whose == turnReceiver:
		l.over, l.why = true, err
		s.giveBack(l)
	case over:
	case whose == turnReceiver, readable && s.waiters.Load() > 0 && s.lendable(l):
		s.lend(l)
	}
	var rl *redial.Link
	if !over { // what an old connection ends with says nothing of the one that has its place
		rl = s.progress()
	}
	// Who reads does not write: over TLS a stream of small messages was half as fast.
	if !over && (whose == turnReceiver || s.waiters.Load() > 0) && s.m.Lone(loneSize) {
		s.settleLone()
	} else {
		s.settle(false)
	}
	if readable {
		s.notify()
	}
	if over {
		return over, err
	}
	if rl != nil {
		rl.Progress()
	} else if s.serve != nil {
		s.serve.confirmed()
	}
	return false, nil
}

// absorb gives the machine what has arrived. mu is held.
func (s *sess) absorb(l *link, fresh bool, ioErr error) (over bool, err error) {
	if fresh && ioErr == nil {
		l.reads++
	}
	if s.link != l {
		return true, l.err
	}
	if ioErr != nil {
		return true, s.broken(l, ioErr)
	}
	err = s.frames(l, fresh)
	switch {
	case s.m.State() == session.Ended:
		if err == nil {
			err = s.m.Err()
		}
		return true, err
	case err != nil:
		s.lose(l, s.why(err)) // rejected for now
		return true, l.err
	}
	return false, nil
}

// lendable reports whether receivers may read l. mu is held.
func (s *sess) lendable(l *link) bool {
	return l.deadlines && s.awaiting == 0 && s.m.State() == session.Live
}

// lend leaves the turn to the next receiver. mu is held.
func (s *sess) lend(l *link) {
	l.turn = turnFree
	if s.awaiting > 0 {
		s.giveBack(l)
		return
	}
	if l.watching {
		return
	}
	l.watching, l.seen = true, l.count
	l.lends = max(l.lends, lendTime)
	if l.watch == nil {
		l.watch = time.AfterFunc(l.lends, func() { s.watchTurn(l) })
		return
	}
	l.watch.Reset(l.lends)
}

// watchTurn gives the turn back to the reader if no receiver has wanted it for a while.
func (s *sess) watchTurn(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.watching = false
	if l.count-l.seen >= oftenLent {
		l.lends = min(2*l.lends, longLend)
	} else {
		l.lends = lendTime
	}
	switch {
	case l.turn != turnFree:
	case l.seen == l.count:
		s.giveBack(l)
	default:
		s.lend(l)
	}
}

// giveBack makes it the reader's turn, which is nobody's. mu is held.
func (s *sess) giveBack(l *link) {
	l.turn = turnReader
	l.back <- struct{}{} // never blocks: the reader takes it before the turn can be another's
}

// recall makes it the reader's turn if it is nobody's. mu is held.
func (s *sess) recall(l *link) {
	if l != nil && l.turn == turnFree {
		s.giveBack(l)
	}
}

// borrow takes the turn for a receiver, if it is nobody's. mu is held. The end of ctx then interrupts the receiver's read.
func (s *sess) borrow(ctx context.Context) *link {
	l := s.link
	if l == nil || l.turn != turnFree {
		return nil
	}
	done := ctx.Done()
	if done != nil {
		if ctx.Err() != nil {
			return nil
		}
		if done != l.done {
			if l.stop != nil {
				l.stop()
			}
			l.done = done
			l.stop = context.AfterFunc(ctx, func() { s.poke(l, done) })
		}
	}
	l.turn, l.reader = turnReceiver, done
	l.count++
	return l
}

// poke interrupts the read of a receiver whose context has ended.
func (s *sess) poke(l *link, done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.reader == done && s.link == l {
		s.callOff(l)
	}
}

// callOff interrupts the read of a receiver, if it is one that reads l, for there is something else for it to see. mu is held.
func (s *sess) callOff(l *link) {
	if l != nil && l.turn == turnReceiver && !s.ended {
		l.poked = true
		_ = l.nc.SetReadDeadline(longAgo) // fails on a closed connection only, whose Read has ended
	}
}

// unpoke takes the interruption back. mu is held. Who ends the session sets deadlines of his own.
func (s *sess) unpoke(l *link) {
	l.poked = false
	if s.link == l && !s.ended {
		_ = l.nc.SetReadDeadline(time.Time{})
	}
}
