package reconnect

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect/internal/session"
)

// errStale is a takeover that was itself overtaken.
var errStale = errors.New("reconnect: a later connection has the session")

// serve decides what a connection is, and reads it if it is that of a session. The stack that the reading keeps is small.
func (l *Listener) serve(o *opening) {
	if s, k := l.handshake(o); s != nil {
		_ = s.read(k)
		l.left(s, k)
	}
}

// handshake decides what a connection is, and returns the session that it belongs to, if it does, and has attached it.
func (l *Listener) handshake(o *opening) (*sess, *link) {
	defer l.opened(o)
	nc := o.nc
	if l.o.Plain == OnlyPlain {
		l.offerPlain(nc, nil)
		return nil, nil
	}
	deadline := time.Now().Add(l.o.HandshakeTimeout)
	_ = nc.SetDeadline(deadline)
	head := make([]byte, datagram.HeaderSize, 256)
	if n, err := io.ReadFull(nc, head); err != nil {
		quiet := errors.Is(err, os.ErrDeadlineExceeded) || isEOF(err) || errors.Is(err, io.ErrUnexpectedEOF)
		if quiet && l.o.Plain == AllowPlain && !l.madeRoom(o) {
			l.offerPlain(nc, head[:n])
			return nil, nil
		}
		l.unread(o, err)
		return nil, nil
	}
	h := datagram.ParseHeader(head)
	if h.Version != datagram.ControlVersion {
		if l.o.Plain == AllowPlain {
			l.offerPlain(nc, head)
			return nil, nil
		}
		l.refuse(nc, l.explainPlain(head))
		return nil, nil
	}
	if h.Size < 4 || h.Size > datagram.MaxControl-4 {
		l.refuse(nc, fmt.Errorf("its first frame is a control frame of size %d", h.Size))
		return nil, nil
	}
	frame := append(head, make([]byte, h.Size-4)...)
	if _, err := io.ReadFull(nc, frame[datagram.HeaderSize:]); err != nil {
		l.unread(o, err)
		return nil, nil
	}
	if !l.heard(o) {
		l.unread(o, errCrowded)
		return nil, nil
	}
	ctx, cancel := context.WithDeadline(l.ctx, deadline.Add(-l.o.HandshakeTimeout/5)) // the answer has to come in time
	s, k, err := l.session(ctx, nc, frame)
	cancel()
	if err != nil {
		l.leaving(o)
		l.reject(nc, err)
		return nil, nil
	}
	_ = nc.SetDeadline(time.Time{})
	return s, k
}

// offerPlain lets Accept return nc as a plain connection.
func (l *Listener) offerPlain(nc net.Conn, head []byte) {
	_ = nc.SetDeadline(time.Time{})
	c := newPlain(nc, head, &PlainOptions{MaxPayload: l.o.MaxPayload, Framing: l.o.PlainFraming})
	l.mu.Lock()
	ok := !l.draining && l.offer(c)
	if ok {
		l.plain[c] = struct{}{}
	}
	l.mu.Unlock()
	if !ok {
		l.log.Warn("refused a plain connection: too many wait to be accepted, or the listener shuts down",
			slog.Any("peer", nc.RemoteAddr()))
		_ = c.CloseNow()
	}
}

// explainPlain says what a peer speaks that should have begun with HELLO or RESUME.
func (l *Listener) explainPlain(head []byte) error {
	_, err := datagram.NewReader(bytes.NewReader(head), &datagram.Options{MaxPayload: l.o.MaxPayload}).Read()
	if e := new(datagram.FrameError); errors.As(err, &e) {
		return fmt.Errorf("it has no session: %w", err)
	}
	return errors.New("it has no session, and plain connections are not served")
}

// unread closes a connection whose first frame could not be read.
func (l *Listener) unread(o *opening, err error) {
	if l.madeRoom(o) {
		err = errCrowded
	}
	l.refuse(o.nc, fmt.Errorf("reading its first frame: %w", err))
}

// errCrowded is why a peer that says nothing is dropped before its time.
var errCrowded = errors.New("it was slower than all others, and had to make room, as MaxHandshakes were under way")

// refuse closes a connection that is none of ours.
func (l *Listener) refuse(nc net.Conn, err error) {
	l.log.Warn("refused a connection", slog.Any("peer", nc.RemoteAddr()), slog.Any("reason", err))
	closeNow(nc)
}

// reject tells a dialer why it is not served, and waits until it has gone, so that no reset overtakes the answer.
func (l *Listener) reject(nc net.Conn, err error) {
	r := new(session.RejectError)
	if !errors.As(err, &r) {
		if !errors.Is(err, errStale) {
			l.refuse(nc, err)
			return
		}
		closeNow(nc)
		return
	}
	l.log.Warn("rejected a dialer", slog.Any("peer", nc.RemoteAddr()), slog.Any("reason", err))
	answer := r.Reject // err may be everybody's
	answer.Instance = l.instance
	_ = nc.SetDeadline(time.Now().Add(partTime))
	if _, err := nc.Write(answer.Append(nil)); err == nil {
		if w, ok := nc.(closeWriter); ok && w.CloseWrite() == nil {
			_, _ = io.CopyN(io.Discard, onlyReader{nc}, maxDrain)
		}
	}
	closeNow(nc)
}

// maxDrain is how much is read away of what a rejected dialer sent.
const maxDrain = 1 << 20

func reject(reason session.Reason) error {
	return &session.RejectError{Reject: session.Reject{Reason: reason}}
}

// session finds or makes the session that frame, the first one, is about, and attaches the connection to it.
func (l *Listener) session(ctx context.Context, nc net.Conn, frame []byte) (*sess, *link, error) {
	var version *session.VersionError
	switch kind := session.KindOf(frame); kind {
	case session.KindHello:
		h, err := session.ParseHello(frame)
		if errors.As(err, &version) {
			return nil, nil, reject(session.ReasonVersion)
		} else if err != nil {
			return nil, nil, err
		}
		return l.hello(ctx, nc, &h, frame)
	case session.KindResume:
		r, err := session.ParseResume(frame)
		if errors.As(err, &version) {
			return nil, nil, reject(session.ReasonVersion)
		} else if err != nil {
			return nil, nil, err
		}
		return l.resume(ctx, nc, &r, frame)
	default:
		return nil, nil, fmt.Errorf("its first frame is %v, expected HELLO or RESUME", kind)
	}
}

// authenticate asks who the peer is.
func (l *Listener) authenticate(ctx context.Context, nc net.Conn, token []byte, resume bool) (string, error) {
	if l.o.Authenticate == nil {
		return "", nil
	}
	principal, err := l.o.Authenticate(ctx, &Peer{Addr: nc.RemoteAddr(), TLS: tlsState(nc), Token: bytes.Clone(token), Resume: resume})
	switch {
	case err != nil && ctx.Err() != nil: // that it was too slow says nothing of the peer, which may dial again
		return "", fmt.Errorf("%w: Authenticate had no more time: %w", l.busy(session.ReasonBusy), err)
	case err != nil:
		return "", fmt.Errorf("%w: %w", reject(session.ReasonUnauthorised), err)
	}
	return principal, nil
}

// hello begins a session, or goes on with one whose WELCOME was lost.
func (l *Listener) hello(ctx context.Context, nc net.Conn, h *session.Hello, frame []byte) (*sess, *link, error) {
	principal, err := l.authenticate(ctx, nc, h.Token, false)
	if err != nil {
		return nil, nil, err
	}
	if s, k, err := l.helloAgain(nc, h, frame, principal); s != nil || err != nil {
		return s, k, err
	}
	s := newSess(l.o.SessionOptions, l.clock)
	s.serve = &serving{l: l, s: s, principal: principal}
	s.last = nc
	if s.m, err = session.NewListener(l.cfg, rand.Reader, h, l.instance); err != nil {
		return nil, nil, err
	}
	l.bmu.Lock()
	l.budget.Floor(l.cfg.MinWindow)
	l.bmu.Unlock()
	l.mu.Lock()
	var reason session.Reason
	dropped := l.sweep()
	switch {
	case l.draining:
		reason = session.ReasonDraining
	case len(l.backlog) >= maxBacklog:
		reason = session.ReasonBusy
	default:
		if id, v, ok := l.table.Victim(); ok {
			l.drop(id, v, session.ReasonEvicted)
			dropped = append(dropped, v)
		}
		reason = l.table.Add(h.ID, s)
	}
	if reason == 0 {
		s.serve.taking++
		l.offer(s.c)
	}
	l.mu.Unlock()
	finalize(dropped)
	if reason != 0 {
		s.mu.Lock()
		s.m.Drop(reason) // gives its part of the budget back
		s.mu.Unlock()
		if reason == session.ReasonMismatch {
			// Another HELLO of this dialer has made the session just now.
			if s, k, err := l.helloAgain(nc, h, frame, principal); s != nil || err != nil {
				return s, k, err
			}
			reason = session.ReasonBusy
		}
		return nil, nil, l.busy(reason)
	}
	return l.welcome(s, nc, nil, h, frame)
}

// welcome attaches nc to s, which h has begun or taken over, unless a later one has already.
func (l *Listener) welcome(s *sess, nc net.Conn, old *link, h *session.Hello, frame []byte) (*sess, *link, error) {
	return l.take(s, nc, old, func(now time.Duration, exporter []byte) error {
		if s.m.Epoch() != h.Epoch {
			return errStale
		}
		s.m.Welcome(now, frame, exporter)
		return nil
	})
}

// busy is the rejection for a reason that passes, with when to come back.
func (l *Listener) busy(reason session.Reason) error {
	r := session.Reject{Reason: reason}
	l.mu.Lock()
	if reason == session.ReasonDraining {
		r.Delay, r.Spread = wireMillis(l.drainDelay), wireMillis(l.drainSpread)
	} else {
		r.Delay, r.Spread = busyDelay, busyDelay
	}
	l.mu.Unlock()
	return &session.RejectError{Reject: r}
}

func wireMillis(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

// busyDelay is how long a dialer is asked to stay away from a listener that is full, in ms, and as much again at random.
const busyDelay = 1000

// helloAgain looks for the session of a HELLO. It returns nothing if there is none, and may be one.
func (l *Listener) helloAgain(nc net.Conn, h *session.Hello, frame []byte, principal string) (*sess, *link, error) {
	var old *link
	s, err := l.find(h.ID, func(s *sess) error {
		if err := s.m.Again(h); err != nil {
			return err
		}
		if principal != s.serve.principal {
			return reject(session.ReasonUnauthorised)
		}
		old = l.fence(s, h.Epoch, h.Link)
		l.table.Attach(h.ID)
		return nil
	})
	switch {
	case s == nil && errors.Is(err, errUnknown):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	}
	return l.welcome(s, nc, old, h, frame)
}

// known is the rejection of a session that was removed.
func known(why session.Reason, arrived session.Position) error {
	return &session.RejectError{Reject: session.Reject{Reason: why, Flags: session.FlagReceivedKnown, Received: arrived}}
}

// resume goes on with a session.
func (l *Listener) resume(ctx context.Context, nc net.Conn, r *session.Resume, frame []byte) (*sess, *link, error) {
	ex := exporter(nc)
	s, err := l.find(r.ID, func(s *sess) error { return s.m.Verify(frame, ex) })
	if err != nil {
		return nil, nil, err
	}
	principal, err := l.authenticate(ctx, nc, r.Token, true)
	if err != nil {
		return nil, nil, err
	}
	if principal != s.serve.principal {
		return nil, nil, reject(session.ReasonUnauthorised)
	}
	var old *link
	if s, err = l.find(r.ID, func(s *sess) error {
		if err := s.m.Check(r); err != nil {
			return err
		}
		old = l.fence(s, r.Epoch, [32]byte{})
		l.table.Attach(r.ID)
		l.table.Confirm(r.ID)
		return nil
	}); err != nil {
		return nil, nil, err
	}
	return l.take(s, nc, old, func(now time.Duration, exporter []byte) error {
		if s.m.Epoch() != r.Epoch {
			return errStale
		}
		return s.m.Resume(now, r, frame, exporter)
	})
}

// errUnknown is the rejection of a session of which nothing is known.
var errUnknown = reject(session.ReasonUnknown)

// find returns the session with that id, if it lives and check, called under both locks, finds nothing.
func (l *Listener) find(id [16]byte, check func(*sess) error) (*sess, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.table.Get(id)
	if !ok {
		if why, arrived, ok := l.table.Tombstone(id); ok {
			return nil, known(why, arrived)
		}
		return nil, errUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m.State() == session.Ended {
		return nil, known(session.ReasonClosed, s.m.ArrivedOnWire())
	}
	return s, check(s)
}

// fence raises the epoch, and takes the connection away. Both locks are held.
func (l *Listener) fence(s *sess, epoch uint64, hello [32]byte) (old *link) {
	s.serve.taking++
	old = s.link
	if old != nil {
		s.lose(old, errTakeover)
	}
	s.m.Fence(epoch, hello)
	s.note()
	return old
}

var errTakeover = errors.New("reconnect: the dialer has a newer connection")

// take attaches nc to s once the old connection's reader and writer are gone. begin is called under s.mu.
func (l *Listener) take(s *sess, nc net.Conn, old *link, begin func(now time.Duration, exporter []byte) error) (*sess, *link, error) {
	k := newLink(nc, datagram.NewReader(nc, s.o.codec()))
	ex := exporter(nc)
	if old != nil {
		closeNow(old.nc)
		<-old.gone
	}
	ok, err := s.attach(k, func(now time.Duration) error { return begin(now, ex) })
	l.mu.Lock()
	s.serve.taking--
	l.mu.Unlock()
	if !ok {
		if err == nil {
			err = l.stale(s)
		}
		l.left(s, nil)
		return nil, nil, err
	}
	return s, k, nil
}

// stale says why a connection that was about to have s does not get it.
func (l *Listener) stale(s *sess) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return known(session.ReasonClosed, s.m.ArrivedOnWire())
	}
	return errStale
}
