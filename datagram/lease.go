package datagram

import (
	"sync"
	"sync/atomic"
)

// lease is a slab of minLease or more that is used again once the Reader is done with it and all runs that it handed out
// of it were released. Where one of them is not, the collector takes the slab as it does others.
type lease struct {
	buf  []byte
	refs atomic.Int32 // the Reader, and the runs that were not released
}

// minLease is the least slab that is worth it: a smaller one costs little.
const minLease = 16 << 10

// leases holds slabs that are free, of minLease, twice that, and maxSlab.
var leases [3]sync.Pool

// leasesOf returns where slabs of size bytes are; nil for sizes that are not used again.
func leasesOf(size int) *sync.Pool {
	switch size {
	case minLease:
		return &leases[0]
	case 2 * minLease:
		return &leases[1]
	case maxSlab:
		return &leases[2]
	}
	return nil
}

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
		leasesOf(len(l.buf)).Put(l)
	}
}

// leased returns the lease of the slab for a run of it, or nil.
func (r *Reader) leased() *lease {
	if r.lease == nil && !r.kept && leasesOf(len(r.slab)) != nil {
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

// newSlab returns a slab of size bytes, which may have been used before: then with a lease.
func newSlab(size int) ([]byte, *lease) {
	if free := leasesOf(size); free != nil {
		if l, _ := free.Get().(*lease); l != nil {
			l.refs.Store(1)
			return l.buf, l
		}
	}
	return make([]byte, size), nil
}
