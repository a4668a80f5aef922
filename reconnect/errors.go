package reconnect

import (
	"errors"
	"fmt"
	"net"
)

var (
	// ErrClosed is what calls get after this side closed the connection, or ended its sending. It matches
	// net.ErrClosed.
	ErrClosed error = closedError{}

	// ErrWouldBlock is TrySend's answer when the queue is full: nothing was sent.
	ErrWouldBlock = errors.New("reconnect: the send queue is full")
)

type closedError struct{}

func (closedError) Error() string { return "reconnect: the connection was closed by this side" }
func (closedError) Unwrap() error { return net.ErrClosed }

// CloseError is how Close and CloseSend say that not everything that was accepted could be written.
type CloseError struct {
	// Unsent counts the datagrams that were accepted and not known to be written. Some of them may have been.
	Unsent uint64
	// Err is what ended the wait: the context's error, or what broke the connection.
	Err error
}

// Error counts what was not written, and says why.
func (e *CloseError) Error() string {
	return fmt.Sprintf("reconnect: closed with %d datagrams unsent: %v", e.Unsent, e.Err)
}

// Unwrap returns e.Err.
func (e *CloseError) Unwrap() error { return e.Err }
