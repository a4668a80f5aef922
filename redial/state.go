package redial

import (
	"errors"
	"io"
	"strconv"
)

// State is how a [Conn] is connected.
type State int

// The states of a Conn.
const (
	// Connecting is the time before the first connection.
	Connecting State = iota

	// Connected means that there is a connection and it has not been seen to break. It may be dead all the same.
	Connected

	// Redialling means that the connection broke, and another is being made.
	Redialling

	// Kept means that the connection broke and OnDisconnected said [Keep]: Read and Write return its errors.
	Kept

	// Ended is for good: closed, detached, or given up.
	Ended
)

// String returns the state's name in lower case.
func (s State) String() string {
	names := [...]string{"connecting", "connected", "redialling", "kept", "ended"}
	if s < 0 || int(s) >= len(names) {
		return "state " + strconv.Itoa(int(s))
	}
	return names[s]
}

// ErrDisconnected is what a Read or a Write of a [Conn] returns that is to report a break ([Dialer].ReportRead and
// ReportWrite), with the reason, and Detach if there is no connection. The Conn is dialling again and can be used. It
// never matches io.EOF.
var ErrDisconnected = errors.New("redial: disconnected")

// breakError is the end of one connection, where there will be another.
type breakError struct{ reason error }

func (e *breakError) Error() string {
	if e.reason == nil {
		return ErrDisconnected.Error()
	}
	return ErrDisconnected.Error() + ": " + e.reason.Error()
}

func (e *breakError) Is(target error) bool {
	return target == ErrDisconnected || target != io.EOF && errors.Is(e.reason, target)
}

func (e *breakError) As(target any) bool { return e.reason != nil && errors.As(e.reason, target) }
