package redial

import (
	"net"
	"time"

	"github.com/towline-mq/towline/transport"
)

// Action is what a hook wants done; see [Decision].
type Action int

const (
	// GoOn leaves it to the policy: dial again, with its waits and within its limits.
	GoOn Action = iota

	// Stop gives up. No further attempt is made.
	Stop

	// Keep leaves a connection that broke in place, as if nobody redialled: Read and Write return its own errors, until
	// [Conn.Redial]. It is of use in [Dialer].OnDisconnected alone, and elsewhere means GoOn.
	Keep
)

// Decision is what a hook answers. The zero value leaves all to the policy.
type Decision struct {
	// Do is what to do.
	Do Action

	// After, of GoOn, replaces the wait before the next attempt, counted from when the hook returned. 0: as the policy
	// says. Negative: no wait. The limits of the policy hold all the same.
	After time.Duration

	// Endpoint takes the place, from now on, of the endpoint that the hook was told of, which may have been ruled out.
	// Nil: no change.
	Endpoint transport.Dialer

	// Err is, with Stop, what the [*Error] gives as its Reason. Nil: it says that a hook said stop.
	Err error
}

// stopped is the Reason of a dial that the decision ends.
func (d Decision) stopped() error {
	if d.Err != nil {
		return d.Err
	}
	return errHook
}

// Connection is a connection that was just made, for [Policy].OnConnected.
type Connection struct {
	// Conn is the connection as the dialer returned it. The hook may read, write and set options; it must not keep or
	// close it.
	Conn net.Conn

	// First is whether the Redialer has made no other before.
	First bool

	// Endpoint is the index of the dialer that made it.
	Endpoint int

	// Attempts counts the attempts of this outage up to this one, and Total those since New.
	Attempts, Total int
}

// Disconnect is the end of a connection, for [Dialer].OnDisconnected.
type Disconnect struct {
	// Reason is what Read or Write met, which matches io.EOF at the end of the stream, or what [Conn.Redial] was given.
	Reason error

	// Fatal is whether, by the policy's IsFatal, another dial is of no use: GoOn then gives up. A connection that was
	// closed on this side ([net.ErrClosed]) does not count as one.
	Fatal bool

	// Endpoint is the index of the dialer that had made it; 0 for a connection that was wrapped.
	Endpoint int

	// Attempts counts the attempts of the present outage: 0 if the connection was of use. Total counts those since the
	// beginning.
	Attempts, Total int
}
