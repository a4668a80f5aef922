package mem

import (
	"math/rand/v2"
	"time"
)

// Shape is the constant behaviour of one direction of a connection. The zero value is a perfect line; a negative
// field counts as zero.
//
// Bytes under way occupy the buffer of their direction ([Config.Buffer]), as they would occupy a TCP window: a long
// delay therefore also bounds the throughput, at Buffer bytes per delay.
type Shape struct {
	// Latency is the time from a Write to the moment when its bytes, or the end of the stream, can be read.
	Latency time.Duration
	// Jitter adds to Latency, for each Write, a random time in [0, Jitter). Bytes stay in order: a short delay never
	// lets bytes overtake earlier ones.
	Jitter time.Duration
	// Seed selects the random times of Jitter. Equal seeds give the n-th connection under one [Faults] equal times.
	Seed uint64
	// Rate is how many bytes a second the line moves; 0 is without limit. They arrive in pieces of 10 ms' worth.
	Rate int
	// MaxRead is the largest number of bytes that one Read returns; 0 is without limit, 1 is byte by byte.
	MaxRead int
}

// delays reports whether bytes take any time.
func (s *Shape) delays() bool { return s.Latency > 0 || s.Jitter > 0 || s.Rate > 0 }

// A mark says that bytes up to an absolute position of the stream are due at a time.
type mark struct {
	pos int64
	at  time.Time
}

// A schedule holds the bytes of one lane that are under way. The zero value is empty: all bytes arrive at once.
type schedule struct {
	shape    Shape
	rng      *rand.Rand
	marks    []mark // marks[head:] are pending, in order of position: a mark waits for those before it
	head     int
	lineFree time.Time // when the last byte leaves a line limited by Rate
}

// reshape changes how later bytes travel. Those under way keep their times.
func (s *schedule) reshape(shape Shape, stream uint64) {
	s.shape = shape
	s.rng = nil
	if shape.Jitter > 0 {
		s.rng = rand.New(rand.NewPCG(shape.Seed, stream))
	}
}

func (s *schedule) pending() bool { return s.head < len(s.marks) }

func (s *schedule) next() time.Time { return s.marks[s.head].at }

// send puts the n bytes that end at position pos on their way.
func (s *schedule) send(pos int64, n int, now time.Time) {
	delay := s.delay()
	piece := n
	if s.shape.Rate > 0 {
		piece = max(s.shape.Rate/100, 1)
	}
	for sent := 0; sent < n; {
		k := min(piece, n-sent)
		sent += k
		s.push(mark{pos - int64(n-sent), s.arrival(k, delay, now)})
	}
}

// finish gives the time at which an end of the stream that leaves now arrives, if all bytes have by then.
func (s *schedule) finish(now time.Time) time.Time { return s.arrival(0, s.delay(), now) }

func (s *schedule) delay() time.Duration {
	d := max(s.shape.Latency, 0)
	if s.rng != nil {
		d += time.Duration(s.rng.Int64N(int64(s.shape.Jitter)))
	}
	return d
}

// arrival gives the time at which n bytes that are written now are due.
func (s *schedule) arrival(n int, delay time.Duration, now time.Time) time.Time {
	leaves := now
	if s.shape.Rate > 0 {
		if s.lineFree.Before(now) {
			s.lineFree = now
		}
		s.lineFree = s.lineFree.Add(time.Duration(float64(n) / float64(s.shape.Rate) * float64(time.Second)))
		leaves = s.lineFree
	}
	return leaves.Add(delay)
}

func (s *schedule) push(m mark) {
	if s.head > 0 && len(s.marks) == cap(s.marks) {
		s.marks = s.marks[:copy(s.marks, s.marks[s.head:])]
		s.head = 0
	}
	s.marks = append(s.marks, m)
}

// arrived gives the position up to which bytes have come by now, and true, if any mark was reached.
func (s *schedule) arrived(now time.Time) (pos int64, ok bool) {
	for s.pending() && !s.marks[s.head].at.After(now) {
		pos, ok = s.marks[s.head].pos, true
		s.head++
	}
	if !s.pending() {
		s.marks, s.head = s.marks[:0], 0
	}
	return pos, ok
}

// clear forgets what is under way.
func (s *schedule) clear() { s.marks, s.head = nil, 0 }
