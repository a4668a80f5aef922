package datagram

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// What can be wrong with a frame. Errors of this package match one of these with errors.Is, and carry the offending
// values as a *FrameError.
var (
	// ErrTooLarge is a payload above the limit: when sending nothing was written and the stream goes on; when
	// receiving the stream is unusable from there.
	ErrTooLarge = errors.New("payload too large")
	// ErrVersion is a frame whose version is not one that the reader was told to take.
	ErrVersion = errors.New("unknown version")
	// ErrSize is a size field below 4, which cannot even cover version and recipient.
	ErrSize = errors.New("size field below 4")
	// ErrFraming is a datagram that a Framing cannot express, or bytes that it cannot read.
	ErrFraming = errors.New("bad framing")
)

// FrameError says what is wrong with one frame, received or about to be sent.
type FrameError struct {
	Err     error  // ErrTooLarge, ErrVersion, ErrSize or ErrFraming
	Sending bool   // the frame was ours: nothing of it was written
	Header  []byte // received: up to the first 8 bytes of the frame
	Value   uint64 // the payload length, the version, or the size field
	Limit   uint64 // with ErrTooLarge: the largest payload allowed; MaxControl - HeaderSize for a control frame
	Detail  string // more for a person, such as what the peer seems to speak
}

// Error says what came, what was expected, and what the peer seems to be.
func (e *FrameError) Error() string {
	var b bytes.Buffer
	b.WriteString("datagram: ")
	if e.Sending {
		b.WriteString("not sent: ")
	} else {
		b.WriteString("received ")
	}
	switch e.Err {
	case ErrTooLarge:
		fmt.Fprintf(&b, "payload of %d bytes, the limit is %d", e.Value, e.Limit)
	case ErrVersion:
		fmt.Fprintf(&b, "version %d, expected %d", e.Value, Version)
	case ErrSize:
		fmt.Fprintf(&b, "size field %d, expected 4 or more", e.Value)
	default:
		fmt.Fprint(&b, e.Err)
	}
	if len(e.Header) > 0 {
		fmt.Fprintf(&b, " (header %x)", e.Header)
	}
	if e.Detail != "" {
		b.WriteString("; " + e.Detail)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *FrameError) Unwrap() error { return e.Err }

func checkSend(payload int, limit uint64) error {
	if uint64(payload) <= limit {
		return nil
	}
	return &FrameError{Err: ErrTooLarge, Sending: true, Value: uint64(payload), Limit: limit}
}

// headerError copies what it keeps of src, so that an error that is stored does not hold a buffer.
func headerError(kind error, src []byte, limit uint64) error {
	e := &FrameError{Err: kind, Header: bytes.Clone(src[:min(len(src), HeaderSize)])}
	size := uint64(binary.BigEndian.Uint32(src))
	switch kind {
	case ErrSize:
		e.Value = size
	case ErrVersion:
		e.Value = uint64(binary.BigEndian.Uint16(src[4:]))
		if e.Value == ControlVersion {
			e.Detail = "a control frame: the peer wants a session, and this connection has none"
		}
	case ErrTooLarge:
		e.Value, e.Limit = size-sizeOverhead, limit
		if binary.BigEndian.Uint16(src[4:]) == ControlVersion {
			e.Detail = "a control frame"
		}
	}
	return e
}

// explain guesses from the first bytes of a connection what a peer speaks that does not speak this protocol.
func explain(first []byte) string {
	tlsRecord := len(first) >= 3 && (first[0] == 0x15 || first[0] == 0x16) && first[1] == 3 && first[2] <= 4
	switch {
	case tlsRecord:
		return "the peer speaks TLS: dial tls:// or listen on tls://"
	case hasAnyPrefix(first, "HTTP/"):
		return "the peer is an HTTP server: check the port"
	case hasAnyPrefix(first, "PRI * HT", "GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "CONNECT ", "DELETE ", "PATCH "):
		return "the peer is an HTTP client: check the port"
	case hasAnyPrefix(first, "SSH-"):
		return "the peer speaks SSH: check the port"
	case hasAnyPrefix(first, "PROXY ", "\r\n\r\n\x00\r\nQUIT\n"):
		return "the peer sends a PROXY protocol header: wrap the listener in one that takes it"
	}
	return ""
}

// hasAnyPrefix compares as much of each prefix as b is long: a header may be condemned by its first 6 bytes.
func hasAnyPrefix(b []byte, prefixes ...string) bool {
	for _, p := range prefixes {
		n := min(len(p), len(b))
		if n >= 4 && string(b[:n]) == p[:n] {
			return true
		}
	}
	return false
}
