package mem

import (
	"context"
	"syscall"
	"time"
)

// dialFaults is what a control does to dials; its Faults guards it.
type dialFaults struct {
	begun, refused, held int

	refuse  int // how many dials are yet to be refused; negative: all
	refusal error
	hang    int // how many dials are yet to be held up; negative: all
	hangFor time.Duration

	overtake int                // how many connections are yet to be kept from Accept; negative: all
	order    int                // the number of the call that said so
	hold     map[int][]heldConn // what is kept, by that number
}

// RefuseDials makes the next n dials under f fail with err (nil: syscall.ECONNREFUSED), wrapped in a *[net.OpError].
// A negative n refuses all from now on, 0 none. It has no effect on a control of one connection.
func (f *Faults) RefuseDials(n int, err error) {
	if err == nil {
		err = syscall.ECONNREFUSED
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials.refuse, f.dials.refusal = n, err
}

// HangDials holds up each of the next n dials under f for the time d, before anything else is done for it, or, if d is
// 0, until its context ends. A negative n holds up all from now on, 0 none; a dial that is held stays held. It has no
// effect on a control of one connection.
func (f *Faults) HangDials(n int, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials.hang, f.dials.hangFor = n, d
}

// HoldConns keeps the next n connections under f from the listener's Accept until release is called, so that later ones
// overtake them. Their dialers have them and may write; nobody reads that, and nobody gets an error. A negative n holds
// all from now on, 0 none. Release ends the hold for those to come as well, and hands over what was held, in the order in
// which it was dialled; it may be called again. The last call wins, and leaves to each release its own. What is held takes
// a place in the backlog, and is reset when the listener closes. It has no effect on a control of one connection.
//
// So a session's dialer that gets no answer dials again, and its first connection comes last:
//
//	release := network.Faults().HoldConns(1)
//	conn.Redial(nil)   // the first try is held, and given up when no answer has come for a while
//	…                  // the second has the session
//	release()          // now the listener gets what the first one said: it is refused, and harms nobody
func (f *Faults) HoldConns(n int) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dials.order++
	f.dials.overtake = n
	order := f.dials.order
	return func() {
		f.mu.Lock()
		if f.dials.order == order {
			f.dials.overtake = 0
		}
		held := f.dials.hold[order]
		delete(f.dials.hold, order)
		f.mu.Unlock()
		for _, h := range held {
			h.listener.letGo(h.end)
		}
	}
}

// heldConn is a connection that HoldConns keeps.
type heldConn struct {
	listener *listener
	end      *Conn
}

// keeps takes end from its listener if that was ordered.
func (f *Faults) keeps(l *listener, end *Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var count int
	if !spend(&f.dials.overtake, &count) {
		return false
	}
	if f.dials.hold == nil {
		f.dials.hold = map[int][]heldConn{}
	}
	f.dials.hold[f.dials.order] = append(f.dials.hold[f.dials.order], heldConn{l, end})
	l.keep(end)
	return true
}

// dial lets one dial suffer what was ordered: it returns nil, or, perhaps after a while, why the dial fails.
func (f *Faults) dial(ctx context.Context) error {
	f.mu.Lock()
	f.dials.begun++
	hold, hang := f.dials.hangFor, spend(&f.dials.hang, &f.dials.held)
	refusal, refuse := f.dials.refusal, spend(&f.dials.refuse, &f.dials.refused)
	f.mu.Unlock()
	if hang {
		if err := wait(ctx, hold); err != nil {
			return err
		}
	}
	if refuse {
		return refusal
	}
	return nil
}

// spend takes one from a budget, if there is any, and counts it.
func spend(budget, count *int) bool {
	if *budget == 0 {
		return false
	}
	if *budget > 0 {
		*budget--
	}
	*count++
	return true
}

// wait returns nil after d, or ctx's error if it ends first; a d that is not positive lasts for ever.
func wait(ctx context.Context, d time.Duration) error {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-due:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
