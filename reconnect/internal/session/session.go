package session

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
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

	// PingAfter of silence a PING is sent, after twice of it the connection is dead; half of both while anything is
	// unconfirmed.
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

	stats  Stats
	events []Event
}

// Stats are counters and gauges of a Session.
type Stats struct {
	State       State
	Epoch       uint64
	Accepted    uint64 // datagrams, since the beginning
	Arrived     uint64
	Taken       uint64
	Expired     uint64 // datagrams of ours that were skipped
	Skipped     uint64 // datagrams of the peer's that were skipped
	Resumes     uint64 // connections that the session went on with
	Replayed    uint64 // datagrams that were written again
	Duplicates  uint64 // datagrams that arrived again, and were dropped
	Unsent      uint64 // datagrams that were not written on this connection
	UnsentSize  uint64 // in bytes
	Unacked     uint64 // unconfirmed datagrams
	UnackedSize uint64
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

// ---- connections

// Dial begins a connection of a dialer, detached so far: it raises the epoch, and Pull then gives HELLO or RESUME.
// Exporter is the channel's exporter value, or nil; token is the application's. After the end it does nothing.
func (s *Session) Dial(now time.Duration, exporter, token []byte) {
	if s.state == Ended {
		return
	}
	s.epoch++
	s.reset(now)
	s.exporter = bytes.Clone(exporter)
	if s.state == Detached {
		s.state = Resuming
		r := Resume{
			Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, ID: s.id, Epoch: s.epoch,
			Status: s.status(), Token: token,
		}
		r.Received = s.recv.arrived.sub(s.recv.origin)
		s.greeting = AppendResume(nil, &r, s.keys.Dialer, exporter)
	} else {
		s.state = Greeting
		if s.epoch > MaxHellos {
			s.end(&LostError{ReasonUnknown})
			return
		}
		s.grant()
		h := Hello{
			Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, ID: s.id, Epoch: s.epoch,
			PublicKey: s.public, Link: Link(s.secret, s.epoch), Redelivered: s.redelivered,
			Credit: s.recv.credit - s.recv.origin.B, Token: token,
		}
		s.greeting = h.Append(nil)
	}
	s.first = s.greeting
}

func (s *Session) flags() uint16 {
	if s.cfg.Consumed {
		return FlagConsumed
	}
	return 0
}

// reset prepares for a new connection.
func (s *Session) reset(now time.Duration) {
	s.log.rewind()
	s.recv.here = s.recv.arrived
	s.lastRead, s.waitSince, s.pingAt = now, now, now
	s.pinged, s.waitPong = false, false
	s.partialAt, s.recv.ackAt = 0, 0
	s.ackDue, s.pongDue, s.pingDue, s.moved, s.closeSent = false, false, false, false, false
	s.confirmDue, s.refused = false, false
	s.stopDue, s.flushDue = s.recv.stopped, s.flushTo > s.log.base.N
	s.closing()
}

// Again reports whether a HELLO with the id of this listener's session may take it over: nil, or why not,
// . It changes nothing.
func (s *Session) Again(h *Hello) error {
	switch {
	case s.state == Ended || s.Confirmed():
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	case h.PublicKey != s.peer || !VerifyLink(s.link, s.epoch, h.Link, h.Epoch):
		return &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
	case h.MaxPayload != s.peerMax || h.Flags != s.peerFlags:
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	}
	return nil
}

// Verify reports whether a RESUME has the proof of this listener's session: frame is all of it. It changes nothing. A
// session for which nobody has had the proof yet may have been begun by a HELLO that somebody repeated to a listener
// that was started again: to the dialer its own session is unknown here, and not one that it may not have.
func (s *Session) Verify(frame, exporter []byte) error {
	switch {
	case s.state != Ended && VerifyResume(frame, s.keys.Dialer, exporter):
		return nil
	case s.state != Ended && !s.proved:
		return &RejectError{Reject: Reject{Reason: ReasonUnknown}}
	}
	return &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
}

// Check reports whether a RESUME, of which the proof and the principal are right, may take this listener's session
// over: nil, or why not. It changes nothing.
func (s *Session) Check(r *Resume) error {
	switch {
	case r.MaxPayload != s.peerMax || r.Flags != s.peerFlags:
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	case r.Epoch <= s.epoch:
		return &RejectError{Reject: Reject{Reason: ReasonTakenOver}}
	}
	return nil
}

// Fence raises the epoch of a listener's session to that of a connection which Again or Check let pass. From now on the
// old connection changes nothing; when its reader and its writer are gone, Welcome or Resumed follows.
func (s *Session) Fence(epoch uint64, link [32]byte) {
	s.missed = s.missed || epoch-s.epoch > 1
	s.epoch = epoch
	if !s.Confirmed() {
		s.link = link
	}
	s.Detach()
}

// Welcome attaches a listener's session to the connection that brought HELLO, of which frame is all. It does nothing if
// the session has ended, as it may while the old connection is waited for.
func (s *Session) Welcome(now time.Duration, frame, exporter []byte) {
	if s.state == Ended {
		return
	}
	s.reset(now)
	if h, err := ParseHello(frame); err == nil && s.missed {
		s.redelivered = max(s.redelivered, h.Redelivered)
	}
	s.missed = false
	s.recv.here = s.recv.origin.add(s.cfg.Start)
	s.state = Greeting
	w := Welcome{
		Version: ProtocolVersion, Flags: s.flags(), MaxPayload: s.cfg.MaxPayload, Epoch: s.epoch, Instance: s.instance,
		PublicKey: s.public, Expiry: millis(s.cfg.Expiry), Status: s.status(),
	}
	w.Received = s.recv.arrived.sub(s.recv.origin)
	s.first = AppendWelcome(nil, &w, frame, s.keys.Listener, exporter)
	s.ackDue = s.cfg.Consumed && s.recv.arrived != s.cfg.Start // WELCOME then acknowledges nothing
}

// Resume attaches a listener's session to the connection that brought RESUME, of which frame is all. The error is a
// RejectError: positions do not fit, and the session has ended with a ProtocolError; or it had ended before, as
// it may while the old connection is waited for.
func (s *Session) Resume(now time.Duration, r *Resume, frame, exporter []byte) error {
	if s.state == Ended {
		return &RejectError{Reject: Reject{Reason: ReasonUnknown}}
	}
	s.proved = true
	s.reset(now)
	err := s.resumeAt(now, r)
	if err != nil {
		s.end(err)
		return &RejectError{Reject: Reject{Reason: ReasonMismatch}}
	}
	s.live(true)
	a := Resumed{Epoch: s.epoch, Expiry: millis(s.cfg.Expiry), Status: s.status()}
	a.Received = s.recv.arrived.sub(s.recv.origin)
	a.Sent = r.Received
	s.first = AppendResumed(nil, &a, frame, s.keys.Listener, exporter)
	s.ackDue, s.moved = s.cfg.Consumed, false // RESUMED then acknowledges nothing
	return nil
}

func (s *Session) resumeAt(now time.Duration, r *Resume) error {
	begin, has := r.Sent.after(s.recv.origin), r.Received.after(s.log.origin)
	switch {
	case begin.N > s.recv.arrived.N || begin.B > s.recv.arrived.B:
		return s.broke("RESUME, sent", begin, "at most "+s.recv.arrived.String(), "R-122")
	case has.N < s.log.base.N:
		return s.broke("RESUME, received", has, "at least "+s.log.base.String(), "R-122")
	}
	s.recv.here = begin
	check := s.acknowledged
	if s.peerFlags&FlagConsumed != 0 {
		check = func(_ time.Duration, p Position) error { return s.has(p) } // it acknowledges nothing
	}
	if err := check(now, has); err != nil {
		return err
	}
	s.log.unsent = has
	s.raise(r.Credit)
	return nil
}

// Detach tells that the connection is gone: its reader has ended, or no longer matters. The writer may still be at work;
// no other connection may be attached before it has ended.
func (s *Session) Detach() {
	switch s.state {
	case Greeting:
		s.state = New
		s.redelivered = s.perhapsDelivered()
	case Resuming, Live:
		s.unanswered = s.state == Resuming
		s.state = Detached
	default:
		return
	}
	s.first, s.greeting, s.exporter = nil, nil, nil
}

// perhapsDelivered returns what the next HELLO has to say: what was sent behind this one, which has no answer, may
// have been delivered by a listener that does not know it when the next comes.
func (s *Session) perhapsDelivered() uint64 {
	if s.role == Listener || s.state != Greeting && s.state != New || s.refused {
		return s.redelivered
	}
	return max(s.redelivered, min(s.log.sent.N, s.log.end.N)-s.log.base.N)
}

// plus adds without going over the largest.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func millis(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

// ---- sending

// Accepting returns nil while the application may append datagrams.
func (s *Session) Accepting() error {
	switch {
	case s.state == Ended && s.err != nil:
		return s.err
	case s.state == Ended, s.log.fin:
		return ErrFinished
	case s.stopped:
		return ErrStopped
	}
	return nil
}

// Why a session takes no more datagrams, though it has not ended with an error.
var (
	// ErrFinished: this side has ended its stream.
	ErrFinished = errors.New("session: this side has ended its stream")
	// ErrStopped: the peer takes no more.
	ErrStopped = errors.New("session: the peer takes no more")
)

// Room reports whether the log takes a datagram.
func (s *Session) Room() bool { return s.log.size() < s.cfg.SendBuffer }

// Append accepts one datagram, whatever Room says. The payload is copied. An error means that it was not accepted:
// Accepting's, ErrExhausted, or one that matches datagram.ErrTooLarge. Deadline is when it is not to be sent any more; 0
// is never.
func (s *Session) Append(now time.Duration, d datagram.Datagram, deadline time.Duration) error {
	if err := s.Accepting(); err != nil {
		return err
	}
	if limit := min(s.cfg.MaxPayload, s.peerMax); uint64(len(d.Payload)) > uint64(limit) {
		return &datagram.FrameError{
			Err: datagram.ErrTooLarge, Sending: true, Value: uint64(len(d.Payload)), Limit: uint64(limit),
		}
	}
	n := frameLen(len(d.Payload))
	l := &s.log
	if l.end.N >= math.MaxUint64-2 || l.end.B > math.MaxUint64-n { // the end of the stream needs a number too
		return ErrExhausted
	}
	if l.base == l.end {
		s.waitSince = now
	}
	if deadline != 0 && n <= math.MaxUint32 { // SKIP has no room for more
		l.marks = append(l.marks, mark{at: l.end, length: uint32(n), deadline: deadline})
	}
	l.append(d)
	if !s.welcomed {
		s.longest = max(s.longest, uint64(len(d.Payload)))
	}
	s.stats.Accepted++
	return nil
}

// Finish ends this side's stream. It is idempotent.
func (s *Session) Finish(now time.Duration) {
	if s.log.fin || s.state == Ended {
		return
	}
	if s.log.base == s.log.end {
		s.waitSince = now
	}
	s.log.fin = true
	s.closing()
}

// Stop says that the application takes no more: what has arrived and was not taken is dropped, as is what comes.
// It is idempotent.
func (s *Session) Stop() {
	r := &s.recv
	if r.stopped || s.state == Ended {
		return
	}
	r.stopped = true
	r.queue, r.waiting = nil, 0
	s.stopDue = !r.fin || s.acking() != r.arrived // what nobody will finish with is not acknowledged
	s.closing()
}

// Abort ends the session at once. A last Pull gives the CLOSE, if there is a connection that may carry one.
func (s *Session) Abort() { s.abort(ErrAborted, CloseAborted) }

// Shutdown ends a listener's session at once, and tells the dialer to come back later.
func (s *Session) Shutdown() { s.abort(&ClosedError{CloseShutdown}, CloseShutdown) }

func (s *Session) abort(err error, reason CloseReason) {
	if s.state == Ended {
		return
	}
	s.farewell(err, reason)
}

// Drop ends a listener's session that expired or has to make room.
func (s *Session) Drop(reason Reason) {
	if s.state == Ended {
		return
	}
	if s.finished() {
		s.end(nil) // only the dialer's last word is missing
		return
	}
	s.end(&LostError{reason})
}

// Goaway makes a listener tell its peer to leave.
func (s *Session) Goaway(delay, spread time.Duration) {
	s.goaway, s.goawayDelay, s.goawaySpread = true, millis(delay), millis(spread)
}

// Flush asks the peer to acknowledge, as soon as it has it, all that was accepted so far. It returns the number that
// Acked must reach.
func (s *Session) Flush() uint64 {
	s.flushTo = s.log.final().N
	s.flushDue = s.flushTo > s.log.base.N
	return s.flushTo
}

// Acked returns how many datagrams the peer has acknowledged, and Accepted how many were accepted, since the beginning;
// the end of the stream counts as one.
func (s *Session) Acked() uint64 { return s.log.base.N }

// Accepted returns how many datagrams were accepted.
func (s *Session) Accepted() uint64 { return s.log.end.N }

// Idle reports whether everything that was accepted is acknowledged, but for the end of the stream.
func (s *Session) Idle() bool { return s.log.base == s.log.end }

// Pending returns how many bytes of datagrams were accepted and not pulled on this connection.
func (s *Session) Pending() uint64 { return s.log.end.B - s.log.unsent.B }

// Stopped reports whether the peer takes no more.
func (s *Session) Stopped() bool { return s.stopped }

// Oldest returns for how long something has been unconfirmed and nothing of it acknowledged; 0 if nothing is.
func (s *Session) Oldest(now time.Duration) time.Duration {
	if !s.unconfirmed() {
		return 0
	}
	return now - s.waitSince
}

// Arrived returns how many datagrams have arrived, since the beginning; the end of the stream counts as one.
func (s *Session) Arrived() uint64 { return s.recv.arrived.N }

// ArrivedOnWire returns the position up to which the peer's stream has arrived, as REJECT states it; with
// Config.Consumed, up to which the application has finished with it.
func (s *Session) ArrivedOnWire() Position { return s.acking().sub(s.recv.origin) }

// Finished reports whether this side's stream has ended: acknowledged to its end, or stopped by the peer.
func (s *Session) Finished() bool { return s.finAcked || s.stopped }

// finished reports whether both streams have ended, and each side can know that of its own.
func (s *Session) finished() bool {
	return s.Finished() && (s.recv.stopped || s.recv.fin && s.acking() == s.recv.arrived)
}

// Done reports whether both streams have ended, so that only CLOSE is missing.
func (s *Session) Done() bool { return s.finished() }

// Unconfirmed yields what was accepted and not acknowledged, in order, but for skipped datagrams.
func (s *Session) Unconfirmed(yield func(datagram.Datagram) bool) { s.log.unconfirmed(yield) }

// Release gives back the memory of a session that has ended, after which there is nothing unconfirmed to yield. What a
// write still reads goes back with Wrote.
func (s *Session) Release() {
	if s.state == Ended {
		s.log.drop()
	}
}

// ---- writing

// Out is what Pull gives out, to be written in this order. It may be used again for the next Pull.
type Out struct {
	Vec  [][]byte
	vec  [][]byte // the memory of Vec
	head []byte
	tail []byte
}

// Pull gives out what is to be written next, and reports whether there is anything. What it gave must be written whole,
// or the connection be closed; after the write comes Wrote. Until then the bytes do not change, whatever is called.
func (s *Session) Pull(now time.Duration, out *Out) bool {
	out.Vec, out.vec = nil, out.vec[:0]
	out.head, out.tail = out.head[:0], out.tail[:0]
	if s.state == Ended {
		if s.closeDue {
			s.closeDue = false
			out.head = append(out.head, s.first...)
			s.first = nil
			out.head = s.control(out.head, Control{Kind: KindClose, Reason: s.closeReason})
			out.Vec = append(out.Vec, out.head)
			return true
		}
		return false
	}
	if !s.state.attached() {
		return false
	}
	out.head = append(out.head, s.first...)
	s.first = nil
	answered := s.answered()
	if answered {
		out.head = s.pullStatus(now, out.head)
	}
	if s.stopDue {
		s.stopDue = false
		out.head = s.control(out.head, Control{Kind: KindStop})
	}
	out.vec = append(out.vec, nil)
	if !s.stopped {
		out.head = s.pullData(now, out)
	}
	if answered && s.flushDue && (s.stopped || s.log.unsent.N >= s.flushTo) {
		s.flushDue = false
		out.tail = s.ping(now, out.tail)
	}
	if answered && s.closeDue {
		s.closeDue, s.closeSent = false, true
		out.tail = s.control(out.tail, Control{Kind: KindClose, Reason: s.closeReason})
	}
	out.vec[0] = out.head
	if len(out.tail) > 0 {
		out.vec = append(out.vec, out.tail)
	}
	if out.Vec = out.vec; len(out.head) == 0 {
		out.Vec = out.vec[1:]
	}
	if len(out.Vec) > 0 {
		s.partialAt = 0
	}
	return len(out.Vec) > 0
}

// answered reports whether control frames may be sent: a dialer that waits for WELCOME or RESUMED sends but STOP, SKIP
// and FIN.
func (s *Session) answered() bool {
	return s.state == Live || s.state == Greeting && s.role == Listener
}

// Pulls reports whether Pull would give something.
func (s *Session) Pulls() bool {
	if s.state == Ended {
		return s.closeDue
	}
	if !s.state.attached() {
		return false
	}
	l := &s.log
	switch {
	case s.first != nil, s.stopDue:
		return true
	case s.hasData():
		return true
	case !s.stopped && l.fin && l.unsent.N == l.end.N:
		return true
	case !s.answered():
		return false
	}
	return s.pongDue || s.pingDue || s.ackDue || s.moved || s.goaway || s.closeDue ||
		s.flushDue && (s.stopped || l.unsent.N >= s.flushTo)
}

// hasData reports whether a datagram, or what takes its place, may be written.
func (s *Session) hasData() bool {
	l := &s.log
	return !s.stopped && l.unsent.N < l.end.N && l.unsent.B < s.limit()
}

// limit is the position below which datagrams may begin now. Before a RESUME is answered it is close: the answer may say
// that the peer has what is about to be sent again, and on a connection that lives for a few bytes only, a long replay
// would leave no time for it, so that each of them would be spent on the same bytes.
//
// If the connection before ended without an answer nothing goes behind the next RESUME: on connections so short it is the
// answer that brings the session on, and what was sent with the question may have been all that they carried.
func (s *Session) limit() uint64 {
	switch {
	case s.state == Resuming && s.unanswered:
		return s.log.base.B
	case s.state == Resuming:
		return min(s.credit, plus(s.log.base.B, InitialCredit))
	}
	return s.credit
}

// pullStatus appends the control frames that go before data.
func (s *Session) pullStatus(now time.Duration, out []byte) []byte {
	// One that is to come within half of its time goes with a write that happens anyway.
	if at := s.recv.ackAt; at != 0 && now >= at-s.cfg.AckDelay/2 && s.hasData() {
		s.ackDue = true
	}
	if s.confirmDue {
		// No other frame may stand for it, though all of them have the status.
		s.confirmDue, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindAck})
	}
	if s.pongDue {
		s.pongDue, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindPong, Token: s.pongToken})
	}
	if s.pingDue {
		s.ackDue, s.moved = false, false
		out = s.ping(now, out)
	}
	if s.goaway {
		s.goaway, s.ackDue, s.moved = false, false, false
		out = s.control(out, Control{Kind: KindGoaway, Delay: s.goawayDelay, Spread: s.goawaySpread})
	}
	if s.ackDue || s.moved {
		s.ackDue, s.moved = false, false
		out = s.control(out, Control{Kind: KindAck})
	}
	return out
}

// pullData appends datagrams, what takes their place, and the end of the stream. It returns the new head.
func (s *Session) pullData(now time.Duration, out *Out) []byte {
	l := &s.log
	head := out.head
	upTo := l.end
	for i := l.nextMark(); i < len(l.marks); i++ {
		m := &l.marks[i]
		if m.at.B >= s.limit() || m.at.B-l.unsent.B >= 2*chunk {
			break // not of this Pull
		}
		if !l.expired(m, now) {
			continue
		}
		if m.at != l.unsent {
			upTo = m.at
			break
		}
		if l.unsent.B >= s.limit() {
			break
		}
		if !m.skipped {
			m.skipped = true
			s.stats.Expired++
			s.events = append(s.events, Event{Kind: EventExpired, Number: m.at.N + 1})
		}
		head = s.control(head, Control{Kind: KindSkip, Length: m.length})
		l.advance(Position{m.at.N + 1, m.at.B + uint64(m.length)})
		if len(head) > chunk {
			return head
		}
	}
	if l.unsent.N < upTo.N && l.unsent.B < s.limit() {
		from, again := l.unsent.N, l.max.N
		out.vec = l.give(out.vec, s.limit(), chunk, upTo)
		if from < again {
			s.stats.Replayed += min(l.unsent.N, again) - from
		}
	}
	if l.fin && l.unsent.N == l.end.N {
		out.tail = s.control(out.tail, Control{Kind: KindFin})
		l.advance(l.final())
	}
	return head
}

// Wrote tells that what Pull gave was written, or that its write has ended without.
func (s *Session) Wrote() { s.log.unpin() }

// ping appends a PING.
func (s *Session) ping(now time.Duration, out []byte) []byte {
	s.pingDue, s.pinged, s.waitPong = false, true, true
	s.pingAt = now
	s.token++
	return s.control(out, Control{Kind: KindPing, Token: s.token})
}

// control appends a control frame with the status of this moment.
func (s *Session) control(out []byte, c Control) []byte {
	c.Status = s.status()
	return c.Append(out)
}

// status states everything, and grants what credit there is to grant.
func (s *Session) status() Status {
	s.grant()
	r := &s.recv
	r.unstated, r.ackAt = 0, 0
	return Status{
		Sent:     s.log.unsent.sub(s.log.origin),
		Received: s.acking().sub(r.origin),
		Credit:   r.credit - r.origin.B,
	}
}

// acking is what received means here.
func (s *Session) acking() Position {
	if s.cfg.Consumed {
		return s.recv.done
	}
	return s.recv.arrived
}
