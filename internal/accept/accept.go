// Package accept is the patience that listeners need: an Accept that fails for want of descriptors, or because a peer
// gave up, is worth another try.
package accept

import (
	"errors"
	"syscall"
	"time"
)

// The wait after a failed accept begins with MinWait and doubles up to MaxWait.
const (
	MinWait = 5 * time.Millisecond
	MaxWait = time.Second
)

// Retry calls accept until it succeeds or fails for good. Between two tries it waits, the longer the more of them
// failed, and for no longer than until done is closed: a loop without a wait would take a whole processor for as long
// as descriptors are short. Told, if not nil, hears of each failure that it waits for.
func Retry[T any](done <-chan struct{}, told func(error), accept func() (T, error)) (T, error) {
	for wait := MinWait; ; wait = min(2*wait, MaxWait) {
		c, err := accept()
		if err == nil || !Passing(err) {
			return c, err
		}
		if told != nil {
			told(err)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-done:
			t.Stop() // the next try tells the caller that the listener is closed
		}
	}
}

// Passing tells whether the cause of a failed accept may go away by itself. Besides want of descriptors and memory,
// that is an error of the connection that was to be accepted: Linux reports those here too (accept(2), "Error
// handling").
func Passing(err error) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return false
	}
	for _, e := range passingErrnos {
		if errno == e {
			return true
		}
	}
	return false
}
