package mux

import (
	"sync"
	"sync/atomic"

	"github.com/towline-mq/towline/reconnect"
)

// acks tells the peer, in order, which datagrams their handlers are done with: for sessions with AckConsumed. On others
// reconnect.Reader.Ack does nothing.
//
// Only the goroutine that reads calls begin and handled; any may call done.
type acks struct {
	r    *reconnect.Reader
	open atomic.Int64 // len(over); 0: nothing is under way beside the goroutine that reads

	mu   sync.Mutex
	base uint64 // the ticket of over[0]
	over []bool // by ticket: done, and something before it is not
}

// begin notes a datagram that is handled beside others.
func (a *acks) begin() (ticket uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ticket = a.base + uint64(len(a.over))
	a.over = append(a.over, false)
	a.open.Store(int64(len(a.over)))
	return ticket
}

// done says that one which began is dealt with.
func (a *acks) done(ticket uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over[ticket-a.base] = true
	n := 0
	for n < len(a.over) && a.over[n] {
		n++
	}
	if n > 0 {
		a.base += uint64(n)
		a.over = a.over[n:]
		if len(a.over) == 0 {
			a.over = nil
		}
		_ = a.r.Ack(n) // fails if the session has ended
		a.open.Store(int64(len(a.over)))
	}
}

// handled says that the newest, which did not begin, is dealt with.
func (a *acks) handled() {
	if a.open.Load() > 0 {
		a.done(a.begin())
		return
	}
	_ = a.r.Ack(1)
}
