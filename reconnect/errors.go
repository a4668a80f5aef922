package reconnect

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/towline-mq/towline/datagram"
)

var (
	// ErrClosed is what calls get after this side closed the Conn, or ended its sending. It matches net.ErrClosed.
	ErrClosed error = closedError{}

	// ErrWouldBlock is TrySend's answer when the queue is full: nothing was sent.
	ErrWouldBlock = errors.New("reconnect: the send queue is full")

	// ErrPeerClosed is what senders get once the peer takes nothing more, because it called Close; and the end of a
	// session that the peer ended by CloseNow, or by Close while something of this side's was unconfirmed.
	ErrPeerClosed = errors.New("reconnect: the peer closed the session")

	// ErrSessionLost is what every *SessionLostError matches.
	ErrSessionLost = errors.New("reconnect: the session is lost")

	// ErrTakenOver is the end of a session that somebody else goes on with, who has its secret: of two holders of one
	// session the one that dialled last has it.
	ErrTakenOver = errors.New("reconnect: the session was taken over by another holder")

	// ErrRefused is a peer that the listener does not want: not authorised, or of another version. It is the end of a
	// session also at a later dial.
	ErrRefused = errors.New("reconnect: refused by the listener")

	// ErrBusy is a listener that has no room for another session, or shuts down. A session that exists dials again
	// later; Dial ends with it.
	ErrBusy = errors.New("reconnect: the listener takes no new session now")

	// ErrProtocol is a peer that broke the session protocol.
	ErrProtocol = errors.New("reconnect: the peer broke the session protocol")

	// ErrNoSessions is a peer that knows no sessions: it answered with plain datagrams, or hung up at the first word.
	// (A connection that breaks just then looks the same.)
	ErrNoSessions = errors.New("reconnect: the peer seems to have no sessions; a plain connection may do")

	// ErrNoAnswer is why a connection was given up, not a session: nothing came from the peer for too long. Events tell
	// it, and a Dial that gets no answer returns it.
	ErrNoAnswer = errors.New("reconnect: the peer does not answer")
)

// SessionLostError is the end of a session that the listener lost: it was started again, the session was without a
// connection for too long, or it had to make room. It matches ErrSessionLost.
type SessionLostError struct {
	// Reason is the listener's, in words, for people.
	Reason string
	// Unconfirmed is what was accepted and not acknowledged, in order, as copies. Each of these may have been delivered
	// or not.
	Unconfirmed []datagram.Datagram
	// Err is what told of the loss.
	Err error
}

// Error says why, and how much is unconfirmed.
func (e *SessionLostError) Error() string {
	return fmt.Sprintf("reconnect: the session is lost, %d datagrams are unconfirmed: %s", len(e.Unconfirmed), e.Reason)
}

// Is matches ErrSessionLost.
func (e *SessionLostError) Is(target error) bool { return target == ErrSessionLost }

// Unwrap returns e.Err.
func (e *SessionLostError) Unwrap() error { return e.Err }

// notEOF is an error that came of io.EOF, and does not match it.
type notEOF struct{ err error }

func (e notEOF) Error() string        { return e.err.Error() }
func (e notEOF) Is(target error) bool { return target != io.EOF && errors.Is(e.err, target) }
func (e notEOF) As(target any) bool   { return errors.As(e.err, target) }

type closedError struct{}

func (closedError) Error() string { return "reconnect: the connection was closed by this side" }
func (closedError) Unwrap() error { return net.ErrClosed }

// sessionError is one of the errors above with what it came of.
type sessionError struct {
	is     error
	detail string
	err    error
}

func (e *sessionError) Error() string   { return e.is.Error() + ": " + e.detail }
func (e *sessionError) Unwrap() []error { return []error{e.is, e.err} }

// CloseError is how Close and CloseSend say that not everything that was accepted could be delivered, as far as is
// known.
type CloseError struct {
	// Unsent counts the datagrams that were accepted and not acknowledged by the peer, or, on a plain connection, not
	// known to be written. Some of them may have arrived.
	Unsent uint64
	// Err is what ended the wait: the context's error, or why the Conn ended.
	Err error
}

// Error counts what was not written, and says why.
func (e *CloseError) Error() string {
	what := "datagrams"
	if e.Unsent == 1 {
		what = "datagram"
	}
	return fmt.Sprintf("reconnect: closed with %d %s not known to have arrived: %v", e.Unsent, what, e.Err)
}

// Unwrap returns e.Err.
func (e *CloseError) Unwrap() error { return e.Err }
