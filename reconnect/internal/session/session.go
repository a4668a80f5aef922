package session

import (
	"crypto/ecdh"
	"fmt"
	"io"
	"math"
	"time"
)

// Config sets a Session up. All of it holds for the whole session.
type Config struct {
	// MaxPayload is the largest payload that is sent or taken, in bytes.
	MaxPayload uint32
	// SendBuffer is how many bytes may be unconfirmed; the last datagram may go over it.
	SendBuffer uint64
	// MinWindow and MaxWindow bound how many bytes may arrive ahead of the application. At least InitialCredit.
	MinWindow, MaxWindow uint64
	// Consumed: datagrams are acknowledged when the application has finished with them.
	Consumed bool

	// PingAfter of silence a dialer sends a PING, and a listener a quarter later; after twice of it the connection is dead.
	// Half of each while anything is unconfirmed.
	PingAfter time.Duration
	// AckDelay bounds how long an acknowledgement waits.
	AckDelay time.Duration
	// AnswerTimeout bounds how long a dialer waits for the answer to HELLO or RESUME.
	AnswerTimeout time.Duration
	// Expiry is how long a listener keeps the session without a connection.
	Expiry time.Duration

	// Memory has the segments of the log.
	Memory Memory
	// Reserve asks for n bytes more, or, if n is negative, gives some back, of what may be promised to peers. nil: there
	// is no budget. The window begins with MinWindow, asked or not.
	Reserve func(n int64) bool

	// Start is where the counts of both directions begin, for tests of large ones. Both sides must have the same.
	Start Position
}

// reserve asks for n bytes more of the budget.
func (c *Config) reserve(n uint64) bool { return c.Reserve == nil || c.Reserve(int64(n)) }

// Timing of and.
const (
	lateTimer    = time.Second // a timer that fires later than this says that this machine was stopped
	partialAfter = time.Second // of reading a frame's parts and sending nothing
)

// chunk is about how much Pull gives out at once, so that what must not wait for data waits for this much at most.
const chunk = 256 << 10

// Session is one side of a session.
//
// Invariants, beside those of its parts: there is a connection if and only if the state is attached; the epoch never
// goes down; what is said in a status was true when it was built, and is so for ever but for Sent.
type Session struct {
	cfg   Config
	role  Role
	state State
	err   error // why it ended; nil in good order

	// Who we are.
	id          [16]byte
	private     *ecdh.PrivateKey // nil once the keys are derived
	public      [32]byte
	peer        [32]byte // the other side's public key
	secret      [32]byte // of the dialer's chain of links
	link        [32]byte // the last that the listener took
	keys        Keys
	instance    [16]byte // the listener's
	epoch       uint64
	redelivered uint64 // of the dialer's stream, counted from the session's beginning
	refused     bool   // a dialer's HELLO was rejected: nothing behind it was delivered
	proved      bool   // a RESUME has had the proof: the session is no HELLO's that somebody repeated
	missed      bool   // a listener's session was taken over by a HELLO that was not the next one
	peerMax     uint32
	peerFlags   uint16
	welcomed    bool // there are keys, and the peer's limit is known
	expiry      time.Duration

	greeting []byte // HELLO or RESUME, until it is answered: its hash is part of the proof
	exporter []byte // of this connection, until then

	unanswered bool // the dialer's RESUME before this connection had no answer

	log     sendLog
	recv    recvSide
	longest uint64 // payload that was accepted before the peer's limit was known

	// The peer's say about our stream.
	credit   uint64 // below which datagrams may begin
	stopped  bool   // the peer takes no more
	finAcked bool

	// What is to be written on this connection.
	first                                     []byte // HELLO, WELCOME, RESUME or RESUMED
	ackDue, stopDue, closeDue                 bool
	confirmDue                                bool // the ACK that confirms a session to the listener
	pongDue, pingDue, flushDue, moved, goaway bool
	pongToken                                 uint64
	closeReason                               CloseReason
	closeSent                                 bool
	goawayDelay, goawaySpread                 uint32
	flushTo                                   uint64 // when this number is not acknowledged, a flush waits for it

	// Signs of life.
	lastRead  time.Duration
	waitSince time.Duration // since when something is unconfirmed
	pinged    bool          // since lastRead
	pingAt    time.Duration // of the last PING, HELLO or RESUME
	token     uint64        // of the last PING
	waitPong  bool
	partialAt time.Duration // when an ACK is due for parts of a frame; 0: none
	rtt       time.Duration // smoothed; 0: not measured

	stats  Counters
	events []Event
}

// Counters are what a Session counts from its beginning, and what only serves to be told.
type Counters struct {
	Accepted   uint64 // datagrams
	Taken      uint64
	Expired    uint64 // datagrams of ours that were skipped
	Skipped    uint64 // datagrams of the peer's that were skipped
	Resumes    uint64 // connections that the session went on with
	Replayed   uint64 // datagrams that were written again
	Duplicates uint64 // datagrams that arrived again, and were dropped
}

// Stats are counters and gauges of a Session.
type Stats struct {
	Counters
	State       State
	Epoch       uint64
	Arrived     uint64 // datagrams, since the beginning
	Unsent      uint64 // datagrams that were not written on this connection
	UnsentSize  uint64 // in bytes
	Unacked     uint64 // unconfirmed datagrams, but for skipped ones
	UnackedSize uint64 // in bytes, with skipped ones
	Waiting     uint64 // bytes that wait for the application
	Window      uint64
	Credit      uint64 // bytes that the peer takes beyond what was written
	RTT         time.Duration
}

// EventKind says what an Event is.
type EventKind uint8

// The kinds of events.
const (
	EventLive    EventKind = iota // the peer has answered, or is confirmed: there is a connection that works
	EventGoaway                   // the peer asks to be left: Delay, Spread
	EventExpired                  // a datagram was skipped: Number, counted from 1
	EventStopped                  // the peer takes no more
	EventFin                      // the peer's stream has ended
)

// Event is something that the application may want to know. Others are changes of State and Err, which who calls sees.
type Event struct {
	Kind          EventKind
	Resumed       bool // EventLive: it goes on with an earlier connection
	Number        uint64
	Delay, Spread time.Duration
}

func (s *Session) init(cfg Config, role Role) {
	s.cfg, s.role = cfg, role
	s.log.mem = cfg.Memory
	s.rebase(cfg.Start)
	s.peerMax = math.MaxUint32
	s.recv.window, s.recv.reserved = cfg.MinWindow, cfg.MinWindow
	s.recv.credit = plus(cfg.Start.B, InitialCredit)
	s.credit = s.recv.credit
}

// rebase makes both streams begin at start.
func (s *Session) rebase(start Position) {
	l, r := &s.log, &s.recv
	l.base, l.unsent, l.sent, l.max, l.end = start, start, start, start, start
	r.arrived, r.here, r.taken, r.done = start, start, start, start
}

// NewDialer makes the dialing side of a new session. It reads 80 bytes from rand.
func NewDialer(cfg Config, rand io.Reader) (*Session, error) {
	s := new(Session)
	s.init(cfg, Dialer)
	return s, s.identity(rand)
}

// identity draws what makes a session another one.
func (s *Session) identity(rand io.Reader) error {
	var err error
	if _, err = io.ReadFull(rand, s.id[:]); err != nil {
		return fmt.Errorf("session: drawing an id: %w", err)
	}
	if _, err = io.ReadFull(rand, s.secret[:]); err != nil {
		return fmt.Errorf("session: drawing a secret: %w", err)
	}
	if s.private, err = GenerateKey(rand); err != nil {
		return err
	}
	s.public = PublicKey(s.private)
	s.epoch, s.welcomed, s.redelivered = 0, false, 0
	s.instance, s.keys = [16]byte{}, Keys{}
	return nil
}

// NewListener makes the listening side of the session that a HELLO begins. It reads 32 bytes from rand. The next call
// must be Welcome. An error is the peer's fault, but for one of rand.
func NewListener(cfg Config, rand io.Reader, h *Hello, instance [16]byte) (*Session, error) {
	s := new(Session)
	s.init(cfg, Listener)
	private, err := GenerateKey(rand)
	if err != nil {
		return nil, err
	}
	s.id, s.instance = h.ID, instance
	s.public, s.peer = PublicKey(private), h.PublicKey
	s.keys, err = DeriveKeys(private, h.PublicKey, h.ID, h.PublicKey, s.public, instance)
	if err == nil && (h.Epoch == 0 || h.Epoch > MaxHellos) {
		err = fmt.Errorf("the epoch is %d, expected 1 to %d", h.Epoch, MaxHellos)
	}
	if err != nil {
		return nil, &ProtocolError{Role: Listener, State: New, What: "HELLO", Err: err}
	}
	s.peerMax, s.peerFlags, s.redelivered = h.MaxPayload, h.Flags, h.Redelivered
	s.link, s.epoch, s.welcomed = h.Link, h.Epoch, true
	s.credit = h.Credit
	return s, nil
}

// ID returns the session's id.
func (s *Session) ID() [16]byte { return s.id }

// Role returns which side this is.
func (s *Session) Role() Role { return s.role }

// State returns how far the session is.
func (s *Session) State() State { return s.state }

// Epoch returns that of the newest connection.
func (s *Session) Epoch() uint64 { return s.epoch }

// Instance returns that of the listener's process; all zeros where it is not known yet.
func (s *Session) Instance() [16]byte { return s.instance }

// Err returns why the session ended: nil in good order, and before.
func (s *Session) Err() error { return s.err }

// Expiry returns how long the listener keeps the session without a connection; 0 where it is not known yet.
func (s *Session) Expiry() time.Duration {
	if s.role == Listener {
		return s.cfg.Expiry
	}
	return s.expiry
}

// Confirmed reports whether both sides have the keys, and this one knows it.
func (s *Session) Confirmed() bool {
	return s.state == Detached || s.state == Resuming || s.state == Live
}
