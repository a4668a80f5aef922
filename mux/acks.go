package mux

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/towline-mq/towline/reconnect"
)

// acks tells the peer, in order, which datagrams their handlers are done with: for sessions with AckConsumed. On others
// reconnect.Reader.Ack does nothing.
//
// Only the goroutine that reads calls begin and handled; any may call done. It takes memory for what is under way, and none
// for what is done behind that.
type acks struct {
	r    *reconnect.Reader
	open atomic.Int64 // len(work). 0: no other goroutine has anything to do here

	mu    sync.Mutex  // not needed by the goroutine that reads while open is 0
	next  uint64      // the ticket of the next datagram
	acked uint64      // all below are acknowledged
	work  []beginning // in order; the first is not done
	idle  int         // how many of work are done
}

// beginning is a datagram whose handler has begun.
type beginning struct {
	ticket uint64
	done   bool
}

// fewIdle is how many that are done may lie between others without being taken out.
const fewIdle = 32

// begin notes a datagram that is handled beside others.
func (a *acks) begin() (ticket uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ticket = a.next
	a.next++
	a.work = append(a.work, beginning{ticket: ticket})
	a.open.Store(int64(len(a.work)))
	return ticket
}

// done says that one which began is dealt with.
func (a *acks) done(ticket uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := 0
	if a.work[0].ticket != ticket { // mostly it is the first
		i, _ = slices.BinarySearchFunc(a.work, ticket, func(b beginning, ticket uint64) int { return cmp.Compare(b.ticket, ticket) })
	}
	a.work[i].done = true
	a.idle++
	n := 0
	for n < len(a.work) && a.work[n].done {
		n++
	}
	a.work = a.work[n:]
	a.idle -= n
	switch {
	case len(a.work) == 0:
		a.work = nil
	case a.idle > fewIdle && a.idle > len(a.work)/2:
		a.work = slices.DeleteFunc(a.work, func(b beginning) bool { return b.done })
		a.idle = 0
	}
	a.acknowledge()
	a.open.Store(int64(len(a.work)))
}

// handled says that the newest, which did not begin, is dealt with.
func (a *acks) handled() {
	if a.open.Load() == 0 {
		a.next++
		a.acknowledge()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	a.acknowledge()
}

// acknowledge acknowledges all before the first that is not done. mu is held, or work empty.
func (a *acks) acknowledge() {
	until := a.next
	if len(a.work) > 0 {
		until = a.work[0].ticket
	}
	if until > a.acked {
		_ = a.r.Ack(int(until - a.acked)) // fails if the session has ended
		a.acked = until
	}
}
