package reconnect

import (
	"time"

	"github.com/towline-mq/towline/reconnect/internal/session"
)

// left sees to a session whose connection k has gone, or that got none.
func (l *Listener) left(s *sess, k *link) {
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	if ended {
		if k != nil {
			s.part(k)
		}
		s.finalize()
		return
	}
	if k != nil {
		closeNow(k.nc)
	}
	l.mu.Lock()
	s.mu.Lock()
	alone := s.link == nil && s.serve.taking == 0 && !s.ended
	id := s.m.ID()
	s.mu.Unlock()
	var dropped []*sess
	if alone {
		l.table.Detach(id, l.clock.now())
		dropped = l.sweep()
	}
	l.mu.Unlock()
	finalize(dropped)
}

// sweep drops the sessions whose time is over, and sets the timer for the next. l.mu is held. The caller finalizes what it
// returns when it has given that up.
func (l *Listener) sweep() (dropped []*sess) {
	now := l.clock.now()
	for {
		id, s, why, ok := l.table.Due(now)
		if !ok {
			break
		}
		l.drop(id, s, why)
		dropped = append(dropped, s)
	}
	if at, ok := l.table.Deadline(); ok && !l.closed && (l.armed == 0 || at < l.armed) {
		l.armed = at
		if l.timer == nil {
			l.timer = time.AfterFunc(at-now, l.expire)
		} else {
			l.timer.Reset(at - now)
		}
	}
	return dropped
}

// expire is what the timer does.
func (l *Listener) expire() {
	l.mu.Lock()
	l.armed = 0
	dropped := l.sweep()
	l.mu.Unlock()
	finalize(dropped)
}

// drop ends a session that has no connection. l.mu is held.
func (l *Listener) drop(id session.ID, s *sess, why session.Reason) {
	s.mu.Lock()
	arrived := s.m.ArrivedOnWire()
	s.mu.Unlock()
	s.serve.dropped = why
	l.table.Remove(id, why, arrived, l.clock.now())
}

func finalize(dropped []*sess) {
	for _, s := range dropped {
		s.mu.Lock()
		s.m.Drop(s.serve.dropped)
		s.note() // copies what is unconfirmed: not under the Listener's lock
		s.mu.Unlock()
		s.finalize()
	}
}

// remove takes a session that has ended out of the table.
func (l *Listener) remove(s *sess) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	id, arrived := s.m.ID(), s.m.ArrivedOnWire()
	s.mu.Unlock()
	if got, ok := l.table.Get(id); ok && got == s {
		l.table.Remove(id, session.ReasonClosed, arrived, l.clock.now())
	}
}

// confirmed tells the table, once, that the dialer has confirmed the session.
func (v *serving) confirmed() {
	if v.confirm.CompareAndSwap(true, false) {
		v.l.mu.Lock()
		v.l.table.Confirm(v.s.m.ID())
		v.l.mu.Unlock()
	}
}
