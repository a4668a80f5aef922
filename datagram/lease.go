package datagram

import (
	"sync"
	"sync/atomic"
)

// lease is a slab of the largest size that is used again once the Reader is done with it and all runs that it handed out
// of it were released. Where one of them is not, the collector takes the slab as it does others.
type lease struct {
	buf  []byte
	refs atomic.Int32 // the Reader, and the runs that were not released
}

var leases sync.Pool

// take returns l, with one more who holds it. Of no lease it does nothing.
func (l *lease) take() *lease {
	if l != nil {
		l.refs.Add(1)
	}
	return l
}

// done takes one of the holders away.
func (l *lease) done() {
	if l != nil && l.refs.Add(-1) == 0 {
		leases.Put(l)
	}
}

// leased returns the lease of the slab for a run of it, or nil.
func (r *Reader) leased() *lease {
	if r.lease == nil && !r.kept && len(r.slab) == maxSlab {
		r.lease = &lease{buf: r.slab}
		r.lease.refs.Store(1)
	}
	return r.lease.take()
}

// keep says that a payload of the slab is handed out alone, so that nobody gives it back.
func (r *Reader) keep() {
	if !r.kept {
		r.kept = true
		r.lease.take()
	}
}

// largestSlab returns a slab of maxSlab, which may have been used before.
func largestSlab() ([]byte, *lease) {
	if l, _ := leases.Get().(*lease); l != nil {
		l.refs.Store(1)
		return l.buf, l
	}
	return make([]byte, maxSlab), nil
}
