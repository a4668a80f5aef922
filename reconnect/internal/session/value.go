package session

import (
	"crypto/ecdh"
	"fmt"
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Value is all of a Session but its connection, as a value: positions, unconfirmed datagrams, secret, epoch. It shares
// no memory with the Session. Who has it can resume the session, so that it is to be kept like a key.
type Value struct {
	Role      Role
	Confirmed bool

	ID                   [16]byte
	Private              []byte // of the dialer until there are keys
	Public, Peer         [32]byte
	Secret, Link         [32]byte
	Keys                 Keys
	Instance             [16]byte
	Epoch                uint64
	Proved               bool
	Redelivered          uint64
	Missed               bool
	PeerMax              uint32
	PeerFlags            uint16
	Expiry               time.Duration
	Stats                Counters
	Longest              uint64
	PeerCredit           uint64
	Stopped, FinAcked    bool
	SendOrigin           Position
	Base, Sent, Max, End Position
	Fin                  bool
	Log                  []byte // the frames from Base to End
	Marks                []ValueMark
	ReceiveOrigin        Position
	Arrived, Taken, Done Position
	ReceiveFin           bool
	ReceiveStopped       bool
	Queue                []ValueRun
	Window, Credit       uint64
	Sizes                []ValueSize
	Stale                int
}

// ValueMark is the age limit of a datagram in the log, as the time that was left.
type ValueMark struct {
	At      Position
	Length  uint32
	Left    time.Duration
	Skipped bool
}

// ValueRun is a run of datagrams that wait for the application, or of skipped ones.
type ValueRun struct {
	Raw  []byte
	N    int
	Skip uint64
	Old  bool // of an earlier session
}

// ValueSize is a datagram that the application has not finished with.
type ValueSize struct {
	Length uint64
	Skip   bool
}

// Export returns s as a value. An Ended session cannot be exported.
func (s *Session) Export(now time.Duration) (*Value, error) {
	if s.state == Ended {
		return nil, fmt.Errorf("session: exporting a session that has ended: %w", ErrFinished)
	}
	l, r := &s.log, &s.recv
	v := &Value{
		Role: s.role, Confirmed: s.Confirmed(), ID: s.id, Public: s.public, Peer: s.peer, Secret: s.secret, Link: s.link,
		Keys: s.keys, Instance: s.instance, Epoch: s.epoch, Proved: s.proved, Redelivered: s.perhapsDelivered(), PeerMax: s.peerMax,
		PeerFlags: s.peerFlags, Missed: s.missed, Expiry: s.expiry, Stats: s.stats, Longest: s.longest, PeerCredit: s.credit,
		Stopped: s.stopped, FinAcked: s.finAcked, SendOrigin: l.origin, Base: l.base, Sent: l.sent, Max: l.max, End: l.end, Fin: l.fin,
		ReceiveOrigin: r.origin, Arrived: r.arrived, Taken: r.taken, Done: r.done, ReceiveFin: r.fin,
		ReceiveStopped: r.stopped, Window: r.window, Credit: r.credit, Stale: r.stale,
	}
	if s.private != nil {
		v.Private = s.private.Bytes()
	}
	if n := l.size(); n > 0 {
		v.Log = l.bytes(l.find(l.base.B), l.base.B, n)
	}
	for _, m := range l.marks {
		v.Marks = append(v.Marks, ValueMark{At: m.at, Length: m.length, Left: m.deadline - now, Skipped: m.skipped})
	}
	for _, q := range r.queue {
		v.Queue = append(v.Queue, ValueRun{Raw: append([]byte(nil), q.Raw...), N: q.N, Skip: q.skip, Old: q.old})
	}
	for _, z := range r.sizes {
		v.Sizes = append(v.Sizes, ValueSize{Length: z.length, Skip: z.skip})
	}
	return v, nil
}

// Restore makes a Session of a value, without a connection. cfg must fit the one it had. Only one Session may go on with
// a value: of two, one will be told that it was taken over.
func Restore(now time.Duration, cfg Config, v *Value) (*Session, error) {
	s := new(Session)
	s.init(cfg, v.Role)
	l, r := &s.log, &s.recv
	if v.Confirmed {
		s.state = Detached
	}
	if v.Private != nil {
		var err error
		if s.private, err = ecdh.X25519().NewPrivateKey(v.Private); err != nil {
			return nil, err
		}
	}
	s.id, s.public, s.peer, s.secret, s.link = v.ID, v.Public, v.Peer, v.Secret, v.Link
	s.keys, s.instance, s.epoch, s.redelivered = v.Keys, v.Instance, v.Epoch, v.Redelivered
	s.proved = v.Proved
	s.peerMax, s.peerFlags, s.expiry, s.stats, s.longest = v.PeerMax, v.PeerFlags, v.Expiry, v.Stats, v.Longest
	s.credit, s.stopped, s.finAcked = v.PeerCredit, v.Stopped, v.FinAcked
	s.welcomed, s.missed = s.private == nil, v.Missed

	l.origin, l.base, l.unsent, l.end = v.SendOrigin, v.Base, v.Base, v.Base
	for log := v.Log; len(log) > 0; {
		d, rest, err := datagram.Parse(log)
		if err != nil {
			return nil, fmt.Errorf("session: restoring the log: %w", err)
		}
		l.append(d)
		log = rest
	}
	if l.end.B != v.End.B || !v.Fin && l.end.N != v.End.N {
		return nil, fmt.Errorf("session: restoring the log: it ends at %v, expected %v", l.end, v.End)
	}
	l.end, l.sent, l.max, l.fin = v.End, v.Sent, v.Max, v.Fin
	for _, m := range v.Marks {
		left := min(m.Left, math.MaxInt64-now)
		l.marks = append(l.marks, mark{at: m.At, length: m.Length, deadline: now + left, skipped: m.Skipped})
		if m.Skipped {
			l.skips++
		}
	}

	r.origin, r.arrived, r.here, r.taken, r.done = v.ReceiveOrigin, v.Arrived, v.Arrived, v.Taken, v.Done
	r.fin, r.stopped, r.stale = v.ReceiveFin, v.ReceiveStopped, v.Stale
	// What was promised holds, even if there is no budget for it any more.
	r.credit = v.Credit
	window := max(r.window, min(v.Window, cfg.MaxWindow))
	if need := max(window, r.credit-min(r.credit, r.taken.B)); need == r.reserved || cfg.reserve(need-r.reserved) {
		r.window, r.reserved = window, need
	}
	for _, q := range v.Queue {
		r.queue = append(r.queue, queued{
			Run: datagram.Run{Raw: append([]byte(nil), q.Raw...), N: q.N, Version: datagram.Version}, skip: q.Skip, old: q.Old,
		})
		r.waiting += uint64(len(q.Raw))
	}
	for _, z := range v.Sizes {
		r.sizes = append(r.sizes, size{length: z.Length, skip: z.Skip})
		if !z.Skip {
			r.open++
		}
	}
	return s, s.check()
}
