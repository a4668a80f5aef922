package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// fault is a failure in the standard library's words: a text for people and what errors.Is and errors.As find.
type fault struct {
	text  string
	kind  error // what it is
	cause error // what lies under it; may be nil
}

func (f fault) Error() string { return f.text }

func (f fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

// Timeout makes the Timeout method of the net.OpError around it work.
func (f fault) Timeout() bool {
	t, ok := f.kind.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// scene is what the text of an error needs to know about where it happened.
type scene struct {
	handshake time.Duration // not 0 during the handshake: its limit
	idle      time.Duration
	protos    []string // this side's application protocols
	peer      string
}

// opError wraps err, which a method of c met. Once c is closed, that is the reason for everything.
func (c *Conn) opError(op string, err error) error {
	if isDone(c.closed) {
		err = net.ErrClosed
	}
	return c.failure(op, err)
}

func (c *Conn) failure(op string, err error) error {
	err = scene{idle: c.idle}.explain(err)
	return &net.OpError{Op: op, Net: "quic", Source: c.local, Addr: c.remote, Err: err}
}

// explain translates err from quic-go's types, which wrap net.ErrClosed whatever happened, into the words that
// package transport promises. The result holds no type of quic-go.
func (s scene) explain(err error) error {
	var (
		stream    *quicgo.StreamError
		app       *quicgo.ApplicationError
		transport *quicgo.TransportError
		idle      *quicgo.IdleTimeoutError
		slow      *quicgo.HandshakeTimeoutError
		reset     *quicgo.StatelessResetError
		version   *quicgo.VersionNegotiationError
		known     fault
	)
	switch {
	case errors.As(err, &known), err == net.ErrClosed, err == io.EOF:
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &stream):
		if !stream.Remote {
			return net.ErrClosed
		}
		return fault{text: "connection reset: the peer has closed or aborted its side", kind: syscall.ECONNRESET}
	case errors.Is(err, quicgo.ErrStreamClosed):
		return fault{text: "broken pipe: CloseWrite was called", kind: syscall.EPIPE}
	case errors.As(err, &app):
		return explainApplication(app)
	case errors.As(err, &transport):
		return s.explainTransport(transport)
	case errors.As(err, &slow), errors.As(err, &idle) && s.handshake > 0:
		return s.noAnswer()
	case errors.As(err, &idle):
		return fault{
			text: fmt.Sprintf("connection timed out: nothing heard from the peer for %v", s.idle),
			kind: syscall.ETIMEDOUT,
		}
	case errors.As(err, &reset):
		return fault{
			text: "connection reset: the peer does not know this connection any more; was it started again?",
			kind: syscall.ECONNRESET,
		}
	case errors.As(err, &version):
		return fault{
			text: fmt.Sprintf("no QUIC version in common: this side speaks %v, the peer %v", version.Ours, version.Theirs),
			kind: errors.ErrUnsupported,
		}
	case errors.Is(err, quicgo.ErrTransportClosed), errors.Is(err, quicgo.ErrServerClosed):
		return explainSocket(err)
	}
	return err
}

// noAnswer is a handshake that got no answer before its limit.
func (s scene) noAnswer() error {
	return fault{
		text: fmt.Sprintf("no answer over UDP from %s within %v: is the server up, and is UDP allowed on the way?",
			s.peer, s.handshake),
		kind: syscall.ETIMEDOUT,
	}
}

func explainApplication(e *quicgo.ApplicationError) error {
	if !e.Remote {
		return net.ErrClosed
	}
	switch e.ErrorCode {
	case codeClosed:
		return fault{text: "connection reset: the peer has closed the connection", kind: syscall.ECONNRESET}
	case codeBusy:
		return fault{text: "connection refused: the peer's listener is full or closed", kind: syscall.ECONNREFUSED}
	}
	text := fmt.Sprintf("connection reset: the peer aborted with code %d", uint64(e.ErrorCode))
	if e.ErrorMessage != "" {
		text += fmt.Sprintf(" (%q)", e.ErrorMessage) // quoted: the peer wrote it
	}
	return fault{text: text, kind: syscall.ECONNRESET}
}

const (
	alertCertificateRequired   = 116
	alertNoApplicationProtocol = 120
)

func (s scene) explainTransport(e *quicgo.TransportError) error {
	const firstAlert, lastAlert = 0x100, 0x1ff
	switch {
	case e.ErrorCode >= firstAlert && e.ErrorCode <= lastAlert:
		return s.explainAlert(tls.AlertError(e.ErrorCode-firstAlert), e) //nolint:gosec // 0 to 255
	case e.ErrorCode == quicgo.ConnectionRefused && e.Remote:
		return fault{text: "connection refused: the peer takes no more connections", kind: syscall.ECONNREFUSED}
	case e.Remote:
		return fault{text: fmt.Sprintf("connection reset: the peer reports %q", e.Error()), kind: syscall.ECONNRESET}
	}
	return fault{text: "connection reset: broken QUIC from the peer: " + e.Error(), kind: syscall.ECONNRESET}
}

// explainAlert handles the failure of a TLS handshake.
func (s scene) explainAlert(alert tls.AlertError, e *quicgo.TransportError) error {
	cause := tlsCause(e)
	switch {
	case alert == alertNoApplicationProtocol:
		text := "TLS: no application protocol in common: this side speaks " + strings.Join(s.protos, ", ")
		if e.Remote {
			text += "; the peer refused (" + alert.Error() + ")"
		} else if cause != nil {
			text += "; " + cause.Error()
		}
		return fault{text: text, kind: alert, cause: cause}
	case !e.Remote && cause != nil:
		return fault{text: cause.Error(), kind: alert, cause: cause}
	case !e.Remote:
		return fault{text: alert.Error(), kind: alert}
	case alert == alertCertificateRequired:
		return fault{text: "TLS: the peer demands a client certificate (" + alert.Error() + ")", kind: alert}
	}
	return fault{text: "TLS: the peer refused the handshake (" + alert.Error() + ")", kind: alert}
}

// tlsCause returns the error of crypto/tls inside e, or nil.
func tlsCause(e *quicgo.TransportError) error {
	for _, err := range e.Unwrap() {
		if err != nil && err != net.ErrClosed {
			return err
		}
	}
	return nil
}

// explainSocket handles a UDP socket that ended: because it was closed here, or because the system failed it.
func explainSocket(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && !errors.Is(op, net.ErrClosed) {
		return fault{text: "the UDP socket failed: " + op.Error(), kind: op.Err}
	}
	return net.ErrClosed
}
