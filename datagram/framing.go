package datagram

import (
	"bytes"
	"fmt"
	"math"
)

// Options set what a Reader, a Writer and a Buffer take. Both ends of a stream must agree on them. The zero value, and
// nil where a pointer is asked for, is the 8-byte header and payloads of up to DefaultMaxPayload.
type Options struct {
	// MaxPayload is the largest payload in bytes, sent or received. 0 or less: DefaultMaxPayload. The largest
	// possible is 4,294,967,291 (2,147,483,639 where int has 32 bits); higher values mean that.
	MaxPayload int

	// Framing replaces the 8-byte header, for peers that do not speak it. nil: the 8-byte header.
	Framing Framing

	// Control lets frames of version 2, the control frames of the session protocol, through Reader.Frames: up to
	// MaxControl bytes each, header included, whatever MaxPayload is. Next and Read refuse them all the same. false: a
	// control frame is ErrVersion everywhere. Writer and Buffer do not look at it, nor does a Reader with a Framing.
	Control bool
}

// limit is the largest payload as a number that stays an int after a header's length is added.
func (o *Options) limit() uint64 {
	if o == nil || o.MaxPayload <= 0 {
		return DefaultMaxPayload
	}
	return min(uint64(o.MaxPayload), maxWirePayload, math.MaxInt-HeaderSize)
}

func (o *Options) control() bool { return o != nil && o.Control }

func (o *Options) framing() Framing {
	if o == nil {
		return nil
	}
	return o.Framing
}

// Framing is a codec between datagrams and a stream of bytes. Implementations hold no state of one stream: the same
// value serves both directions of many connections at once. Its methods are called under locks: they must not panic,
// nor wait for anything.
type Framing interface {
	// Append appends the frame of d to dst and returns the longer slice. A datagram that cannot be expressed
	// is an error that matches ErrFraming; dst is then returned as it was. A frame has one byte at least.
	// d.Payload must not be kept.
	Append(dst []byte, d Datagram) ([]byte, error)

	// Next takes the frame at the start of src.
	//
	// n > 0: the frame took the first n bytes of src, and d is its datagram; the payload may be a slice of src.
	// n == 0: src ends before the frame does. need is the length that src must reach before Next can say more; where
	// that is not known, len(src)+1. On an error the stream is unusable.
	//
	// The first seen bytes of src were there at the previous call, which asked for more, so that a search for a
	// delimiter need not start again.
	//
	// The Reader holds the limit on payloads: Next need not. A frame of which only a part is there may ask for 4 KiB
	// more than the largest payload, and no more: that is the room for what a framing adds.
	Next(src []byte, seen int) (d Datagram, n, need int, err error)
}

// Lines is a Framing of text: each datagram is a line that ends with a newline, which is not part of the payload, so
// that nc and telnet can talk to a program. A carriage return stays in the payload.
//
// A payload that contains a newline cannot be sent, nor can a recipient other than the one given here: both are errors
// that match ErrFraming. A stream that ends without a newline ended inside a line: io.ErrUnexpectedEOF.
type Lines struct {
	// Recipient is the tag of all datagrams: received lines get it, and no other can be sent.
	Recipient uint16
}

// Append implements Framing.
func (l Lines) Append(dst []byte, d Datagram) ([]byte, error) {
	if d.Recipient != l.Recipient {
		return dst, l.refuse(d, fmt.Sprintf("recipient %d cannot be sent as a line, only %d can", d.Recipient, l.Recipient))
	}
	if i := bytes.IndexByte(d.Payload, '\n'); i >= 0 {
		return dst, l.refuse(d, fmt.Sprintf("a newline at byte %d of the payload would end the line", i))
	}
	dst = append(dst, d.Payload...)
	return append(dst, '\n'), nil
}

func (l Lines) refuse(d Datagram, detail string) error {
	return &FrameError{Err: ErrFraming, Sending: true, Value: uint64(len(d.Payload)), Detail: detail}
}

// Next implements Framing.
func (l Lines) Next(src []byte, seen int) (d Datagram, n, need int, err error) {
	i := bytes.IndexByte(src[seen:], '\n')
	if i < 0 {
		return Datagram{}, 0, len(src) + 1, nil
	}
	i += seen
	return Datagram{Recipient: l.Recipient, Payload: src[:i:i]}, i + 1, 0, nil
}
