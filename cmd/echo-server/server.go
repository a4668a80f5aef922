package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

const (
	// echoBatch is how many datagrams are echoed at a time.
	echoBatch = 256
	// pause is how long a connection is silent when it counts as done, while the server drains.
	pause = 50 * time.Millisecond
	// closeTime bounds the closing of one connection, besides what its peer needs to take the rest of its echoes.
	closeTime = 5 * time.Second
	// brokenTime bounds the sending of the last echoes to a peer that broke the protocol.
	brokenTime = 30 * time.Second
	// acceptWait is between attempts to accept, when that fails. The transports wait out what passes, such as a want of
	// file descriptors; whatever this is, spinning would not help.
	acceptWait = time.Second
)

// errDraining is why a connection ends while the server drains.
var errDraining = errors.New("the server drains")

// server echoes on any number of listeners. Each connection has one goroutine, which reads only when the echoes of what
// it read before are accepted for sending: a peer that does not read is not read from, and delays nobody else.
type server struct {
	log        *slog.Logger
	complaints *complaints
	plain      *reconnect.PlainOptions

	drained context.Context // ends when connections are to be served only until they pause
	drain   func()
	work    sync.WaitGroup // accepting and serving

	mu        sync.Mutex
	closing   bool
	deadline  time.Time // of the draining
	listeners []net.Listener
	conns     map[*reconnect.Conn]struct{}
}

func newServer(log *slog.Logger, maxSize int) *server {
	s := &server{
		log: log, complaints: newComplaints(log), plain: &reconnect.PlainOptions{MaxPayload: maxSize},
		conns: make(map[*reconnect.Conn]struct{}),
	}
	drained, drain := context.WithCancelCause(context.Background())
	s.drained, s.drain = drained, func() { drain(errDraining) }
	return s
}

// serve accepts connections on ln, in the background, until shutdown.
func (s *server) serve(ln net.Listener, u endpoint.URL) {
	s.mu.Lock()
	s.listeners = append(s.listeners, ln)
	s.mu.Unlock()
	s.work.Go(func() { s.accept(ln, u.String()) })
}

func (s *server) accept(ln net.Listener, where string) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			if s.drained.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s.complaints.warn("accept failed", "listener", where, "error", program.Reason(err), "next_try_in", acceptWait)
			select {
			case <-time.After(acceptWait):
			case <-s.drained.Done():
			}
			continue
		}
		conn := reconnect.NewPlain(nc, s.plain)
		if !s.add(conn) {
			_ = conn.CloseNow() // came too late
			continue
		}
		s.work.Go(func() { s.handle(conn, where) })
	}
}

func (s *server) add(conn *reconnect.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.conns[conn] = struct{}{}
	}
	return !s.closing
}

func (s *server) live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// handle serves one connection until its end.
func (s *server) handle(conn *reconnect.Conn, where string) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	peer := conn.RemoteAddr().String()
	s.log.Debug("connected", "peer", peer, "listener", where)
	err := s.echo(conn)

	args := []any{"peer", peer, "listener", where}
	limit := context.Background() // a peer that takes its echoes slowly may do so
	if protocolError(err) {
		s.complaints.warn("the peer broke the protocol; closing its connection", append(args, "error", fault(err))...)
		ctx, cancel := context.WithTimeout(limit, brokenTime)
		defer cancel()
		limit = ctx
	}
	// What was good before it went wrong is still sent back.
	if flushErr := conn.CloseSend(limit); errors.Is(err, io.EOF) {
		err = flushErr
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if closeErr := conn.Close(ctx); err == nil {
		err = closeErr
	}
	args = append(args, "received", conn.Stats().Received)
	if err != nil && !errors.Is(err, errDraining) {
		args = append(args, "reason", program.Reason(err))
	}
	s.log.Debug("disconnected", args...)
}

// protocolError reports whether an end of a connection is the peer's fault rather than the network's.
func protocolError(err error) bool {
	var frame *datagram.FrameError
	return errors.As(err, &frame) || errors.Is(err, io.ErrUnexpectedEOF)
}

// fault says what a peer did wrong.
func fault(err error) string {
	var frame *datagram.FrameError
	if !errors.As(err, &frame) && errors.Is(err, io.ErrUnexpectedEOF) {
		return "the stream ended inside a datagram"
	}
	return program.OneLine(err.Error())
}

// echo sends back what comes until the peer's end, an error, or, while the server drains, a pause.
func (s *server) echo(conn *reconnect.Conn) error {
	r, w := conn.Reader(), conn.Writer()
	batch := make([]datagram.Datagram, echoBatch)
	ctx, cancel := s.drained, context.CancelFunc(func() {})
	for {
		n, err := r.ReceiveBatch(ctx, batch)
		cancel()
		switch {
		case err == nil:
			if _, err := w.SendBatch(context.Background(), batch[:n]); err != nil {
				return err
			}
			for i := range batch[:n] {
				datagram.Release(batch[i]) // SendBatch has copied it
			}
			clear(batch[:n]) // not to hold the memory while waiting
		case ctx != s.drained || s.drained.Err() == nil:
			return err
		}
		if s.drained.Err() != nil {
			if time.Until(s.readUntil()) <= 0 {
				return errDraining
			}
			ctx, cancel = context.WithTimeoutCause(context.Background(), pause, errDraining)
		}
	}
}

// readUntil is when connections that never pause are read no more: halfway to the deadline, which leaves the other half
// for flushing.
func (s *server) readUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline
}

// shutdown stops accepting, lets connections end for at most the given time, and then cuts them. It returns how many it
// cut.
func (s *server) shutdown(limit time.Duration) (cut int) {
	s.mu.Lock()
	s.closing = true
	s.deadline = time.Now().Add(limit / 2)
	listeners := s.listeners
	s.mu.Unlock()

	s.drain()
	for _, ln := range listeners {
		s.work.Go(func() { _ = ln.Close() }) // not for long, but some say goodbye to peers
	}
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return 0
	case <-time.After(limit):
	}
	s.mu.Lock()
	for conn := range s.conns {
		cut++
		go conn.CloseNow()
	}
	s.mu.Unlock()
	select {
	case <-done:
	case <-time.After(time.Second): // a transport that insists on its goodbyes
	}
	return cut
}

// listenReason says why an address cannot be listened on.
func listenReason(err error) string {
	reason := program.Reason(err)
	if errors.Is(err, syscall.EADDRINUSE) {
		reason += "; another program listens there"
	}
	return reason
}
