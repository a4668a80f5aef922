package towlinetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// stream is what both roles of the suite count of a session: what this side sent, and what came.
type stream struct {
	c *check
	k *conn // the connection at hand

	// What this side sends.
	sent   position
	ends   []uint64 // b behind each datagram: ends[n] belongs to (n, ends[n])
	fin    bool     // it has ended, and counts one more
	acked  position
	credit uint64 // what the peer grants
	flags  uint16 // the peer's

	// What comes.
	got      position
	gotEnds  []uint64
	finGot   bool
	granted  uint64
	arrived  [][]byte // frames
	statuses int      // how many the peer has sent
	silent   bool     // its PINGs are not answered
	jump     bool     // its replay may end with a status that says so, R-123
	maxIn    uint32   // largest payload that it may send
}

func (s *stream) reset() {
	s.sent, s.ends, s.acked = position{}, []uint64{0}, position{}
	s.got, s.gotEnds, s.arrived = position{}, []uint64{0}, nil
}

func (s *stream) status() status { return status{s.sent, s.got, s.granted} }

// data counts a datagram of this side's, and returns its frame.
func (s *stream) data(recipient uint16, payload []byte) []byte {
	b := datagramFrame(recipient, payload)
	s.count(uint64(len(b)))
	return b
}

func (s *stream) count(length uint64) {
	s.sent.n++
	s.sent.b += length
	s.ends = append(s.ends, s.sent.b)
}

// frame is a control frame with the status of now, changed as wanted.
func (s *stream) frame(kind uint16, change func(f *frame)) []byte {
	f := &frame{kind: kind, status: s.status(), length: 8}
	if change != nil {
		change(f)
	}
	return f.bytes()
}

// endFrame is FIN, which counts one.
func (s *stream) endFrame() []byte {
	b := s.frame(kFin, nil)
	s.fin = true
	s.sent.n++
	s.ends = append(s.ends, s.sent.b)
	return b
}

// skipFrame is SKIP, which counts one and length bytes.
func (s *stream) skipFrame(length uint32) []byte {
	b := s.frame(kSkip, func(f *frame) { f.length = length })
	s.count(uint64(length))
	return b
}

// check judges a status of the peer's.
func (s *stream) check(name string, st status) {
	s.statuses++
	if st.sent != s.got {
		if !s.jump || st.sent.n < s.got.n || st.sent.n >= uint64(len(s.gotEnds)) || s.gotEnds[st.sent.n] != st.sent.b {
			s.c.failf("R-105", "%s says that %v was sent, and %v has come", name, st.sent, s.got)
		}
		s.got = st.sent
	}
	s.checkReceived(name, st.received)
	s.credit = max(s.credit, st.credit)
}

func (s *stream) checkReceived(name string, p position) {
	switch {
	case p.n >= uint64(len(s.ends)):
		s.c.failf("R-106", "%s acknowledges %v, and only %v was sent", name, p, s.sent)
	case s.ends[p.n] != p.b:
		s.c.failf("R-106", "%s acknowledges %v, and datagram %d ended at %d", name, p, p.n, s.ends[p.n])
	case p.n < s.acked.n && s.flags&1 == 0:
		s.c.failf("R-106", "%s acknowledges %v, less than %v before", name, p, s.acked)
	}
	if p.n > s.acked.n {
		s.acked = p
	}
}

// handle counts one frame of the peer's. It returns it parsed if it is a control frame, else nil.
func (s *stream) handle(b []byte) *frame {
	switch version := binary.BigEndian.Uint16(b[4:]); version {
	case 1:
		at, known := s.got, uint64(len(s.gotEnds))
		fresh := at.n+1 == known
		if s.finGot && at.n+2 >= known {
			s.c.failf("R-124", "data behind FIN")
		}
		if s.maxIn > 0 && len(b)-headerSize > int(s.maxIn) {
			s.c.failf("R-117", "a payload of %d bytes, and the limit is %d", len(b)-headerSize, s.maxIn)
		}
		if fresh && at.b >= s.granted {
			s.c.failf("R-108", "a frame that begins at %v, and the credit is %d", at, s.granted)
		}
		s.take(b, uint64(len(b)))
		return nil
	case 2:
	default:
		s.c.failf("R-3", "a frame of version %d", version)
	}
	f, err := parse(b)
	if err != nil {
		s.c.failf("R-102", "a control frame that is wrong: %v", err)
	}
	switch f.kind {
	case kHello, kWelcome, kResume, kResumed, kReject:
		return f
	}
	s.check(kindName(f.kind), f.status)
	switch f.kind {
	case kFin:
		switch known := uint64(len(s.gotEnds)); {
		case !s.finGot:
			s.finGot = true
			s.gotEnds = append(s.gotEnds, s.got.b)
		case s.got.n+2 != known:
			s.c.failf("R-124", "FIN at %v, and it was at %d before", s.got, known-2)
		}
		s.got.n++
	case kSkip:
		s.take(nil, uint64(f.length))
	case kPing:
		if !s.silent {
			s.k.try(s.frame(kPong, func(p *frame) { p.token = f.token }))
		}
	}
	return f
}

// take counts a datagram that came, and compares it with what came before in its place.
func (s *stream) take(b []byte, length uint64) {
	s.got.n++
	s.got.b += length
	if s.got.n < uint64(len(s.gotEnds)) { // a replay
		if s.gotEnds[s.got.n] != s.got.b {
			s.c.failf("R-123", "datagram %d of the replay ends at %d, and ended at %d before", s.got.n, s.got.b, s.gotEnds[s.got.n])
		}
		if !bytes.Equal(s.arrived[s.got.n-1], b) {
			s.c.failf("R-123", "datagram %d of the replay is not what it was", s.got.n)
		}
		return
	}
	s.gotEnds = append(s.gotEnds, s.got.b)
	s.arrived = append(s.arrived, b)
}

// until reads until a frame of a kind comes, and returns that.
func (s *stream) until(ref string, kind uint16) *frame {
	for {
		f := s.handle(s.k.next(ref, kindName(kind)))
		if f == nil {
			continue
		}
		switch f.kind {
		case kind:
			return f
		case kClose:
			s.c.failf(ref, "expected %s, came CLOSE with reason %d", kindName(kind), f.reason)
		}
	}
}

// awaitData reads until n datagrams have come since the session began.
func (s *stream) awaitData(n int) {
	for len(s.arrived) < n {
		f := s.handle(s.k.next("R-101", fmt.Sprintf("datagram %d", len(s.arrived)+1)))
		if f != nil && f.kind == kClose {
			s.c.failf("R-101", "expected datagram %d, came CLOSE with reason %d", len(s.arrived)+1, f.reason)
		}
	}
}

// awaitAck reads until the peer acknowledges all that was sent.
func (s *stream) awaitAck(ref string) {
	for s.acked.n < s.sent.n {
		f := s.handle(s.k.next(ref, fmt.Sprintf("an acknowledgement of %v", s.sent)))
		if f != nil && f.kind == kClose && s.acked.n < s.sent.n {
			s.c.failf(ref, "expected an acknowledgement of %v, came CLOSE with reason %d", s.sent, f.reason)
		}
	}
}

// pong asks for a sign of life, and reads until it comes: all that the peer had to say before has come, too.
func (s *stream) pong() {
	var token [8]byte
	random(token[:])
	want := binary.BigEndian.Uint64(token[:])
	s.k.write(s.frame(kPing, func(f *frame) { f.token = want }))
	for {
		if f := s.until("R-134", kPong); f.token == want {
			return
		}
	}
}

// fails expects CLOSE with reason 1, and the end.
func (s *stream) fails(ref string) { s.closes(ref, 1) }

// closes expects CLOSE, whatever comes before it, and the end of the connection.
func (s *stream) closes(ref string, reason uint16) {
	for {
		b, err := s.k.read()
		if err != nil {
			s.c.overtaken = !isTimeout(err)
			s.c.failf(ref, "expected CLOSE with reason %d, came %s", reason, why(err))
		}
		if binary.BigEndian.Uint16(b[4:]) == 2 && binary.BigEndian.Uint16(b[6:]) == kClose {
			f, err := parse(b)
			if err != nil {
				s.c.failf("R-102", "CLOSE that is wrong: %v", err)
			}
			if f.reason != reason {
				s.c.failf(ref, "expected CLOSE with reason %d, came reason %d", reason, f.reason)
			}
			s.k.ends(ref, false)
			return
		}
		if binary.BigEndian.Uint16(b[4:]) == 1 {
			s.handle(b)
		}
	}
}

// ended expects the end of the connection of a session that a CLOSE has ended. CLOSE may answer that.
func (s *stream) ended(ref string) {
	for {
		b, err := s.k.read()
		if err != nil {
			if isTimeout(err) {
				s.c.failf(ref, "expected the end of the connection, and it is still open")
			}
			return
		}
		s.handle(b)
	}
}
