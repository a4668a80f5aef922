package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/towline-mq/towline/transport"
)

// tap is a listener that remembers the newest connection, which it returns as it is, so that nothing is slower for it.
type tap struct {
	net.Listener
	mu   sync.Mutex
	last net.Conn
}

func (t *tap) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err == nil {
		t.mu.Lock()
		t.last = c
		t.mu.Unlock()
	}
	return c, err
}

// reset ends the newest connection by an RST.
func (t *tap) reset() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return reset(t.last)
}

// reset ends a TCP connection by an RST.
func reset(c net.Conn) error {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return errors.New("not a TCP connection")
	}
	return errors.Join(tc.SetLinger(0), tc.Close())
}

// hook is a dialer that remembers the newest connection, and that waits while it is shut.
type hook struct {
	transport.Dialer
	mu   sync.Mutex
	last net.Conn
	shut chan struct{} // nil: open. Closed when it opens.
}

func (h *hook) DialContext(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	shut := h.shut
	h.mu.Unlock()
	if shut != nil {
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := h.Dialer.DialContext(ctx)
	if err == nil {
		h.mu.Lock()
		h.last = c
		h.mu.Unlock()
	}
	return c, err
}

// close lets no dial through until open.
func (h *hook) close() (open func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = make(chan struct{})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		close(h.shut)
		h.shut = nil
	}
}

// keep holds the socket of the newest connection open when that is closed, as if everything on the way to the peer were
// lost: no FIN and no RST reaches it until the file is closed.
func (h *hook) keep() (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	tc, ok := h.last.(*net.TCPConn)
	if !ok {
		return nil, errors.New("not a TCP connection")
	}
	return tc.File()
}

// counts are what went over connections.
type counts struct{ bytes, writes, reads atomic.Int64 }

// counted is a connection whose bytes are counted, both ways.
type counted struct {
	net.Conn
	*counts
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	c.reads.Add(1)
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	c.writes.Add(1)
	return n, err
}

// holed is a connection that loses everything, both ways, once hole is set.
type holed struct {
	net.Conn
	hole *atomic.Bool
}

func (h holed) Read(p []byte) (int, error) {
	for {
		n, err := h.Conn.Read(p)
		if err != nil || !h.hole.Load() {
			return n, err
		}
	}
}

func (h holed) Write(p []byte) (int, error) {
	if h.hole.Load() {
		return len(p), nil
	}
	return h.Conn.Write(p)
}
