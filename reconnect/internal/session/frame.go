package session

import (
	"encoding/binary"
	"fmt"

	"github.com/towline-mq/towline/datagram"
)

const (
	// ProtocolVersion is the version of the session protocol that this package speaks, as HELLO, WELCOME and RESUME
	// state it.
	ProtocolVersion = 1
	// MaxToken is the length of the application's longest token in bytes.
	MaxToken = 768
	// MaxHellos is the highest epoch that a HELLO may have.
	MaxHellos = 256

	// extensionToken is the extension of HELLO and RESUME that carries the application's token.
	extensionToken = 1
	// criticalExtension is the first type of the extensions that must not be skipped.
	criticalExtension = 0x8000
)

// Flags. Any other is an error.
const (
	// FlagConsumed, in HELLO, WELCOME and RESUME, says that who sends it acknowledges a datagram when its application
	// has finished with it, not already when it has arrived.
	FlagConsumed uint16 = 1
	// FlagReceivedKnown, in REJECT, says that Received is known.
	FlagReceivedKnown uint16 = 1
)

// Kind is the kind of a control frame: the recipient field of its header.
type Kind uint16

// The kinds of protocol.md §8.
const (
	KindHello Kind = iota + 1
	KindWelcome
	KindResume
	KindResumed
	KindReject
	KindAck
	KindPing
	KindPong
	KindFin
	KindGoaway
	KindClose
	KindSkip
	KindStop
)

// kinds has the name of each kind, and the length of the fixed part of its body in bytes.
var kinds = [...]struct {
	name  string
	fixed int
}{
	KindHello:   {"HELLO", 112},
	KindWelcome: {"WELCOME", 140},
	KindResume:  {"RESUME", 104},
	KindResumed: {"RESUMED", 84},
	KindReject:  {"REJECT", 44},
	KindAck:     {"ACK", 40},
	KindPing:    {"PING", 48},
	KindPong:    {"PONG", 48},
	KindFin:     {"FIN", 40},
	KindGoaway:  {"GOAWAY", 48},
	KindClose:   {"CLOSE", 42},
	KindSkip:    {"SKIP", 44},
	KindStop:    {"STOP", 40},
}

// String returns the name that protocol.md gives to k, or "kind 99".
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("kind %d", uint16(k))
	}
	return kinds[k].name
}

// KindOf returns the kind of a control frame, of which the header is enough. It is 0 if frame is shorter than that.
func KindOf(frame []byte) Kind {
	if len(frame) < datagram.HeaderSize {
		return 0
	}
	return Kind(binary.BigEndian.Uint16(frame[6:]))
}

// Reason says why a listener rejects a HELLO or a RESUME.
type Reason uint16

// The reasons of a REJECT.
const (
	ReasonUnknown      Reason = iota + 1 // there is no such session, nor a memory of it
	ReasonExpired                        // it was without a connection for too long
	ReasonEvicted                        // it had to make room for others
	ReasonTakenOver                      // another holder of the session dialled later
	ReasonDraining                       // the listener shuts down: dial again later
	ReasonUnauthorised                   // the proof or the principal is not the session's
	ReasonVersion                        // the listener does not speak the version of the protocol
	ReasonBusy                           // the listener has too much to do: dial again later
	ReasonClosed                         // the session has ended in good order
	ReasonMismatch                       // limits, flags or positions do not fit the session
)

var reasons = [...]string{
	ReasonUnknown:      "the session is not known",
	ReasonExpired:      "the session has expired",
	ReasonEvicted:      "the session had to make room for others",
	ReasonTakenOver:    "the session was taken over by a later dial",
	ReasonDraining:     "the listener is shutting down",
	ReasonUnauthorised: "not authorised",
	ReasonVersion:      "the version of the session protocol is not supported",
	ReasonBusy:         "the listener is busy",
	ReasonClosed:       "the session has ended",
	ReasonMismatch:     "limits, flags or positions do not match the session",
}

// String says r in plain words, or "reason 99".
func (r Reason) String() string {
	if r == 0 || int(r) >= len(reasons) {
		return fmt.Sprintf("reason %d", uint16(r))
	}
	return reasons[r]
}

// CloseReason says why a side closes the session.
type CloseReason uint16

// The reasons of a CLOSE.
const (
	CloseDone      CloseReason = iota // both streams have ended
	CloseProtocol                     // the peer broke a rule of the protocol
	CloseAborted                      // the application gave the session up
	CloseTakenOver                    // another holder of the session dialled later
	CloseShutdown                     // the listener shuts down
)

var closeReasons = [...]string{
	CloseDone:      "both streams have ended",
	CloseProtocol:  "protocol error",
	CloseAborted:   "aborted by the application",
	CloseTakenOver: "the session was taken over by a later dial",
	CloseShutdown:  "the listener is shutting down",
}

// String says r in plain words, or "reason 99".
func (r CloseReason) String() string {
	if int(r) >= len(closeReasons) {
		return fmt.Sprintf("reason %d", uint16(r))
	}
	return closeReasons[r]
}

// Position is a place in one direction's stream: N datagrams have passed, whose frames were B bytes long together,
// headers included.
type Position struct{ N, B uint64 }

// Status is what most control frames restate, all of it absolute.
type Status struct {
	Sent     Position // the sender's stream at this frame
	Received Position // the acknowledgement of the other stream
	Credit   uint64   // the byte position below which the other stream's frames may begin
}

// Hello opens a session: kind 1, by the dialer.
type Hello struct {
	Version     uint16 // ProtocolVersion
	Flags       uint16 // 0 or FlagConsumed
	MaxPayload  uint32 // the largest payload that the dialer takes, in bytes
	ID          [16]byte
	Epoch       uint64   // 1 to 256
	PublicKey   [32]byte // X25519
	Link        [32]byte // of the hash chain
	Redelivered uint64   // how many of the first datagrams may have been delivered before
	Credit      uint64   // for the listener, until the first status
	Token       []byte   // the application's, at most MaxToken bytes; empty: none
}

// Welcome answers a Hello: kind 2, by the listener.
type Welcome struct {
	Version    uint16 // ProtocolVersion
	Flags      uint16 // 0 or FlagConsumed
	MaxPayload uint32 // the largest payload that the listener takes, in bytes
	Epoch      uint64
	Instance   [16]byte // of the listener's process
	PublicKey  [32]byte // X25519
	Expiry     uint32   // how long the listener keeps a session without a connection, in milliseconds
	Status
	Proof [32]byte // see AppendWelcome
}

// Resume goes on with a session on a new connection: kind 3, by the dialer.
type Resume struct {
	Version    uint16 // ProtocolVersion
	Flags      uint16 // 0 or FlagConsumed
	MaxPayload uint32 // the largest payload that the dialer takes, in bytes
	ID         [16]byte
	Epoch      uint64
	Status
	Proof [32]byte // see AppendResume
	Token []byte   // the application's, at most MaxToken bytes; empty: none
}

// Resumed answers a Resume: kind 4, by the listener.
type Resumed struct {
	Epoch  uint64
	Expiry uint32 // how long the listener keeps a session without a connection, in milliseconds
	Status
	Proof [32]byte // see AppendResumed
}

// Reject refuses a Hello or a Resume: kind 5, by the listener.
type Reject struct {
	Reason   Reason
	Flags    uint16   // 0 or FlagReceivedKnown
	Received Position // how far the dialer's stream had arrived; meaningless without the flag
	Delay    uint32   // with ReasonDraining and ReasonBusy: dial no earlier than Delay …
	Spread   uint32   // … and a random part of Spread, both in milliseconds
	Instance [16]byte // of the listener's process
}

// Control is any of the kinds from KindAck to KindStop: a status, and what that kind adds. The fields of other kinds
// are zero when parsed, and not looked at when appended.
type Control struct {
	Kind   Kind
	Reason CloseReason // CLOSE
	Length uint32      // SKIP: the length of the frame that is not sent, in bytes; at least 8
	Delay  uint32      // GOAWAY: dial no earlier than Delay …
	Spread uint32      // … and a random part of Spread, both in milliseconds
	Token  uint64      // PING and PONG
	Status
}

// ControlError is a control frame that breaks a rule of protocol.md §8: a protocol error, found from the frame alone.
type ControlError struct {
	Kind     Kind   // of the frame; 0 if it is too short to have one
	Field    string // which part of it: the name of a field, or "size", "header", "kind", "body", "L", "extension"
	Expected string // what the rule allows
	Got      string // what came
	Rule     string // the rule, such as "R-102"
}

// Error says what was expected and what came, as "HELLO: flags: got 0x0002, expected 0x0000 or 0x0001 [R-104]".
func (e *ControlError) Error() string {
	return fmt.Sprintf("%v: %s: got %s, expected %s [%s]", e.Kind, e.Field, e.Got, e.Expected, e.Rule)
}

// VersionError is a HELLO, WELCOME or RESUME of a version that is not ProtocolVersion. What follows the version in
// such a frame is not known: nothing else of it was looked at. A listener answers with ReasonVersion.
type VersionError struct {
	Kind    Kind
	Version uint16
}

// Error says what was expected and what came.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: version: got %d, expected %d [R-104]", e.Kind, e.Version, ProtocolVersion)
}
