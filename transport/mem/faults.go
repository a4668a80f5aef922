package mem

import (
	"slices"
	"sync"
	"syscall"
)

// Direction names one or both directions of a connection.
type Direction uint8

const (
	// Both is both directions, and the zero value.
	Both Direction = iota
	// Up is from the dialer to the listener, from the first end of a [Pipe] to the second, and from the program to
	// the connection that it gave to [Faults.Wrap].
	Up
	// Down is the opposite of Up.
	Down
)

// Faults makes connections go wrong. One Faults covers a set of connections: a single one ([Conn.Faults], or
// [Faults.WaitConn]), those of a dialer ([Dialer].Faults), of a listener or a pipe ([Config].Faults), all of a network
// ([Network.Faults]), or those given to [Faults.Wrap]. A call does the same to each connection of the set: at once to
// those that live, and, but for Cut, to each later one from its first byte. The last call wins; a new connection meets
// first what was called for its network, then for its listener, its dialer, and last in [Faults.OnConn].
//
// Offsets and counts are per connection and direction, and begin at the call, or at the start of a later connection.
//
// The zero value is ready and does nothing. A Faults must not be copied after first use. Its methods may be called at
// any time from any goroutine, and none waits but [Faults.WaitConn].
type Faults struct {
	mu     sync.Mutex // before any link.mu
	links  []numbered // without those that were forgotten
	count  int        // of links that have joined, which is the number of the last
	full   int        // the length of links at which to forget some
	past   Stats      // what those that were forgotten add to Stats
	dials  dialFaults
	later  [2][kinds]func(ln *lane, k int) // what a new link meets: up, down
	onConn func(k int, c *Faults)
	made   chan struct{} // closed when the next link joins; nil if nobody waits
}

// numbered is a link under a control, which counts from 1.
type numbered struct {
	k int
	*link
}

// kinds of fault that stand until they are changed.
const (
	kindFreeze = iota
	kindShape
	kindCut
	kindFail
	kindCorrupt
	kinds
)

// Cut ends the connections that live now, both directions of each. With a nil err, or any but io.EOF, both ends get
// err (nil: syscall.ECONNRESET) from waiting and later Reads and Writes, and all bytes not yet read are lost. With
// io.EOF the cut is clean: both ends can read what was written, then io.EOF, and Write says EPIPE. A clean end passes
// a frozen direction only when it thaws; any other cut passes at once.
func (f *Faults) Cut(err error) {
	err = orReset(err)
	f.each(func(l *link) { l.cut(err, nil) })
}

// CutAfter cuts each connection once n more bytes were written in direction dir: exactly these arrive, the reader then
// gets err, and the other direction is cut as by [Faults.Cut] with err at the moment the n-th byte was written. As with
// a network, the Write that holds the n-th byte does not notice: what else fits in the buffer counts as written and is
// lost, and only the next Write fails. n of 0 cuts at once, after what was already written; a negative n takes a
// pending cut back. With [Both] the direction that gets there first decides.
func (f *Faults) CutAfter(dir Direction, n int64, err error) {
	err = orReset(err)
	f.apply(dir, kindCut, func(ln *lane, _ int) {
		ln.cutAt, ln.cutErr = -1, err
		switch {
		case n > 0:
			ln.cutAt = ln.placed + n
		case n == 0:
			ln.link.cut(err, ln)
		}
	})
}

// Freeze makes a black hole of direction dir: nothing is read any more, not even bytes that were on their way or that
// the peer closed, and nobody gets an error. Writes are taken until the buffer ([Config.Buffer]) is full and then wait.
// A frozen stream is not lossy: [Faults.Thaw] delivers everything, a [Faults.Cut] loses everything. What has been cut
// cannot be frozen any more.
//
// Whoever waits on a frozen connection waits for ever, unless a deadline ends it. In a bubble that takes no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		a, b := mem.Pipe(nil)
//		a.Faults().Freeze(mem.Both)
//		b.SetReadDeadline(time.Now().Add(time.Hour))
//		_, err := b.Read(buf) // at once: os.ErrDeadlineExceeded, an hour later
//	})
func (f *Faults) Freeze(dir Direction) { f.freeze(dir, true) }

// Thaw ends a [Faults.Freeze]: what was held back can be read, bytes that [Shape] delays when they are due.
func (f *Faults) Thaw(dir Direction) { f.freeze(dir, false) }

func (f *Faults) freeze(dir Direction, frozen bool) {
	f.apply(dir, kindFreeze, func(ln *lane, _ int) {
		if ln.link.dead == nil || !frozen {
			ln.frozen = frozen
		}
	})
}

// SetShape sets latency, rate and the size of reads of direction dir. Bytes that are under way keep their times of
// arrival, and later ones do not overtake them. The zero Shape makes a perfect line again.
func (f *Faults) SetShape(dir Direction, s Shape) {
	f.apply(dir, kindShape, func(ln *lane, k int) {
		stream := uint64(k) << 1
		if ln == &ln.link.down {
			stream |= 1
		}
		ln.way.reshape(s, stream)
	})
}

// FailWrite makes the nth Write or TryWrite from now (1 is the next) in direction dir a short write: it writes the
// first k bytes, or all if it has fewer, and returns err (nil: syscall.ECONNRESET). The connection goes on as if
// nothing had happened, for a program must not trust it to have died. One such fault is pending at a time; nth of 0
// takes it back. Empty writes, and a TryWrite that finds no room at all, do not count.
func (f *Faults) FailWrite(dir Direction, nth, k int, err error) {
	err = orReset(err)
	f.apply(dir, kindFail, func(ln *lane, _ int) {
		ln.failIn, ln.failLen, ln.failErr = max(nth, 0), max(k, 0), err
	})
}

// Corrupt inverts all bits of one byte in direction dir: the one that is written after n others. One such fault is
// pending at a time; a negative n takes it back.
func (f *Faults) Corrupt(dir Direction, n int64) {
	f.apply(dir, kindCorrupt, func(ln *lane, _ int) {
		ln.flipAt = -1
		if n >= 0 {
			ln.flipAt = ln.placed + n
		}
	})
}

// OnConn sets a function that is called for each new connection, with its number under f (the first is 1) and a control
// of it alone, before either end is in anyone's hands: the place to script what the k-th connection suffers. It runs on
// the dialing goroutine, outside all locks, and may call anything. nil takes it away.
func (f *Faults) OnConn(fn func(k int, c *Faults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onConn = fn
}

// apply does fn to the lanes of dir, of all live links now and of each later one when it joins.
func (f *Faults) apply(dir Direction, kind int, fn func(ln *lane, k int)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if dir != Down {
		f.later[0][kind] = fn
	}
	if dir != Up {
		f.later[1][kind] = fn
	}
	for _, l := range f.links {
		l.mu.Lock()
		if dir != Down {
			fn(&l.up, l.k)
		}
		if dir != Up {
			fn(&l.down, l.k)
		}
		l.wake()
		l.mu.Unlock()
	}
}

// each does fn to all links, under their locks.
func (f *Faults) each(fn func(l *link)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.links {
		l.mu.Lock()
		fn(l.link)
		l.mu.Unlock()
	}
}

// join puts a new link under the control and gives its number and the hook to call, if any.
func (f *Faults) join(l *link) (k int, hook func(int, *Faults)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget()
	f.count++
	k = f.count
	f.links = append(f.links, numbered{k, l})
	l.mu.Lock()
	for kind := range kinds {
		for d, ln := range []*lane{&l.up, &l.down} {
			if fn := f.later[d][kind]; fn != nil {
				fn(ln, k)
			}
		}
	}
	l.mu.Unlock()
	if f.made != nil {
		close(f.made)
		f.made = nil
	}
	return k, f.onConn
}

// remembered is how many connections a control keeps at least, so that WaitConn finds those that have ended too.
const remembered = 1024

// forget drops links that ended long ago, so that the control of a long run does not grow for ever.
func (f *Faults) forget() {
	if len(f.links) < max(f.full, 2*remembered) {
		return
	}
	f.links = slices.DeleteFunc(f.links, func(l numbered) bool {
		long := l.k <= f.count-remembered && l.isOver()
		if long {
			l.addTo(&f.past)
		}
		return long
	})
	f.full = 2 * len(f.links)
}

// distinct drops nil and repeated controls, for one control may have been given in several places.
func distinct(all ...*Faults) []*Faults {
	var out []*Faults
	for _, f := range all {
		if f != nil && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	return out
}

func orReset(err error) error {
	if err == nil {
		return syscall.ECONNRESET
	}
	return err
}
