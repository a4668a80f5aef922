package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// A crash of the server is more than a disconnect: what its session had acknowledged and not echoed is gone with it, and
// only the program can know what that is. So sessions are strict here. When one is lost, client begins another and sends
// again, in order, exactly what has not come back.

// session is how client gets its sessions.
type session struct {
	dialer  transport.Dialer
	options reconnect.DialOptions
	tell    io.Writer // nil: nobody is told of what the user might wonder about

	mu      sync.Mutex
	trouble error     // why there is no connection, if there is none
	away    time.Time // until then the server does not want to be dialled
}

// newSession makes the sessions to the dialers, in order of preference.
func newSession(o *options, dialers []transport.Dialer) *session {
	s := &session{dialer: dialers[0]}
	s.options = reconnect.DialOptions{
		SessionOptions: reconnect.SessionOptions{MaxPayload: o.maxPayload(), OnEvent: s.event},
		Fallbacks:      dialers[1:],
		Redial:         &redial.Policy{AttemptTimeout: dialTime},
		Strict:         true,
	}
	if o.token != "" {
		s.options.Token = func(context.Context) ([]byte, error) { return []byte(o.token), nil }
	}
	return s
}

// log lets w know what happens: all of it if verbose, else, if it is a terminal, what the user might wonder about.
func (s *session) log(w io.Writer, verbose, terminal bool) {
	switch {
	case verbose:
		s.options.Logger = slog.New(slog.NewTextHandler(w, nil))
	case terminal:
		s.tell = w
	}
}

// dial begins the first session. It does not try for long.
func (s *session) dial(ctx context.Context) (*reconnect.Conn, error) {
	return reconnect.Dial(ctx, s.dialer, &s.options)
}

// next begins another session, in the background. The error is that of ctx.
func (s *session) next(ctx context.Context) (*reconnect.Conn, error) {
	s.mu.Lock()
	wait := time.Until(s.away)
	s.away = time.Time{}
	s.mu.Unlock()
	select {
	case <-time.After(wait):
		return reconnect.Open(s.dialer, &s.options), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) event(_ *reconnect.Conn, e reconnect.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case reconnect.EventDisconnected, reconnect.EventDialFailed:
		s.trouble = e.Err
	case reconnect.EventConnected, reconnect.EventResumed:
		s.trouble = nil
	case reconnect.EventGoAway:
		s.away = time.Now().Add(e.Wait + rand.N(e.Spread+1))
		s.say("the server asks to go away: going on until it ends")
	}
}

// say tells the user, over what may stand on the terminal's line.
func (s *session) say(format string, args ...any) {
	if s.tell != nil {
		fmt.Fprintf(s.tell, "\r\x1b[K"+format+"\n", args...)
	}
}

// why says why there is no connection, or "".
func (s *session) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		return ""
	}
	return reason(s.trouble)
}

// current returns the connection of the moment.
func (c *client) current() *reconnect.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// renew puts another session in the place of one that was lost, and has sent again what did not come back. Err is why it
// was lost, and renew's error why there is no other: io.EOF if there is nothing left to do.
func (c *client) renew(err error) error {
	c.mu.Lock()
	noMore := c.noMore
	c.mu.Unlock()
	_, awaited := c.tracker.counts()
	switch {
	case noMore && awaited == 0:
		return io.EOF
	case c.o.strict:
		return err
	}
	c.session.say("the server has lost the session: %s", datagrams(awaited)+" to send again")
	conn, ctxErr := c.session.next(c.ctx)
	if ctxErr != nil {
		return err
	}
	c.sending.Lock() // what is being sent to the lost session ends at once
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		c.sending.Unlock()
		_ = conn.CloseNow()
		return err
	}
	c.past.add(c.conn.Stats())
	c.conn, c.resending = conn, true
	close(c.renewed)
	c.renewed = make(chan struct{})
	c.work.Go(func() { c.resend(conn) })
	return nil
}

// resend sends what has not come back to a new session, and gives sending up, which renew has locked.
func (c *client) resend(conn *reconnect.Conn) {
	var payloads [][]byte
	batch := make([]datagram.Datagram, 0, batchCount)
	for next := uint64(0); ; {
		payloads, next = c.tracker.again(payloads[:0], next)
		if len(payloads) == 0 {
			break
		}
		n, err := conn.Writer().SendBatch(context.Background(), c.batch(batch, payloads))
		c.redelivered.Add(uint64(n))
		if err != nil {
			break // receive tells, or renews this one, too
		}
	}
	c.sending.Unlock()
	c.mu.Lock()
	c.resending = false
	noMore := c.noMore
	c.mu.Unlock()
	if noMore {
		_ = conn.CloseSend(context.Background())
	}
}

// awaitRenewal waits until conn, which was lost, has been replaced. It returns false if that will not be.
func (c *client) awaitRenewal(conn *reconnect.Conn) bool {
	for {
		c.mu.Lock()
		now, renewed := c.conn, c.renewed
		c.mu.Unlock()
		if now != conn {
			return true
		}
		select {
		case <-renewed:
		case <-c.ctx.Done():
			return false
		}
	}
}

// totals are what all sessions of a client have done.
type totals struct{ reconnects, replayed uint64 }

// add counts a session. One that has brought nothing is none: it may not have been answered.
func (t *totals) add(s reconnect.Stats) {
	if s.Received > 0 || s.Resumes > 0 {
		t.reconnects += s.Resumes + 1
	}
	t.replayed += s.Replayed
}

// totals returns what the sessions have done so far. The first connection is not a reconnect.
func (c *client) totals() totals {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.past
	t.add(c.conn.Stats())
	t.reconnects = max(t.reconnects, 1) - 1
	return t
}

// cutEvery cuts the connection of the moment, again and again, until the client ends.
func (c *client) cutEvery(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last net.Conn
	for {
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
		if nc := c.current().NetConn(); nc != nil && nc != last {
			last = nc
			reset(nc)
			c.cuts.Add(1)
		}
	}
}

// reset kills a connection, so that the peer gets a reset where there is such a thing.
func reset(nc net.Conn) {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = over.NetConn()
	}
	switch c := nc.(type) {
	case interface{ CloseNow() error }:
		_ = c.CloseNow()
	case interface{ SetLinger(int) error }:
		_ = c.SetLinger(0)
	}
	_ = nc.Close()
}

// reason puts an error of a session in words.
func reason(err error) string {
	if e, ok := errors.AsType[*redial.Error](err); ok && e.Last != nil {
		err = e.Last
	}
	if lost, ok := errors.AsType[*reconnect.SessionLostError](err); ok {
		return lost.Reason
	}
	return program.Reason(err)
}
