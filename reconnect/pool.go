package reconnect

import (
	"sync"

	"github.com/towline-mq/towline/reconnect/internal/session"
)

// pool is the memory of all send logs. What was given back last is given out first, while it is in a processor's cache;
// what is more than a few busy sessions need goes to the collector, sooner or later.
type pool struct{}

var (
	smallSegments = sync.Pool{New: func() any { return new([session.SmallSegment]byte) }}
	largeSegments = sync.Pool{New: func() any { return new([session.LargeSegment]byte) }}
	warm          stack
)

func (pool) Get(size int) []byte {
	if size == session.SmallSegment {
		return smallSegments.Get().(*[session.SmallSegment]byte)[:]
	}
	if b := warm.pop(); b != nil {
		return b[:]
	}
	return largeSegments.Get().(*[session.LargeSegment]byte)[:]
}

func (pool) Put(b []byte) {
	if len(b) == session.SmallSegment {
		smallSegments.Put((*[session.SmallSegment]byte)(b))
		return
	}
	if large := (*[session.LargeSegment]byte)(b); !warm.push(large) {
		largeSegments.Put(large)
	}
}

// stack is a few segments, 1 MiB at most.
type stack struct {
	mu   sync.Mutex
	segs [16]*[session.LargeSegment]byte
	n    int
}

func (s *stack) push(b *[session.LargeSegment]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == len(s.segs) {
		return false
	}
	s.segs[s.n] = b
	s.n++
	return true
}

// pop returns nil if there is none.
func (s *stack) pop() *[session.LargeSegment]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return nil
	}
	s.n--
	b := s.segs[s.n]
	s.segs[s.n] = nil
	return b
}
