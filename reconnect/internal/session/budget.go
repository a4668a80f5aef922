package session

import "math"

// Budget counts the bytes that a listener's sessions have promised to take from their peers: their receive windows.
// What was promised is counted, not what has come, so peers that use all of their credit at once find the memory there.
//
// Each session's smallest window is its floor and is always granted; what it would like beyond that is reserved, and
// may be refused. So floors can take Used above Limit, but nothing else can.
//
// It has no lock: the caller guards it.
type Budget struct {
	limit uint64
	used  uint64
}

// NewBudget returns a budget of limit bytes; 0 is no limit.
func NewBudget(limit uint64) Budget {
	return Budget{limit: limit}
}

// Floor counts n bytes whatever the limit says.
func (b *Budget) Floor(n uint64) {
	if n > math.MaxUint64-b.used {
		panic("session: more bytes promised than can be counted")
	}
	b.used += n
}

// Reserve counts n bytes if all of them are free, and says whether.
func (b *Budget) Reserve(n uint64) bool {
	if n > b.free() {
		return false
	}
	b.used += n
	return true
}

// ReserveUpTo counts as many of n bytes as are free, and returns how many.
func (b *Budget) ReserveUpTo(n uint64) uint64 {
	n = min(n, b.free())
	b.used += n
	return n
}

// Release gives back n bytes of any of the three above. It panics if that is more than is used: a count that is wrong
// once would either refuse windows for ever or promise memory without end.
func (b *Budget) Release(n uint64) {
	if n > b.used {
		panic("session: more bytes released than were reserved")
	}
	b.used -= n
}

// Used returns how many bytes are counted now.
func (b *Budget) Used() uint64 { return b.used }

// Limit returns the limit in bytes; 0 is none.
func (b *Budget) Limit() uint64 { return b.limit }

// free returns how many bytes may still be reserved.
func (b *Budget) free() uint64 {
	limit := b.limit
	if limit == 0 {
		limit = math.MaxUint64
	}
	return limit - min(limit, b.used)
}
