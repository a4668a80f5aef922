package datagram

// large gathers a frame that is too long to take memory for on the word of its header. It fills pooled segments
// until no more than maxAhead bytes are missing, then moves everything into one buffer of the frame's length, and the
// rest is read straight into that.
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

// room returns where the next bytes go.
func (l *large) room() []byte {
	if i := len(l.segs) - 1; i >= 0 && l.segs[i].n < segmentSize {
		return l.segs[i].b[l.segs[i].n:]
	}
	l.segs = append(l.segs, segment{b: segments.Get().(*[segmentSize]byte)})
	return l.segs[len(l.segs)-1].b[:]
}

// add counts n bytes that were read into room. It reports whether the frame's own buffer may be made now.
func (l *large) add(n int) bool {
	l.segs[len(l.segs)-1].n += n
	l.have += n
	return l.size-l.have <= maxAhead
}

// join returns the buffer of the whole frame, with the bytes that have arrived, and gives the segments back.
func (l *large) join() (slab []byte, have int) {
	slab = make([]byte, min(l.size+peekSize-HeaderSize, l.have+maxAhead))
	for _, s := range l.segs {
		have += copy(slab[have:], s.b[:s.n])
		segments.Put(s.b)
	}
	l.segs = nil
	return slab, have
}
