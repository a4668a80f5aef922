package chaos

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The lines are numbered from 0 on, and dealt out to the sessions in turn: line i belongs to session i modulo their
// number. What stands behind the number follows from it, so that a line that was changed on its way is found.

// padding is long enough for the longest line.
var padding = bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz"), 1000)

// appendLine appends line i without its end: some 200 bytes, sometimes more than a packet, sometimes 16 KiB.
func appendLine(b []byte, i uint64) []byte {
	h := (i + 1) * 0x9e3779b97f4a7c15
	h ^= h >> 29
	size := h % 400
	switch h >> 32 % 512 {
	case 0:
		size = 16 << 10
	case 1, 2, 3:
		size = 3000
	}
	b = strconv.AppendUint(b, i, 10)
	b = append(b, ' ')
	return append(b, padding[h%36:][:size]...)
}

// feeder writes lines at a steady rate. When whoever reads them stops, so does it, and makes up for nothing.
type feeder struct {
	fed  atomic.Uint64 // lines begun with numbers below this
	stop chan struct{}
	done chan struct{} // closed when the last line is written and w closed
}

const feedEvery = 5 * time.Millisecond

func feed(w io.WriteCloser, rate int) *feeder {
	f := &feeder{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer w.Close()
		tick := time.NewTicker(feedEvery)
		defer tick.Stop()
		var buf []byte
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			buf = buf[:0]
			n := uint64(rate) * uint64(feedEvery) / uint64(time.Second)
			for i := f.fed.Load(); n > 0; i, n = i+1, n-1 {
				buf = append(appendLine(buf, i), '\n')
				f.fed.Add(1)
			}
			if _, err := w.Write(buf); err != nil {
				return // its end is seen elsewhere
			}
		}
	}()
	return f
}

// checker judges the lines that come back. It is the writer to which the client's output goes.
type checker struct {
	sessions uint64

	mu         sync.Mutex
	changed    chan struct{} // closed when something has come
	part       []byte        // of a line
	last       []byte        // the last line, which may be no line of ours but the client's figures
	next       []uint64      // of each session, the number that is due
	missing    map[uint64]struct{}
	back       uint64 // different lines
	duplicated uint64
	outOfOrder uint64
	strange    []string // what is no line of ours
	marks      [][]mark
	recovery   *hdrhistogram.Histogram // in microseconds
}

// mark awaits a line with at least this number, at this time or later.
type mark struct {
	at  time.Time
	min uint64
}

func newChecker(sessions int) *checker {
	c := &checker{
		sessions: uint64(sessions), changed: make(chan struct{}), missing: map[uint64]struct{}{},
		next: make([]uint64, sessions), marks: make([][]mark, sessions),
		recovery: hdrhistogram.New(1, time.Hour.Microseconds(), 3),
	}
	for i := range c.next {
		c.next[i] = uint64(i)
	}
	return c
}

// Write takes output.
func (c *checker) Write(p []byte) (int, error) {
	now, n := time.Now(), len(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		line, rest, found := bytes.Cut(p, []byte("\n"))
		c.part = append(c.part, line...)
		if !found {
			break
		}
		c.line(c.part, now)
		c.part, p = c.part[:0], rest
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return n, nil
}

func (c *checker) line(line []byte, now time.Time) {
	if len(line) > 0 && line[0] == '{' {
		c.last = bytes.Clone(line)
		return
	}
	number, _, _ := bytes.Cut(line, []byte(" "))
	i, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil || !bytes.Equal(line, appendLine(nil, i)) {
		c.strange = append(c.strange, fmt.Sprintf("%.100q", line))
		return
	}
	next := &c.next[i%c.sessions]
	switch {
	case i == *next:
		*next += c.sessions
	case i > *next:
		c.outOfOrder++
		for ; *next < i; *next += c.sessions {
			c.missing[*next] = struct{}{}
		}
		*next += c.sessions
	default:
		if _, was := c.missing[i]; !was {
			c.duplicated++
			return
		}
		delete(c.missing, i)
		c.outOfOrder++
	}
	c.back++
	marks := &c.marks[i%c.sessions]
	*marks = slices.DeleteFunc(*marks, func(m mark) bool {
		if i < m.min || now.Before(m.at) {
			return false
		}
		_ = c.recovery.RecordValue(max(1, now.Sub(m.at).Microseconds())) // always in range
		return true
	})
}

// expect measures how long each session takes from now on to a line with at least this number.
func (c *checker) expect(min uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.marks {
		c.marks[i] = append(c.marks[i], mark{time.Now(), min})
	}
}

// await waits until ok, which is called under the lock.
func (c *checker) await(limit time.Duration, ended <-chan struct{}, what string, ok func() bool) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		c.mu.Lock()
		good, changed := ok(), c.changed
		c.mu.Unlock()
		if good {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			return fmt.Errorf("%s: the client has ended before", what)
		case <-timer.C:
			return fmt.Errorf("%s: not within %v", what, limit)
		}
	}
}

// begun says whether each session has brought something.
func (c *checker) begun() bool {
	for i, next := range c.next {
		if next == uint64(i) {
			return false
		}
	}
	return true
}

// recovered says whether nothing is expected any more.
func (c *checker) recovered() bool {
	return !slices.ContainsFunc(c.marks, func(m []mark) bool { return len(m) > 0 })
}

func (c *checker) count() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.back
}
