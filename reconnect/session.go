package reconnect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// sess is the engine of a session: the protocol's machine under a mutex, and the connection that it has at the moment.
//
// Who reads a connection is the goroutine that dialled or accepted it; it is the only one for as long as nothing is
// written. Who writes is whoever has set writing: the goroutine that calls Send, for a lone short message, else one that
// is made for it and ends when there is nothing left. A session without a connection has no goroutine on the listener's
// side, and the one that dials on the dialer's.
//
// Locks: rmu before mu; a Listener's before both; no two sessions' at once. Nothing blocks under mu.
type sess struct {
	c     *Conn
	o     SessionOptions
	log   *slog.Logger // never nil
	clock clock
	over  chan struct{} // closed when everything has ended
	end   chan struct{} // closed when the machine has ended, before over
	dial  *dialing      // of a dialer, else nil
	serve *serving      // of a listener, else nil

	// Of the receivers, guarded by rmu.
	rmu      sync.Mutex
	cur      session.Run
	received uint64
	consumed uint64 // of them, by Ack
	dropping bool   // nothing more is handed out
	waiters  atomic.Int32
	ready    chan struct{} // a token: there may be something to receive

	mu       sync.Mutex
	m        *session.Session
	link     *link // the connection; nil without one
	last     net.Conn
	writing  bool        // somebody writes to link, or to the one before
	out      session.Out // of who has set writing
	wrote    signal      // writing was unset
	wroteAt  time.Duration
	wroteAtN uint64 // how often the connection had been read then
	room     signal // the log has changed, or nothing more is accepted
	acked    uint64 // when room was signalled last
	refused  bool   // refuse is closed
	refuse   chan struct{}
	inHand   uint64
	timer    *time.Timer
	armed    time.Duration // when timer fires; 0: not at all
	finished bool          // this side has ended its sending
	closing  bool          // this side takes nothing more
	ended    bool          // the machine has, and end is closed
	cause    error         // why this side ended it, if it did
	brutal   bool          // and at once
	parting  net.Conn      // the connection over which a session that has ended says goodbye
	reason   error         // why it ended, in this package's words
	events   []Event
	telling  bool // a goroutine tells events
	lost     uint64
}

// clock is the time of a session's machine.
type clock struct{ start time.Time }

func (c clock) now() time.Duration { return time.Since(c.start) + 1 } // never 0

// link is one connection of a session. Its fields are its reader's, or do not change.
type link struct {
	nc    net.Conn
	try   tryWriter // nil where a write without waiting cannot be had
	dec   *datagram.Reader
	vec   net.Buffers   // the writer's
	reads atomic.Uint64 // how often it was read
	err   error         // why it was given up; guarded by sess.mu
	gone  chan struct{} // closed when its reader touches the session no more
}

func newLink(nc net.Conn, dec *datagram.Reader) *link {
	return &link{nc: nc, try: newTryWriter(nc), dec: dec, gone: make(chan struct{})}
}

func newSess(o SessionOptions, ck clock) *sess {
	s := &sess{
		o: o, log: o.Logger, clock: ck, over: make(chan struct{}), end: make(chan struct{}),
		ready: make(chan struct{}, 1), refuse: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.c = newConn(s)
	return s
}

// config is what the machine is told.
func (o *SessionOptions) config() session.Config {
	return session.Config{
		MaxPayload: o.maxPayload(),
		SendBuffer: uint64(orDefault(o.SendBuffer, DefaultSessionBuffer)),
		MinWindow:  minWindow,
		MaxWindow:  uint64(max(orDefault(o.MaxWindow, DefaultMaxWindow), minWindow)),
		Consumed:   o.AckConsumed,
		PingAfter:  min(max(orDefault(o.PingAfter, DefaultPingAfter), minPing), maxPing),
		AckDelay:   ackDelay,
		Memory:     pool{},
	}
}

const (
	minWindow = 64 << 10
	minPing   = 20 * time.Millisecond
	maxPing   = 365 * 24 * time.Hour // so that times of it can be added up
	ackDelay  = 25 * time.Millisecond
)

// pool is the memory of all send logs.
type pool struct{}

var (
	smallSegments = sync.Pool{New: func() any { return new([session.SmallSegment]byte) }}
	largeSegments = sync.Pool{New: func() any { return new([session.LargeSegment]byte) }}
)

func (pool) Get(size int) []byte {
	if size == session.SmallSegment {
		return smallSegments.Get().(*[session.SmallSegment]byte)[:]
	}
	return largeSegments.Get().(*[session.LargeSegment]byte)[:]
}

func (pool) Put(b []byte) {
	if len(b) == session.SmallSegment {
		smallSegments.Put((*[session.SmallSegment]byte)(b))
		return
	}
	largeSegments.Put((*[session.LargeSegment]byte)(b))
}

// ---- sending

func (s *sess) send(ctx context.Context, d datagram.Datagram, mode sendMode) error {
	return s.sendBy(ctx, d, mode, 0)
}

// sendBy accepts one datagram, that is not to be sent after age; 0 is never.
func (s *sess) sendBy(ctx context.Context, d datagram.Datagram, mode sendMode, age time.Duration) error {
	s.mu.Lock()
	if err := s.awaitRoom(ctx, mode&noWait != 0); err != nil {
		s.mu.Unlock()
		return err
	}
	if err := s.append(d, age); err != nil {
		s.mu.Unlock()
		return err
	}
	if mode&held != 0 {
		s.inHand = 0
	}
	s.settle(true)
	return nil
}

// append gives d to the machine. mu is held.
func (s *sess) append(d datagram.Datagram, age time.Duration) error {
	var now, deadline time.Duration
	if s.m.Idle() || age > 0 {
		now = s.clock.now()
	}
	if age > 0 {
		deadline = now + min(age, math.MaxInt64-now)
	}
	return s.m.Append(now, d, deadline)
}

// awaitRoom waits until the log takes a datagram. mu is held, and given up meanwhile.
func (s *sess) awaitRoom(ctx context.Context, noWait bool) error {
	for {
		if err := s.accepting(); err != nil {
			return err
		}
		if s.m.Room() {
			return nil
		}
		if noWait {
			return ErrWouldBlock
		}
		if err := s.await(ctx, &s.room); err != nil {
			return err
		}
	}
}

// accepting says why nothing is accepted any more. mu is held.
func (s *sess) accepting() error {
	err := s.m.Accepting()
	switch {
	case err == nil:
		return nil
	case s.reason != nil && !isEOF(s.reason):
		return s.reason
	case s.finished:
		return ErrClosed
	}
	return ErrPeerClosed
}

// await gives up mu until what is told of.
func (s *sess) await(ctx context.Context, what *signal) error {
	changed := what.wait()
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *sess) sendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error) {
	if len(ds) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	for n < len(ds) {
		if err = s.awaitRoom(ctx, true); errors.Is(err, ErrWouldBlock) {
			s.settle(false) // what was accepted so far goes on its way
			s.mu.Lock()
			err = s.awaitRoom(ctx, false)
		}
		if err != nil {
			break
		}
		if err = s.append(ds[n], 0); err != nil {
			break
		}
		n++
	}
	s.settle(true)
	return n, err
}

func (s *sess) hold() {
	s.mu.Lock()
	s.inHand = 1
	s.mu.Unlock()
}

func (s *sess) refusing() <-chan struct{} { return s.refuse }

// flush waits until all that was accepted is acknowledged.
func (s *sess) flush(ctx context.Context) error {
	s.mu.Lock()
	n := s.m.Flush()
	s.settle(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.m.Acked() < n {
		if s.m.Stopped() {
			return ErrPeerClosed
		}
		if s.ended {
			return s.reason
		}
		if err := s.await(ctx, &s.room); err != nil {
			return err
		}
	}
	return nil
}

func (s *sess) canFinish() bool { return true }

func (s *sess) finishing() {
	s.mu.Lock()
	s.finished = true
	s.m.Finish(s.clock.now())
	s.settle(true)
}

// finish waits until the peer has everything, and the end.
func (s *sess) finish(ctx context.Context) error {
	s.finishing()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.m.Finished() && !s.ended {
		if err := s.await(ctx, &s.room); err != nil {
			return s.unsent(err)
		}
	}
	switch {
	case s.m.Stopped():
		return s.unsent(ErrPeerClosed)
	case s.ended && s.reason != nil && !isEOF(s.reason):
		return s.unsent(s.reason)
	}
	return s.unsent(nil)
}

// unsent is the error for what is unconfirmed, if anything is. mu is held.
func (s *sess) unsent(err error) error {
	n := s.m.Stats().Unacked + s.inHand
	switch {
	case n == 0 && (err == nil || errors.Is(err, ErrPeerClosed) || errors.Is(err, ErrClosed)):
		return nil
	case err == nil:
		err = ErrClosed
	}
	return &CloseError{Unsent: n, Err: err}
}

// ---- receiving

func (s *sess) receive(ctx context.Context) (datagram.Datagram, error) {
	for {
		s.rmu.Lock()
		if d, ok := s.next(); ok {
			s.received++
			s.pass()
			s.rmu.Unlock()
			return d, nil
		}
		if more, err := s.refill(ctx); err != nil {
			return datagram.Datagram{}, err
		} else if more {
			s.rmu.Unlock()
		}
	}
}

func (s *sess) receiveBatch(ctx context.Context, dst []datagram.Datagram) (n int, err error) {
	if len(dst) == 0 {
		return 0, nil
	}
	for {
		s.rmu.Lock()
		for n < len(dst) {
			d, ok := s.next()
			if !ok {
				if n > 0 && s.more() {
					continue
				}
				break
			}
			dst[n] = d
			n++
		}
		if n > 0 {
			s.received += uint64(n)
			s.pass()
			s.rmu.Unlock()
			return n, nil
		}
		if more, err := s.refill(ctx); err != nil {
			return 0, err
		} else if more {
			s.rmu.Unlock()
		}
	}
}

// next takes a datagram of those at hand. rmu is held.
func (s *sess) next() (datagram.Datagram, bool) {
	if s.dropping {
		return datagram.Datagram{}, false
	}
	d, ok := s.cur.Next()
	if ok && s.cur.Redelivered > 0 {
		s.cur.Redelivered--
		d.Redelivered = true
	}
	return d, ok
}

// more gets more datagrams at hand, if there are any. rmu is held.
func (s *sess) more() bool {
	s.mu.Lock()
	if !s.m.Readable() {
		s.mu.Unlock()
		return false
	}
	run, ok := s.m.Take()
	if ok {
		s.cur = run
	}
	s.settle(false)
	return ok
}

// pass wakes another receiver, if there is one, for what is left. rmu is held.
func (s *sess) pass() {
	if s.waiters.Load() > 0 {
		s.notify()
	}
}

// notify says that there may be something to receive.
func (s *sess) notify() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// refill gets more datagrams at hand, or waits until it is worth another look: then it has given up rmu and returns
// false. It has given it up with an error too, which is final, or ctx's.
func (s *sess) refill(ctx context.Context) (more bool, err error) {
	if s.dropping {
		s.pass()
		s.rmu.Unlock()
		return false, ErrClosed
	}
	s.mu.Lock()
	run, ok := s.m.Take()
	if ok {
		s.cur = run
		s.settle(false)
		return true, nil
	}
	err = s.drained()
	s.settle(false) // skipped ones may have been taken
	if err != nil {
		s.pass()
		s.rmu.Unlock()
		return false, err
	}
	s.waiters.Add(1)
	defer s.waiters.Add(-1)
	s.rmu.Unlock()
	select {
	case <-s.ready:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// drained says why nothing more will be received, now that everything was. mu is held.
func (s *sess) drained() error {
	switch {
	case s.m.EOF():
		return io.EOF
	case s.ended && s.reason == nil:
		return ErrClosed
	case s.ended:
		return s.reason
	}
	return nil
}

// ack tells the peer that the application has finished with n more datagrams.
func (s *sess) ack(n int) error {
	if !s.o.AckConsumed {
		return nil
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.mu.Lock()
	if s.ended {
		defer s.mu.Unlock()
		if s.reason == nil || isEOF(s.reason) {
			return ErrClosed
		}
		return s.reason
	}
	ok := n >= 0 && uint64(n) <= s.received-s.consumed && s.m.Consume(s.clock.now(), n)
	if ok {
		s.consumed += uint64(n)
	}
	s.settle(false)
	if !ok {
		return fmt.Errorf("reconnect: Ack(%d): so many have not been received", n)
	}
	return nil
}

// drop lets nothing more be handed out.
func (s *sess) drop() {
	s.rmu.Lock()
	s.dropping = true
	s.cur = session.Run{}
	s.rmu.Unlock()
}

func (s *sess) stop() {
	s.drop()
	s.mu.Lock()
	s.closing = true
	s.m.Stop()
	s.settle(false)
	s.notify()
}

// ---- writing

// settle draws the consequences of what was told to the machine, and gives up mu: it wakes who waits, notes what
// happened, sets the timer, and sees to it that what is to be written is. lone says that the caller may write by itself.
func (s *sess) settle(lone bool) {
	s.note()
	l := s.link
	if s.writing || l == nil || !s.m.Pulls() {
		s.mu.Unlock()
		return
	}
	s.writing = true
	if !lone || !s.lone(l) {
		s.mu.Unlock()
		go s.write(l, false)
		return
	}
	s.m.Pull(s.clock.now(), &s.out)
	s.mu.Unlock()
	rest, err := l.tryWrite(s.out.Vec)
	if err == nil {
		s.mu.Lock()
		s.m.Wrote()
		if s.link != l || !s.m.Pulls() {
			s.rest(l)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		go s.write(l, false)
		return
	}
	if !errors.Is(err, errWouldBlock) {
		s.failed(l, err)
		return
	}
	s.out.Vec = rest
	go s.write(l, true)
}

// note is settle without the writing. mu stays held.
func (s *sess) note() {
	s.collect()
	if s.m.State() == session.Ended && !s.ended {
		s.finishEnd()
	}
	s.startTelling()
	if s.room.ch != nil {
		if acked := s.m.Acked(); acked != s.acked || s.ended || s.m.Stopped() {
			s.acked = acked
			s.room.broadcast()
		}
	}
	if !s.refused && s.m.Accepting() != nil {
		s.refused = true
		close(s.refuse)
		s.room.broadcast()
	}
	s.arm()
}

// lone is outbound.lone: whether a message should be written by who sends it. mu is held.
func (s *sess) lone(l *link) bool {
	if l.try == nil || s.m.Pending() > loneSize {
		return false
	}
	return s.wroteAtN != l.reads.Load() || s.clock.now()-s.wroteAt >= loneGap
}

// rest ends the writing. mu is held.
func (s *sess) rest(l *link) {
	s.writing = false
	s.wroteAt, s.wroteAtN = s.clock.now(), l.reads.Load()
	s.wrote.broadcast()
}

// write writes until nothing is left, in a goroutine of its own. pulled says that out holds something.
func (s *sess) write(l *link, pulled bool) {
	for {
		if pulled {
			if err := l.write(s.out.Vec); err != nil {
				s.failed(l, err)
				return
			}
		}
		s.mu.Lock()
		if pulled {
			s.m.Wrote()
		}
		if pulled = s.link == l && s.m.Pull(s.clock.now(), &s.out); !pulled {
			s.rest(l)
			s.settle(false) // for another link, it may be
			return
		}
		s.mu.Unlock()
	}
}

// failed takes the end of a write that has failed: nothing may follow a frame that was cut.
func (s *sess) failed(l *link, err error) {
	s.mu.Lock()
	s.m.Wrote()
	s.rest(l)
	s.lose(l, err)
	s.settle(false)
}

// write writes all of vec. It may block for as long as the peer takes nothing, until the link is closed.
func (l *link) write(vec [][]byte) error {
	switch l.nc.(type) {
	case *net.TCPConn, *net.UnixConn:
		all := append(l.vec[:0], vec...)
		l.vec = all
		_, err := l.vec.WriteTo(l.nc) // consumes l.vec
		clear(all)
		l.vec = all
		return err
	}
	for _, b := range vec {
		if _, err := l.nc.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// tryWrite writes what can be written without waiting, and returns the rest with an error.
func (l *link) tryWrite(vec [][]byte) (rest [][]byte, err error) {
	for i, b := range vec {
		n, err := l.try.Write(b)
		if err != nil {
			vec[i] = b[n:]
			return vec[i:], err
		}
	}
	return nil, nil
}

// ---- connections

// attach makes l the connection, on which begin tells the machine to go on. It waits until the writer of the one before
// has ended, which has been closed. It returns false if the session has ended.
func (s *sess) attach(l *link, begin func(now time.Duration) error) (bool, error) {
	s.mu.Lock()
	for s.writing {
		changed := s.wrote.wait()
		s.mu.Unlock()
		<-changed // bounded: its connection was closed
		s.mu.Lock()
	}
	if s.ended || s.link != nil {
		s.mu.Unlock()
		return false, nil
	}
	if err := begin(s.clock.now()); err != nil {
		s.settle(false)
		return false, err
	}
	s.link, s.last = l, l.nc
	s.settle(false)
	return true, nil
}

// lose gives l up, if it still is the connection. mu is held.
func (s *sess) lose(l *link, err error) {
	if l == nil || s.link != l {
		return
	}
	err = s.explain(err)
	s.link = nil
	l.err = err
	worked := s.m.State() == session.Live
	s.m.Detach()
	if worked && !s.ended {
		s.events = append(s.events, Event{Kind: EventDisconnected, Time: time.Now(), Err: err})
	}
	go closeNow(l.nc) // a transport's Close may take a while
}

// read reads l until it is no more the session's, or the session has ended. It returns why. The frames that it has read
// of already come first.
func (s *sess) read(l *link) error {
	defer close(l.gone)
	for fresh := false; ; fresh = true {
		if fresh {
			if err := l.dec.Fill(); err != nil {
				return s.broken(l, err)
			}
			l.reads.Add(1)
		}
		s.mu.Lock()
		if s.link != l {
			defer s.mu.Unlock()
			return l.err
		}
		err := s.frames(l, fresh)
		readable := s.m.Readable() || s.m.EOF() || s.ended
		ended := s.m.State() == session.Ended
		if err != nil && !ended {
			err = s.why(err) // rejected for now
			s.lose(l, err)
			s.settle(false)
			return l.err
		}
		if ended {
			if err == nil {
				err = s.m.Err()
			}
			s.settle(false)
			s.notify()
			return err
		}
		rl := s.progress()
		s.settle(false)
		if readable {
			s.notify()
		}
		if rl != nil {
			rl.Progress()
		} else if s.serve != nil {
			s.serve.confirmed()
		}
	}
}

// frames gives the machine what has arrived whole. mu is held.
func (s *sess) frames(l *link, fresh bool) error {
	now := s.clock.now()
	any := false
	for {
		run, err := l.dec.Frames()
		switch {
		case err != nil:
			return s.m.Bad(err)
		case run.N == 0:
			if fresh && !any {
				s.m.Read(now, false)
			}
			return nil
		}
		if run.Version == datagram.Version && s.dial != nil && s.m.State() == session.Greeting {
			return ErrNoSessions
		}
		if !any {
			any = true
			s.m.Read(now, true)
		}
		if run.Version == datagram.Version {
			err = s.m.Data(now, run)
		} else {
			err = s.m.Control(now, run.Raw)
		}
		if err != nil {
			return err
		}
		if s.m.State() == session.Ended {
			return nil
		}
	}
}

// broken takes the end of l's stream, and returns why the reading ends.
func (s *sess) broken(l *link, err error) error {
	s.mu.Lock()
	if s.link != l {
		defer s.mu.Unlock()
		if l.err != nil {
			return l.err
		}
		return err
	}
	if s.ended {
		defer s.mu.Unlock()
		return s.reason
	}
	if e := new(datagram.FrameError); errors.As(err, &e) {
		if err = s.m.Bad(err); s.m.State() == session.Ended {
			s.settle(false)
			s.notify()
			return err
		}
		err = s.why(err)
	}
	if isEOF(err) {
		err = errHungUp
	}
	s.lose(l, err)
	s.settle(false)
	return l.err
}

// explain says what a connection that ended before there was an answer means, whoever found it first. mu is held.
func (s *sess) explain(err error) error {
	if s.dial == nil || s.m.State() != session.Greeting {
		return err
	}
	if errors.Is(err, errHungUp) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return &sessionError{ErrNoSessions, "it hung up at the first word", err}
	}
	return err
}

var errHungUp = errors.New("reconnect: the peer closed the connection")

// part ends the connection of a session that has ended: what is still to be said is, and the peer's last words are
// waited for, so that no reset overtakes ours.
func (s *sess) part(l *link) {
	s.mu.Lock()
	s.parting = l.nc
	s.limitGoodbye()
	for s.writing {
		changed := s.wrote.wait()
		s.mu.Unlock()
		<-changed // bounded by the deadline
		s.mu.Lock()
	}
	if s.link == l {
		s.link = nil
	}
	s.mu.Unlock()
	if w, ok := l.nc.(closeWriter); ok && w.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, onlyReader{l.nc})
	}
	closeNow(l.nc)
}

// limitGoodbye bounds the rest of the parting, if it has begun. mu is held.
func (s *sess) limitGoodbye() {
	if s.parting == nil {
		return
	}
	d := partTime
	if s.brutal {
		d = lastWords
	}
	_ = s.parting.SetDeadline(time.Now().Add(d))
}

// partTime bounds how long a connection outlives its session.
const partTime = time.Second

// ---- the end

// finishEnd takes the machine's end. mu is held.
func (s *sess) finishEnd() {
	if s.dial != nil && s.dial.renew() {
		return
	}
	s.ended = true
	s.reason = s.why(s.m.Err())
	if s.timer != nil {
		s.timer.Stop()
	}
	err := s.reason
	if err == nil {
		if err = io.EOF; s.closing {
			err = ErrClosed
		}
		s.reason = err
	}
	close(s.end)
	s.notify()
	s.room.broadcast()
	s.events = append(s.events, Event{Kind: EventClosed, Time: time.Now(), Err: err})
}

// why puts the machine's error into this package's words. mu is held.
func (s *sess) why(err error) error {
	var (
		closed   *session.ClosedError
		rejected *session.RejectError
		lost     *session.LostError
		protocol *session.ProtocolError
	)
	switch {
	case err == nil:
		if s.cause != nil {
			return s.cause
		}
		return nil
	case errors.Is(err, session.ErrAborted):
		return s.cause
	case errors.As(err, &closed):
		switch closed.Reason {
		case session.CloseTakenOver:
			return ErrTakenOver
		case session.CloseProtocol:
			return &sessionError{ErrProtocol, "it says that this side did", err}
		case session.CloseDone:
			return ErrPeerClosed
		case session.CloseShutdown:
			if s.cause != nil {
				return s.cause // it was this side's listener
			}
			return s.lostError(closed.Reason.String(), err)
		}
		return &sessionError{ErrPeerClosed, closed.Reason.String(), err}
	case errors.As(err, &rejected):
		switch reason := rejected.Reason; {
		case reason == session.ReasonTakenOver:
			return ErrTakenOver
		case reason == session.ReasonClosed:
			return &sessionError{ErrPeerClosed, "it had ended before", err}
		case reason.Lost():
			return s.lostError(rejected.Error(), err)
		case reason.Again():
			return &sessionError{ErrBusy, reason.String(), err}
		}
		return &sessionError{ErrRefused, rejected.Reason.String(), err}
	case errors.As(err, &lost):
		return s.lostError(lost.Reason.String(), err)
	case errors.As(err, &protocol):
		return &sessionError{ErrProtocol, strings.TrimPrefix(protocol.Error(), "the peer broke the session protocol "), err}
	}
	return err
}

func (s *sess) lostError(reason string, err error) error {
	e := &SessionLostError{Reason: reason, Err: err}
	for d := range s.m.Unconfirmed {
		e.Unconfirmed = append(e.Unconfirmed, d)
	}
	return e
}

// abort ends the session at once, for the first reason given, and tells the peer if that takes no wait.
func (s *sess) abort(err error) {
	s.mu.Lock()
	if s.ended {
		s.brutal = true
		s.limitGoodbye() // cut short, but not before the peer was told why
		s.mu.Unlock()
		return
	}
	s.cause, s.brutal = err, true
	s.m.Abort()
	s.note()
	l, free := s.link, !s.writing
	tell := false
	if l != nil && free {
		s.writing = true
		tell = s.m.Pull(s.clock.now(), &s.out)
	}
	s.mu.Unlock()
	if s.dial != nil {
		s.dial.cancel()
	}
	if l == nil {
		s.finalize()
		return
	}
	_ = l.nc.SetReadDeadline(longAgo) // its reader parts, and closes it
	if !free {
		return
	}
	if tell {
		_ = l.nc.SetWriteDeadline(time.Now().Add(lastWords))
		_ = l.write(s.out.Vec) // nothing can be done about an error
	}
	s.mu.Lock()
	s.m.Wrote()
	s.rest(l)
	s.mu.Unlock()
}

// lastWords bounds how long a connection outlives CloseNow, to tell the peer.
const lastWords = 20 * time.Millisecond

// finalize tells that everything has ended. It must be called once the session has no connection any more.
func (s *sess) finalize() {
	if s.serve != nil {
		s.serve.l.remove(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.over:
	default:
		close(s.over)
	}
}

func (s *sess) fail(err error) { s.abort(err) }

// shutdown ends a listener's session, and takes the time to tell the dialer.
func (s *sess) shutdown() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.cause = ErrClosed
	s.m.Shutdown()
	l := s.link
	s.settle(false)
	s.notify()
	if l == nil {
		s.finalize()
		return
	}
	_ = l.nc.SetReadDeadline(longAgo) // its reader parts
}

func (s *sess) closeNow() {
	s.drop()
	s.abort(ErrClosed)
}

// close waits until both sides know that all is said. finish came before it.
func (s *sess) close(ctx context.Context) {
	timer := time.NewTimer(lingerTime)
	defer timer.Stop()
	select {
	case <-s.end:
	case <-ctx.Done():
	case <-timer.C:
	}
	s.mu.Lock()
	if s.ended && s.cause == nil && isEOF(s.reason) {
		s.reason = ErrClosed
	}
	ended := s.ended
	s.mu.Unlock()
	if !ended {
		s.abort(ErrClosed)
	}
	select {
	case <-s.over:
	case <-ctx.Done():
		s.abort(ErrClosed)
	}
}

func (s *sess) done() <-chan struct{} { return s.over }

func (s *sess) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return s.reason
	case s.m.EOF():
		return io.EOF
	}
	return nil
}

func (s *sess) netConn() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *sess) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return Closed
	case s.m.State() == session.Live:
		return Connected
	case s.m.Confirmed():
		return Disconnected
	case s.serve != nil && s.m.State() == session.Greeting:
		return Connected
	case s.serve != nil:
		return Disconnected
	}
	return Connecting
}

// unconfirmed returns copies of what was accepted and not acknowledged.
func (s *sess) unconfirmed() []datagram.Datagram {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ds []datagram.Datagram
	for d := range s.m.Unconfirmed {
		ds = append(ds, d)
	}
	return ds
}

func (s *sess) stats() Stats {
	s.rmu.Lock()
	received := s.received
	s.rmu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.m.Stats()
	return Stats{
		Sent: m.Accepted, Received: received, Queued: m.Unsent, QueuedBytes: int(m.UnsentSize),
		Unconfirmed: m.Unacked, UnconfirmedBytes: int(m.UnackedSize), OldestUnconfirmed: s.m.Oldest(s.clock.now()),
		Epoch: m.Epoch, Resumes: m.Resumes, Lost: s.lost, Replayed: m.Replayed, Duplicates: m.Duplicates,
		Expired: m.Expired, Credit: int(min(m.Credit, maxInt)), Waiting: int(m.Waiting), Window: int(m.Window), RTT: m.RTT,
	}
}

// ---- time

// arm sets the timer. mu is held.
func (s *sess) arm() {
	at, ok := s.m.Deadline()
	if !ok || s.armed != 0 && s.armed <= at {
		return
	}
	s.armed = at
	d := at - s.clock.now()
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.tick)
		return
	}
	s.timer.Reset(d)
}

func (s *sess) tick() {
	s.mu.Lock()
	s.armed = 0
	if s.m.Tick(s.clock.now()) {
		s.lose(s.link, ErrNoAnswer)
	}
	s.settle(false)
}

// ---- events

// collect takes the machine's events. mu is held.
func (s *sess) collect() {
	for _, e := range s.m.Events() {
		ev := Event{Time: time.Now(), N: e.Number, Wait: e.Delay, Spread: e.Spread}
		switch e.Kind {
		case session.EventLive:
			ev.Kind = EventConnected
			if e.Resumed {
				ev.Kind = EventResumed
			}
			if s.dial != nil {
				s.dial.live(e.Resumed)
			} else {
				s.serve.live()
			}
		case session.EventGoaway:
			ev.Kind = EventGoAway
			if s.dial != nil {
				s.dial.delay(e.Delay, e.Spread)
			}
		case session.EventExpired:
			ev.Kind = EventExpired
		case session.EventStopped:
			ev.Kind = EventPeerStopped
			s.room.broadcast()
		default:
			continue
		}
		s.events = append(s.events, ev)
	}
}

// startTelling sees to it that events are told. mu is held.
func (s *sess) startTelling() {
	switch {
	case len(s.events) == 0 || s.telling:
	case s.o.OnEvent == nil && s.o.Logger == nil:
		s.events = nil
	default:
		s.telling = true
		go s.tell()
	}
}

// tell tells events, outside of all locks.
func (s *sess) tell() {
	for {
		s.mu.Lock()
		events := s.events
		s.events = nil
		s.telling = len(events) > 0
		s.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for _, e := range events {
			level := slog.LevelInfo
			if e.Kind == EventExpired {
				level = slog.LevelDebug
			}
			s.log.LogAttrs(context.Background(), level, e.String(), slog.String("peer", s.peerName()))
			if s.o.OnEvent != nil {
				s.o.OnEvent(s.c, e)
			}
		}
	}
}

func (s *sess) peerName() string {
	if nc := s.netConn(); nc != nil && nc.RemoteAddr() != nil {
		return nc.RemoteAddr().String()
	}
	return ""
}
