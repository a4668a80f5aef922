package quic

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// Conn is the [net.Conn] that [Dialer.DialContext] and the listener's Accept return: assert to *Conn, or to an
// interface with the method wanted, to reach what net.Conn lacks. All methods may be called at any time by any number
// of goroutines; concurrent Reads, and concurrent Writes, take turns.
type Conn struct {
	qc     *quicgo.Conn
	stream *quicgo.Stream
	sock   *socket
	local  net.Addr
	remote net.Addr
	idle   time.Duration

	// Owned by whoever holds readMu: readers, until the peer's FIN arrives and drain takes the stream from them.
	readMu  sync.Mutex
	drained bool

	tail         tail
	readDeadline deadline // applies to tail; the stream has the same one

	// Held by whoever writes to the stream or ends it.
	writeMu sync.Mutex
	wrote   atomic.Bool

	// mu keeps the user's deadlines off the stream once Close or drain has set its own.
	mu       sync.Mutex
	closed   chan struct{}
	draining bool
	linger   time.Duration

	confirm sync.Once // sends the empty stream
}

func newConn(qc *quicgo.Conn, stream *quicgo.Stream, sock *socket, local net.Addr, idle time.Duration) *Conn {
	c := &Conn{
		qc:     qc,
		stream: stream,
		sock:   sock,
		local:  local,
		remote: qc.RemoteAddr(),
		idle:   idle,
		closed: make(chan struct{}),
		linger: defaultLinger,
	}
	// The callback runs on the connection's own goroutine and must not block.
	stream.SetReceiveFinalSizeCallback(func(int64) { go c.drain() })
	return c
}

// Read reads what the peer wrote. It blocks until at least one byte has arrived, the read deadline passes, the
// connection is closed by either side or broken. After the peer's CloseWrite or Close, and once all is read, the error
// is [io.EOF]; later failures of the connection do not change that. A peer that aborted or vanished gives an error that
// matches syscall.ECONNRESET or syscall.ETIMEDOUT, and what had not been read by then may be lost.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if n > 0 || err == nil {
		return n, nil // a lasting error comes again
	}
	if err == io.EOF && !isDone(c.closed) {
		return 0, io.EOF
	}
	return 0, c.opError("read", err)
}

func (c *Conn) read(p []byte) (int, error) {
	c.readMu.Lock()
	if isDone(c.closed) {
		c.readMu.Unlock()
		return 0, net.ErrClosed
	}
	if c.drained {
		c.readMu.Unlock()
		return c.tail.read(p, &c.readDeadline, c.closed)
	}
	defer c.readMu.Unlock()
	return c.stream.Read(p)
}

// Write writes p. It blocks while the peer's receive window (512 KiB to 16 MiB of unread bytes) or the network is full,
// until the write deadline passes or the connection is closed or broken; the count then tells how much of p was
// accepted. It may return before the bytes are sent. Once the peer has closed, the error matches syscall.ECONNRESET;
// after CloseWrite, syscall.EPIPE. p is not kept.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if isDone(c.closed) {
		return 0, c.opError("write", net.ErrClosed)
	}
	n, err := c.stream.Write(p)
	if n > 0 {
		c.wrote.Store(true)
	}
	if err != nil {
		return n, c.opError("write", err)
	}
	return n, nil
}

// LocalAddr returns the *[net.UDPAddr] of this side.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the *[net.UDPAddr] that the peer had when the connection was made.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// ConnectionState returns the state of the TLS handshake: the peer's certificates and verified chains, the protocol
// agreed on, and ExportKeyingMaterial, which gives both sides the same secret. It does not block.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.qc.ConnectionState().TLS }

// SetDeadline sets the read and the write deadline. See [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, true, true) }

// SetReadDeadline sets the point in time at which blocked and future Reads fail with an error that matches
// [os.ErrDeadlineExceeded]. The zero t means never. The connection stays usable.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, true, false) }

// SetWriteDeadline is SetReadDeadline for Writes. A Write that timed out may have sent part of its bytes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, false, true) }

func (c *Conn) setDeadline(t time.Time, read, write bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isDone(c.closed) {
		return c.opError("set", net.ErrClosed)
	}
	if read {
		c.readDeadline.set(t)
		if !c.draining {
			_ = c.stream.SetReadDeadline(t) // never fails
		}
	}
	if write {
		_ = c.stream.SetWriteDeadline(t) // never fails
	}
	return nil
}

// drain runs once the length of the peer's half is known, because its FIN (or a reset) arrived. It takes what is unread
// out of the QUIC stream, which would lose it when the connection closes, and then tells the peer that it may go.
// It ends with the stream, at the latest when the connection dies.
func (c *Conn) drain() {
	c.readMu.Lock() // a Read in progress ends, since data or a deadline ends it
	c.drained = true
	c.readMu.Unlock()
	c.mu.Lock()
	c.draining = true
	_ = c.stream.SetReadDeadline(time.Time{}) // the user's deadline is the tail's business now
	c.mu.Unlock()

	buf := make([]byte, 512)
	for {
		n, err := c.stream.Read(buf)
		switch {
		case n == len(buf):
			c.tail.push(buf)
			buf = make([]byte, min(2*len(buf), 64<<10))
		case n > 0:
			c.tail.push(bytes.Clone(buf[:n]))
		}
		if err != nil {
			c.tail.finish(err)
			break
		}
	}
	c.sendConfirmation()
}

// sendConfirmation tells the peer that it need not keep its half of the stream any longer.
func (c *Conn) sendConfirmation() {
	c.confirm.Do(func() {
		if s, err := c.qc.OpenUniStream(); err == nil { // on error the connection is gone, or the peer wants none
			_ = s.Close()
		}
	})
}
