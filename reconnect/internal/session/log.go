package session

import (
	"encoding/binary"
	"sort"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// The two sizes of a log's segments. A log that was empty begins with a small one, so that a session with one short
// message in flight costs little.
const (
	SmallSegment = 4 << 10
	LargeSegment = 64 << 10
)

// Memory gives and takes segments of SmallSegment and LargeSegment bytes. What it gives need not be zero.
type Memory interface {
	Get(size int) []byte
	Put(segment []byte)
}

// segment is a stretch of the log. Frames cross from one to the next.
type segment struct {
	buf    []byte
	n      int    // bytes in use
	at     uint64 // the byte position of buf[0]
	first  int    // where the first frame that begins here does, or -1
	firstN uint64 // how many frames are before that one
}

// sendLog holds the frames that were accepted and not acknowledged, encoded once, in the order of their numbers. It is
// the only source of what is written: a replay is the cursor moved back, so that new can never overtake old.
//
// Invariants: base <= unsent <= sent <= max <= end, as positions in both parts, but for the end of the stream: it counts
// one after end, and the others may be there once fin is set. The segments cover [base, end) without gaps; the
// first holds base's byte. Nothing is freed that lies at or behind pin while pinned.
type sendLog struct {
	mem  Memory
	segs []segment

	origin Position // what the wire calls (0, 0)
	base   Position // acknowledged up to here
	unsent Position // the next to be written on this connection
	sent   Position // the furthest that was given out for writing in this session
	max    Position // the furthest that ever was, in an earlier session too, which Renew took this one from
	end    Position // accepted up to here
	fin    bool     // no more is accepted: the end of the stream has the number after end
	gone   bool     // the segments are given back, but for what is pinned

	pinned bool // a write of [pin, unsent) is under way
	pin    uint64

	marks []mark // of frames with an age limit, in order; those before base are dropped
	skips uint64 // how many of the marks are skipped
}

// mark is a frame that expires.
type mark struct {
	at       Position // where it begins
	length   uint32   // of the frame
	deadline time.Duration
	skipped  bool // SKIP took its place, for good
}

// frameLen is the length of the frame of a payload of n bytes.
func frameLen(n int) uint64 { return uint64(n) + datagram.HeaderSize }

// final is the position after everything, the end of the stream included.
func (l *sendLog) final() Position {
	if l.fin {
		return Position{l.end.N + 1, l.end.B}
	}
	return l.end
}

// size is how many bytes are unconfirmed.
func (l *sendLog) size() uint64 { return l.end.B - l.base.B }

// append adds a frame. The caller has checked its length.
func (l *sendLog) append(d datagram.Datagram) {
	length := frameLen(len(d.Payload))
	s := l.tail(length)
	if s.first < 0 {
		s.first, s.firstN = s.n, l.end.N
	}
	h := datagram.Header{Size: uint32(length - 4), Version: datagram.Version, Recipient: d.Recipient}
	if len(s.buf)-s.n >= datagram.HeaderSize {
		h.Append(s.buf[s.n:s.n])
		s.n += datagram.HeaderSize
	} else {
		var b [datagram.HeaderSize]byte
		l.appendBytes(h.Append(b[:0]))
	}
	l.appendBytes(d.Payload)
	l.end.N++
	l.end.B += length
}

func (l *sendLog) appendBytes(p []byte) {
	for len(p) > 0 {
		s := &l.segs[len(l.segs)-1]
		if s.n == len(s.buf) {
			s = l.grow(LargeSegment)
		}
		n := copy(s.buf[s.n:], p)
		s.n += n
		p = p[n:]
	}
}

// tail returns the last segment, with room for a byte or more, for a frame of length bytes.
func (l *sendLog) tail(length uint64) *segment {
	if i := len(l.segs) - 1; i >= 0 {
		if s := &l.segs[i]; s.n < len(s.buf) {
			return s
		}
		return l.grow(LargeSegment)
	}
	if length <= SmallSegment {
		return l.grow(SmallSegment)
	}
	return l.grow(LargeSegment)
}

func (l *sendLog) grow(size int) *segment {
	at := l.end.B
	if i := len(l.segs) - 1; i >= 0 {
		at = l.segs[i].at + uint64(l.segs[i].n)
	}
	l.segs = append(l.segs, segment{buf: l.mem.Get(size), at: at, first: -1})
	return &l.segs[len(l.segs)-1]
}

// find returns the index of the segment that holds the byte at position b, which is in the log.
func (l *sendLog) find(b uint64) int {
	return sort.Search(len(l.segs), func(i int) bool { return l.segs[i].at+uint64(l.segs[i].n) > b })
}

// length returns how long the frame at byte position b is, which is in segment i; and where the next begins.
func (l *sendLog) length(i int, b uint64) (length uint64, next int) {
	s := &l.segs[i]
	off := int(b - s.at)
	if s.n-off >= 4 {
		length = uint64(binary.BigEndian.Uint32(s.buf[off:])) + 4
	} else {
		var h [4]byte
		n := copy(h[:], s.buf[off:s.n])
		copy(h[n:], l.segs[i+1].buf)
		length = uint64(binary.BigEndian.Uint32(h[:])) + 4
	}
	for b += length; i < len(l.segs) && b >= l.segs[i].at+uint64(l.segs[i].n); {
		i++
	}
	return length, i
}

// from returns where the first frame begins that does so at byte position b or behind it, and the end if there is none.
// b is not before base.
// Cost: one segment's frames.
func (l *sendLog) from(b uint64) Position {
	if b >= l.end.B {
		return l.end
	}
	// Begin at the last frame that is known not to be behind b. The first segment has one: that at base or before it.
	j := l.find(b)
	for j > 0 && (l.segs[j].first < 0 || l.segs[j].at+uint64(l.segs[j].first) > b) {
		j--
	}
	p := Position{l.segs[j].firstN, l.segs[j].at + uint64(l.segs[j].first)}
	for p.B < b {
		var n uint64
		n, j = l.length(j, p.B)
		p.N++
		p.B += n
	}
	return p
}

// edge reports whether p is the end of a frame, of the stream, or the beginning of the log.
func (l *sendLog) edge(p Position) bool {
	switch {
	case p == l.base || p == l.sent || p == l.final():
		return true
	case p.N > l.end.N || p.B < l.base.B || p.B > l.end.B:
		return false
	}
	return l.from(p.B) == p
}

// acknowledge frees what lies before p, an edge at or behind base.
func (l *sendLog) acknowledge(p Position) {
	l.base = p
	l.free()
	n := 0
	for n < len(l.marks) && l.marks[n].at.B < p.B {
		if l.marks[n].skipped {
			l.skips--
		}
		n++
	}
	if l.marks = l.marks[n:]; len(l.marks) == 0 {
		l.marks = nil
	}
}

// free gives back the segments that nobody needs.
func (l *sendLog) free() {
	upTo := l.base.B
	if l.gone {
		upTo = l.end.B
	}
	if l.pinned {
		upTo = min(upTo, l.pin)
	}
	n := 0
	for n < len(l.segs) && l.segs[n].at+uint64(l.segs[n].n) <= upTo {
		l.mem.Put(l.segs[n].buf)
		n++
	}
	if n == 0 {
		return
	}
	k := copy(l.segs, l.segs[n:])
	clear(l.segs[k:])
	l.segs = l.segs[:k]
	if k == 0 && cap(l.segs) > 8 {
		l.segs = nil // after a burst
	}
}

// rewind moves the cursor back to what the peer has not acknowledged, for a new connection.
func (l *sendLog) rewind() {
	l.unsent, l.pinned = l.base, false
	l.free()
}

// give appends the bytes from unsent on to vec, whole frames that begin below credit, at least one and not much more
// than size bytes, and moves unsent behind them. upTo is a position that it must not pass.
func (l *sendLog) give(vec [][]byte, credit, size uint64, upTo Position) [][]byte {
	to := upTo
	if credit < to.B {
		if p := l.from(credit); p.B < to.B {
			to = p
		}
	}
	i := l.find(l.unsent.B)
	if to.B-l.unsent.B > size {
		for j := i; j < len(l.segs); j++ {
			s := &l.segs[j]
			if s.first < 0 {
				continue
			}
			if b := s.at + uint64(s.first); b >= l.unsent.B+size {
				if b < to.B {
					to = Position{s.firstN, b}
				}
				break
			}
		}
	}
	for b := l.unsent.B; b < to.B; i++ {
		s := &l.segs[i]
		stop := min(s.n, int(to.B-s.at))
		vec = append(vec, s.buf[b-s.at:stop])
		b = s.at + uint64(stop)
	}
	if !l.pinned {
		l.pinned, l.pin = true, l.unsent.B
	}
	l.advance(to)
	return vec
}

// advance moves the cursor forward.
func (l *sendLog) advance(to Position) {
	l.unsent = to
	if l.sent.N < to.N {
		l.sent = to
	}
	if l.max.N < to.N {
		l.max = to
	}
}

// unpin says that no write is under way any more.
func (l *sendLog) unpin() {
	l.pinned = false
	l.free()
}

// nextMark returns the first mark at or behind unsent.
func (l *sendLog) nextMark() int {
	return sort.Search(len(l.marks), func(i int) bool { return l.marks[i].at.B >= l.unsent.B })
}

// expired reports whether SKIP takes the place of the frame: never that of one which was sent before.
func (l *sendLog) expired(m *mark, now time.Duration) bool {
	return m.skipped || m.at.N >= l.max.N && now >= m.deadline
}

// unconfirmed yields the datagrams that are accepted and not acknowledged, but for skipped ones, in order. Payloads are
// copies.
func (l *sendLog) unconfirmed(yield func(datagram.Datagram) bool) {
	if l.gone {
		return
	}
	m := 0
	for p := l.base; p.N < l.end.N; {
		i := l.find(p.B)
		n, _ := l.length(i, p.B)
		for m < len(l.marks) && l.marks[m].at.N < p.N {
			m++
		}
		if m == len(l.marks) || l.marks[m].at.N != p.N || !l.marks[m].skipped {
			d, _, err := datagram.Parse(l.bytes(i, p.B, n))
			if err != nil {
				panic("session: the log holds a bad frame: " + err.Error())
			}
			if !yield(d) {
				return
			}
		}
		p.N++
		p.B += n
	}
}

// bytes returns a copy of n bytes from position b on, which is in segment i.
func (l *sendLog) bytes(i int, b, n uint64) []byte {
	out := make([]byte, 0, n)
	for ; uint64(len(out)) < n; i++ {
		s := &l.segs[i]
		from := int(b + uint64(len(out)) - s.at)
		out = append(out, s.buf[from:min(s.n, from+int(n)-len(out))]...)
	}
	return out
}

// drop lets go of all memory. The positions stay.
func (l *sendLog) drop() {
	l.gone, l.marks = true, nil
	l.free()
}
