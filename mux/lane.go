package mux

import (
	"context"
	"sync"

	"github.com/towline-mq/towline/datagram"
)

// lane is the queue of one recipient on one connection, with SideBySide. The goroutine that reads pushes; another takes,
// which lives while there is something.
type lane struct {
	c *Conn

	mu      sync.Mutex
	queue   []item
	bytes   int
	running bool
	room    chan struct{} // not nil: closed when something was taken
}

type item struct {
	h      Handler
	d      datagram.Datagram
	ticket uint64
}

// cost is what a datagram that waits counts for.
func cost(d datagram.Datagram) int { return len(d.Payload) + 64 }

// lane returns that of r, nil being all that have no handler of their own.
func (c *Conn) lane(r *route) *lane {
	l := c.lanes[r]
	if l == nil {
		if c.lanes == nil {
			c.lanes = map[*route]*lane{}
		}
		l = &lane{c: c}
		c.lanes[r] = l
	}
	return l
}

// push queues a datagram, and waits for room. The error is why the connection has ended meanwhile.
func (l *lane) push(i item) error {
	l.mu.Lock()
	for l.bytes > 0 && l.bytes+cost(i.d) > l.c.m.o.QueueBytes {
		if l.room == nil {
			l.room = make(chan struct{})
		}
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
		case <-l.c.ctx.Done():
			return context.Cause(l.c.ctx)
		}
		l.mu.Lock()
	}
	l.queue = append(l.queue, i)
	l.bytes += cost(i.d)
	l.c.busy.Add(1)
	begin := !l.running
	l.running = true
	l.mu.Unlock()
	if begin {
		l.c.work.Go(l.work)
	}
	return nil
}

// work handles what is in the queue, until it is empty or the connection ends.
func (l *lane) work() {
	for {
		l.mu.Lock()
		batch := l.queue
		l.queue = nil
		if len(batch) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		for k := range batch {
			i := batch[k]
			batch[k] = item{}
			err := l.handle(i)
			l.mu.Lock()
			l.bytes -= cost(i.d)
			if l.room != nil {
				close(l.room)
				l.room = nil
			}
			l.mu.Unlock()
			l.c.busy.Add(-1)
			if err != nil {
				l.c.busy.Add(-int64(len(batch) - k - 1))
				l.c.end(err)
				return // running: nothing more is handled
			}
		}
	}
}

func (l *lane) handle(i item) error {
	err := l.c.guard(i.d.Recipient, func() error {
		err := i.h(l.c.contextOf(i.d, false), l.c, i.d)
		if err != nil {
			err = l.c.m.report(l.c, l.c.handlerError(i.d.Recipient, err))
		}
		return err
	})
	if err == nil {
		l.c.acks.done(i.ticket)
	}
	return err
}
