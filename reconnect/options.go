package reconnect

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// What sessions have unless options say otherwise.
const (
	// DefaultSessionBuffer is how many bytes of frames may be accepted and not acknowledged: 8 MiB.
	DefaultSessionBuffer = 8 << 20
	// DefaultMaxWindow is how many bytes may arrive ahead of the application, where the connection needs that much to
	// be kept busy: 16 MiB. A session begins with 64 KiB.
	DefaultMaxWindow = 16 << 20
	// DefaultPingAfter is the silence after which a peer is asked whether it is there: 5 s.
	DefaultPingAfter = 5 * time.Second
	// DefaultExpiry is how long a listener keeps a session without a connection: 2 min.
	DefaultExpiry = 2 * time.Minute
	// DefaultHandshakeTimeout bounds the time from a connection to the answer to its first frame: 5 s.
	DefaultHandshakeTimeout = 5 * time.Second
	// DefaultMaxHandshakes is how many connections may be without a session at once: 1024.
	DefaultMaxHandshakes = 1024
	// DefaultMaxSessions is how many sessions a listener has: 100,000.
	DefaultMaxSessions = 100_000
	// DefaultMemory is how many bytes a listener promises to take from all peers together, ahead of the application: 1
	// GiB.
	DefaultMemory = 1 << 30
)

// SessionOptions are what both sides of a session set for themselves. The zero value is safe defaults.
type SessionOptions struct {
	// MaxPayload is the largest payload in bytes, sent or received. The peer is told, and the smaller of both limits
	// holds in each direction. 0: datagram.DefaultMaxPayload, 16 MiB. At most 4,294,967,291.
	MaxPayload int

	// SendBuffer is how many bytes of frames, payload and 8 each, may be accepted and not acknowledged; the last may go
	// over it. It is what can be under way at once: for full speed, no less than the rate times the round trip; for
	// outages, what is to be accepted meanwhile. 0: DefaultSessionBuffer.
	SendBuffer int

	// MaxWindow is how many bytes may arrive ahead of the application; one datagram may go over it. 0:
	// DefaultMaxWindow. Less than 64 KiB: 64 KiB.
	MaxWindow int

	// AckConsumed: what arrives is acknowledged to the peer when the application calls Reader.Ack, not as soon as it is
	// in memory here. So what this process had not finished with when it was killed is still unconfirmed at the peer.
	// An application that does not call it stops its peer when the peer's buffer is full, or when what was received and
	// not acknowledged fills MaxWindow.
	AckConsumed bool

	// PingAfter is the silence after which a dialer asks whether the peer is there; a listener asks a quarter later, so
	// that one question does for both. After twice PingAfter the connection is given up. While something is unconfirmed
	// all of these are half as long. 0: DefaultPingAfter. Less than 20 ms: 20 ms.
	PingAfter time.Duration

	// OnEvent is told what happens to the session, one event after the other, from a goroutine that belongs to nobody
	// else. It may call anything. It may take its time, in which events gather. It may be called before Dial or Accept
	// has returned, and after Close has. nil: nobody is told.
	OnEvent func(*Conn, Event)

	// Logger is told the same, and of refused peers. nil: silence.
	Logger *slog.Logger
}

// DialOptions set a dialer's session up. nil, and the zero value, are safe defaults.
type DialOptions struct {
	SessionOptions

	// Fallbacks lead to the same listener, or to listeners that share their sessions, in order of preference, after the
	// dialer that is given to Dial. A session that fell back tries what it prefers again from time to time.
	Fallbacks []transport.Dialer

	// Redial says how to get a connection again. nil: at once, then after random waits of up to 50 ms, growing to up to
	// 5 s, without end. The end of its limits, and a failure that is fatal at every endpoint, end the Conn. Each
	// connection has, beside Redial.AttemptTimeout, 5 s to be answered.
	Redial *redial.Policy

	// Limit, if not nil, is shared by sessions of which only so many may dial at once: see DialLimit.
	Limit *DialLimit

	// Strict: a session that the listener has lost ends the Conn, with a *SessionLostError. Otherwise a new session
	// takes its place and what is unconfirmed is sent again there; what was written before is marked as Redelivered.
	// (If one direction has ended already, no session can take its place, and it is as with Strict.)
	Strict bool

	// Token is shown to the listener's Authenticate at each dial, up to 768 bytes. It is asked for each time, when the
	// connection is there; its ctx ends with the Conn. An error is a dial that failed, or, marked by redial.Fatal, the
	// end of the Conn. nil: none. The token is sent as it is: use TLS or QUIC.
	Token func(ctx context.Context) ([]byte, error)
}

// PlainPeers says what a Listener does with peers that have no sessions.
type PlainPeers int

const (
	// PlainIfAnybody is AllowPlain, or, where ListenOptions.Authenticate asks who a peer is, RefusePlain.
	PlainIfAnybody PlainPeers = iota
	// AllowPlain serves them with plain connections. A peer that says nothing within HandshakeTimeout counts as one,
	// and so does one that ends its stream at once, as health checks do. Authenticate is not asked about them.
	AllowPlain
	// OnlyPlain serves nobody else: no byte is looked at, each connection is a plain one.
	OnlyPlain
	// RefusePlain closes their connections.
	RefusePlain
)

// ListenOptions set a Listener up. nil, and the zero value, are safe defaults.
type ListenOptions struct {
	SessionOptions

	// Plain says what to do with peers that have no sessions: they have nothing to show to Authenticate.
	Plain PlainPeers

	// PlainFraming replaces the 8-byte header on plain connections. It must only be set with OnlyPlain.
	PlainFraming datagram.Framing

	// Expiry is how long a session is kept without a connection, up to 49 days. 0: DefaultExpiry. One that its dialer has not
	// confirmed is kept for 30 s at most.
	Expiry time.Duration

	// Authenticate says who a peer is, at each connection that it makes for a session; an error refuses it, which ends the
	// dialer's session. A session is only resumed by the principal that began it. ctx ends when four fifths of HandshakeTimeout
	// are over, and with Close; an error after that asks the dialer to come back in 1 to 2 s. nil: everybody is "".
	Authenticate func(ctx context.Context, p *Peer) (principal string, err error)

	// HandshakeTimeout bounds the time from a connection to the answer to its first frame. 0: DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// MaxHandshakes is how many connections may be without a session at once, with their peers not proved. One more waits
	// until there is room; the oldest whose first frame has not come within half a second is closed for it. So a dialer
	// waits half a second for each MaxHandshakes connections that came before it and say nothing, and for answers that
	// are being decided on. 0: DefaultMaxHandshakes.
	MaxHandshakes int

	// MaxSessions is how many sessions there may be: further dialers are asked to come back in 1 to 2 s. MaxDetached is
	// how many of them may be without a connection: above it the one that has been so for longest is dropped, those
	// that were never confirmed first. 0: DefaultMaxSessions, and MaxSessions.
	MaxSessions, MaxDetached int

	// Memory is how many bytes are promised to be taken from all peers together, ahead of the application. Each session
	// has 64 KiB of it even if there is nothing left, and more only as long as there is. What the sessions have sent is
	// not part of it: that is MaxSessions times SendBuffer at worst. 0: DefaultMemory.
	Memory int64
}

// Peer is who wants a session, for ListenOptions.Authenticate.
type Peer struct {
	// Addr is its address.
	Addr net.Addr
	// TLS is the state of its connection, with its certificates if it has shown some; nil without TLS.
	TLS *tls.ConnectionState
	// Token is what its application shows; nil if nothing.
	Token []byte
	// Resume: it goes on with a session that it has.
	Resume bool
}

func (o *SessionOptions) maxPayload() uint32 {
	switch {
	case o.MaxPayload <= 0:
		return datagram.DefaultMaxPayload
	case uint64(o.MaxPayload) > 1<<32-5:
		return 1<<32 - 5
	}
	return uint32(o.MaxPayload)
}

// orDefault returns v, or otherwise if v is not positive.
func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}
