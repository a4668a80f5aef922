package reconnect

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

func (s *sess) send(ctx context.Context, d datagram.Datagram, mode sendMode) error {
	return s.sendBy(ctx, d, mode, 0)
}

// sendBy accepts one datagram, that is not to be sent after age; 0 is never.
func (s *sess) sendBy(ctx context.Context, d datagram.Datagram, mode sendMode, age time.Duration) error {
	s.mu.Lock()
	if err := s.awaitRoom(ctx, mode&noWait != 0); err != nil {
		s.mu.Unlock()
		return err
	}
	idle := s.m.Idle()
	if err := s.append(d, age); err != nil {
		s.mu.Unlock()
		return err
	}
	if mode&held != 0 {
		s.inHand = 0
	}
	if !idle && (s.writing || s.starting && s.m.Pending() < aLot) {
		s.mu.Unlock() // who writes will see it, and nothing else has changed
		return nil
	}
	s.settle(true)
	return nil
}

// append gives d to the machine. mu is held.
func (s *sess) append(d datagram.Datagram, age time.Duration) error {
	var now, deadline time.Duration
	if s.m.Idle() || age > 0 {
		now = s.clock.now()
	}
	if age > 0 {
		deadline = now + min(age, math.MaxInt64-now)
	}
	return s.m.Append(now, d, deadline)
}

// awaitRoom waits until the log takes a datagram. mu is held, and given up meanwhile.
func (s *sess) awaitRoom(ctx context.Context, noWait bool) error {
	for {
		if err := s.accepting(); err != nil {
			return err
		}
		if s.m.Room() {
			if noWait || !s.flowing || s.m.Pending() < ahead {
				return nil
			}
			if err := s.pace(ctx); err != nil {
				return err
			}
			continue
		}
		if noWait {
			return ErrWouldBlock
		}
		if err := s.await(ctx, &s.room); err != nil {
			return err
		}
	}
}

// How far senders run ahead of a connection that takes what it is given, in bytes: what is written soon is still in the
// processor's cache then. And how long they wait for it to take some at most, before they go on to fill the buffer.
const (
	ahead    = 512 << 10
	paceTime = time.Millisecond
)

// pace waits until the connection has been given something more, for paceTime at most, or for as long as ctx lets it. mu is
// held, and given up meanwhile.
func (s *sess) pace(ctx context.Context) error {
	given := s.given.wait()
	s.awaiting++
	s.recall(s.link)
	s.mu.Unlock()
	timer := time.NewTimer(paceTime)
	defer func() {
		timer.Stop()
		s.mu.Lock()
		s.awaiting--
	}()
	select {
	case <-given:
	case <-timer.C:
		s.mu.Lock()
		s.flowing = false
		s.mu.Unlock()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// flows notes that the connection has been given something. mu is held.
func (s *sess) flows() {
	s.flowing = true
	s.given.broadcast()
}

// accepting says why nothing is accepted any more. mu is held.
func (s *sess) accepting() error {
	err := s.m.Accepting()
	switch {
	case err == nil:
		return nil
	case s.reason != nil && !isEOF(s.reason):
		return s.reason
	case s.finished:
		return ErrClosed
	}
	return ErrPeerClosed
}

// await gives up mu until what is told of. All that is waited for here comes from the peer.
func (s *sess) await(ctx context.Context, what *signal) error {
	changed := what.wait()
	s.awaiting++
	s.recall(s.link)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.awaiting--
	}()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sess) sendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error) {
	if len(ds) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for n < len(ds) {
		if !s.m.Room() {
			s.settle(false) // what was accepted so far goes on its way
			s.mu.Lock()
		}
		err = s.awaitRoom(ctx, false)
		if err != nil {
			break
		}
		if err = s.append(ds[n], 0); err != nil {
			break
		}
		if n++; s.m.Pending() >= aLot && !s.writing && n < len(ds) {
			s.settle(true)
			s.mu.Lock()
		}
	}
	s.settle(true)
	return n, err
}

func (s *sess) hold() {
	s.mu.Lock()
	s.inHand = 1
	s.mu.Unlock()
}

func (s *sess) refusing() <-chan struct{} { return s.waitFor(&s.refuse) }

// flush waits until all that was accepted is acknowledged.
func (s *sess) flush(ctx context.Context) error {
	s.mu.Lock()
	n := s.m.Flush()
	s.settle(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.m.Acked() < n {
		if s.m.Stopped() {
			return ErrPeerClosed
		}
		if s.ended {
			return s.reason
		}
		if err := s.await(ctx, &s.room); err != nil {
			return err
		}
	}
	return nil
}

func (s *sess) canFinish() bool { return true }

func (s *sess) finishing() {
	s.mu.Lock()
	s.finished = true
	s.m.Finish(s.clock.now())
	s.settle(true)
}

// finish waits until the peer has everything, and the end.
func (s *sess) finish(ctx context.Context) error {
	s.finishing()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.m.Finished() && !s.ended {
		if err := s.await(ctx, &s.room); err != nil {
			return s.unsent(err)
		}
	}
	switch {
	case s.m.Stopped():
		return s.unsent(ErrPeerClosed)
	case s.ended && s.reason != nil && !isEOF(s.reason):
		return s.unsent(s.reason)
	}
	return s.unsent(nil)
}

// unsent is the error for what is unconfirmed, if anything is. mu is held.
func (s *sess) unsent(err error) error {
	n := s.m.Stats().Unacked + s.inHand
	switch {
	case n == 0 && (err == nil || s.ended || errors.Is(err, ErrPeerClosed) || errors.Is(err, ErrClosed)):
		return nil
	case err == nil:
		err = ErrClosed
	}
	return &CloseError{Unsent: n, Err: err}
}
