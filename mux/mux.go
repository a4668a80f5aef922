package mux

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// Unknown says what becomes of a datagram for whose recipient there is no handler. Each is counted, see Mux.Stats.
type Unknown int

const (
	// UnknownError reports it as an error of its handler: Options.Error decides whether the connection goes on.
	UnknownError Unknown = iota
	// UnknownDrop drops it.
	UnknownDrop
	// UnknownClose ends the connection.
	UnknownClose
)

// What Options have unless they say otherwise.
const (
	defaultQueue   = 1 << 20
	defaultCalls   = 1024
	defaultServing = 64
	defaultBuffer  = 512
	defaultPool    = 64 << 10
	defaultLinger  = time.Minute
)

// Options set a Mux up. nil, and the zero value, are safe defaults.
type Options struct {
	// Ready is called for each connection before its first datagram is handled; broadcasts leave the connection out until it
	// has returned. An error ends the connection. Call waits in it until its context ends, for no answer is read. nil:
	// nothing.
	Ready func(c *Conn) error

	// Closed is called when a connection has ended, and no handler of its runs any more; err is that of Conn.Err. nil:
	// nothing.
	Closed func(c *Conn, err error)

	// Error is told what went wrong with a datagram, as a *HandlerError, or in a callback, as a *PanicError. What it
	// returns ends the connection; nil lets it go on, but after a panic. The connection is nil if a tick of the Server
	// panicked. nil: each error ends its connection.
	Error func(c *Conn, err error) error

	// Datagram takes the datagrams for whose recipient there is no handler. nil: Unknown says.
	Datagram Handler

	// Unknown says what becomes of datagrams that nothing takes.
	Unknown Unknown

	// SideBySide: recipients do not wait for each other. Each of a connection's tags has a queue of QueueBytes, and a
	// goroutine while there is something in it; its own order is kept. When a queue is full the connection is not read
	// until there is room. Otherwise one handler of a connection runs at a time.
	SideBySide bool

	// QueueBytes bounds each queue of a connection, in bytes of payloads and 64 for each; one datagram may go over it.
	// There is one for the calls that wait for Serving, and with SideBySide one for each tag. 0: 1 MiB.
	QueueBytes int

	// Serving is how many calls of one connection's peer run at once; others wait in their order. 1 runs them one after
	// the other. 0: 64.
	Serving int

	// Calls is how many calls may wait for their answers on one connection; others wait until there is room. 0: 1024.
	Calls int

	// RefuseRedelivered refuses calls that may have been run before, in a session that was lost: see Redelivered. Their
	// callers get ErrRedelivered. Otherwise they are run again.
	RefuseRedelivered bool

	// Linger is how long handlers may go on with what had arrived when the peer has ended the connection, or the session was
	// lost: then their contexts end. See Conn. 0: 1 min.
	Linger time.Duration

	// BufferBytes is how many bytes a buffer for encoding has in the beginning, and PoolBytes the size of the largest
	// that is kept for the next. 0: 512 and 64 KiB.
	BufferBytes, PoolBytes int
}

// Handler handles one datagram. ctx ends with the connection, as Conn says; a call's also with its deadline, and when its
// caller gives up. The payload belongs to the handler, for as long as it wants, as one of reconnect.Reader's does; a call's
// has no prefix. An error is reported: see Options.Error.
type Handler func(ctx context.Context, c *Conn, d datagram.Datagram) error

// Stats count what has become of datagrams on all connections of a Mux.
type Stats struct {
	Unknown uint64 // no handler was there for them
	Late    uint64 // answers to calls that nobody waited for any more
	Refused uint64 // calls that were refused, because there were too many, or redelivered
}

// Mux is a set of tags: which recipient is of which type, in which codec, and who handles it. Both sides of a
// connection have the same set, and each its own handlers.
//
// Tags are bound first, by Handle, HandleCall and HandleRaw, and then the Mux is used, by Servers and by Dial, of any
// number, from any number of goroutines. A tag or a type that is bound twice, a type that its codec cannot carry, and a
// Sender for a type that is not bound are errors of the first use: see Err. Binding after it panics.
type Mux struct {
	o Options

	mu      sync.Mutex
	started bool
	errs    []error
	err     error
	routes  []*route
	byType  map[reflect.Type]*route
	wanted  []func() error // what Senders and the like need
	middle  []func(Handler) Handler
	pages   [256]*[256]*route // by recipient; not changed once started

	buffers                sync.Pool // of *[]byte
	unknown, late, refused atomic.Uint64
}

// route is a tag, and who takes it.
type route struct {
	recipient uint16
	name      string
	codec     Codec
	typ       reflect.Type // nil: raw
	reply     reflect.Type // nil: not a call
	handle    Handler      // nil: nothing here takes it
}

// New returns a Mux without tags. nil Options are the defaults.
func New(o *Options) *Mux {
	if o == nil {
		o = new(Options)
	}
	m := &Mux{o: *o, byType: map[reflect.Type]*route{}}
	m.o.QueueBytes = orDefault(o.QueueBytes, defaultQueue)
	m.o.Serving = orDefault(o.Serving, defaultServing)
	m.o.Calls = orDefault(o.Calls, defaultCalls)
	m.o.BufferBytes = orDefault(o.BufferBytes, defaultBuffer)
	m.o.PoolBytes = orDefault(o.PoolBytes, defaultPool)
	m.o.Linger = orDefault(o.Linger, defaultLinger)
	m.buffers.New = func() any {
		b := make([]byte, 0, m.o.BufferBytes)
		return &b
	}
	return m
}

func orDefault[N int | time.Duration](n, otherwise N) N {
	if n > 0 {
		return n
	}
	return otherwise
}

// Handle binds a recipient to the type T in a codec, under a name for people, and lets fn handle what comes. fn may be
// nil where this side only sends it. Each T has one recipient: make types of your own.
//
// fn owns v. ctx ends with the connection. What fn returns is reported: see Options.Error. Where a payload cannot be
// decoded fn is not called, and the error matches ErrPayload.
func Handle[T any](m *Mux, recipient uint16, name string, codec Codec, fn func(ctx context.Context, c *Conn, v T) error) {
	r := &route{recipient: recipient, name: name, codec: codec, typ: reflect.TypeFor[T]()}
	if fn != nil {
		r.handle = func(ctx context.Context, c *Conn, d datagram.Datagram) error {
			var v T
			if err := decode(codec, d.Payload, &v); err != nil {
				return err
			}
			return fn(ctx, c, v)
		}
	}
	m.bind(r)
}

// HandleRaw lets fn handle what comes for a recipient, as it is. fn may be nil where this side only sends it.
func (m *Mux) HandleRaw(recipient uint16, name string, fn Handler) {
	m.bind(&route{recipient: recipient, name: name, handle: fn})
}

// Use puts middleware around all handlers, Options.Datagram included: the first that is given is the outermost. It sees
// payloads as they came; an error that it returns is the handler's, and answers a call.
func (m *Mux) Use(middleware ...func(Handler) Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unused()
	m.middle = append(m.middle, middleware...)
}

// unused panics once m is in use. mu is held.
func (m *Mux) unused() {
	if m.started {
		m.mu.Unlock()
		defer m.mu.Lock() // for the caller's Unlock
		panic("mux: tags and middleware must be given before the Mux is used")
	}
}

func (m *Mux) bind(r *route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unused()
	fault := func(format string, args ...any) {
		m.errs = append(m.errs, fmt.Errorf("mux: %s (recipient %d): %s", r.name, r.recipient, fmt.Sprintf(format, args...)))
	}
	if r.name == "" {
		fault("a tag needs a name")
	}
	for _, other := range m.routes {
		if r.name == other.name && r.name != "" {
			fault("the name is that of recipient %d too", other.recipient)
		}
	}
	if other := m.route(r.recipient); other != nil {
		fault("bound to %s already", other.name)
		return
	}
	if r.typ != nil {
		if other := m.byType[r.typ]; other != nil {
			fault("%s is the type of %s (recipient %d) already", r.typ, other.name, other.recipient)
			return
		}
		if r.codec == nil {
			fault("no codec")
		} else if c, ok := r.codec.(checker); ok {
			if err := c.Check(r.typ); err != nil {
				fault("%v", err)
			}
			if r.reply != nil {
				if err := c.Check(r.reply); err != nil {
					fault("%v", err)
				}
			}
		}
		m.byType[r.typ] = r
	}
	m.routes = append(m.routes, r)
	page := &m.pages[r.recipient>>8]
	if *page == nil {
		*page = new([256]*route)
	}
	(*page)[r.recipient&0xff] = r
}

// route returns who is bound to a recipient, or nil.
func (m *Mux) route(recipient uint16) *route {
	if page := m.pages[recipient>>8]; page != nil {
		return page[recipient&0xff]
	}
	return nil
}

// Err starts m if nothing has used it yet, and returns what is wrong with its tags: all of it, joined; nil if nothing
// is. Serve, Attach, Dial and Open return the same.
func (m *Mux) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.started {
		return m.err
	}
	m.started = true
	for _, check := range m.wanted {
		if err := check(); err != nil {
			m.errs = append(m.errs, err)
		}
	}
	m.err = errors.Join(m.errs...)
	for _, r := range m.routes {
		if r.handle != nil {
			r.handle = m.wrap(r.handle)
		}
	}
	if m.o.Datagram != nil {
		m.o.Datagram = m.wrap(m.o.Datagram)
	}
	return m.err
}

// wrap puts the middleware around h.
func (m *Mux) wrap(h Handler) Handler {
	for i := len(m.middle) - 1; i >= 0; i-- {
		h = m.middle[i](h)
	}
	return h
}

// Stats returns what was counted so far.
func (m *Mux) Stats() Stats {
	return Stats{Unknown: m.unknown.Load(), Late: m.late.Load(), Refused: m.refused.Load()}
}

// want has check looked at when m starts.
func (m *Mux) want(check func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unused()
	m.wanted = append(m.wanted, check)
}

// sends returns the tag of T, which is not a call.
func sends(m *Mux, t reflect.Type) (*route, error) {
	r := m.byType[t]
	switch {
	case r == nil:
		return nil, unbound(t, "has no tag: bind it with Handle, also where it is only sent")
	case r.reply != nil:
		return nil, unbound(t, "is the request of a call: use Call")
	}
	return r, nil
}

// decode reads a payload. A codec that panics over it has met a payload that it cannot read.
func decode(codec Codec, src []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrPayload, p)
		}
	}()
	if err := codec.Decode(src, v); err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	return nil
}
