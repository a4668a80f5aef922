package session

import (
	"fmt"
	"math"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Read tells that bytes have come in on the connection, and whether a frame was completed by them. The frames follow, in
// their order, by Data and Control.
func (s *Session) Read(now time.Duration, whole bool) {
	if !s.state.attached() {
		return
	}
	if whole {
		return // Data and Control say of what
	}
	if s.answered() { // a dialer waits for the whole answer
		s.sign(now)
	}
	if s.partialAt == 0 {
		s.partialAt = now + partialAfter
	}
}

// sign notes a sign of life.
func (s *Session) sign(now time.Duration) { s.lastRead, s.pinged = now, false }

// Bad ends the session because of err: the stream of its connection broke the framing. A dialer that has no answer yet
// only gets the error: the connection has to be given up.
func (s *Session) Bad(err error) error {
	if s.state.attached() {
		return s.mistrust(&ProtocolError{Role: s.role, State: s.state, Err: err})
	}
	return s.err
}

// Data takes a run of data frames, which it releases if Take is not to return it. An error is as that of Control.
func (s *Session) Data(now time.Duration, run datagram.Run) error {
	if !s.state.attached() {
		return s.err
	}
	if !accepted[s.role][s.state].has(kindData) {
		return s.unexpected("a datagram")
	}
	s.sign(now)
	raw, n := run.Raw, uint64(run.N)
	r := &s.recv
	if r.here.N < r.arrived.N {
		again := min(n, r.arrived.N-r.here.N)
		if r.fin && r.here.N+n >= r.arrived.N {
			return s.fail(s.broke("a datagram", r.here.add(Position{n, 0}), "none behind the end of the stream", "R-124"))
		}
		var dropped uint64
		if raw, dropped = cut(raw, again); r.here.B > math.MaxUint64-dropped {
			return s.tooFar()
		}
		to := r.here.add(Position{again, dropped})
		if to.N == r.arrived.N && to.B != r.arrived.B || to.B > r.arrived.B {
			return s.fail(s.broke("a replay, its position", to, r.arrived.String(), "R-123"))
		}
		r.here = to
		n -= again
		s.stats.Duplicates += again
	}
	if n == 0 {
		run.Release()
		return nil
	}
	if r.fin {
		return s.fail(s.broke("a datagram", r.here, "none behind the end of the stream", "R-124"))
	}
	length := uint64(len(raw))
	if r.here.N > math.MaxUint64-n || r.here.B > math.MaxUint64-length {
		return s.tooFar()
	}
	if r.here.B+length > r.credit && !r.stopped {
		if begin := r.here.B + lastBegin(raw); begin >= r.credit {
			return s.fail(s.broke("a datagram, where it begins", begin, fmt.Sprintf("below the credit %d", r.credit), "R-108"))
		}
	}
	r.here = r.here.add(Position{n, length})
	if r.stopped {
		run.Release()
		return nil
	}
	r.arrived = r.here
	run.Raw, run.N = raw, int(n)
	r.push(run)
	s.came(now, length)
	return nil
}

// came sees to the acknowledgement of bytes that arrived.
func (s *Session) came(now time.Duration, length uint64) {
	r := &s.recv
	r.stalls(now)
	if !s.cfg.Consumed {
		s.owe(now, length)
	}
}

// owe makes an acknowledgement of that many bytes more due, now or later.
func (s *Session) owe(now time.Duration, length uint64) {
	r := &s.recv
	r.unstated += length
	switch {
	case r.unstated >= min(r.window/4, ackBytes):
		s.ackDue = true
	case r.ackAt == 0:
		r.ackAt = now + s.cfg.AckDelay
	}
}

// Control takes a control frame, header included. The error is nil; or final, and the session has ended with it; or the
// connection has to be given up, and the session lives on: State tells.
func (s *Session) Control(now time.Duration, frame []byte) error {
	if !s.state.attached() {
		return s.err
	}
	kind := KindOf(frame)
	if int(kind) < len(kinds) && kind != 0 && !accepted[s.role][s.state].has(kind) {
		return s.unexpected(kind.String())
	}
	switch kind {
	case KindWelcome:
		w, err := ParseWelcome(frame)
		if err != nil {
			return s.Bad(err)
		}
		return s.welcome(now, &w, frame)
	case KindResumed:
		a, err := ParseResumed(frame)
		if err != nil {
			return s.Bad(err)
		}
		return s.resumed(now, &a, frame)
	case KindReject:
		r, err := ParseReject(frame)
		if err != nil {
			return s.Bad(err)
		}
		return s.reject(now, &r)
	}
	c, err := ParseControl(frame)
	if err != nil {
		return s.Bad(err)
	}
	if c.Kind == KindPing && !s.unconfirmed() && now-s.lastRead > s.cfg.PingAfter/4*3 {
		s.narrow() // as when this side asks: on a quiet connection it is the dialer that does
	}
	if c.Kind != KindPing || !s.unconfirmed() {
		s.sign(now) // who asks has heard nothing for a while: not what is unconfirmed, either
	}
	if c.Kind == KindClose && c.Reason != CloseDone {
		// What it acknowledges need not count as unconfirmed. The rest of its status does not matter any more.
		if p := c.Received.after(s.log.origin); s.has(p) == nil {
			_ = s.acknowledged(now, p) // checked
		}
		s.end(&ClosedError{c.Reason})
		return s.err
	}
	if err := s.heard(now, &c.Status); err != nil {
		return s.fail(err)
	}
	return s.control1(now, &c)
}

// control1 takes what a control frame says besides its status.
func (s *Session) control1(now time.Duration, c *Control) error {
	switch c.Kind {
	case KindAck:
		if s.state == Greeting {
			s.live(false)
		}
	case KindPing:
		s.pongDue, s.pongToken = true, c.Token
	case KindPong:
		if s.waitPong && c.Token == s.token {
			s.waitPong = false
			s.sample(now - s.pingAt)
		}
	case KindFin:
		return s.finCame()
	case KindSkip:
		return s.skipCame(now, uint64(c.Length))
	case KindStop:
		if !s.stopped {
			s.stopped = true
			s.events = append(s.events, Event{Kind: EventStopped})
			s.closing()
		}
	case KindGoaway:
		s.events = append(s.events, Event{Kind: EventGoaway, Delay: ms(c.Delay), Spread: ms(c.Spread)})
	case KindClose:
		var err error
		if !s.finished() || s.log.base != s.log.final() {
			err = &ClosedError{CloseDone}
		}
		answer := !s.closeSent
		s.end(err)
		s.closeDue, s.closeReason = answer, CloseDone
		return err
	}
	return nil
}

func ms(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }

// sample notes a round trip.
func (s *Session) sample(d time.Duration) {
	if s.rtt == 0 {
		s.rtt = d
		return
	}
	s.rtt += (d - s.rtt) / 8
}

func (s *Session) finCame() error {
	r := &s.recv
	switch {
	case r.here.N < r.arrived.N:
		if end := (Position{r.arrived.N - 1, r.arrived.B}); !r.fin || r.here != end {
			return s.fail(s.broke("a replayed FIN", r.here, "none before "+end.String(), "R-124"))
		}
		r.here.N++
	case r.fin:
		return s.fail(s.broke("FIN", r.here, "one", "R-124"))
	case r.here.N == math.MaxUint64:
		return s.tooFar()
	case r.stopped && r.here != r.arrived:
		r.here.N++ // of a stream that was dropped in part
	default:
		r.here.N++
		r.arrived = r.here
		r.fin = true
		s.finish()
		s.events = append(s.events, Event{Kind: EventFin})
		s.closing()
	}
	s.ackDue = true
	return nil
}

// finish lets done take in the end of the stream, if it is all that is missing.
func (s *Session) finish() {
	if r := &s.recv; r.fin && r.done.N == r.arrived.N-1 {
		r.done = r.arrived
		s.closing()
	}
}

func (s *Session) skipCame(now time.Duration, length uint64) error {
	r := &s.recv
	to := r.here.add(Position{1, length})
	switch {
	case to.N < r.here.N || to.B < r.here.B:
		return s.tooFar()
	case r.fin && to.N >= r.arrived.N:
		return s.fail(s.broke("SKIP", r.here, "none behind the end of the stream", "R-124"))
	case r.here.N < r.arrived.N:
		if to.B > r.arrived.B || to.N == r.arrived.N && to.B != r.arrived.B {
			return s.fail(s.broke("a replay, its position", to, r.arrived.String(), "R-123"))
		}
		r.here = to
		s.stats.Duplicates++
		return nil
	case r.here.B >= r.credit && !r.stopped:
		return s.fail(s.broke("SKIP, where it begins", r.here.B, fmt.Sprintf("below the credit %d", r.credit), "R-131"))
	}
	r.here = to
	if r.stopped {
		return nil
	}
	r.arrived = to
	r.pushSkip(length)
	s.stats.Skipped++
	s.came(now, length)
	return nil
}

// heard takes a status.
func (s *Session) heard(now time.Duration, st *Status) error {
	r := &s.recv
	sent := st.Sent.after(r.origin)
	if sent != r.here {
		inReplay := r.here.N < sent.N && r.here.B < sent.B && sent.N < r.arrived.N && sent.B <= r.arrived.B
		atArrived := r.here.N < sent.N && sent == r.arrived // no byte more, if only FIN is between
		if !inReplay && !atArrived {
			return s.broke("the position that was sent", sent, r.here.String(), "R-105")
		}
		r.here = sent
	}
	received := st.Received.after(s.log.origin)
	if err := s.acknowledged(now, received); err != nil {
		return err
	}
	s.raise(st.Credit)
	return nil
}

// has checks that p is a position that the peer may say it has.
func (s *Session) has(p Position) error {
	l := &s.log
	switch {
	case p.N > l.sent.N || p.N == l.sent.N && p.B != l.sent.B:
		return s.broke("an acknowledgement", p, "at most "+l.sent.String(), "R-106")
	case p.N >= l.base.N && !l.edge(p):
		return s.broke("an acknowledgement", p, "the end of a datagram", "R-106")
	}
	return nil
}

// acknowledged takes an acknowledgement.
func (s *Session) acknowledged(now time.Duration, p Position) error {
	if err := s.has(p); err != nil {
		return err
	}
	l := &s.log
	if p.N <= l.base.N {
		return nil
	}
	l.acknowledge(p)
	s.waitSince = now
	s.skipTo(p)
	if l.fin && p.N == l.final().N {
		s.finAcked = true
		s.closing()
	}
	if p.N >= s.flushTo {
		s.flushDue = false
	}
	return nil
}

// skipTo moves the cursor of a replay to what the peer has.
func (s *Session) skipTo(p Position) {
	if s.log.unsent.N < p.N {
		s.log.unsent = p
		s.moved = true
	}
}

// raise takes a credit.
func (s *Session) raise(credit uint64) {
	s.credit = max(s.credit, plus(credit, s.log.origin.B))
}

// closing makes CLOSE due when both streams have ended.
func (s *Session) closing() {
	if s.finished() && !s.closeSent && s.state != Ended {
		s.closeDue, s.closeReason = true, CloseDone
	}
}

// live tells that the connection works.
func (s *Session) live(resumed bool) {
	s.state = Live
	if resumed {
		s.stats.Resumes++
	}
	s.events = append(s.events, Event{Kind: EventLive, Resumed: resumed})
}

func (s *Session) welcome(now time.Duration, w *Welcome, frame []byte) error {
	if w.Epoch != s.epoch {
		return s.mistrust(s.broke("WELCOME, epoch", w.Epoch, fmt.Sprint(s.epoch), "R-115"))
	}
	keys, err := DeriveKeys(s.private, w.PublicKey, s.id, s.public, w.PublicKey, w.Instance)
	if err != nil {
		return s.Bad(err)
	}
	if !VerifyWelcome(frame, s.greeting, keys.Listener, s.exporter) {
		return s.mistrust(s.broke("WELCOME, proof", "another", "that of this session and this connection", "R-114"))
	}
	if s.longest > uint64(w.MaxPayload) {
		// Accepted before anybody could know. It will never be taken.
		return s.fail(&datagram.FrameError{
			Err: datagram.ErrTooLarge, Sending: true, Value: s.longest, Limit: uint64(w.MaxPayload),
		})
	}
	s.keys, s.peer, s.instance, s.private = keys, w.PublicKey, w.Instance, nil
	s.peerMax, s.peerFlags, s.welcomed = w.MaxPayload, w.Flags, true
	s.sample(now - s.pingAt)
	s.confirmDue = true
	return s.answer(now, &w.Status, w.Expiry, false)
}

func (s *Session) resumed(now time.Duration, a *Resumed, frame []byte) error {
	if a.Epoch != s.epoch {
		return s.mistrust(s.broke("RESUMED, epoch", a.Epoch, fmt.Sprint(s.epoch), "R-119"))
	}
	if !VerifyResumed(frame, s.greeting, s.keys.Listener, s.exporter) {
		return s.mistrust(s.broke("RESUMED, proof", "another", "that of this session and this connection", "R-114"))
	}
	return s.answer(now, &a.Status, a.Expiry, true)
}

// answer takes what WELCOME and RESUMED have in common.
func (s *Session) answer(now time.Duration, st *Status, expiry uint32, resumed bool) error {
	if sent := st.Sent.after(s.recv.origin); sent != s.recv.here {
		return s.fail(s.broke("the position that was sent", sent, s.recv.here.String(), "R-122"))
	}
	has := st.Received.after(s.log.origin)
	err := s.has(has)
	if err == nil && has.N < s.log.base.N {
		err = s.broke("the position that has arrived", has, "at least "+s.log.base.String(), "R-122")
	}
	if err == nil {
		s.skipTo(has)
		if s.peerFlags&FlagConsumed == 0 {
			err = s.acknowledged(now, has)
		}
	}
	if err != nil {
		return s.fail(err)
	}
	s.raise(st.Credit)
	s.sign(now)
	s.expiry = ms(expiry)
	s.greeting, s.exporter = nil, nil
	s.unanswered = false
	s.ackDue = true
	s.live(resumed)
	return nil
}

func (s *Session) reject(now time.Duration, r *Reject) error {
	err := &RejectError{
		Reject:    *r,
		Restarted: s.instance != [16]byte{} && r.Instance != s.instance,
	}
	if r.Reason.Again() {
		s.refused = true
		return err
	}
	if r.Flags&FlagReceivedKnown != 0 {
		if p := r.Received.after(s.log.origin); s.has(p) == nil {
			_ = s.acknowledged(now, p) // checked
		}
	}
	if s.finished() && (r.Reason.Lost() || r.Reason == ReasonClosed) {
		s.end(s.lastWord()) // the answer to our CLOSE
		return s.err
	}
	s.end(err)
	return err
}
