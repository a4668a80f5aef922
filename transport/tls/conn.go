package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/towline-mq/towline/internal/trywrite"
)

const (
	// closeWait is how long Close lets a peer that does not read hold it up. Crypto/tls alone would wait for 5 s.
	closeWait = time.Second

	// writePiece is how much of a Write goes to crypto/tls at once: a full record.
	writePiece = 16 << 10
)

// Conn is a TLS connection whose handshake is done. It is a [net.Conn] of which all methods may be called from several
// goroutines at once.
//
// It does as crypto/tls's own Conn does, with four differences. A Write that met its deadline does not spoil the
// connection: a later one goes on where it stopped. An alert of the peer, read as an error, is a crypto/tls.AlertError
// to errors.As. The end of a connection is io.EOF only if the peer said so. And Close waits for a peer that does not
// read for one second at most.
type Conn struct {
	tls  *tls.Conn
	wire *wire

	writing  sync.Mutex  // held by Write, for all of its pieces
	finished atomic.Bool // CloseWrite was called

	mu            sync.Mutex
	writeDeadline time.Time // as the caller set it
}

var errTruncated = fmt.Errorf("tls: the connection ended without close_notify: %w", io.ErrUnexpectedEOF)

func newConn(raw net.Conn, cfg *tls.Config, role func(net.Conn, *tls.Config) *tls.Conn) *Conn {
	w := &wire{Conn: raw, try: trywrite.New(raw)}
	return &Conn{tls: role(w, cfg), wire: w}
}

// ConnectionState tells what was agreed and who the peer is: PeerCertificates as they came, VerifiedChains as they were
// verified (empty where a fingerprint was checked instead), NegotiatedProtocol. Its ExportKeyingMaterial derives the
// same bytes on both sides, which binds what is signed over them to this connection. It does not block.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// NetConn returns the connection that TLS runs on, such as the *[net.TCPConn], for its options. Reading from it,
// writing to it and closing it spoil the TLS connection.
func (c *Conn) NetConn() net.Conn { return c.wire.Conn }

// LocalAddr returns the local address of the connection that TLS runs on.
func (c *Conn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr returns the peer's address of the connection that TLS runs on.
func (c *Conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// Read reads what the peer wrote. It blocks until there is something, the peer has closed its side (io.EOF), the read
// deadline passes, or the connection is closed.
//
// A connection that ended without the peer's close_notify is an error that matches io.ErrUnexpectedEOF, wherever it
// ended: somebody on the way may have cut it off, or the peer died.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		err = withAlert(err)
	case c.wire.ended.Load():
		// crypto/tls stops reading at a close_notify: whoever needed the end of the connection saw none.
		err = errTruncated
	}
	return n, err
}

// Write writes all of p. It blocks while the peer does not read, until the write deadline passes or the connection is
// closed.
//
// An error with a Timeout leaves the connection whole. The n bytes that Write then returns have been taken: they will
// go out, with the last of them maybe still held back, before the bytes of the next Write, and at the latest at Close.
// Any other error is final.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		if c.finished.Load() {
			return n, c.writeError(syscall.EPIPE)
		}
		if c.writeDeadlinePassed() {
			return n, c.writeError(os.ErrDeadlineExceeded)
		}
		if err := c.wire.resume(); err != nil {
			return n, err
		}
		m, err := c.tls.Write(p[n:min(len(p), n+writePiece)])
		n += m
		if err != nil {
			return n, err
		}
		if err := c.wire.cutShort(); err != nil {
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// TryWrite writes as much of p as goes without waiting: when the connection takes no more, or another Write is under way,
// n < len(p) with a nil error. The n bytes have been taken: what of them the connection does not take yet goes out when it
// does, before the bytes of the next Write, and at the latest at Close. Errors are those of Write.
//
// TLS over what is neither a TCP nor a Unix socket, nor has a TryWrite of its own, takes nothing.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	if c.wire.try == nil || !c.writing.TryLock() {
		return 0, nil
	}
	if c.finished.Load() {
		c.writing.Unlock()
		return 0, c.writeError(syscall.EPIPE)
	}
	if c.writeDeadlinePassed() {
		c.writing.Unlock()
		return 0, c.writeError(os.ErrDeadlineExceeded)
	}
	c.wire.hurry()
	for n < len(p) {
		if err = c.wire.resume(); err != nil {
			break
		}
		var m int
		m, err = c.tls.Write(p[n:min(len(p), n+writePiece)])
		if n += m; err != nil {
			break
		}
	}
	if errors.Is(err, trywrite.ErrWouldBlock) {
		err = nil
	}
	if !c.wire.calm() {
		c.writing.Unlock()
		return n, err
	}
	go func() { // whoever writes next waits for it
		defer c.writing.Unlock()
		_ = c.wire.resume() // the next Write has the error too
	}()
	return n, err
}

// CloseWrite tells the peer, by close_notify, that nothing more will be written; the peer's Read returns io.EOF, and
// its bytes can still be read here. It blocks for 5 s at most if the peer does not read, behind the part that a Write under
// way is at; what that has not come to, and a later Write, fail with an error that matches [syscall.EPIPE].
func (c *Conn) CloseWrite() error {
	c.finished.Store(true)
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	return c.wire.cutShort()
}

// Close tells the peer so by close_notify and closes the connection. Reads and writes under way return errors that
// match [net.ErrClosed]. It blocks for 1 s at most, if the peer does not read; the error then matches
// [os.ErrDeadlineExceeded], and the peer sees the connection end without a close_notify, as it does if a Write was
// under way. A second Close does no harm and returns an error that matches net.ErrClosed.
func (c *Conn) Close() error {
	late := time.AfterFunc(closeWait, func() { _ = c.wire.Close() })
	left := c.wire.leave(closeWait)
	err := c.tls.Close()
	if !late.Stop() {
		return fmt.Errorf("tls: closed without close_notify, which %s did not take within %v: %w", c.RemoteAddr(), closeWait, os.ErrDeadlineExceeded)
	}
	if err == nil && left != nil {
		err = fmt.Errorf("tls: closed without the last bytes, which %s did not take: %w", c.RemoteAddr(), left)
	}
	return err
}

// SetDeadline sets both the read and the write deadline. The zero time means none.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets when Read gives up, with an error that matches [os.ErrDeadlineExceeded]. It also ends a Read
// that blocks now. The zero time means never. A Read after such an error goes on as if nothing had happened.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.wire.SetReadDeadline(t) }

// SetWriteDeadline sets when Write gives up, with an error that matches [os.ErrDeadlineExceeded]. It also ends a Write
// that blocks now. The zero time means never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.wire.SetWriteDeadline(t); err != nil {
		return err
	}
	c.writeDeadline = t
	return nil
}

func (c *Conn) writeError(err error) error {
	return &net.OpError{Op: "write", Net: c.wire.LocalAddr().Network(), Source: c.wire.LocalAddr(), Addr: c.wire.RemoteAddr(), Err: err}
}

func (c *Conn) writeDeadlinePassed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.writeDeadline.IsZero() && !time.Now().Before(c.writeDeadline)
}
