package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
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
	// comeBack is the time over which the dialers of sessions that a draining server leaves are to spread their next dials.
	comeBack = time.Second
	// acceptWait is between attempts to accept, when that fails. The transports wait out what passes, such as a want of
	// file descriptors; whatever this is, spinning would not help.
	acceptWait = time.Second
)

// errDraining is why a connection ends while the server drains.
var errDraining = errors.New("the server drains")

// server echoes on any number of listeners, to sessions and to plain connections. Each of these has one goroutine, which
// reads only when the echoes of what it read before are accepted for sending: a peer that does not read is not read from,
// and delays nobody else.
type server struct {
	log        *slog.Logger
	complaints *complaints
	ln         *reconnect.Listener

	drained context.Context // ends when connections are to be served only until they pause
	drain   func()
	work    sync.WaitGroup // accepting and serving
	moved   atomic.Int64   // when a session last had something, in nanoseconds since 1970

	mu       sync.Mutex
	closing  bool
	readTill time.Time // while draining: what comes later is not echoed
	conns    map[*reconnect.Conn]struct{}
}

// newServer serves what connects to lns, one or more, in the background, until shutdown. Its complaints log for options,
// too.
func newServer(complaints *complaints, options *reconnect.ListenOptions, lns ...net.Listener) *server {
	s := &server{log: complaints.log, complaints: complaints, conns: make(map[*reconnect.Conn]struct{})}
	drained, drain := context.WithCancelCause(context.Background())
	s.drained, s.drain = drained, func() { drain(errDraining) }
	for _, ln := range lns {
		ln = &listener{ln, s}
		if s.ln == nil {
			s.ln = reconnect.NewListener(ln, options)
		} else {
			s.ln.Add(ln)
		}
	}
	s.work.Go(s.accept)
	return s
}

// listener is one whose Accept goes on until it is closed, whatever happens.
type listener struct {
	net.Listener
	s *server
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err == nil || l.s.drained.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nc, err
		}
		l.s.complaints.warn("accept failed", "listener", l.Addr(), "error", program.Reason(err), "next_try_in", acceptWait)
		select {
		case <-time.After(acceptWait):
		case <-l.s.drained.Done():
		}
	}
}

func (s *server) accept() {
	for {
		conn, err := s.ln.Accept(s.drained)
		if err != nil {
			return // drained
		}
		if !s.add(conn) {
			_ = conn.CloseNow() // came too late
			continue
		}
		s.work.Go(func() { s.handle(conn) })
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

// live counts the connections, and the sessions with or without one.
func (s *server) live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// handle serves one session or plain connection until its end.
func (s *server) handle(conn *reconnect.Conn) {
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	args := []any{"peer", conn.RemoteAddr(), "at", conn.LocalAddr(), "session", conn.IsSession()}
	s.log.Debug("connected", args...)
	err := s.echo(conn)
	if conn.IsSession() && errors.Is(err, errDraining) {
		<-conn.Done() // a good end from here would tell the dialer that there is nothing more to do
	}

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
	return errors.As(err, &frame) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, reconnect.ErrProtocol)
}

// fault says what a peer did wrong.
func fault(err error) string {
	var frame *datagram.FrameError
	if !errors.As(err, &frame) && errors.Is(err, io.ErrUnexpectedEOF) {
		return "the stream ended inside a datagram"
	}
	return program.OneLine(err.Error())
}

// echo sends back what comes until the peer's end, an error, or, while the server drains, the time when no more is read; of
// a plain connection also until it pauses.
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
			if conn.IsSession() {
				s.moved.Store(time.Now().UnixNano())
			}
		case ctx != s.drained || s.drained.Err() == nil:
			return err
		}
		if s.drained.Err() != nil {
			left := time.Until(s.readUntil())
			if left <= 0 {
				return errDraining
			}
			if !conn.IsSession() {
				left = pause
			}
			ctx, cancel = context.WithTimeoutCause(context.Background(), left, errDraining)
		}
	}
}

func (s *server) readUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readTill
}

// shutdown lets all connections end, for at most the given time, and then cuts them. It returns how many it cut that had
// not got all their echoes.
//
// What is new is refused from the beginning. Plain connections are closed when they pause. Sessions go on, with another
// connection if theirs breaks, until all of them pause at once: then their dialers are told that the server is no more,
// and may begin anew elsewhere. The second half of the time is for the echoes of those that never pause.
func (s *server) shutdown(limit time.Duration) (cut int) {
	now := time.Now()
	s.mu.Lock()
	s.closing = true
	s.readTill = now.Add(limit / 2)
	s.mu.Unlock()
	s.moved.Store(now.UnixNano())
	s.drain()

	ctx, over := context.WithCancel(context.Background())
	defer over()
	var work sync.WaitGroup
	work.Go(s.work.Wait)
	work.Go(func() { _ = s.ln.Shutdown(ctx, 0, comeBack) }) // the error is that of ctx
	done := make(chan struct{})
	go func() {
		work.Wait()
		close(done)
	}()
	timeout := time.After(limit)
	tick := time.NewTicker(pause / 5)
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-done:
			return 0
		case <-timeout:
			waiting = false
		case <-tick.C:
			waiting = s.busy()
		}
	}
	s.mu.Lock()
	for conn := range s.conns {
		if !conn.IsSession() {
			cut++
			go conn.CloseNow()
		} else if unfinished(conn) {
			cut++
		}
	}
	s.mu.Unlock()
	over()
	select {
	case <-done:
	case <-time.After(time.Second): // a transport that insists on its goodbyes
	}
	return cut
}

// busy reports whether it is worth waiting while the server drains: for a plain connection, whose own goroutine ends it,
// or for a session that has something to echo, or whose dialer does not have all echoes.
func (s *server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	reading := time.Now().Before(s.readTill)
	if reading && time.Since(time.Unix(0, s.moved.Load())) < pause {
		return true
	}
	for conn := range s.conns {
		if !conn.IsSession() || conn.Stats().Unconfirmed > 0 || reading && unfinished(conn) {
			return true
		}
	}
	return false
}

// unfinished reports whether a session's dialer lacks echoes of what has arrived here.
func unfinished(conn *reconnect.Conn) bool {
	st := conn.Stats()
	return st.Unconfirmed > 0 || st.Waiting > 0
}

// listenReason says why an address cannot be listened on.
func listenReason(err error) string {
	reason := program.Reason(err)
	if errors.Is(err, syscall.EADDRINUSE) {
		reason += "; another program listens there"
	}
	return reason
}
