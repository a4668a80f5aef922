package datagram

// What the tests outside of the package need to know about its inside.
const (
	SegmentSize = segmentSize
	MaxAhead    = maxAhead
	MaxSlab     = maxSlab
	LargeFrame  = largeFrame
	PeekSize    = peekSize
)

// Segments returns how many pooled segments b holds.
func (b *Buffer) Segments() int { return len(b.segs) }

// Held returns how many bytes r has memory for.
func (r *Reader) Held() int {
	n := cap(r.slab)
	if r.large != nil {
		n += len(r.large.segs) * segmentSize
	}
	return n
}

// Rewind makes r yield again all that lies in its slab: for benchmarks that take frames without reading any.
func (r *Reader) Rewind() { r.start = 0 }
