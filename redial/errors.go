package redial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// ErrGaveUp is what every [*Error] matches but the one that comes of Close.
var ErrGaveUp = errors.New("redial: gave up")

// Why Dial ended, in Error.Reason, beside the context's errors and net.ErrClosed.
var (
	errFatal       = errors.New("trying again is of no use")
	errAttempts    = errors.New("no attempts are left")
	errTime        = errors.New("the time is up")
	errStop        = errors.New("the backoff says stop")
	errNoEndpoints = errors.New("there is no endpoint to dial")
	errPreferred   = errors.New("no endpoint is preferred to this one")
	errStale       = errors.New("a newer connection was made")
	errOneRound    = errors.New("no preferred endpoint can be reached")
	errFirst       = errors.New("the first dial is tried once")
	errHook        = errors.New("a hook said stop")
)

// errUseless is the failure of an endpoint that was dialled with success, but for nothing.
var errUseless = errors.New("connected, but the connection ended without having been of use")

// Error is the error of Dial, DialContext and DialPreferred: why there is no connection, and what stood in the way.
//
// It matches [ErrGaveUp], or, if Close ended it, [net.ErrClosed] instead. It matches Reason, so that the end of the
// caller's context matches the context's error, and, for errors.Is and errors.As, all of the Causes. It never matches
// io.EOF, even if that is what a handshake met: giving up is not the end of a stream.
type Error struct {
	// Reason is what ended the dial: the context's error, with its cause if it has another; net.ErrClosed; or one that
	// says which limit was reached.
	Reason error

	// Fatal is whether it ended because trying again is of no use: every endpoint failed with a fatal error, or one was
	// marked by [Fatal]; also after Close.
	Fatal bool

	// Attempts is how many attempts the outage took, and Elapsed how long they and the waits between them took Dial.
	Attempts int
	Elapsed  time.Duration

	// Last is the newest failure; nil if there was none. It may match io.EOF.
	Last error

	// Causes holds the newest failure of each endpoint in this outage, by the endpoint's index; nil where there was
	// none.
	Causes []error
}

// Error says what ended the dial, after how many attempts, and how each endpoint failed last.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("redial: ")
	if !errors.Is(e.Reason, net.ErrClosed) {
		b.WriteString("gave up: ")
	}
	b.WriteString(e.Reason.Error())
	if e.Attempts > 0 {
		plural := "s"
		if e.Attempts == 1 {
			plural = ""
		}
		fmt.Fprintf(&b, " (%d attempt%s in %v)", e.Attempts, plural, e.Elapsed.Round(time.Millisecond))
	}
	failed := 0
	for i, cause := range e.Causes {
		if cause == nil {
			continue
		}
		if failed++; failed == 1 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		if len(e.Causes) > 1 {
			fmt.Fprintf(&b, "endpoint %d: ", i)
		}
		b.WriteString(cause.Error())
	}
	return b.String()
}

// Is reports whether target is ErrGaveUp, Reason or one of the Causes, as the comment of Error says.
func (e *Error) Is(target error) bool {
	switch target {
	case io.EOF:
		return false
	case ErrGaveUp:
		return !errors.Is(e.Reason, net.ErrClosed)
	}
	if errors.Is(e.Reason, target) {
		return true
	}
	for _, cause := range e.Causes {
		if errors.Is(cause, target) {
			return true
		}
	}
	return false
}

// As looks for target's type in Reason, then in Last, then in the Causes. There is no Unwrap, since it would lead
// errors.Is to io.EOF.
func (e *Error) As(target any) bool {
	for _, err := range append([]error{e.Reason, e.Last}, e.Causes...) {
		if err != nil && errors.As(err, target) {
			return true
		}
	}
	return false
}

// withCalledOff adds what endpoint i said when its attempt was called off, which is of interest only where nothing
// better is known.
func (e *Error) withCalledOff(i int, err error) *Error {
	if err == nil {
		return e
	}
	if e.Last == nil {
		e.Last = err
	}
	if e.Causes[i] == nil {
		e.Causes[i] = err
	}
	return e
}

// endOf is the Reason for a context that has ended.
func endOf(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		return fmt.Errorf("%w: %w", err, cause)
	}
	return err
}

// slowError is an attempt that was not done in its time. It hides the context's error, which would look like the end of
// the caller's own context.
type slowError struct {
	limit time.Duration
	err   error
}

func (e *slowError) Error() string {
	return fmt.Sprintf("not connected within %v: %v", e.limit.Round(time.Millisecond), e.err)
}

func (e *slowError) Timeout() bool   { return true }
func (e *slowError) Temporary() bool { return true }

func (e *slowError) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded, context.Canceled:
		return false
	case error(syscall.ETIMEDOUT):
		return true
	}
	return errors.Is(e.err, target)
}

func (e *slowError) As(target any) bool {
	return errors.As(e.err, target)
}
