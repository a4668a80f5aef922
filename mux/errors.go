package mux

import (
	"context"
	"errors"
	"fmt"
	"reflect"
)

var (
	// ErrServerClosed is what Serve returns after Shutdown or Close, and what they leave for those who come later.
	ErrServerClosed = errors.New("mux: the server is closed")

	// ErrUnknown is a recipient that nothing here takes: no tag is bound to it, or this side only sends it.
	ErrUnknown = errors.New("mux: unknown recipient")

	// ErrUnbound is a type that no tag of the Mux is bound to in this way, or a Mux whose tags contradict each other.
	ErrUnbound = errors.New("mux: the type is not bound")

	// ErrPayload is a payload that its codec cannot read, or that a call's prefix is missing from.
	ErrPayload = errors.New("mux: malformed payload")

	// ErrLost is a call whose session the listener has lost after it had the request: it may have been run, and its
	// answer will not come.
	ErrLost = errors.New("mux: the session was lost under the call")

	// ErrBusy is a call that the peer refused, for it has too many: it was not run. It matches a *CallError too.
	ErrBusy = errors.New("mux: the peer has too many calls")

	// ErrRedelivered is a call that the peer refused because it may have been run before, in a session that was lost:
	// see Options.RefuseRedelivered. It matches a *CallError too.
	ErrRedelivered = errors.New("mux: the call may have been run before")

	// ErrSlow is why a connection ended whose queue was full when there was a broadcast, with Disconnect.
	ErrSlow = errors.New("mux: too slow for a broadcast")

	// ErrDeadlock is a Call that its own handler would keep from its answer: see Call.
	ErrDeadlock = errors.New("mux: the call would wait for its own handler")
)

// HandlerError is what went wrong with one datagram: the error of its handler, or one that matches ErrUnknown or
// ErrPayload, or a *PanicError.
type HandlerError struct {
	Recipient uint16
	Name      string // of its tag; empty if it has none
	Err       error
}

// Error says which recipient it was, and what went wrong.
func (e *HandlerError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("mux: recipient %d: %v", e.Recipient, e.Err)
	}
	return fmt.Sprintf("mux: %s (recipient %d): %v", e.Name, e.Recipient, e.Err)
}

// Unwrap returns e.Err.
func (e *HandlerError) Unwrap() error { return e.Err }

// PanicError is a handler or callback that panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // where
}

// Error says what it panicked with, and not where.
func (e *PanicError) Error() string { return fmt.Sprintf("mux: panic: %v", e.Value) }

// Unwrap returns what it panicked with, if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// CallError is how a peer refuses a call, or says that it failed. A handler may return one with a Code of its own.
type CallError struct {
	// Code is 256 or more if it is the application's own, else one of docs/mux.md.
	Code uint16
	// Message is for people: the text of the handler's error.
	Message string
}

// Error says what the peer said.
func (e *CallError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("mux: the peer refused the call, with code %d", e.Code)
	}
	return "mux: the peer says: " + e.Message
}

// Is matches ErrBusy, ErrRedelivered, ErrUnknown, ErrPayload and context.DeadlineExceeded, by the code.
func (e *CallError) Is(target error) bool {
	switch e.Code {
	case codeBusy:
		return target == ErrBusy
	case codeRedelivered:
		return target == ErrRedelivered
	case codeUnknown:
		return target == ErrUnknown
	case codeMalformed:
		return target == ErrPayload
	case codeTimeout:
		return target == context.DeadlineExceeded
	}
	return false
}

// What a code of a CallError says. They are on the wire: docs/mux.md lists them.
const (
	codeFailed      = 1 // the handler returned an error
	codeMalformed   = 2 // the request could not be read
	codeUnknown     = 3 // nothing here takes it
	codeBusy        = 4 // too many calls
	codeRedelivered = 5 // it may have been run before
	codePanicked    = 6 // the handler panicked
	codeTimeout     = 7 // its time was over before it was done
	codeOwn         = 256
)

// unbound is the error for a type.
func unbound(t reflect.Type, how string) error {
	return fmt.Errorf("%w: %s %s", ErrUnbound, t, how)
}

// BroadcastError is how a broadcast says that some did not get it.
type BroadcastError struct {
	// Missed has those that did not get it, and why: reconnect.ErrWouldBlock for a peer that was too slow, what ended the
	// context for one that was waited for, or why its connection has ended.
	Missed map[*Conn]error
}

// Error counts them.
func (e *BroadcastError) Error() string {
	return fmt.Sprintf("mux: the broadcast missed %d connections", len(e.Missed))
}
