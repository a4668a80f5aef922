package reconnect

import (
	"context"
	"fmt"
	"io"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

func (s *sess) receive(ctx context.Context) (datagram.Datagram, error) {
	for {
		s.rmu.Lock()
		if d, ok := s.next(); ok {
			s.received++
			s.pass()
			s.rmu.Unlock()
			return d, nil
		}
		if more, err := s.refill(ctx); err != nil {
			return datagram.Datagram{}, err
		} else if more {
			s.rmu.Unlock()
		}
	}
}

func (s *sess) receiveBatch(ctx context.Context, dst []datagram.Datagram) (n int, err error) {
	if len(dst) == 0 {
		return 0, nil
	}
	for {
		s.rmu.Lock()
		for n < len(dst) {
			d, ok := s.next()
			if !ok {
				if n > 0 && s.more() {
					continue
				}
				break
			}
			dst[n] = d
			n++
		}
		if n > 0 {
			s.received += uint64(n)
			s.pass()
			s.rmu.Unlock()
			return n, nil
		}
		if more, err := s.refill(ctx); err != nil {
			return 0, err
		} else if more {
			s.rmu.Unlock()
		}
	}
}

// next takes a datagram of those at hand. rmu is held.
func (s *sess) next() (datagram.Datagram, bool) {
	if !s.atHand() {
		return datagram.Datagram{}, false
	}
	s.cur.Keep() // the payload is the caller's, and so is the memory around it
	return nextOf(&s.cur)
}

// each calls f with each datagram, and gives their memory back.
func (s *sess) each(ctx context.Context, f func(datagram.Datagram) error) error {
	for {
		run, err := s.takeRun(ctx)
		if err != nil {
			return err
		}
		if err := s.eachOf(ctx, run, f); err != nil {
			return err
		}
	}
}

// takeRun waits for a run, and takes all of it.
func (s *sess) takeRun(ctx context.Context) (run session.Run, err error) {
	for {
		s.rmu.Lock()
		if s.atHand() {
			run, s.cur = s.cur, session.Run{}
			if !s.o.AckConsumed {
				s.received += uint64(run.N)
			}
			s.pass()
			s.rmu.Unlock()
			return run, nil
		}
		if more, err := s.refill(ctx); err != nil {
			return run, err
		} else if more {
			s.rmu.Unlock()
		}
	}
}

// eachOf calls f with each datagram of run, until ctx or the receiving ends. What f has not seen is left to the next
// receiver.
func (s *sess) eachOf(ctx context.Context, run session.Run, f func(datagram.Datagram) error) error {
	whole, done := run.Run, false
	defer func() {
		if done {
			whole.Release()
		} else if run.N > 0 {
			s.putBack(run)
		}
	}()
	ends := ctx.Done() != nil
	for run.N > 0 {
		if ends && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.dropping.Load() {
			return ErrClosed
		}
		d, _ := nextOf(&run)
		if s.o.AckConsumed {
			s.rmu.Lock()
			s.received++
			s.rmu.Unlock()
		}
		if err := f(d); err != nil {
			return err
		}
	}
	done = true
	return nil
}

func (s *sess) putBack(run session.Run) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if !s.o.AckConsumed {
		s.received -= uint64(run.N)
	}
	if s.dropping.Load() {
		return
	}
	s.left = append(s.left, run)
	s.pass()
	s.mu.Lock()
	s.callOff(s.link)
	s.mu.Unlock()
}

// atHand reports whether cur has a datagram to hand out. rmu is held.
func (s *sess) atHand() bool {
	if s.cur.N == 0 && len(s.left) > 0 {
		last := len(s.left) - 1
		s.cur, s.left = s.left[last], s.left[:last]
	}
	return s.cur.N > 0 && !s.dropping.Load()
}

// nextOf takes a datagram off run.
func nextOf(run *session.Run) (datagram.Datagram, bool) {
	d, ok := run.Next()
	if ok && run.Redelivered > 0 {
		run.Redelivered--
		d.Redelivered = true
	}
	if run.N == 0 {
		*run = session.Run{} // it would hold the memory until the next
	}
	return d, ok
}

// more gets more datagrams at hand, if there are any. rmu is held.
func (s *sess) more() bool {
	s.mu.Lock()
	if !s.m.Readable() {
		s.mu.Unlock()
		return false
	}
	run, ok := s.m.Take()
	if ok {
		s.cur = run
	}
	s.settleTaken(run)
	return ok
}

// settleTaken is settle after run was taken.
func (s *sess) settleTaken(run session.Run) {
	if run.N == 1 && len(run.Raw) <= loneSize {
		s.settleLone()
	} else {
		s.settle(false)
	}
}

// pass wakes another receiver, if there is one, for what is left. rmu is held.
func (s *sess) pass() {
	if s.waiters.Load() > 0 {
		s.notify()
	}
}

// notify says that there may be something to receive.
func (s *sess) notify() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// refill gets more datagrams at hand, or waits until it is worth another look: then it has given up rmu and returns
// false. It has given it up with an error too, which is final, or ctx's.
func (s *sess) refill(ctx context.Context) (more bool, err error) {
	if s.dropping.Load() {
		s.pass()
		s.rmu.Unlock()
		return false, ErrClosed
	}
	s.mu.Lock()
	run, ok := s.m.Take()
	if ok {
		s.cur = run
		s.settleTaken(run)
		return true, nil
	}
	var l *link
	if err = s.drained(); err == nil {
		l = s.borrow(ctx)
	}
	s.settle(false) // skipped ones may have been taken
	if err != nil {
		s.pass()
		s.rmu.Unlock()
		return false, err
	}
	if l != nil {
		s.rmu.Unlock()
		_, _ = s.handle(l, turnReceiver, true, l.dec.Fill()) // its end is the reader's to deal with
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, nil
	}
	s.waiters.Add(1)
	defer s.waiters.Add(-1)
	s.rmu.Unlock()
	select {
	case <-s.ready:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// drained says why nothing more will be received, now that everything was. mu is held.
func (s *sess) drained() error {
	switch {
	case s.m.EOF():
		return io.EOF
	case s.ended:
		return s.reason
	}
	return nil
}

// ack tells the peer that the application has finished with n more datagrams.
func (s *sess) ack(n int) error {
	if !s.o.AckConsumed {
		return nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.mu.Lock()
	if s.ended {
		defer s.mu.Unlock()
		if isEOF(s.reason) {
			return ErrClosed
		}
		return s.reason
	}
	ok := n >= 0 && uint64(n) <= s.received-s.consumed && s.m.Consume(s.clock.now(), n)
	if ok {
		s.consumed += uint64(n)
	}
	s.settle(false)
	if !ok {
		return fmt.Errorf("reconnect: Ack(%d): so many have not been received", n)
	}
	return nil
}

// drop lets nothing more be handed out.
func (s *sess) drop() {
	s.rmu.Lock()
	s.dropping.Store(true)
	s.cur, s.left = session.Run{}, nil
	s.rmu.Unlock()
}

func (s *sess) stop() {
	s.drop()
	s.mu.Lock()
	s.closing = true
	s.m.Stop()
	s.callOff(s.link)
	s.settle(false)
	s.notify()
}
