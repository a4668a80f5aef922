package reconnect

import (
	"fmt"
	"time"
)

// State is how a Conn is connected.
type State int

// The states.
const (
	// Connecting: a dialer's session that has had no answer yet.
	Connecting State = iota
	// Connected: there is a connection that works, as far as this side knows. Plain connections are connected until
	// they end.
	Connected
	// Disconnected: the session lives and has no connection. A dialer is at work to get one, a listener waits.
	Disconnected
	// Closed: it has ended for good. Conn.Err says why.
	Closed
)

// String returns the state's name in lower case.
func (s State) String() string {
	if s < 0 || s > Closed {
		return fmt.Sprintf("state %d", int(s))
	}
	return [...]string{"connecting", "connected", "disconnected", "closed"}[s]
}

// EventKind says what an Event is.
type EventKind int

// The kinds of events.
const (
	// EventConnected: the session has begun. Also after EventLost, when a new one has.
	EventConnected EventKind = iota
	// EventDisconnected: the connection is gone, and Err says why. The session lives.
	EventDisconnected
	// EventResumed: the session goes on with another connection.
	EventResumed
	// EventDialFailed: an attempt to connect failed, or brought no answer, and Err says why. Wait is how long until the
	// next; 0 if there is no wait or it is not known yet, negative if there is no next.
	EventDialFailed
	// EventLost: the listener has no such session any more, and a new one takes its place. N datagrams are sent again
	// there, and some of them may have been delivered: they are Redelivered. What the lost session has acknowledged and
	// its application not seen is gone. Err says why it was lost.
	EventLost
	// EventExpired: a datagram was not sent in its time, and will not be. N is its number among all that were accepted,
	// the first being 1. It is told when the turn of the datagram has come, over a connection.
	EventExpired
	// EventGoAway: the listener asks to be left. When the connection ends the dialer waits for Wait, and a random part
	// of Spread, before it dials. To a listener's own Conn it says that Shutdown was called.
	EventGoAway
	// EventPeerStopped: the peer has closed, and takes nothing more. What is on its way from it may still be received.
	EventPeerStopped
	// EventClosed: the Conn has ended, and Err is that of Conn.Err. It is the last event.
	EventClosed
)

// String returns the kind in lower case.
func (k EventKind) String() string {
	if k < 0 || k > EventClosed {
		return fmt.Sprintf("event %d", int(k))
	}
	return [...]string{
		"connected", "disconnected", "resumed", "dial failed", "session lost", "datagram expired", "asked to go away",
		"stopped by the peer", "closed",
	}[k]
}

// Event is something that happened to a session.
type Event struct {
	Kind EventKind
	// Time is when.
	Time time.Time
	// Err, N, Wait and Spread are set as the kinds say, else zero.
	Err          error
	N            uint64
	Wait, Spread time.Duration
}

// String says what happened, in one line.
func (e Event) String() string {
	switch e.Kind {
	case EventDialFailed:
		if e.Wait < 0 {
			return fmt.Sprintf("%v: %v", e.Kind, e.Err)
		}
		return fmt.Sprintf("%v, next in %v: %v", e.Kind, e.Wait.Round(time.Millisecond), e.Err)
	case EventLost:
		return fmt.Sprintf("%v, %d datagrams are sent again: %v", e.Kind, e.N, e.Err)
	case EventExpired:
		return fmt.Sprintf("%v: number %d", e.Kind, e.N)
	case EventGoAway:
		return fmt.Sprintf("%v, for %v and up to %v more", e.Kind, e.Wait, e.Spread)
	}
	if e.Err != nil {
		return fmt.Sprintf("%v: %v", e.Kind, e.Err)
	}
	return e.Kind.String()
}
