package mem

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Stats counts what happened under a [Faults] since it was made.
type Stats struct {
	Dials   int // dials begun, whatever became of them; under a listener those that found it
	Refused int // dials that RefuseDials failed
	Held    int // dials that HangDials held up

	Conns int // connections made
	Live  int // of these, how many have an end that is not closed yet, cut or not
	Cuts  int // connections ended by Cut or CutAfter

	// Bytes that Write took and Read returned. What was written and not read is under way, or lost if the
	// connection has ended.
	UpWritten, UpRead     int64
	DownWritten, DownRead int64
}

// Stats gives the counts of f at this moment. A control of one connection has no dials.
func (f *Faults) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.past
	s.Dials, s.Refused, s.Held = f.dials.begun, f.dials.refused, f.dials.held
	for _, l := range f.links {
		l.addTo(&s)
	}
	return s
}

// addTo adds what the link has counted to s.
func (l *link) addTo(s *Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Conns++
	if !l.ended() {
		s.Live++
	}
	if l.dead != nil {
		s.Cuts++
	}
	s.UpWritten += l.up.accepted
	s.UpRead += l.up.delivered
	s.DownWritten += l.down.accepted
	s.DownRead += l.down.delivered
}

// WaitConn waits until k connections were made under f (k of 1: the first), and gives the control of the k-th alone;
// the connection may have ended since. The error wraps that of ctx if it ends first. A k below 1 is an error, and so
// is that of a connection which ended more than a thousand connections ago.
func (f *Faults) WaitConn(ctx context.Context, k int) (*Faults, error) {
	if k < 1 {
		return nil, fmt.Errorf("mem: wait for connection %d: the first is 1", k)
	}
	for {
		f.mu.Lock()
		if k <= f.count {
			defer f.mu.Unlock()
			i, ok := slices.BinarySearchFunc(f.links, k, func(l numbered, k int) int { return cmp.Compare(l.k, k) })
			if !ok {
				return nil, fmt.Errorf("mem: wait for connection %d: it ended long ago and is forgotten", k)
			}
			return &f.links[i].faults, nil
		}
		if f.made == nil {
			f.made = make(chan struct{})
		}
		made, have := f.made, f.count
		f.mu.Unlock()
		select {
		case <-made:
		case <-ctx.Done():
			return nil, fmt.Errorf("mem: wait for connection %d, have %d: %w", k, have, ctx.Err())
		}
	}
}
