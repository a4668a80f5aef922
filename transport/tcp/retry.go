package tcp

import (
	"errors"
	"syscall"
	"time"
)

const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// retry calls accept until it succeeds or fails for good. Between two tries it waits, the longer the more of them
// failed, and for no longer than until done is closed: a loop without a wait would take a whole processor for as long as
// descriptors are short.
func retry[T any](done <-chan struct{}, accept func() (T, error)) (T, error) {
	for wait := minAcceptWait; ; wait = min(2*wait, maxAcceptWait) {
		c, err := accept()
		if err == nil || !passing(err) {
			return c, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-done:
			t.Stop() // the next try tells the caller that the listener is closed
		}
	}
}

// passing tells whether the cause of a failed accept may go away by itself. Besides want of descriptors and memory, that is
// an error of the connection that was to be accepted: Linux reports those here too (accept(2), "Error handling").
func passing(err error) bool {
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
