package mux

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/towline-mq/towline/reconnect"
)

const (
	// pause is how long nothing must happen for a server that drains to be done.
	pause = 50 * time.Millisecond
	// looks is how often it looks in that time.
	looks = 5
	// comeBack is the time over which the dialers that a server leaves spread their next dials.
	comeBack = time.Second
)

// Server handles, by one Mux, what comes on any number of connections, and knows them. All its methods are safe for any
// number of goroutines.
type Server struct {
	m    *Mux
	tick ticker

	mu        sync.Mutex
	conns     map[uint64]*Conn // those that are not over
	left      int              // of these, and of those that are over but for Closed
	next      uint64
	listeners map[*reconnect.Listener]struct{}
	draining  bool // Serve takes nothing more
	closed    bool // nothing does
	changed   chan struct{}
}

// NewServer returns a Server for what m is bound to. It starts nothing.
func NewServer(m *Mux) *Server {
	return &Server{m: m, conns: map[uint64]*Conn{}, listeners: map[*reconnect.Listener]struct{}{}}
}

// Serve handles the sessions and plain connections that l accepts, over whatever transports it has, and blocks until l
// ends, which belongs to s from then on. It may be called for several at once. It returns ErrServerClosed after Shutdown
// or Close, what is wrong with the tags (see Mux.Err), or why l has ended.
func (s *Server) Serve(l *reconnect.Listener) error {
	if err := s.m.Err(); err != nil {
		_ = l.Close()
		return err
	}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		_ = l.Close()
		return ErrServerClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	for {
		conn, err := l.Accept(context.Background())
		if err == nil {
			_, err = s.add(conn, true, func(c *Conn) { c.ofListener = c.IsSession() })
			if err == nil {
				continue // what had begun before Shutdown is served too
			}
		}
		s.mu.Lock()
		draining := s.draining
		if !draining {
			delete(s.listeners, l)
		}
		s.mu.Unlock()
		if draining {
			return ErrServerClosed
		}
		_ = l.Close()
		return err
	}
}

// Attach handles what comes on conn, which belongs to s from then on: a connection that was made elsewhere, by
// reconnect.NewPlain or reconnect.Dial. It does not block. The error is that of Mux.Err, or ErrServerClosed, from the
// beginning of Shutdown on; conn is closed then.
//
// Calls on a session that reconnect.Dial made, and that is lost and replaced, wait until their contexts end: Mux.Dial
// does better.
func (s *Server) Attach(conn *reconnect.Conn) (*Conn, error) {
	if err := s.m.Err(); err != nil {
		_ = conn.CloseNow()
		return nil, err
	}
	return s.add(conn, false, nil)
}

// add begins to handle conn, also while the server drains if late. before is told of it first, if not nil.
func (s *Server) add(conn *reconnect.Conn, late bool, before func(*Conn)) (*Conn, error) {
	c := newConn(s, conn)
	c.ready.Store(s.m.o.Ready == nil)
	s.mu.Lock()
	if s.closed || s.draining && !late {
		s.mu.Unlock()
		c.cancel(ErrServerClosed)
		_ = conn.CloseNow()
		return nil, ErrServerClosed
	}
	if before != nil {
		before(c)
	}
	s.next++
	c.id = s.next
	s.conns[c.id] = c
	s.left++
	s.mu.Unlock()
	go c.run()
	return c, nil
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining && !s.closed
}

// remove takes a connection out of the registry.
func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c.id)
}

// gone says that a connection has told Closed.
func (s *Server) gone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left--
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Conn returns the connection with that ID; nil and false if it is over.
func (s *Server) Conn(id uint64) (*Conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.conns[id]
	return c, ok
}

// Conns returns an iterator over the connections, in the order in which they came: those that there are when it begins,
// with those whose Ready has not returned.
// The loop may take its time and call anything.
func (s *Server) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, c := range s.all() {
			if !yield(c) {
				return
			}
		}
	}
}

func (s *Server) all() []*Conn {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.conns))
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *Conn) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return all
}

// SetTick is Conn.SetTick for all connections together, until Shutdown or Close. A panic of fn is reported to
// Options.Error without a connection, and ends the tick.
func (s *Server) SetTick(every time.Duration, fn func(s *Server)) {
	if fn == nil {
		s.tick.set(0, nil)
		return
	}
	s.tick.set(every, func() {
		defer func() {
			if p := recover(); p != nil {
				s.tick.set(0, nil)
				_ = s.m.report(nil, &PanicError{p, debug.Stack()})
			}
		}()
		fn(s)
	})
}

// Shutdown ends the server in good order. It accepts no more, and tells the dialers of sessions (EventGoAway). It waits
// until all connections pause at once: for 50 ms nothing comes, no handler runs, and all that was sent is acknowledged.
// Then it closes plain connections and those that were attached, as reconnect.Conn.Close does, and lets go of the
// listeners' sessions, so that their dialers find them lost and begin anew, after up to a second, wherever they get an
// answer. What has arrived by then is still handled. It waits until that is done, Closed included, and returns nil.
//
// When ctx ends first, it does what Close does, and returns ctx's cause, and how many connections were not done. After
// Close it waits for handlers that still run. It must not be called by a handler.
func (s *Server) Shutdown(ctx context.Context) error {
	listeners := s.drain()
	cut, over := context.WithCancel(context.Background())
	defer over()
	var work sync.WaitGroup
	for _, l := range listeners {
		work.Go(func() { _ = l.Shutdown(cut, 0, comeBack) }) // its error is that of cut
	}
	err := s.quiet(ctx)
	over()
	if err == nil {
		var closing sync.WaitGroup
		for _, c := range s.all() {
			if !c.ofListener {
				closing.Go(func() { _ = c.Close(ctx) })
			}
		}
		closing.Wait()
		work.Wait()
		err = s.wait(ctx)
	}
	if err != nil {
		s.mu.Lock()
		n := s.left
		s.mu.Unlock()
		_ = s.Close()
		work.Wait()
		return fmt.Errorf("mux: %d connections were not done: %w", n, err)
	}
	return s.Close()
}

// drain lets nothing more be served, and returns the listeners.
func (s *Server) drain() []*reconnect.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	return slices.Collect(maps.Keys(s.listeners))
}

// quiet waits until nothing happens.
func (s *Server) quiet(ctx context.Context) error {
	look := time.NewTicker(pause / looks)
	defer look.Stop()
	var before uint64
	for still := 0; still < looks; {
		busy, batches := false, uint64(0)
		for _, c := range s.all() {
			st := c.Stats()
			busy = busy || c.busy.Load() > 0 || st.Unconfirmed > 0 || st.Waiting > 0 || st.Queued > 0
			batches += c.batches.Load() + c.id<<32
		}
		still++
		if busy || batches != before {
			still, before = 0, batches
		}
		s.mu.Lock()
		none := s.left == 0
		s.mu.Unlock()
		if none {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// wait waits until no connection is left.
func (s *Server) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.left == 0 {
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close ends the server and all its connections at once: contexts of handlers end, listeners close, what has arrived
// and was not handled is dropped. It waits for a second at most, for dialers to be told, and not for handlers:
// Shutdown after it does. It is idempotent and returns nil.
func (s *Server) Close() error {
	listeners := s.drain()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.tick.end()
	var closing sync.WaitGroup
	for _, c := range s.all() {
		c.because(ErrServerClosed)
		c.cancel(ErrServerClosed)
		if !c.ofListener {
			closing.Go(func() { _ = c.CloseNow() })
		}
	}
	for _, l := range listeners {
		closing.Go(func() { _ = l.Close() })
	}
	closing.Wait()
	for _, c := range s.all() {
		closing.Go(func() { _ = c.CloseNow() }) // drops what has arrived
	}
	closing.Wait()
	return nil
}
