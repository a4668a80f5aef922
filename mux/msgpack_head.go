package mux

import "encoding/binary"

// msgpackHead is the beginning of a value: size bytes, behind which there are body bytes that say nothing of
// structure, and then so many values that belong to it.
type msgpackHead struct {
	size   int // 0: no value begins like this
	body   uint64
	values uint64
	nests  bool // an array or a map
	pairs  bool // a map
	ext    bool // body is that of an extension
}

// head reads the head of the value at the start of src, which is not empty. If src is shorter than the head only its size
// is right.
func head(src []byte) msgpackHead {
	code := src[0]
	switch {
	case code <= 0x7f, code >= 0xe0: // numbers
		return msgpackHead{size: 1}
	case code <= 0x8f:
		return msgpackHead{size: 1, values: 2 * uint64(code&0x0f), nests: true, pairs: true}
	case code <= 0x9f:
		return msgpackHead{size: 1, values: uint64(code & 0x0f), nests: true}
	case code <= 0xbf: // a string
		return msgpackHead{size: 1, body: uint64(code & 0x1f)}
	}
	switch code {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return msgpackHead{size: 1}
	case 0xc4, 0xd9: // bytes and strings, with a length of 8, 16 or 32 bits
		return msgpackHead{size: 2, body: length(src, 1)}
	case 0xc5, 0xda:
		return msgpackHead{size: 3, body: length(src, 2)}
	case 0xc6, 0xdb:
		return msgpackHead{size: 5, body: length(src, 4)}
	case 0xc7, 0xc8, 0xc9: // extensions, likewise, and their type
		n := 1 << (code - 0xc7)
		return msgpackHead{size: 2 + n, body: length(src, n), ext: true}
	case 0xca, 0xce, 0xd2: // numbers
		return msgpackHead{size: 5}
	case 0xcb, 0xcf, 0xd3:
		return msgpackHead{size: 9}
	case 0xcc, 0xd0:
		return msgpackHead{size: 2}
	case 0xcd, 0xd1:
		return msgpackHead{size: 3}
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8: // extensions of 1, 2, 4, 8 and 16 bytes
		return msgpackHead{size: 2, body: 1 << (code - 0xd4), ext: true}
	case 0xdc:
		return msgpackHead{size: 3, values: length(src, 2), nests: true}
	case 0xdd:
		return msgpackHead{size: 5, values: length(src, 4), nests: true}
	case 0xde:
		return msgpackHead{size: 3, values: 2 * length(src, 2), nests: true, pairs: true}
	case 0xdf:
		return msgpackHead{size: 5, values: 2 * length(src, 4), nests: true, pairs: true}
	}
	return msgpackHead{} // 0xc1
}

// length reads the n bytes behind the first; 0 if they are not all there.
func length(src []byte, n int) uint64 {
	if len(src) < 1+n {
		return 0
	}
	switch src = src[1:]; n {
	case 1:
		return uint64(src[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(src))
	default:
		return uint64(binary.BigEndian.Uint32(src))
	}
}
