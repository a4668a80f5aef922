package mux

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// HandleCall binds a recipient to a call: requests of type Req, and their answers of type Resp, in a codec, under a name
// for people. fn may be nil where this side only calls. Both sides of a connection may call.
//
// Calls of one connection begin in the order of their requests, each after the handlers of the datagrams before it, and
// run beside each other and beside what follows, up to Options.Serving of them. ctx ends with the connection, with the
// caller's deadline, and when the caller gives up. An error of fn goes to the caller as a *CallError with its text; one
// that is a *CallError with a Code of 256 or more, as it is. It does not end the connection; a panic does.
func HandleCall[Req, Resp any](m *Mux, recipient uint16, name string, codec Codec, fn func(ctx context.Context, c *Conn, req Req) (Resp, error)) {
	r := &route{
		recipient: recipient, name: name, codec: codec,
		typ: reflect.TypeFor[Req](), reply: reflect.TypeFor[Resp](),
	}
	if fn != nil {
		r.handle = func(ctx context.Context, c *Conn, d datagram.Datagram) error {
			var req Req
			if err := decode(codec, d.Payload, &req); err != nil {
				return err
			}
			resp, err := fn(ctx, c, req)
			if err != nil {
				return err
			}
			s, ok := ctx.Value(servedKey{}).(*served)
			if !ok {
				return fmt.Errorf("%w: the middleware gave the handler of a call another context", ErrUnbound)
			}
			return s.answer(codec, resp)
		}
	}
	m.bind(r)
}

// Call sends a request, and waits for its answer, over as many connections as that takes, until ctx ends. ctx's
// deadline is the handler's too, and when ctx ends the peer is told. It blocks at first while Options.Calls others wait.
// It may be called from any goroutine, but not from a handler of the same connection with that handler's context, which
// would keep the answer from being read: that is ErrDeadlock. (Handlers of calls may; with SideBySide all may.) Where the
// connection has ended and a handler keeps what has arrived from being read, it waits for 5 s.
//
// The errors are those of Send, with which the request was not sent. After it was: what ended ctx; a *CallError, the
// peer's answer, of which some match ErrBusy, ErrRedelivered, ErrUnknown, ErrPayload or context.DeadlineExceeded; ErrLost; why the connection
// ended, where io.EOF means that the peer sends no more; or one that matches ErrPayload, if the answer cannot be read.
// With all but ErrBusy, ErrUnknown and ErrRedelivered the call may have been run.
func Call[Req, Resp any](ctx context.Context, c *Conn, req Req) (resp Resp, err error) {
	t := reflect.TypeFor[Req]()
	r := c.m.byType[t]
	switch {
	case r == nil || r.reply == nil:
		return resp, unbound(t, "is the request of no call: bind it with HandleCall, also where it is only called")
	case r.reply != reflect.TypeFor[Resp]():
		return resp, unbound(t, fmt.Sprintf("is answered by %s, not %s", r.reply, reflect.TypeFor[Resp]()))
	}
	body, err := c.call(ctx, r, req)
	if err == nil {
		err = decode(r.codec, body, &resp)
	}
	return resp, err
}

// call does all of it that needs no type.
func (c *Conn) call(ctx context.Context, r *route, req any) ([]byte, error) {
	if ctx.Value(inlineKey{}) == any(c) {
		return nil, ErrDeadlock
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	select {
	case c.calls.room <- struct{}{}:
		defer func() { <-c.calls.room }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.calls.over:
		return nil, c.calls.err
	}
	w, err := c.calls.add(r)
	if err != nil {
		return nil, err
	}
	defer c.calls.remove(w.id)
	p := prefix{kind: kindRequest, id: w.id}
	if deadline, ok := ctx.Deadline(); ok {
		p.limit = limitOf(time.Until(deadline))
	}
	if err := c.request(ctx, r, p, req); err != nil {
		return nil, err
	}
	c.requested(w)
	select {
	case a := <-w.answer:
		if a.err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx) // which the peer may have noticed first
		}
		return a.body, a.err
	case <-ctx.Done():
		c.tellGivenUp(r, w.id)
		return nil, context.Cause(ctx)
	}
}

// tellGivenUp tells the peer that nobody waits for an answer any more; later, where there is no room. Of more than Options.Calls
// that would have to wait for room the peer learns by their deadlines, or not at all.
func (c *Conn) tellGivenUp(r *route, id uint64) {
	cancel := prefix{kind: kindCancel, id: id}
	d := datagram.Datagram{Recipient: r.recipient, Payload: cancel.append(nil)}
	if !errors.Is(c.Writer().TrySend(d), reconnect.ErrWouldBlock) {
		return
	}
	if c.calls.untold.Add(1) > int64(c.m.o.Calls) {
		c.calls.untold.Add(-1)
		return
	}
	go func() {
		defer c.calls.untold.Add(-1)
		_ = c.Writer().Send(c.ctx, d) // fails if the connection has ended
	}()
}

// request sends one.
func (c *Conn) request(ctx context.Context, r *route, p prefix, req any) error {
	b := c.m.buffer()
	defer c.m.free(b)
	var err error
	if *b, err = r.codec.Append(p.append(*b), req); err != nil {
		return &HandlerError{r.recipient, r.name, err}
	}
	return c.Writer().Send(ctx, datagram.Datagram{Recipient: r.recipient, Payload: *b})
}

// calls are those of one connection that wait for their answers.
type calls struct {
	room chan struct{} // holds one for each, and for those that are about to be
	over chan struct{} // closed when no answer can come any more; err says why

	untold atomic.Int64 // goroutines that tell of those that were given up

	mu      sync.Mutex
	next    uint64 // by chance in the beginning: a session's answers may reach another's peer
	waiting map[uint64]*waiting
	losses  int // sessions that were lost
	err     error
}

// waiting is a call without its answer.
type waiting struct {
	id     uint64
	r      *route
	answer chan answer // takes one
	sent   bool        // Send has returned
	losses int         // when it began
}

type answer struct {
	body []byte
	err  error
}

func (c *calls) init(limit int) {
	c.room = make(chan struct{}, limit)
	c.over = make(chan struct{})
	c.next = rand.Uint64()
	c.waiting = map[uint64]*waiting{}
}

func (c *calls) add(r *route) (*waiting, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	c.next++
	w := &waiting{id: c.next, r: r, answer: make(chan answer, 1), losses: c.losses}
	c.waiting[w.id] = w
	return w, nil
}

func (c *calls) remove(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// resolve gives a call its answer. It returns false if nobody waits for it.
func (c *calls) resolve(r *route, id uint64, a answer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[id]
	if w == nil || w.r != r {
		return false
	}
	delete(c.waiting, id)
	w.answer <- a
	return true
}

// end fails all calls, those to come as well.
func (c *calls) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.over)
	for id, w := range c.waiting {
		delete(c.waiting, id)
		w.answer <- answer{err: err}
	}
}

// lost fails the calls whose requests a lost session had delivered: the next session does not send them again, and so
// nobody will answer.
func (c *Conn) lost() {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	c.calls.losses++
	c.forsake(func(w *waiting) bool { return w.sent })
}

// requested notes that a request was accepted for sending. If a session was lost meanwhile it may have been in that one.
func (c *Conn) requested(w *waiting) {
	c.calls.mu.Lock()
	defer c.calls.mu.Unlock()
	w.sent = true
	if w.losses != c.calls.losses {
		c.forsake(func(other *waiting) bool { return other == w })
	}
}

// forsake fails those of the calls whose requests are not on their way to the peer. calls.mu is held.
func (c *Conn) forsake(which func(*waiting) bool) {
	if len(c.calls.waiting) == 0 {
		return
	}
	again := map[uint64]bool{}
	for _, d := range c.Unconfirmed() {
		if r := c.m.route(d.Recipient); r != nil && r.reply != nil {
			if p, _, ok := parsePrefix(d.Payload); ok && p.kind == kindRequest {
				again[p.id] = true
			}
		}
	}
	for id, w := range c.calls.waiting {
		if which(w) && !again[id] {
			delete(c.calls.waiting, id)
			w.answer <- answer{err: ErrLost}
		}
	}
}
