package mux

import (
	"sync"
	"time"
)

// ticker calls a function from time to time, one call after the other.
type ticker struct {
	mu      sync.Mutex
	fn      func()
	every   time.Duration
	gen     uint64 // of fn; what an older one's timer does is nothing
	timer   *time.Timer
	running sync.WaitGroup
	ended   bool
}

// minTick is the shortest tick.
const minTick = time.Millisecond

// set makes it call fn; nil: nothing.
func (t *ticker) set(every time.Duration, fn func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	t.gen++
	t.fn, t.every = fn, max(every, minTick)
	if fn != nil && !t.ended {
		t.arm(t.gen)
	}
}

func (t *ticker) arm(gen uint64) {
	t.timer = time.AfterFunc(t.every, func() { t.fire(gen) })
}

func (t *ticker) fire(gen uint64) {
	t.mu.Lock()
	if gen != t.gen || t.ended {
		t.mu.Unlock()
		return
	}
	fn := t.fn
	t.running.Add(1)
	t.mu.Unlock()
	defer t.running.Done()
	fn()
	t.mu.Lock()
	defer t.mu.Unlock()
	if gen == t.gen && !t.ended {
		t.arm(gen)
	}
}

// end ends it for good, but for a call under way.
func (t *ticker) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// stop is end that waits for a call under way.
func (t *ticker) stop() {
	t.end()
	t.running.Wait()
}
