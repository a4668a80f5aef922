package session

import (
	"errors"
	"fmt"
)

// Why a session ended.
var (
	// ErrAborted is the end that the application asked for with Abort.
	ErrAborted = errors.New("session: given up by the application")

	// ErrExhausted is a datagram that would take the counts past 2^64 − 1.
	ErrExhausted = errors.New("session: the counts of this session are used up")
)

// ProtocolError is the end of a session, or the refusal of a dial, whose peer broke the protocol.
type ProtocolError struct {
	Role     Role   // this side's
	State    State  // in which it came
	What     string // a frame, or a part of one
	Expected string
	Got      string
	Rule     string // such as "R-105"; may be empty
	Err      error  // what found it, if it was not the machine itself
}

// Error says what was expected and what came.
func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the peer broke the session protocol (%s, %s): %v", e.Role, e.State, e.Err)
	}
	return fmt.Sprintf("the peer broke the session protocol (%s, %s): %s: got %s, expected %s [%s]",
		e.Role, e.State, e.What, e.Got, e.Expected, e.Rule)
}

// Unwrap returns e.Err.
func (e *ProtocolError) Unwrap() error { return e.Err }

// RejectError is what a listener's REJECT says. Its Reason tells whether the session is lost, and whether another dial is
// worth it.
type RejectError struct {
	Reject
	// Restarted: another process answers than the one that the session began with.
	Restarted bool
}

// Error says why.
func (e *RejectError) Error() string {
	if e.Restarted {
		return fmt.Sprintf("rejected by the listener, which is another process than before: %v", e.Reason)
	}
	return fmt.Sprintf("rejected by the listener: %v", e.Reason)
}

// Lost reports whether the reason means that the session is lost, and that a new one may take its place.
func (r Reason) Lost() bool {
	switch r {
	case ReasonUnknown, ReasonExpired, ReasonEvicted, ReasonMismatch:
		return true
	}
	return false
}

// Again reports whether the reason passes, so that it is worth another dial.
func (r Reason) Again() bool { return r == ReasonDraining || r == ReasonBusy }

// ClosedError is the peer's CLOSE, or a REJECT that says that the session has ended, while this side was not done.
type ClosedError struct {
	Reason CloseReason
}

// Error says why.
func (e *ClosedError) Error() string { return "the peer closed the session: " + e.Reason.String() }

// LostError is the end of a listener's session that it drops itself.
type LostError struct{ Reason Reason }

// Error says why.
func (e *LostError) Error() string { return "the session is lost: " + e.Reason.String() }
