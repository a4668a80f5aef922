package datagram

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// Sizes of the wire, in bytes.
const (
	// HeaderSize is the length of a frame's header.
	HeaderSize = 8
	// DefaultMaxPayload is the largest payload unless Options say otherwise: 16 MiB.
	DefaultMaxPayload = 16 << 20
	// MaxControl is the length of the longest control frame, header included.
	MaxControl = 1024

	// sizeOverhead is what the size field counts besides the payload: version and recipient.
	sizeOverhead = 4
	// maxWirePayload is the largest payload that the size field can express.
	maxWirePayload = math.MaxUint32 - sizeOverhead
)

// What the version field of a frame says.
const (
	// Version is a frame that carries a datagram.
	Version = 1
	// ControlVersion is a control frame of the session protocol: its recipient field is the frame's kind, and its
	// payload is for that protocol to read. Only Reader.Frames yields such frames, and only with Options.Control.
	ControlVersion = 2
)

// Datagram is one message: a tag that the application chooses for each type of message, and the bytes, of which
// there may be none.
type Datagram struct {
	Recipient uint16

	// Redelivered is for package reconnect, which sets it on what it delivers if that may have been delivered before, in a
	// session that was lost. It is not sent.
	Redelivered bool

	Payload []byte
}

// Clone returns a copy of d whose payload shares no memory with d's. Use it to keep a small datagram for long: a
// received payload is a slice of the buffer that it arrived in, and keeps all of that buffer alive.
func (d Datagram) Clone() Datagram {
	d.Payload = bytes.Clone(d.Payload)
	return d
}

// String describes d without its content, as "recipient 7, 5 bytes".
func (d Datagram) String() string {
	return fmt.Sprintf("recipient %d, %d bytes", d.Recipient, len(d.Payload))
}

// Header is the fixed first part of a frame.
type Header struct {
	Size      uint32 // bytes after the size field: 4 + payload length
	Version   uint16
	Recipient uint16
}

// ParseHeader reads a header from the first HeaderSize bytes of b. It checks nothing; it panics if b is shorter.
func ParseHeader(b []byte) Header {
	v := binary.BigEndian.Uint64(b)
	return Header{Size: uint32(v >> 32), Version: uint16(v >> 16), Recipient: uint16(v)}
}

// Append appends the 8 bytes of h to dst.
func (h Header) Append(dst []byte) []byte {
	return binary.BigEndian.AppendUint64(dst, h.bits())
}

func (h Header) bits() uint64 {
	return uint64(h.Size)<<32 | uint64(h.Version)<<16 | uint64(h.Recipient)
}

// headerBits is the header of a datagram as one big-endian word. The payload's length must have been checked.
func headerBits(recipient uint16, payload int) uint64 {
	return Header{Size: uint32(payload + sizeOverhead), Version: Version, Recipient: recipient}.bits()
}

// Append appends the frame of d to dst and returns the longer slice. A payload that the size field cannot express,
// 4,294,967,292 bytes or more, is an error that matches ErrTooLarge, and dst is returned as it was. The payload is
// copied.
func Append(dst []byte, d Datagram) ([]byte, error) {
	if err := checkSend(len(d.Payload), maxWirePayload); err != nil {
		return dst, err
	}
	dst = binary.BigEndian.AppendUint64(dst, headerBits(d.Recipient, len(d.Payload)))
	return append(dst, d.Payload...), nil
}

// Parse takes the frame at the start of src. The payload is a slice of src, and rest is what follows the frame.
//
// An empty src is io.EOF; one that ends before its first frame does is io.ErrUnexpectedEOF. A frame that breaks the
// rules of the wire is a *FrameError. On any error rest is src. There is no limit on the payload other than src.
func Parse(src []byte) (d Datagram, rest []byte, err error) {
	if len(src) == 0 {
		return Datagram{}, src, io.EOF
	}
	d, n, _, err := parse(src, maxWirePayload, false)
	if err != nil {
		return Datagram{}, src, err
	}
	if n == 0 {
		return Datagram{}, src, io.ErrUnexpectedEOF
	}
	return d, src[n:], nil
}

// parse takes the frame at the start of src. n is its length, or 0 if src holds only a part of it: need is then the
// length that src must reach before anything more can be said. limit is that of datagrams; control lets control frames
// through, which have their own.
//
// A header is judged as soon as the bytes that condemn it are there: size after 4 bytes, version and then the
// limit after 6. What is said so does not depend on how the stream was cut, and the 7 bytes of a TLS alert are enough
// to name it.
func parse(src []byte, limit uint64, control bool) (d Datagram, n, need int, err error) {
	if len(src) < 4 {
		return Datagram{}, 0, 4, nil
	}
	size := uint64(binary.BigEndian.Uint32(src))
	switch {
	case size < sizeOverhead:
		return Datagram{}, 0, 0, headerError(ErrSize, src, limit)
	case len(src) < 6:
		return Datagram{}, 0, 6, nil
	}
	switch version := binary.BigEndian.Uint16(src[4:]); {
	case version == Version:
	case version == ControlVersion && control:
		limit = MaxControl - HeaderSize
	default:
		return Datagram{}, 0, 0, headerError(ErrVersion, src, limit)
	}
	switch {
	case size-sizeOverhead > limit:
		return Datagram{}, 0, 0, headerError(ErrTooLarge, src, limit)
	case len(src) < HeaderSize:
		return Datagram{}, 0, HeaderSize, nil
	}
	frame := size - sizeOverhead + HeaderSize
	if frame > uint64(len(src)) {
		// Options.limit keeps this an int on every platform; Parse has no limit, and does not look at need.
		return Datagram{}, 0, int(min(frame, math.MaxInt)), nil
	}
	n = int(frame)
	return Datagram{Recipient: binary.BigEndian.Uint16(src[6:]), Payload: src[HeaderSize:n:n]}, n, 0, nil
}
