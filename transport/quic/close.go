package quic

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// CloseWrite ends this side's half of the stream: the peer reads io.EOF after all that was written. Reading goes on.
// It waits for Writes in progress, and not for the peer. Later Writes fail with an error that matches syscall.EPIPE.
func (c *Conn) CloseWrite() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if isDone(c.closed) {
		return c.opError("close", net.ErrClosed)
	}
	if err := c.stream.Close(); err != nil { // the peer has stopped reading
		return c.opError("close", fault{text: "the peer has closed the connection", kind: syscall.ECONNRESET})
	}
	return nil
}

// SetLinger sets how long Close waits for the peer, in seconds, as on a [net.TCPConn]. Negative is the default, 5 s.
// With 0 Close does not wait: it drops what the peer has not received yet, and the peer's calls fail with an error that
// matches syscall.ECONNRESET. Use 0 for a connection that is known to be broken.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if isDone(c.closed) {
		return c.opError("set", net.ErrClosed)
	}
	c.linger = defaultLinger
	if sec >= 0 {
		c.linger = time.Duration(sec) * time.Second
	}
	return nil
}

// Close ends both halves of the stream and the connection. Blocked Reads and Writes return at once with an error that
// matches [net.ErrClosed]. It then waits until the peer's machine has everything that was written, whether or not
// the peer's program reads: normally one round trip, at most the linger time (5 s, see SetLinger). It takes that long
// if the peer is gone, or if its receive window is full and its program does not read.
//
// The error is nil if the peer has everything, or if the peer closed too and so wants no more. Otherwise what was
// written may be lost: the error matches syscall.ETIMEDOUT when the linger time passed, or says how the connection had
// broken. The connection is closed in any case. What the peer sent and nobody read is dropped, and its Writes fail.
// A second Close returns an error that matches net.ErrClosed.
func (c *Conn) Close() error {
	c.mu.Lock()
	if isDone(c.closed) {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	close(c.closed)
	linger := c.linger
	c.readDeadline.set(time.Time{})                // its timer would hold c until then
	_ = c.stream.SetWriteDeadline(time.Unix(1, 0)) // wakes a blocked Write
	c.mu.Unlock()
	defer c.sock.release()

	if linger == 0 {
		c.abort(codeAborted, "aborted")
		return nil
	}
	// The three of them mostly share a packet: what the peer needs to close on its side, it has even if the packet
	// that closes the connection gets lost.
	c.writeMu.Lock()
	_ = c.stream.Close()   // fails only if the peer wants no more
	c.stream.CancelRead(0) // wakes a blocked Read
	c.sendConfirmation()
	c.writeMu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), linger)
	defer cancel()
	_, err := c.qc.AcceptUniStream(ctx)
	var app *quicgo.ApplicationError
	switch {
	case err == nil, errors.As(err, &app) && app.Remote && app.ErrorCode == codeClosed:
		c.abort(codeClosed, "")
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		c.abort(codeAborted, "not everything was received in time")
		err = fault{
			text: "the peer did not confirm within " + linger.String() + " that it has everything",
			kind: syscall.ETIMEDOUT,
		}
	}
	if !c.wrote.Load() {
		return nil
	}
	return c.failure("close", err)
}

// CloseNow is Close that does not wait, as after SetLinger(0): what the peer has not received yet is dropped. It also
// cuts short a Close that is waiting, and then returns an error that matches [net.ErrClosed], as that does if anything was
// written.
func (c *Conn) CloseNow() error {
	if err := c.SetLinger(0); err != nil {
		c.abort(codeAborted, "aborted") // does nothing unless Close is waiting
		return err
	}
	return c.Close()
}

// abort closes the QUIC connection, without a wait for anything. What is in flight is lost.
func (c *Conn) abort(code quicgo.ApplicationErrorCode, text string) {
	_ = c.qc.CloseWithError(code, text) // never fails
}
