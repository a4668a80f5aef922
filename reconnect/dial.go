package reconnect

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// Dial begins a session with the listener that d leads to, and returns when it has answered. It tries d, and each of the
// Fallbacks, once, and up to three times more where a connection was made and broke before the answer; to wait for a
// listener that is not there yet, use Open. From then on the session outlives its connections: see [Conn].
//
// It blocks until ctx ends at the latest; the end of ctx after Dial returned changes nothing. The errors are the
// dialer's, or one that matches ErrRefused, ErrBusy, ErrNoSessions, ErrProtocol or ErrNoAnswer.
func Dial(ctx context.Context, d transport.Dialer, o *DialOptions) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s := open(d, o, true)
	select {
	case <-s.dial.begun:
		return s.c, nil
	case <-s.ending():
		select {
		case <-s.done():
		case <-ctx.Done():
			s.abort(ErrClosed) // the error is there, and what is still under way is for the peer
		}
		return nil, s.err()
	case <-ctx.Done():
		s.abort(ErrClosed)
		return nil, context.Cause(ctx)
	}
}

// Open is Dial that returns at once and connects in the background, for as long as DialOptions.Redial allows. What is
// sent meanwhile waits in the send buffer. If it gives up, that is the end of the Conn.
func Open(d transport.Dialer, o *DialOptions) *Conn { return open(d, o, false).c }

// dialing is what a dialer's session has besides.
type dialing struct {
	s         *sess
	o         DialOptions
	endpoints []transport.Dialer
	ctx       context.Context // ends with the session
	cancel    context.CancelFunc
	begun     chan struct{} // closed at the first answer
	leave     func()        // of the goroutine that dials: see prefer

	// Guarded by s.mu.
	answered  bool    // begun is closed
	once      bool    // each endpoint is tried once, and no answer is the end
	failures  []error // how each endpoint failed last
	broken    int     // connections that broke and are not among the failures
	rd        *redial.Redialer
	stopDial  context.CancelCauseFunc // of the dial under way
	turn      func()                  // gives the turn of DialOptions.Limit back; nil without one
	cur       *redial.Link            // of the newest connection
	next      *redial.Link            // that is to be used instead of a dial
	ackedAt   uint64                  // what cur found
	arrivedAt uint64
	moved     bool   // cur has been told that it was worth something
	fresh     bool   // the session began with cur
	up        bool   // cur has had an answer
	idle      bool   // the session that was lost last had moved nothing
	sum       uint64 // what had moved by then
	known     bool   // the session that was lost last had once been known to the listener
}

func open(d transport.Dialer, o *DialOptions, once bool) *sess {
	if o == nil {
		o = new(DialOptions)
	}
	if d == nil || slices.Contains(o.Fallbacks, nil) {
		panic("reconnect: a nil Dialer")
	}
	s := newSess(o.SessionOptions, clock{time.Now()})
	g := &dialing{s: s, o: *o, once: once, begun: make(chan struct{})}
	g.endpoints = append([]transport.Dialer{d}, o.Fallbacks...)
	g.failures = make([]error, len(g.endpoints))
	g.ctx, g.cancel = context.WithCancel(context.Background())
	s.dial = g
	g.rd = g.redialer()
	cfg := s.o.config()
	cfg.AnswerTimeout = DefaultHandshakeTimeout
	m, err := session.NewDialer(cfg, rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	s.m = m
	go g.run()
	return s
}

// redialer makes the session's Redialer.
func (g *dialing) redialer() *redial.Redialer {
	var p redial.Policy
	if g.o.Redial != nil {
		p = *g.o.Redial
	}
	told := p.OnFailure
	p.OnFailure = func(ctx context.Context, f redial.Failure) redial.Decision {
		g.failed(f.Endpoint, f.Err, f.Wait)
		if told != nil {
			return told(ctx, f)
		}
		return redial.Decision{}
	}
	if asked := p.OnAttempt; g.o.Limit != nil {
		p.OnAttempt = func(ctx context.Context) error {
			if asked != nil {
				if err := asked(ctx); err != nil {
					return err
				}
			}
			return g.takeTurn(ctx)
		}
	}
	return redial.New(g.endpoints, &p)
}

// errAsked is why Redial gives a connection up, if it is not told.
var errAsked = errors.New("reconnect: asked to dial again")

// handshaker is a TLS connection, which may not have shaken hands.
type handshaker interface{ HandshakeContext(context.Context) error }

// run dials, and reads what it has dialled, until the session ends.
func (g *dialing) run() {
	s := g.s
	defer func() {
		g.cancel()
		_ = g.rd.Close()
		if g.next != nil {
			closeNow(g.next.Conn) // the session ended before it could move there
		}
		s.finalize()
	}()
	for {
		rl, err := g.connect()
		if err != nil {
			s.abort(err)
			return
		}
		if rl == nil {
			return
		}
		l, err := g.attach(rl)
		if l != nil {
			err = s.read(l) // here, where the stack is small
		}
		if g.detached(rl, l, err) {
			return
		}
	}
}

// connect returns the next connection; nil if the session has ended; or an error that ends it.
func (g *dialing) connect() (*redial.Link, error) {
	s := g.s
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	s.mu.Lock()
	rl := g.next
	g.next = nil
	if rl == nil {
		g.stopDial = cancel
	}
	gave := g.tried()
	ended := s.ended
	s.mu.Unlock()
	var err error
	switch {
	case ended, rl != nil:
	case gave != nil:
		err = gave
	default:
		rl, err = g.rd.Dial(ctx)
	}
	s.mu.Lock()
	g.stopDial = nil
	if err != nil {
		g.endTurn()
	}
	ended = s.ended
	s.mu.Unlock()
	switch {
	case ended:
		if rl != nil {
			closeNow(rl.Conn)
		}
		return nil, nil
	case err == nil:
		return rl, nil
	case errors.As(context.Cause(ctx), &gave) || errors.As(err, &gave):
		return nil, gave.err
	}
	return nil, err
}

// attach lets the session go on with a connection. It returns nil if it does not, and then why, unless the session has
// ended.
func (g *dialing) attach(rl *redial.Link) (*link, error) {
	s := g.s
	var token []byte
	var err error
	if lazy, ok := rl.Conn.(handshaker); ok { // tls.Client's: before that it has no exporter
		ctx, cancel := context.WithTimeout(g.ctx, DefaultHandshakeTimeout)
		err = lazy.HandshakeContext(ctx)
		cancel()
		if err != nil {
			closeNow(rl.Conn)
			return nil, err
		}
	}
	if g.o.Token != nil {
		if token, err = g.o.Token(g.ctx); err == nil && len(token) > session.MaxToken {
			err = redial.Fatal(fmt.Errorf("reconnect: the token is %d bytes long, at most %d are possible", len(token), session.MaxToken))
		}
		if err != nil {
			closeNow(rl.Conn)
			if redial.IsFatal(err) {
				s.abort(err)
			}
			return nil, fmt.Errorf("reconnect: the token: %w", err)
		}
	}
	l := newLink(rl.Conn, datagram.NewReader(rl.Conn, s.o.codec()))
	ok, _ := s.attach(l, func(now time.Duration) error {
		g.cur, g.moved, g.up = rl, false, false
		g.ackedAt, g.arrivedAt = s.m.Acked(), s.m.Arrived()
		s.m.Dial(now, exporter(rl.Conn), token)
		return nil
	})
	if !ok {
		closeNow(rl.Conn)
		return nil, nil
	}
	g.leave = g.prefer(l, rl)
	return l, nil
}

// detached sees to what a connection has left behind that ended because of err, or, without l, did not begin. It reports
// whether the session has ended too.
func (g *dialing) detached(rl *redial.Link, l *link, err error) bool {
	s := g.s
	if l != nil {
		g.leave()
	}
	s.mu.Lock()
	if g.next == nil { // the turn is that of the connection to move to
		g.endTurn()
	}
	ended, up, known := s.ended, g.up, g.known
	s.mu.Unlock()
	switch {
	case l == nil:
		if err != nil {
			g.unanswered(rl, err)
		}
		return g.over()
	case ended:
		s.part(l)
		return true
	}
	closeNow(l.nc)
	if lostBy(err) && known {
		rl.Progress() // it answered, and what is to be dialled now is another session
	}
	if r := new(session.RejectError); errors.As(err, &r) && r.Reason.Again() {
		rl.Delay(millis(r.Delay), millis(r.Spread))
	}
	if !up && !errors.Is(err, errPreferred) {
		g.unanswered(rl, err)
	}
	return g.over()
}

// over reports whether the session has ended.
func (g *dialing) over() bool {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	return g.s.ended
}

func millis(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }

func (o *SessionOptions) codec() *datagram.Options {
	return &datagram.Options{MaxPayload: int(min(uint64(o.maxPayload()), maxInt)), Control: true}
}

const maxInt = uint64(^uint(0) >> 1)

// exporter returns the channel's exporter value, or nil.
func exporter(nc net.Conn) []byte {
	st := tlsState(nc)
	if st == nil {
		return nil
	}
	v, err := st.ExportKeyingMaterial("EXPERIMENTAL-towline", nil, 32)
	if err != nil {
		return nil // TLS without exporters cannot be: it is 1.3
	}
	return v
}

// tlsConn is what a connection over TLS is known by.
type tlsConn interface{ ConnectionState() tls.ConnectionState }

func tlsState(nc net.Conn) *tls.ConnectionState {
	c, ok := nc.(tlsConn)
	if !ok {
		return nil
	}
	st := c.ConnectionState()
	return &st
}

// live tells that the listener has answered. s.mu is held.
func (g *dialing) live(resumed bool) {
	g.fresh = !resumed
	g.up = true
	g.endTurn()
	if !g.answered {
		g.answered = true
		close(g.begun)
	}
}

// delay notes that the listener wants to be left. s.mu is held.
func (g *dialing) delay(delay, spread time.Duration) {
	if g.cur != nil {
		g.cur.Delay(delay, spread)
	}
}

// renew makes a lost session a new one, if that is wanted and can be. s.mu is held.
func (g *dialing) renew() bool {
	s := g.s
	err := s.m.Err()
	if !lostBy(err) || g.o.Strict || s.cause != nil {
		return false
	}
	known := s.m.Instance() != [16]byte{}
	sum := s.m.Acked() + s.m.Arrived()
	g.idle, g.sum = sum == g.sum, sum
	ok, err2 := s.m.Renew(rand.Reader)
	if !ok || err2 != nil {
		return false
	}
	s.lost++
	g.known = known && !g.idle
	why := &sessionError{ErrSessionLost, err.Error(), err}
	s.events = append(s.events, Event{Kind: EventLost, Time: time.Now(), Err: why, N: s.m.Stats().Unacked})
	s.lose(s.link, err)
	return true
}

// lostBy reports whether err says that the listener has lost the session.
func lostBy(err error) bool {
	var (
		rejected *session.RejectError
		lost     *session.LostError
		closed   *session.ClosedError
	)
	return errors.As(err, &rejected) && rejected.Reason.Lost() || errors.As(err, &lost) ||
		errors.As(err, &closed) && closed.Reason == session.CloseShutdown
}

// progress returns the dial of the connection, once, if that was worth something. s.mu is held.
func (s *sess) progress() *redial.Link {
	g := s.dial
	if g == nil || g.moved || s.m.State() != session.Live {
		return nil
	}
	if g.moved = g.fresh && !g.idle || s.m.Acked() > g.ackedAt || s.m.Arrived() > g.arrivedAt; g.moved {
		return g.cur
	}
	return nil
}

// redial gives the connection up, and dials at once.
func (g *dialing) redial(reason error) {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if reason == nil {
		reason = errAsked
	}
	if g.stopDial != nil {
		g.rd.Restart()
		return
	}
	if g.cur != nil {
		g.cur.Progress()
	}
	s.lose(s.link, reason)
	s.note()
}
