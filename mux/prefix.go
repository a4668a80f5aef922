package mux

import (
	"encoding/binary"
	"math"
	"time"
)

// prefix stands before the body of each datagram of a call's recipient, in big-endian:
//
//	byte  0      kind: 1 request, 2 reply, 3 error, 4 cancel
//	byte  1      0
//	bytes 2..3   an error's code; else 0
//	bytes 4..7   a request's time limit in milliseconds, 0 without; else 0
//	bytes 8..15  the call: chosen by its caller, new for each
type prefix struct {
	kind  uint8
	code  uint16
	limit uint32
	id    uint64
}

const prefixSize = 16

const (
	kindRequest = 1
	kindReply   = 2
	kindError   = 3
	kindCancel  = 4
)

func (p prefix) append(dst []byte) []byte {
	dst = append(dst, p.kind, 0)
	dst = binary.BigEndian.AppendUint16(dst, p.code)
	dst = binary.BigEndian.AppendUint32(dst, p.limit)
	return binary.BigEndian.AppendUint64(dst, p.id)
}

// parsePrefix takes the prefix off a payload. What must be 0 is not looked at.
func parsePrefix(b []byte) (p prefix, body []byte, ok bool) {
	if len(b) < prefixSize || b[0] < kindRequest || b[0] > kindCancel {
		return p, nil, false
	}
	return prefix{
		kind:  b[0],
		code:  binary.BigEndian.Uint16(b[2:]),
		limit: binary.BigEndian.Uint32(b[4:]),
		id:    binary.BigEndian.Uint64(b[8:]),
	}, b[prefixSize:], true
}

// limitOf is how a time limit is written: whole milliseconds, up, and 1 at least.
func limitOf(left time.Duration) uint32 {
	ms := (left + time.Millisecond - 1) / time.Millisecond
	return uint32(min(max(ms, 1), math.MaxUint32))
}
