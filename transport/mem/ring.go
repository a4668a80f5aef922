package mem

// minRing is the first allocation of a ring; it doubles from there, so that an idle connection costs next to nothing.
const minRing = 4 << 10

// A ring is a bounded first-in first-out queue of bytes. The link that owns it guards it.
type ring struct {
	buf   []byte
	off   int // index in buf of the oldest byte
	n     int // bytes held
	limit int // largest n
}

func (r *ring) room() int { return r.limit - r.n }

// put appends p, which must not be longer than room.
func (r *ring) put(p []byte) {
	if r.n+len(p) > len(r.buf) {
		r.grow(r.n + len(p))
	}
	tail := r.index(r.n)
	k := copy(r.buf[tail:], p)
	copy(r.buf, p[k:])
	r.n += len(p)
}

// take moves the oldest bytes into p, as many as fit, and says how many.
func (r *ring) take(p []byte) int {
	p = p[:min(len(p), r.n)]
	k := copy(p, r.buf[r.off:])
	copy(p[k:], r.buf)
	r.n -= len(p)
	r.off = r.index(len(p))
	if r.n == 0 {
		r.off = 0 // start over: one copy instead of two, and memory that is still in the cache
	}
	return len(p)
}

// at points to the i-th oldest byte.
func (r *ring) at(i int) *byte { return &r.buf[r.index(i)] }

// index maps the i-th oldest byte, 0 ≤ i ≤ len(buf), to its place in buf.
func (r *ring) index(i int) int {
	i += r.off
	if i >= len(r.buf) {
		i -= len(r.buf)
	}
	return i
}

// drop forgets all bytes and gives the memory back.
func (r *ring) drop() { r.buf, r.off, r.n = nil, 0, 0 }

func (r *ring) grow(need int) {
	size := max(len(r.buf), minRing)
	for size < need {
		size *= 2
	}
	buf := make([]byte, min(size, r.limit))
	k := copy(buf[:r.n], r.buf[r.off:])
	copy(buf[k:r.n], r.buf)
	r.buf, r.off = buf, 0
}
