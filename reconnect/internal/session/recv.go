package session

import (
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
	datagram.Run
	own  bool   // Raw is nobody else's, so that it may be appended to
	skip uint64 // the length of skipped datagrams; Raw is empty then
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
	small   *[2]queued // the queue's first memory; nil until it is needed
	waiting uint64     // bytes in queue

	window   uint64
	credit   uint64 // granted so far
	reserved uint64 // of the budget

	// Whether a wider window would make the peer's stream faster: see stalls.
	heldAt  uint64        // the position at which the peer is held up by its credit; 0: it is not
	held    time.Duration // since when
	went    time.Duration // when it went on, the last time; 0: the stream has just begun
	stalled int           // how many times in a row it was held up for long
	enough  bool          // it was once not

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

// What a peer's pause has to be for a wider window to be worth its memory: a part of the time since the one before, and,
// beyond nearWindow, as long as a distance makes it. What is under way on a short path with such a window would only leave
// the processors' caches: measured on loopback, a stream with 512 KiB is faster than one with 1 MiB.
const (
	pausePart  = 8
	nearWindow = 512 << 10
	farPause   = 200 * time.Microsecond
	manyPauses = 8 // in a row, of a stream that has been fast enough once
)

// stalls tells that bytes have come at the time now. It finds out whether the peer is held up by its credit. A stream that
// has been fast enough once needs many pauses: a few may come from a machine that was busy for a moment.
func (r *recvSide) stalls(now time.Duration) {
	if r.heldAt != 0 && r.arrived.B > r.heldAt {
		pause := now - r.held
		if (r.went == 0 || pause >= (now-r.went)/pausePart) && (r.window < nearWindow || pause >= farPause) {
			r.stalled++
		} else {
			r.stalled, r.enough = 0, true
		}
		r.went, r.heldAt = now, 0
	}
	if r.heldAt == 0 && r.arrived.B >= r.credit {
		r.held, r.heldAt = now, r.arrived.B
	}
}

// narrowed reports whether the peer is held up by its window.
func (r *recvSide) narrowed() bool { return r.stalled >= manyPauses || r.stalled > 0 && !r.enough }

// push queues datagrams.
func (r *recvSide) push(run datagram.Run) {
	r.waiting += uint64(len(run.Raw))
	if i := len(r.queue) - 1; i >= smallRuns && r.queue[i].skip == 0 && !r.queue[i].old && len(r.queue[i].Raw)+len(run.Raw) <= shortRun {
		// What waits for long must not keep a slab for each few bytes.
		last := &r.queue[i]
		if !last.own {
			last.copy(shortRun)
		}
		last.Raw = append(last.Raw, run.Raw...)
		last.N += run.N
		run.Release()
		return
	}
	r.queue = append(r.room(), queued{Run: run})
	if last := &r.queue[len(r.queue)-1]; len(r.queue) > smallRuns && len(run.Raw) < ownRun {
		last.copy(len(run.Raw))
	}
}

// room returns the queue, with memory for what is the first.
func (r *recvSide) room() []queued {
	if len(r.queue) > 0 {
		return r.queue
	}
	if r.small == nil {
		r.small = new([2]queued)
	}
	return r.small[:0]
}

// rest lets the queue's memory go, if the queue is empty.
func (r *recvSide) rest() {
	if len(r.queue) == 0 {
		r.queue, r.small = nil, nil
	}
}

// copy gives q memory of its own, of size bytes.
func (q *queued) copy(size int) {
	own := append(make([]byte, 0, size), q.Raw...)
	q.Release()
	q.Run, q.own = datagram.Run{Raw: own, N: q.N, Version: q.Version}, true
}

// pushSkip queues a datagram that was skipped.
func (r *recvSide) pushSkip(length uint64) {
	if i := len(r.queue) - 1; i >= 0 && r.queue[i].skip > 0 && !r.queue[i].old {
		r.queue[i].N++
		r.queue[i].skip += length
		return
	}
	r.queue = append(r.room(), queued{Run: datagram.Run{N: 1}, skip: length})
}

// pop takes the first of the queue.
func (r *recvSide) pop() queued {
	q := r.queue[0]
	r.queue[0] = queued{}
	if r.queue = r.queue[1:]; len(r.queue) == 0 {
		r.queue = nil
	}
	r.waiting -= uint64(len(q.Raw))
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
