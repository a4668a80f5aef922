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
