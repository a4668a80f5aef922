package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// dialsAtOnce is how many sessions of one client dial at once, when they begin and when all were cut.
const dialsAtOnce = 32

// childPatience is how long one request to a child may take: its parent has a limit of its own.
const childPatience = 5 * time.Minute

// manyServer accepts sessions, and cuts their connections when asked to.
type manyServer struct {
	l *reconnect.Listener

	mu       sync.Mutex
	accepted []*reconnect.Conn
	got      *counter
}

func (s *manyServer) do(q childRequest) (childReply, error) {
	switch q.Do {
	case "listen":
		descriptors(uint64(q.Sessions + descriptorsKept))
		ln, err := tcp.Listen(context.Background(), "127.0.0.1:0", nil)
		if err != nil {
			return childReply{}, err
		}
		s.l = reconnect.NewListener(ln, &reconnect.ListenOptions{MaxSessions: q.Sessions + 1})
		s.got = newCounter()
		go s.accept()
		return childReply{Addr: ln.Addr().String()}, nil
	case "wait":
		ctx, cancel := context.WithTimeout(context.Background(), childPatience)
		defer cancel()
		if err := s.got.wait(ctx, q.Sessions); err != nil {
			return childReply{}, fmt.Errorf("%d sessions were accepted: %w", s.got.n.Load(), err)
		}
		return childReply{}, nil
	case "cut":
		s.mu.Lock()
		defer s.mu.Unlock()
		var errs error
		for _, c := range s.accepted {
			if err := reset(c.NetConn()); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = errors.Join(errs, err)
			}
		}
		return childReply{}, errs
	}
	return childReply{}, errors.New("a server cannot do that")
}

func (s *manyServer) accept() {
	for {
		c, err := s.l.Accept(context.Background())
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted = append(s.accepted, c)
		s.mu.Unlock()
		s.got.add()
	}
}

// manyClient begins sessions, and notes when they have resumed.
type manyClient struct {
	addr string
	up   chan struct{} // a token for each session that has begun

	mu      sync.Mutex
	conns   []*reconnect.Conn
	resumed []time.Time // one for each session, the first time that it has
	seen    map[*reconnect.Conn]bool
	got     *counter
}

func (c *manyClient) event(conn *reconnect.Conn, e reconnect.Event) {
	switch e.Kind {
	case reconnect.EventConnected:
		select {
		case c.up <- struct{}{}:
		default: // the server has lost one, and another has begun in its place
		}
		return
	case reconnect.EventResumed:
	default:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen[conn] {
		c.seen[conn] = true
		c.resumed = append(c.resumed, e.Time)
		c.got.add()
	}
}

func (c *manyClient) do(q childRequest) (childReply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), childPatience)
	defer cancel()
	switch q.Do {
	case "dial":
		descriptors(uint64(q.Sessions + descriptorsKept))
		c.seen, c.got, c.up = map[*reconnect.Conn]bool{}, newCounter(), make(chan struct{}, q.Sessions)
		o := &reconnect.DialOptions{
			SessionOptions: reconnect.SessionOptions{OnEvent: c.event},
			Limit:          reconnect.NewDialLimit(dialsAtOnce),
		}
		for range q.Sessions { // Open goes on where a machine that is busy takes its time
			c.conns = append(c.conns, reconnect.Open(tcp.Dialer{Addr: c.addr, LocalAddr: q.From}, o))
		}
		for i := range q.Sessions {
			select {
			case <-c.up:
			case <-ctx.Done():
				return childReply{}, fmt.Errorf("%d of %d sessions have begun: %w", i, q.Sessions, ctx.Err())
			}
		}
		return childReply{}, nil
	case "resumed":
		ctx, cancel := context.WithTimeout(ctx, reconnect.DefaultExpiry) // then the servers have forgotten the others
		defer cancel()
		_ = c.got.wait(ctx, q.Sessions) // how many did, the parent sees
		c.mu.Lock()
		defer c.mu.Unlock()
		var r childReply
		for _, at := range c.resumed {
			r.Took = append(r.Took, at.Sub(q.Since).Seconds())
		}
		return r, nil
	}
	return childReply{}, errors.New("a client cannot do that")
}
