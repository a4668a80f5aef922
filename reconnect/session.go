package reconnect

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/trywrite"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// sess is the engine of a session: the protocol's machine under a mutex, and the connection that it has at the moment.
//
// Who reads a connection is the goroutine that dialled or accepted it, which lends that to receivers (turn); it is the only
// one for as long as nothing is written. Who writes is whoever has set writing: the goroutine that calls Send, or one that
// is made for it and ends when there is nothing left. A session without a connection has no goroutine on the listener's
// side, and the one that dials on the dialer's.
//
// Locks: rmu before mu; a Listener's before both; no two sessions' at once. Nothing blocks under mu.
type sess struct {
	c     *Conn
	o     SessionOptions
	log   *slog.Logger // never nil
	clock clock
	dial  *dialing // of a dialer, else nil
	serve *serving // of a listener, else nil

	// Of the receivers, guarded by rmu.
	rmu      sync.Mutex
	cur      session.Run
	left     []session.Run // goes before what the machine has, and behind cur
	received uint64
	consumed uint64      // of them, by Ack
	dropping atomic.Bool // nothing more is handed out; set under rmu
	waiters  atomic.Int32
	ready    chan struct{} // a token: there may be something to receive

	mu       sync.Mutex
	m        *session.Session
	link     *link // the connection; nil without one
	last     net.Conn
	over     gate   // when everything has ended
	end      gate   // when the machine has, before over
	writing  bool   // somebody writes to link, or to the one before
	starting bool   // a goroutine was made to write, and has yet to look
	wrote    signal // writing was unset, or starting
	given    signal // the connection was given something to write
	flowing  bool   // it was, and nobody has waited for more in vain since
	wroteAt  time.Duration
	wroteAtN uint64 // how often the connection had been read then
	room     signal // the log has changed, or nothing more is accepted
	awaiting int    // how many wait for room, and so for what the peer says
	acked    uint64 // when room was signalled last
	refused  bool   // refuse is closed
	refuse   gate
	inHand   uint64
	timer    *time.Timer
	armed    time.Duration // when timer fires; 0: not at all
	together bool          // in one moment with those of other sessions
	finished bool          // this side has ended its sending
	closing  bool          // this side takes nothing more
	ended    bool          // the machine has, and end is closed
	cause    error         // why this side ended it, if it did
	brutal   bool          // and at once
	parting  net.Conn      // the connection over which a session that has ended says goodbye
	goodbye  bool          // its CLOSE is being written, or was
	reason   error         // why it ended, in this package's words
	events   []Event
	telling  bool // a goroutine tells events
	lost     uint64
}

// clock is the time of a session's machine.
type clock struct{ start time.Time }

func (c clock) now() time.Duration { return time.Since(c.start) + 1 } // never 0

func (c clock) at(t time.Time) time.Duration { return t.Sub(c.start) + 1 }

// link is one connection of a session.
type link struct {
	nc        net.Conn
	try       trywrite.Writer  // nil where a write without waiting cannot be had
	dec       *datagram.Reader // of who has the turn
	vec       net.Buffers      // the writer's
	out       session.Out      // likewise: of who has set sess.writing
	dataAt    time.Duration    // when the last datagram came; of who has the turn
	deadlines bool             // a read can be interrupted
	encrypts  bool             // a write is work for the processor
	gone      chan struct{}    // closed when its reader touches the session no more

	// Guarded by sess.mu.
	turns
	reads uint64 // how often it was read
	err   error  // why it was given up
}

func newLink(nc net.Conn, dec *datagram.Reader) *link {
	dec.Idle()
	_, encrypts := nc.(tlsConn)
	return &link{
		nc: nc, try: trywrite.New(nc), dec: dec, deadlines: nc.SetReadDeadline(time.Time{}) == nil, encrypts: encrypts,
		gone: make(chan struct{}), turns: turns{back: make(chan struct{}, 1)},
	}
}

func newSess(o SessionOptions, ck clock) *sess {
	s := &sess{
		o: o, log: o.Logger, clock: ck, ready: make(chan struct{}, 1),
	}
	if s.log == nil {
		s.log = silent
	}
	s.c = newConn(s)
	return s
}

// silent is what nobody listens to.
var silent = slog.New(slog.DiscardHandler)

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

// phase is when in each interval the sessions of this process ask their peers: together, for it costs much less to wake up
// once for a hundred of them, but not together with other processes.
var phase = time.Duration(rand.Int64N(int64(time.Hour)))

// arm sets the timer. mu is held.
func (s *sess) arm() {
	at, slack, ok := s.m.Deadline()
	if !ok {
		return
	}
	// A timer that fires too early is left alone, for that is cheap; but not one that fires alone where others would do.
	alone := slack > 0 && !s.together && s.armed > at-32*slack
	if s.armed != 0 && s.armed <= at+slack && !alone {
		return
	}
	now := time.Now()
	d := at - s.clock.at(now)
	if s.together = slack > 0; s.together {
		t := now.Add(d + phase)
		if over := t.Sub(t.Truncate(slack)); over > 0 {
			d += slack - over
		}
	}
	s.armed = s.clock.at(now) + d
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.tick)
		return
	}
	s.timer.Reset(d)
}

// disarm gives the timer up, as a session without a connection needs none. mu is held.
func (s *sess) disarm() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer, s.armed = nil, 0
	}
}

func (s *sess) tick() {
	s.mu.Lock()
	s.armed = 0
	if s.m.Tick(s.clock.now()) {
		s.lose(s.link, ErrNoAnswer)
	}
	s.settle(true)
}

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
