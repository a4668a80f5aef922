package mux

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// serving are the peer's calls on one connection.
type serving struct {
	c *Conn

	mu     sync.Mutex
	known  map[uint64]*served // those that run or wait
	queue  []*served          // those that wait
	bytes  int                // of queue
	active int                // goroutines
	ctx    context.Context    // that of all calls; nil before the first
	cancel context.CancelCauseFunc
	ended  error // why no call is of use any more
}

// served is a call of the peer's.
type served struct {
	c        *Conn
	r        *route
	id       uint64
	d        datagram.Datagram // the body alone
	deadline time.Time
	ticket   uint64

	cancel    context.CancelFunc // while it runs; guarded by serving.mu
	cancelled bool               // likewise

	buffer *[]byte // the answer, with its prefix; nil until there is one
}

type servedKey struct{}

// incoming takes a datagram of a call's recipient.
func (c *Conn) incoming(r *route, d datagram.Datagram) error {
	p, body, ok := parsePrefix(d.Payload)
	if !ok {
		return c.failed(d.Recipient, ErrPayload)
	}
	switch p.kind {
	case kindReply:
		c.answered(r, p.id, answer{body: body})
	case kindError:
		c.answered(r, p.id, answer{err: &CallError{Code: p.code, Message: strings.ToValidUTF8(string(body), "\ufffd")}})
	case kindCancel:
		c.serving.giveUp(p.id)
	case kindRequest:
		d.Payload = body
		return c.serving.request(r, p, d)
	}
	c.acks.handled()
	return nil
}

func (c *Conn) answered(r *route, id uint64, a answer) {
	if !c.calls.resolve(r, id, a) {
		c.m.late.Add(1)
	}
}

// request runs a call, now or later, or refuses it.
func (s *serving) request(r *route, p prefix, d datagram.Datagram) error {
	c := s.c
	if r.handle == nil {
		c.m.unknown.Add(1)
		return c.refuse(r, p.id, codeUnknown)
	}
	if d.Redelivered && c.m.o.RefuseRedelivered {
		c.m.refused.Add(1)
		return c.refuse(r, p.id, codeRedelivered)
	}
	call := &served{c: c, r: r, id: p.id, d: d}
	if p.limit > 0 {
		call.deadline = time.Now().Add(time.Duration(p.limit) * time.Millisecond)
	}
	s.mu.Lock()
	if s.known[p.id] != nil {
		s.mu.Unlock()
		return c.failed(d.Recipient, ErrPayload) // its caller could not tell the answers apart
	}
	full := s.active >= c.m.o.Serving
	if full && s.bytes > 0 && s.bytes+cost(d) > c.m.o.QueueBytes {
		s.mu.Unlock()
		c.m.refused.Add(1)
		return c.refuse(r, p.id, codeBusy)
	}
	if s.known == nil {
		s.known = map[uint64]*served{}
	}
	s.known[p.id] = call
	call.ticket = c.acks.begin()
	c.busy.Add(1)
	if full {
		s.queue = append(s.queue, call)
		s.bytes += cost(d)
		s.mu.Unlock()
		return nil
	}
	s.active++
	s.mu.Unlock()
	c.work.Go(func() {
		for call := call; call != nil; call = s.next() {
			c.serveCall(call)
		}
	})
	return nil
}

// next takes the next call that waits; nil ends the goroutine that asks.
func (s *serving) next() *served {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil
		s.active--
		return nil
	}
	call := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	s.bytes -= cost(call.d)
	return call
}

// giveUp ends a call that its caller does not wait for any more, or takes it out of the queue.
func (s *serving) giveUp(id uint64) {
	s.mu.Lock()
	call := s.known[id]
	waits := slices.Index(s.queue, call)
	switch {
	case call == nil:
	case waits >= 0:
		s.queue = slices.Delete(s.queue, waits, waits+1)
		s.bytes -= cost(call.d)
		delete(s.known, id)
	default:
		call.cancelled = true
		if call.cancel != nil {
			call.cancel()
		}
	}
	s.mu.Unlock()
	if waits >= 0 {
		s.c.busy.Add(-1)
		s.c.acks.done(call.ticket)
	}
}

// context returns the context of all calls, which ends when nobody can get their answers.
func (s *serving) context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(s.c.ctx)
		if s.ended != nil {
			s.cancel(s.ended)
		}
	}
	return s.ctx
}

// end ends the contexts of all calls, those to come as well.
func (s *serving) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
	}
	if s.cancel != nil {
		s.cancel(err)
	}
}

// serveCall runs a call and sends its answer.
func (c *Conn) serveCall(call *served) {
	s := &c.serving
	defer c.busy.Add(-1)
	ctx := s.context()
	if call.d.Redelivered {
		ctx = context.WithValue(ctx, redeliveredKey{}, true)
	}
	var cancel context.CancelFunc
	if call.deadline.IsZero() {
		ctx, cancel = context.WithCancel(ctx)
	} else {
		ctx, cancel = context.WithDeadline(ctx, call.deadline)
	}
	defer cancel()
	s.mu.Lock()
	call.cancel = cancel
	skip := call.cancelled
	s.mu.Unlock()
	var err error
	if !skip && ctx.Err() == nil {
		err = c.guard(call.d.Recipient, func() error {
			return call.r.handle(context.WithValue(ctx, servedKey{}, call), c, call.d)
		})
	}
	s.mu.Lock()
	delete(s.known, call.id)
	skip = skip || call.cancelled
	s.mu.Unlock()
	if call.buffer != nil {
		defer c.m.free(call.buffer)
	}
	switch _, panicked := errors.AsType[*PanicError](err); {
	case panicked:
		_ = c.refuse(call.r, call.id, codePanicked)
		c.end(err)
		return
	case skip:
	case err != nil:
		code, text := told(err)
		c.sendError(call.r, call.id, code, text)
	case call.buffer == nil && ctx.Err() != nil:
		c.sendError(call.r, call.id, codeTimeout, "its time was over before it began")
	case call.buffer == nil:
		c.sendError(call.r, call.id, codeFailed, "middleware kept the call from its handler")
	default:
		err := c.Writer().Send(c.ctx, datagram.Datagram{Recipient: call.r.recipient, Payload: *call.buffer})
		if errors.Is(err, datagram.ErrTooLarge) {
			c.sendError(call.r, call.id, codeFailed, err.Error())
		}
	}
	c.acks.done(call.ticket)
}

// answer keeps the encoded answer.
func (s *served) answer(codec Codec, resp any) error {
	b := s.c.m.buffer()
	p := prefix{kind: kindReply, id: s.id}
	out, err := codec.Append(p.append(*b), resp)
	if err != nil {
		s.c.m.free(b)
		return err
	}
	*b = out
	s.buffer = b
	return nil
}

// told is what a caller is told of a handler's error.
func told(err error) (code uint16, text string) {
	if own, ok := errors.AsType[*CallError](err); ok {
		if own.Code >= codeOwn {
			return own.Code, own.Message
		}
		return codeFailed, err.Error()
	}
	switch {
	case errors.Is(err, ErrPayload):
		return codeMalformed, err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return codeTimeout, err.Error()
	}
	return codeFailed, err.Error()
}

// refuse answers a call that is not run, or has panicked.
func (c *Conn) refuse(r *route, id uint64, code uint16) error {
	c.sendError(r, id, code, map[uint16]string{
		codeUnknown:     "nothing here takes the call",
		codeBusy:        "too many calls",
		codeRedelivered: "the call may have been run before",
		codePanicked:    "the handler panicked",
	}[code])
	if code != codePanicked {
		c.acks.handled()
	}
	return nil
}

// maxMessage bounds the text of an error on the wire.
const maxMessage = 1024

// sendError answers a call by an error. Where it cannot be sent, the connection has ended.
func (c *Conn) sendError(r *route, id uint64, code uint16, text string) {
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "")
	}
	p := prefix{kind: kindError, code: code, id: id}
	_ = c.Writer().Send(c.ctx, datagram.Datagram{Recipient: r.recipient, Payload: append(p.append(nil), text...)})
}
