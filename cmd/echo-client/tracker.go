package main

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
)

const (
	// inflightBytes bounds the payloads on their way at once; a single larger one may go alone.
	inflightBytes = 32 << 20
	// maxLate is how many datagrams that were overtaken are remembered, and maxRecent how many that came back, to know
	// them again.
	maxLate   = 64 << 10
	maxRecent = 64 << 10
)

// tracker knows what was sent and not seen again, and judges what comes back.
//
// Datagrams are numbered from 0 as they are sent. The highest number that came back divides them: those above it are on their
// way and fill the window; those below it that are missing were overtaken. One of these that still comes is out of
// order, one that never does is lost. What came back before is a duplicate, and what was never sent is strange.
//
// A datagram is known by a hash of its content. Equal ones cannot be told apart, and count as whichever makes the least
// trouble, unless number tells them.
type tracker struct {
	recipient uint16
	seed      maphash.Seed
	maxCount  int
	number    func(payload []byte) (uint64, bool) // nil: payloads do not tell
	keep      bool                                // payloads are kept until they have come back, for again
	remake    func(n uint64) []byte               // makes the n-th payload for again, where they are not kept
	rtt       func(time.Duration)

	mu      sync.Mutex
	changed sync.Cond // on mu: there may be room, or stopped is set
	stopped bool
	next    uint64 // the number of the next datagram sent
	window  queue  // those up to next, less its length, on
	bytes   int    // payload bytes in window
	late    []sent // those below window that are missing
	forgot  uint64 // overtaken, and too many to remember
	recent  []uint64
	tally   tally
}

// sent is a datagram on its way.
type sent struct {
	hash uint64
	size int
	at   time.Duration
	bare bool // see source

	payload []byte // nil unless payloads are kept
}

// tally is what a tracker has counted.
type tally struct {
	sent, received, duplicated, outOfOrder, strange uint64

	bytes uint64        // of payloads received
	last  time.Duration // when something last came back
	moved time.Duration // when something was last sent or came back
}

func newTracker(recipient uint16, maxCount int, number func([]byte) (uint64, bool), rtt func(time.Duration)) *tracker {
	t := &tracker{recipient: recipient, seed: maphash.MakeSeed(), maxCount: maxCount, number: number, rtt: rtt}
	t.changed.L = &t.mu
	return t
}

// await waits until there is room for a payload of that size. It returns false after stop.
func (t *tracker) await(size int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.stopped && !t.room(t.window.len(), t.bytes, size) {
		t.changed.Wait()
	}
	return !t.stopped
}

// admit takes as many of the payloads as there is room for to be sent now, and returns how many. Bare says that the last
// of them is a bare one.
func (t *tracker) admit(payloads [][]byte, bare bool, clock func() time.Duration) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, size := 0, 0
	for !t.stopped && n < len(payloads) && t.room(t.window.len()+n, t.bytes+size, len(payloads[n])) {
		size += len(payloads[n])
		n++
	}
	if n == 0 {
		return 0
	}
	var kept []byte
	if t.keep {
		kept = make([]byte, 0, size)
	}
	now := clock()
	for i, p := range payloads[:n] {
		s := sent{hash: maphash.Bytes(t.seed, p), size: len(p), at: now, bare: bare && i == len(payloads)-1}
		if t.keep {
			kept = append(kept, p...)
			s.payload = kept[len(kept)-len(p):]
		}
		t.window.push(s)
	}
	t.bytes += size
	t.next += uint64(n)
	t.tally.sent += uint64(n)
	t.tally.moved = now
	return n
}

// again appends to dst the payloads on their way from number from on, or from the first that still is, as many as are good
// for one batch, and returns the number behind them. There are none when all were returned.
func (t *tracker) again(dst [][]byte, from uint64) (payloads [][]byte, next uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := t.next - uint64(t.window.len())
	size := 0
	for from = max(from, first); from < t.next && len(dst) < batchCount && size < batchBytes; from++ {
		p := t.window.at(int(from - first)).payload
		if !t.keep {
			p = t.remake(from)
		}
		dst = append(dst, p)
		size += len(p)
	}
	return dst, from
}

// room reports whether a payload of that size may go beside n others of so many bytes.
func (t *tracker) room(n, bytes, size int) bool {
	return n == 0 || n < t.maxCount && bytes+size <= inflightBytes
}

// retract takes back the last n that admit took: they were not sent.
func (t *tracker) retract(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for range n {
		t.bytes -= t.window.dropLast().size
	}
	t.next -= uint64(n)
	t.tally.sent -= uint64(n)
}

// stop ends the admitting.
func (t *tracker) stop() {
	t.mu.Lock()
	t.stopped = true
	t.changed.Broadcast()
	t.mu.Unlock()
}

// check judges what has come back, and returns the index of the bare one among them, or -1.
func (t *tracker) check(ds []datagram.Datagram, now time.Duration) (bare int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	bare = -1
	for i := range ds {
		if t.judge(&ds[i], now) {
			bare = i
		}
	}
	t.tally.last, t.tally.moved = now, now
	t.changed.Signal()
	return bare
}

func (t *tracker) judge(d *datagram.Datagram, now time.Duration) (bare bool) {
	hash := maphash.Bytes(t.seed, d.Payload)
	if d.Recipient != t.recipient {
		t.tally.strange++
		return false
	}
	// The next in order, as long as all goes well.
	if t.window.len() > 0 {
		if s := t.window.at(0); s.hash == hash && s.size == len(d.Payload) {
			return t.took(t.pop(), now)
		}
	}
	for i := 1; i < t.window.len(); i++ {
		if s := t.window.at(i); s.hash == hash && s.size == len(d.Payload) {
			for range i {
				t.overtake()
			}
			return t.took(t.pop(), now)
		}
	}
	for i := range t.late {
		if s := t.late[i]; s.hash == hash && s.size == len(d.Payload) {
			t.late = append(t.late[:i], t.late[i+1:]...)
			t.tally.outOfOrder++
			return t.took(s, now)
		}
	}
	if t.seenBefore(d.Payload, hash) {
		t.tally.duplicated++
	} else {
		t.tally.strange++
	}
	return false
}

// pop takes the first of window.
func (t *tracker) pop() sent {
	s := t.window.pop()
	t.bytes -= s.size
	return s
}

// overtake moves the first of window to late.
func (t *tracker) overtake() {
	if len(t.late) == maxLate {
		t.late = append(t.late[:0], t.late[1:]...)
		t.forgot++
	}
	s := t.pop()
	s.payload = nil // a session does not overtake, and a connection that does sends nothing again
	t.late = append(t.late, s)
}

// took counts one that has come back.
func (t *tracker) took(s sent, now time.Duration) (bare bool) {
	if t.number == nil {
		if len(t.recent) < maxRecent {
			t.recent = append(t.recent, s.hash)
		} else {
			t.recent[t.tally.received%maxRecent] = s.hash
		}
	}
	t.tally.received++
	t.tally.bytes += uint64(s.size)
	t.rtt(now - s.at)
	return s.bare
}

// seenBefore reports whether something that is not awaited was sent and has come back already.
func (t *tracker) seenBefore(payload []byte, hash uint64) bool {
	if t.number != nil {
		n, ok := t.number(payload)
		return ok && n < t.next
	}
	for _, h := range t.recent {
		if h == hash {
			return true
		}
	}
	return false
}

// counts returns what was counted so far, and how many are awaited: on their way or overtaken.
func (t *tracker) counts() (c tally, awaited uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tally, uint64(t.window.len()+len(t.late)) + t.forgot
}

// onTheWay returns how many datagrams fill the window, and their bytes.
func (t *tracker) onTheWay() (n, bytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.window.len(), t.bytes
}

// take returns s, and leaves nothing there that would hold memory.
func (s *sent) take() sent {
	was := *s
	s.payload = nil
	return was
}

// queue is a ring of what is on its way. Its room grows as needed and is a power of two.
type queue struct {
	ring       []sent
	head, tail uint64 // positions; the slot is the position modulo len(ring)
}

func (q *queue) len() int       { return int(q.tail - q.head) }
func (q *queue) at(i int) *sent { return &q.ring[(q.head+uint64(i))&uint64(len(q.ring)-1)] }
func (q *queue) pop() sent      { q.head++; return q.at(-1).take() }
func (q *queue) dropLast() sent { q.tail--; return q.at(q.len()).take() }
func (q *queue) push(s sent) {
	if q.len() == len(q.ring) {
		ring := make([]sent, max(64, 2*len(q.ring)))
		for i := range q.len() {
			ring[i] = *q.at(i)
		}
		q.ring, q.head, q.tail = ring, 0, uint64(q.len())
	}
	q.tail++
	*q.at(q.len() - 1) = s
}
