package reconnect

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/internal/accept"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// Listener takes connections, and makes of them sessions and plain connections. All its methods are safe for any number
// of goroutines.
//
// It may have several net.Listeners, of any transports, which share its sessions: one that began over QUIC goes on over
// TLS. Handshakes run beside each other, each with a deadline, and Accept returns each session once, however many
// connections it has.
type Listener struct {
	o        ListenOptions
	log      *slog.Logger
	clock    clock
	instance [16]byte
	cfg      session.Config
	ctx      context.Context
	shut     context.CancelFunc // ends ctx, by Close

	wg sync.WaitGroup // of all goroutines

	mu                      sync.Mutex
	table                   *session.Table[*sess]
	lns                     []net.Listener        // open, in the order in which they came
	opening                 map[*opening]struct{} // handshakes under way
	idle                    list.List             // of *opening: those that may make room, the oldest first
	room                    signal                // a handshake has ended, or may make room
	plain                   map[*Conn]struct{}    // not accepted yet
	backlog                 []*Conn
	arrived                 signal // backlog, err
	draining                bool
	closed                  bool
	drainDelay, drainSpread time.Duration // what dialers are told
	err                     error         // why Accept has nothing more to return
	timer                   *time.Timer
	armed                   time.Duration

	bmu    sync.Mutex
	budget session.Budget
}

// serving is what a listener's session has besides.
type serving struct {
	l         *Listener
	s         *sess
	principal string
	confirm   atomic.Bool    // the table is to be told that the dialer has confirmed
	dropped   session.Reason // why it was; set before it leaves the table
	taking    int            // connections that are about to be attached; guarded by l.mu
}

// live tells that the dialer has confirmed.
func (v *serving) live() { v.confirm.Store(true) }

// maxBacklog is how many sessions and plain connections may wait for Accept.
const maxBacklog = 4096

// tombstonesPerSession: they live ten times as long as sessions.
const tombstonesPerSession = 10

// NewListener returns a Listener on ln, which then belongs to it: it accepts from it at once, in the background, and
// closes it in the end.
func NewListener(ln net.Listener, o *ListenOptions) *Listener {
	if o == nil {
		o = new(ListenOptions)
	}
	l := &Listener{
		o: *o, log: o.Logger, clock: clock{time.Now()},
		opening: map[*opening]struct{}{}, plain: map[*Conn]struct{}{},
	}
	if l.o.Plain == PlainIfAnybody {
		if l.o.Plain = AllowPlain; o.Authenticate != nil {
			l.o.Plain = RefusePlain
		}
	}
	l.ctx, l.shut = context.WithCancel(context.Background())
	if l.log == nil {
		l.log = silent
	}
	l.o.Expiry = orDefault(o.Expiry, DefaultExpiry)
	l.o.HandshakeTimeout = orDefault(o.HandshakeTimeout, DefaultHandshakeTimeout)
	l.o.MaxHandshakes = orDefault(o.MaxHandshakes, DefaultMaxHandshakes)
	sessions := orDefault(o.MaxSessions, DefaultMaxSessions)
	l.table = session.NewTable[*sess](session.TableConfig{
		MaxSessions: sessions, MaxDetached: orDefault(o.MaxDetached, sessions),
		MaxTombstones: tombstonesPerSession * min(sessions, math.MaxInt/tombstonesPerSession), Expiry: l.o.Expiry,
	})
	l.budget = session.NewBudget(uint64(orDefault(o.Memory, DefaultMemory)))
	l.cfg = o.config()
	l.cfg.Expiry = l.o.Expiry
	l.cfg.Reserve = l.reserve
	if _, err := rand.Read(l.instance[:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	l.Add(ln)
	return l
}

func (l *Listener) reserve(n int64) bool {
	l.bmu.Lock()
	defer l.bmu.Unlock()
	if n < 0 {
		l.budget.Release(uint64(-n))
		return true
	}
	return l.budget.Reserve(uint64(n))
}

// Add makes l accept from ln too, which then belongs to it. On a Listener that was closed or shut down it closes ln.
func (l *Listener) Add(ln net.Listener) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining || l.closed {
		_ = ln.Close()
		return
	}
	l.lns = append(l.lns, ln)
	l.wg.Go(func() { l.acceptFrom(ln) })
}

// Addr returns the address of the first net.Listener that is still open; nil if there is none.
func (l *Listener) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lns) == 0 {
		return nil
	}
	return l.lns[0].Addr()
}

// Accept returns the next session, or plain connection, that a peer has begun. It blocks until there is one, ctx ends,
// or the Listener does: then the error is ErrClosed, or, if there is no net.Listener left, what the last of them said.
//
// The Conn belongs to the caller, who has to close it. A session ends with the Listener at the latest; a plain
// connection does not. Accept may still return what had begun when Shutdown was called.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	for {
		if len(l.backlog) > 0 {
			c := l.backlog[0]
			l.backlog[0] = nil
			l.backlog = l.backlog[1:]
			delete(l.plain, c)
			l.mu.Unlock()
			return c, nil
		}
		if l.err != nil {
			defer l.mu.Unlock()
			return nil, l.err
		}
		arrived := l.arrived.wait()
		l.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		l.mu.Lock()
	}
}

// acceptFrom takes connections from ln until it ends.
func (l *Listener) acceptFrom(ln net.Listener) {
	wait := minAcceptWait
	for {
		nc, err := ln.Accept()
		if err != nil {
			if l.passes(err, wait) {
				wait = min(2*wait, maxAcceptWait)
				continue
			}
			l.lost(ln, err)
			return
		}
		wait = minAcceptWait
		o := l.open(nc)
		if o == nil {
			closeNow(nc)
			continue
		}
		l.wg.Go(func() { l.serve(o) })
	}
}

// opening is a handshake under way.
type opening struct {
	nc      net.Conn
	idle    *list.Element // in Listener.idle, while its peer has not said its first frame, or has been refused
	since   time.Time     // when it came; zero if refused
	dropped bool          // made room; nc is closed
}

// roomAfter is how long a connection without its first frame keeps its place: long enough for a distant peer, and for a
// machine to which all dialers come back at once.
const roomAfter = 500 * time.Millisecond

// open begins a handshake, in the place of one that is idle for long if there are too many. If there is none it waits
// until there is, or until one ends, which HandshakeTimeout bounds. So who says nothing keeps nobody out: of connections
// that do, each MaxHandshakes hold those behind them up for roomAfter. It returns nil once l is closed.
func (l *Listener) open(nc net.Conn) *opening {
	l.mu.Lock()
	for len(l.opening) >= l.o.MaxHandshakes && !l.closed {
		var left time.Duration
		if oldest := l.idle.Front(); oldest != nil {
			old := oldest.Value.(*opening)
			if left = roomAfter - time.Since(old.since); left <= 0 {
				l.idle.Remove(oldest)
				old.idle, old.dropped = nil, true
				delete(l.opening, old)
				l.mu.Unlock()
				closeNow(old.nc)
				l.mu.Lock()
				continue
			}
		}
		room := l.room.wait()
		l.mu.Unlock()
		waitFor(room, left)
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	o := &opening{nc: nc, since: time.Now()}
	o.idle = l.idle.PushBack(o)
	l.opening[o] = struct{}{}
	return o
}

// waitFor waits until c is closed, and for d if that is not 0.
func waitFor(c <-chan struct{}, d time.Duration) {
	if d <= 0 {
		<-c
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	}
}

// heard says that o's peer has said its first frame, on which is decided now. It returns false if o has made room.
func (l *Listener) heard(o *opening) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.idle != nil {
		l.idle.Remove(o.idle)
		o.idle = nil
	}
	return !o.dropped
}

// leaving says that o's peer has been refused, and only has to read that.
func (l *Listener) leaving(o *opening) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.opening[o]; ok && o.idle == nil {
		o.since = time.Time{}
		o.idle = l.idle.PushFront(o)
		l.room.broadcast()
	}
}

// madeRoom reports whether o was dropped for another.
func (l *Listener) madeRoom(o *opening) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return o.dropped
}

// How long to wait before another Accept after one that failed for a while.
const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// passes waits, and returns true, if err is of the kind that passes, such as too many open files.
func (l *Listener) passes(err error, wait time.Duration) bool {
	var temporary interface{ Temporary() bool } // as package net has it, and net/http asks
	if !accept.Passing(err) && (!errors.As(err, &temporary) || !temporary.Temporary()) {
		return false
	}
	l.log.Warn("accepting failed, and is tried again", slog.Any("reason", err), slog.Duration("wait", wait))
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// lost takes the end of a net.Listener.
func (l *Listener) lost(ln net.Listener, err error) {
	_ = ln.Close()
	l.mu.Lock()
	l.lns = slices.DeleteFunc(l.lns, func(o net.Listener) bool { return o == ln })
	expected := l.draining
	if len(l.lns) == 0 && l.err == nil && !expected {
		l.err = fmt.Errorf("reconnect: accepting: %w", err)
		l.arrived.broadcast()
	}
	l.mu.Unlock()
	if !expected {
		l.log.Error("accepting has ended", slog.Any("address", ln.Addr()), slog.Any("reason", err))
	}
}

// offer lets Accept return c. l.mu is held. It returns false if too many wait.
func (l *Listener) offer(c *Conn) bool {
	if len(l.backlog) >= maxBacklog {
		return false
	}
	l.backlog = append(l.backlog, c)
	l.arrived.broadcast()
	return true
}

// opened ends a handshake.
func (l *Listener) opened(o *opening) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.opening, o)
	if o.idle != nil {
		l.idle.Remove(o.idle)
		o.idle = nil
	}
	l.room.broadcast()
}

// Close ends the Listener at once: it accepts no more, refuses handshakes under way, and gives up all sessions,
// accepted or not: their Conns end with ErrClosed, and for the dialers, which are told, they are lost. Plain
// connections that were accepted are left alone. It waits until no goroutine of its own is left but for OnEvent's: for
// a second at most if a dialer does not answer, and for Authenticate. Accept returns ErrClosed.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.shut()
	l.closed, l.draining = true, true
	l.err = ErrClosed
	l.arrived.broadcast()
	l.room.broadcast()
	for _, ln := range l.lns {
		_ = ln.Close()
	}
	for o := range l.opening {
		closeNow(o.nc)
	}
	plain := l.plain
	l.plain = map[*Conn]struct{}{}
	l.backlog = nil
	var all []*sess
	for _, s := range l.table.All() {
		all = append(all, s)
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	for c := range plain {
		_ = c.CloseNow()
	}
	for _, s := range all {
		s.shutdown()
	}
	l.wg.Wait()
	return nil
}

// Shutdown ends the Listener in good order. It takes no new sessions and no plain connections from now on, tells the
// dialers of all sessions to go away, and waits until the sessions have ended; those that lose their connection may
// still resume. When ctx ends first, it closes the rest, and returns ctx's cause. In the end it is closed.
//
// Nothing ends by itself: the applications of both sides get EventGoAway, and may Close when they see fit. Sessions
// without a connection are waited for as well, until they expire. Accepted plain connections are not. Dialers dial no
// earlier than delay + a random part of spread from now, each 5 min at most unless DialOptions.Redial says otherwise.
func (l *Listener) Shutdown(ctx context.Context, delay, spread time.Duration) error {
	l.mu.Lock()
	l.draining = true
	var all []*sess
	for _, s := range l.table.All() {
		all = append(all, s)
	}
	if l.err == nil {
		l.err = ErrClosed
		l.arrived.broadcast()
	}
	l.drainDelay, l.drainSpread = delay, spread
	l.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		if s.ended {
			s.mu.Unlock()
			continue // its last event has been told
		}
		s.m.Goaway(delay, spread)
		s.events = append(s.events, Event{Kind: EventGoAway, Time: time.Now(), Wait: delay, Spread: spread})
		s.settle(false)
	}
	var err error
	for _, s := range all {
		select {
		case <-s.done():
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		break
	}
	_ = l.Close() // nil
	return err
}
