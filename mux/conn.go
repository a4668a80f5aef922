package mux

import (
	"context"
	"errors"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// Conn is a session or plain connection whose datagrams a Mux handles. Sending, closing, counters and the rest are
// those of the reconnect.Conn in it; its Reader belongs to the Mux, which also calls Reader.Ack.
//
// It ends when that ends, when Ready or a handler's error says so (see Options.Error), or when a handler panics. It is
// then closed, with 5 s for what was accepted for sending. When the peer ends its sending, handlers finish first, and
// their answers are sent. All methods are safe for any number of goroutines.
//
// The contexts of handlers end with it. At once, where this side ends it, by Close, CloseNow or an error; where the peer
// does, or the session is lost, what had arrived is handled first, for which there is Options.Linger. Those of calls end
// at once in any case, since nobody is left for their answers. A plain connection notices its end only when it reads or
// writes, and cannot tell a peer that sends no more from one that has gone: then, too, handlers have Options.Linger.
type Conn struct {
	*reconnect.Conn
	m *Mux
	s *Server

	id         uint64
	ofListener bool // a session that a Listener of s accepted, and that ends with it

	value atomic.Value // of held
	tick  ticker
	done  chan struct{}
	ready atomic.Bool // Ready has returned

	// ctx ends with the connection. The others are ctx too: for datagrams that are redelivered, and for handlers that
	// run in the goroutine which reads.
	ctx, again, inline, inlineAgain context.Context
	cancel                          context.CancelCauseFunc

	calls   calls
	serving serving
	acks    acks
	work    sync.WaitGroup   // goroutines beside the one that reads
	busy    atomic.Int64     // batches, queued datagrams and calls at work
	batches atomic.Uint64    // how often something was received
	lanes   map[*route]*lane // with SideBySide; of the goroutine that reads

	mu       sync.Mutex
	err      error // why it ended
	finished bool
	timers   []*time.Timer // of lingers
}

type (
	redeliveredKey struct{}
	inlineKey      struct{}
	held           struct{ v any }
)

// lastWords bounds how long an ended connection takes for what was accepted for sending, and how long calls wait for
// answers that may have arrived.
const lastWords = 5 * time.Second

// few is how many datagrams a connection that waits has room for; a batch is what one that is busy borrows.
const (
	few  = 8
	many = 256
)

var batches = sync.Pool{New: func() any { return new([many]datagram.Datagram) }}

func newConn(s *Server, conn *reconnect.Conn) *Conn {
	c := &Conn{Conn: conn, m: s.m, s: s, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.again = context.WithValue(c.ctx, redeliveredKey{}, true)
	c.inline = context.WithValue(c.ctx, inlineKey{}, c)
	c.inlineAgain = context.WithValue(c.inline, redeliveredKey{}, true)
	c.calls.init(s.m.o.Calls)
	c.serving.c = c
	c.acks.r = conn.Reader()
	return c
}

// ID returns the connection's number in its Server: unique there, from 1.
func (c *Conn) ID() uint64 { return c.id }

// SetValue keeps a value with the connection, whatever the application likes.
func (c *Conn) SetValue(v any) { c.value.Store(held{v}) }

// Value returns what SetValue kept last; nil if nothing.
func (c *Conn) Value() any {
	h, _ := c.value.Load().(held)
	return h.v
}

// SetTick calls fn each time that so long has passed, from a goroutine of its own, never twice at once, until the
// connection ends. It takes the place of the tick before it, if there is one, which may be under way still; nil takes
// it away. It may be called at any time, also by fn.
func (c *Conn) SetTick(every time.Duration, fn func(c *Conn)) {
	if fn == nil {
		c.tick.set(0, nil)
		return
	}
	c.tick.set(every, func() {
		if err := c.guarded(func() error { fn(c); return nil }); err != nil {
			c.end(err)
		}
	})
}

// Done returns a channel that is closed when the connection has ended and nothing of it runs any more: handlers,
// ticks, Closed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil before that: the error of a handler or of Ready as Options.Error has let it
// pass, ErrServerClosed, or that of reconnect.Conn.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	return c.Conn.Err()
}

// Redelivered reports whether the datagram that a handler was given ctx with may have been handled before, in a session
// that was lost: by the process before this one, say.
func Redelivered(ctx context.Context) bool { return ctx.Value(redeliveredKey{}) != nil }

// contextOf returns a handler's context.
func (c *Conn) contextOf(d datagram.Datagram, inline bool) context.Context {
	switch {
	case inline && d.Redelivered:
		return c.inlineAgain
	case inline:
		return c.inline
	case d.Redelivered:
		return c.again
	}
	return c.ctx
}

// run handles what comes, until the end.
func (c *Conn) run() {
	defer context.AfterFunc(c.Context(), c.over)()
	var err error
	if ready := c.m.o.Ready; ready != nil {
		err = c.guarded(func() error { return ready(c) })
	}
	if err == nil {
		c.ready.Store(true)
		err = c.receive()
	}
	c.finish(err)
}

// receive hands out what comes.
func (c *Conn) receive() error {
	r := c.Reader()
	var small [few]datagram.Datagram
	var large *[many]datagram.Datagram
	into := small[:]
	for {
		n, err := r.ReceiveBatch(context.Background(), into)
		if err != nil {
			return err
		}
		c.busy.Add(1)
		c.batches.Add(1)
		err = c.handle(into[:n])
		clear(into[:n]) // not to hold the memory while waiting
		c.busy.Add(-1)
		if err != nil {
			return err
		}
		switch {
		case large == nil && n == few:
			large = batches.Get().(*[many]datagram.Datagram)
			into = large[:]
		case large != nil && n < few:
			batches.Put(large)
			large, into = nil, small[:]
		}
	}
}

// handle hands out a batch, in order.
func (c *Conn) handle(batch []datagram.Datagram) (err error) {
	i := 0
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(batch[i].Recipient, p)
		}
	}()
	for ; i < len(batch); i++ {
		if err := c.take(batch[i]); err != nil {
			return err
		}
	}
	return nil
}

// take hands out a datagram. An error ends the connection.
func (c *Conn) take(d datagram.Datagram) error {
	r := c.m.route(d.Recipient)
	var h Handler
	switch {
	case r == nil:
		h = c.m.o.Datagram
	case r.reply != nil:
		return c.incoming(r, d)
	case r.handle != nil:
		h = r.handle
	default:
		r, h = nil, c.m.o.Datagram
	}
	if h == nil {
		return c.unknown(d)
	}
	if c.m.o.SideBySide {
		return c.lane(r).push(item{h, d, c.acks.begin()})
	}
	if err := h(c.contextOf(d, true), c, d); err != nil {
		return c.failed(d.Recipient, err)
	}
	c.acks.handled()
	return nil
}

// unknown deals with a datagram that nothing takes.
func (c *Conn) unknown(d datagram.Datagram) error {
	c.m.unknown.Add(1)
	switch c.m.o.Unknown {
	case UnknownDrop:
		c.acks.handled()
		return nil
	case UnknownClose:
		return c.handlerError(d.Recipient, ErrUnknown)
	}
	return c.failed(d.Recipient, ErrUnknown)
}

func (c *Conn) handlerError(recipient uint16, err error) error {
	e := &HandlerError{Recipient: recipient, Err: err}
	if r := c.m.route(recipient); r != nil {
		e.Name = r.name
	}
	return e
}

// failed reports what went wrong with a datagram, in the goroutine that reads. What it returns ends the connection; nil
// means that the datagram is dealt with.
func (c *Conn) failed(recipient uint16, err error) error {
	err = c.m.report(c, c.handlerError(recipient, err))
	if err == nil {
		c.acks.handled()
	}
	return err
}

// panicked reports a panic of a handler.
func (c *Conn) panicked(recipient uint16, value any) error {
	err := c.handlerError(recipient, &PanicError{value, debug.Stack()})
	_ = c.m.report(c, err) // a panic ends the connection, whatever is said of it
	return err
}

// guard runs a handler outside of the goroutine that reads. Its panic is reported.
func (c *Conn) guard(recipient uint16, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = c.panicked(recipient, p)
		}
	}()
	return fn()
}

// guarded runs a callback. Its panic is reported.
func (c *Conn) guarded(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{p, debug.Stack()}
			_ = c.m.report(c, err)
		}
	}()
	return fn()
}

// report asks Options.Error what is to become of err.
func (m *Mux) report(c *Conn, err error) (out error) {
	if m.o.Error == nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			out = errors.Join(err, &PanicError{p, debug.Stack()})
		}
	}()
	return m.o.Error(c, err)
}

// end ends the connection from another goroutine than the one that reads.
func (c *Conn) end(err error) {
	c.because(err)
	c.cancel(err)
	go c.closeSoon() // finish waits for the same
}

// over is called when the connection below has ended, whatever handlers do meanwhile.
func (c *Conn) over() {
	err := c.Err()
	c.serving.end(err)
	if errors.Is(err, reconnect.ErrClosed) && !c.s.isDraining() {
		c.calls.end(err)
		c.cancel(err) // what has arrived is dropped
		return
	}
	c.lingers(err)
}

// lingers ends everything for the reason given, but not at once.
func (c *Conn) lingers(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.finished {
		c.timers = append(c.timers,
			time.AfterFunc(lastWords, func() { c.calls.end(err) }),
			time.AfterFunc(c.m.o.Linger, func() { c.cancel(err) }))
	}
}

// stopTimers stops those of lingers, those to come as well.
func (c *Conn) stopTimers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finished = true
	for _, t := range c.timers {
		t.Stop()
	}
}

// because keeps the first reason for the end.
func (c *Conn) because(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// closeSoon closes what is below, with little time.
func (c *Conn) closeSoon() {
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	_ = c.Close(ctx) // what it did not say is in Unconfirmed
}

// finish ends everything, for the reason given.
func (c *Conn) finish(err error) {
	c.because(err)
	err = c.Err()
	c.calls.end(err)
	if err == io.EOF {
		if !c.IsSession() {
			c.lingers(err)
		}
		c.work.Wait()          // what the peer sent before its end is dealt with
		_ = c.CloseSend(c.ctx) // and it gets the answers, for as long as it takes
	}
	c.cancel(err)
	c.stopTimers()
	c.closeSoon()
	c.tick.stop()
	c.work.Wait()
	c.s.remove(c)
	if closed := c.m.o.Closed; closed != nil {
		_ = c.guarded(func() error { closed(c, err); return nil })
	}
	close(c.done)
	c.s.gone()
}
