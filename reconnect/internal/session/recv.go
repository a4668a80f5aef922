package session

import (
	"bytes"
	"fmt"
	"time"

	"github.com/towline-mq/towline/datagram"
)

const (
	// InitialCredit is what a dialer may send behind its first HELLO.
	InitialCredit = 16 << 10

	// ackBytes is how much may arrive before an acknowledgement is due, if a quarter of the window is not less: the
	// sender's log stays short enough for a processor's cache, and an ACK costs 0.02 % of it.
	ackBytes = 256 << 10

	// smallRuns is how many runs may be queued before short ones are put together, and shortRun up to which length.
	smallRuns = 8
	shortRun  = 4 << 10

	// ownRun is the length below which a run that waits behind smallRuns others gets memory of its own: what came between
	// the runs, which nobody counts, must not be kept with them.
	ownRun = 32 << 10
)

// Run is a run of datagrams that arrived together, taken by the application's side.
type Run struct {
	datagram.Run
	// Redelivered is how many of the first datagrams of it may have been delivered in an earlier session.
	Redelivered int
}

// queued is a run in the queue, or a run of skipped datagrams.
type queued struct {
	raw  []byte
	n    int
	own  bool   // raw is nobody else's, so that it may be appended to
	skip uint64 // the length of skipped datagrams; raw is empty then
	old  bool   // of an earlier session: nobody waits for an acknowledgement of it
}

// recvSide is the peer's stream: what has arrived, what was taken, what was promised.
//
// Invariants: taken <= arrived; here <= arrived while not stopped, in both parts; credit never goes down; the queue
// holds exactly the datagrams from taken to arrived, but for skipped ones; its bytes are no more than the window and one
// datagram, for a datagram must begin below the credit, and the credit never exceeds taken.B + window when it is set.
type recvSide struct {
	origin  Position // what the wire calls (0, 0)
	arrived Position // never goes back
	here    Position // how far this connection's stream is, replays included
	taken   Position // given to the application; counts skipped datagrams when those before are taken
	done    Position // what the application has finished with; equal to taken unless Config.Consumed
	fin     bool     // the stream has ended; arrived counts it
	stopped bool     // nothing more is taken: STOP was said, or is about to be

	queue   []queued
	small   [2]queued // the queue's first memory
	waiting uint64    // bytes in queue

	window   uint64
	credit   uint64 // granted so far
	reserved uint64 // of the budget
	used     bool   // the peer has used up its credit

	sizes []size // of what is between done and taken; only with Config.Consumed
	open  int    // how many of them are not skipped
	stale int    // taken datagrams of an earlier session, with which the application has not finished

	unstated uint64        // bytes that arrived since the last status
	ackAt    time.Duration // when an ACK is due at the latest; 0: none
}

// size is that of a datagram which the application has not finished with.
type size struct {
	length uint64
	skip   bool
}

// push queues datagrams. raw is whole frames, n of them.
func (r *recvSide) push(raw []byte, n int) {
	r.waiting += uint64(len(raw))
	if i := len(r.queue) - 1; i >= smallRuns && r.queue[i].skip == 0 && !r.queue[i].old && len(r.queue[i].raw)+len(raw) <= shortRun {
		// What waits for long must not keep a slab for each few bytes.
		last := &r.queue[i]
		if !last.own {
			own := make([]byte, len(last.raw), shortRun)
			copy(own, last.raw)
			last.raw, last.own = own, true
		}
		last.raw = append(last.raw, raw...)
		last.n += n
		return
	}
	own := len(r.queue) >= smallRuns && len(raw) < ownRun
	if own {
		raw = bytes.Clone(raw)
	}
	r.queue = append(r.queue, queued{raw: raw, n: n, own: own})
}

// pushSkip queues a datagram that was skipped.
func (r *recvSide) pushSkip(length uint64) {
	if i := len(r.queue) - 1; i >= 0 && r.queue[i].skip > 0 && !r.queue[i].old {
		r.queue[i].n++
		r.queue[i].skip += length
		return
	}
	r.queue = append(r.queue, queued{n: 1, skip: length})
}

// pop takes the first of the queue.
func (r *recvSide) pop() queued {
	q := r.queue[0]
	r.queue[0] = queued{}
	if r.queue = r.queue[1:]; len(r.queue) == 0 {
		r.queue = r.small[:0]
	}
	r.waiting -= uint64(len(q.raw))
	return q
}

// cut drops the first n datagrams of raw, which are replayed ones.
func cut(raw []byte, n uint64) (rest []byte, dropped uint64) {
	for ; n > 0; n-- {
		length := uint64(datagram.ParseHeader(raw).Size) + 4
		raw = raw[length:]
		dropped += length
	}
	return raw, dropped
}

// lastBegin returns where the last of the datagrams in raw begins.
func lastBegin(raw []byte) uint64 {
	var b, last uint64
	for b < uint64(len(raw)) {
		last = b
		b += uint64(datagram.ParseHeader(raw[b:]).Size) + 4
	}
	return last
}

func (p Position) String() string { return fmt.Sprintf("(%d, %d)", p.N, p.B) }

// after is add for positions of the wire, where a forged one must not come out as a small one: the largest stands for
// what is larger.
func (p Position) after(origin Position) Position {
	return Position{plus(p.N, origin.N), plus(p.B, origin.B)}
}

func (p Position) add(q Position) Position { return Position{p.N + q.N, p.B + q.B} }
func (p Position) sub(q Position) Position { return Position{p.N - q.N, p.B - q.B} }
