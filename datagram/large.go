package datagram

import (
	"math/bits"
	"sync"
)

// large gathers a frame that is too long to take memory for on the word of its header. It fills pooled segments
// until less than maxAhead bytes are missing, then moves everything into one buffer of the frame's length, and the rest
// is read straight into that.
//
// Invariant: have <= size + behind. The last read into a segment may bring the beginning of the next frame, for which the
// frame's own buffer has room.
type large struct {
	size int // of the whole frame
	have int
	segs []segment
}

func newLarge(size int, begin []byte) *large {
	l := &large{size: size}
	for len(begin) > 0 {
		n := copy(l.room(), begin)
		l.add(n)
		begin = begin[n:]
	}
	return l
}

// behind is how much of the next frame a large frame's own buffer has room for.
const behind = peekSize - HeaderSize

// room returns where the next bytes go, never more than belong into the frame's own buffer.
func (l *large) room() []byte {
	if i := len(l.segs) - 1; i < 0 || l.segs[i].n == segmentSize {
		l.segs = append(l.segs, segment{b: segments.Get().(*[segmentSize]byte)})
	}
	s := &l.segs[len(l.segs)-1]
	return s.b[s.n:min(segmentSize, s.n+l.size+behind-l.have)]
}

// add counts n bytes that were read into room. It reports whether the frame's own buffer may be made now.
func (l *large) add(n int) bool {
	l.segs[len(l.segs)-1].n += n
	l.have += n
	return l.size-l.have <= maxAhead-peekSize
}

// join returns the buffer of the whole frame, with the bytes that have arrived, and gives the segments back.
func (l *large) join() (slab []byte, have int) {
	slab = frameSlab(l.size, l.have)
	for _, s := range l.segs {
		have += copy(slab[have:], s.b[:s.n])
		segments.Put(s.b)
	}
	l.segs = nil
	return slab, have
}

// releasedPools holds payloads that were given back, by the power of two that their capacity reaches.
var releasedPools [maxReleased - minReleased + 1]sync.Pool

// Released payloads are kept from 16 KiB to 16 MiB.
const (
	minReleased = 14
	maxReleased = 24
)

// Release gives the memory of a payload that a Reader returned back, to receive others in. Calling it is never
// necessary: memory that is not given back is collected as usual. It helps with payloads of 16 KiB and more, where
// taking new memory costs as much as reading the bytes; for smaller ones it does nothing. After it nobody may use
// d.Payload, or any slice of it.
func Release(d Datagram) {
	if n := cap(d.Payload); n >= 1<<minReleased && n < 2<<maxReleased {
		release(d.Payload[:n])
	}
}

func release(buf []byte) {
	releasedPools[bits.Len(uint(len(buf)))-1-minReleased].Put(&buf)
}

// frameSlab returns a buffer for a large frame of size bytes, of which have arrived, if possible with room for the
// beginning of the next one.
//
// Invariant: it is no longer than have + maxAhead, also when it comes from Release: what one connection gave back
// is no gift to the claims of another. It takes what has arrived. The caller sees to size <= have + maxAhead, and to have
// <= size + behind.
func frameSlab(size, have int) []byte {
	first := bits.Len(uint(size)) - 1
	for class := first; class <= min(first+1, maxReleased); class++ {
		buf, _ := releasedPools[class-minReleased].Get().(*[]byte)
		switch {
		case buf == nil:
		case len(*buf) < max(size, have):
			// Of no use here, and rarely of use elsewhere: sizes tend to repeat.
		case len(*buf) > have+maxAhead:
			releasedPools[class-minReleased].Put(buf)
		default:
			return *buf
		}
	}
	return make([]byte, min(size+behind, have+maxAhead))
}
