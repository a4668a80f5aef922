package redial

import (
	"math/rand/v2"
	"time"
)

const (
	defaultFirst = 50 * time.Millisecond
	defaultMax   = 5 * time.Second
)

// Backoff says how long to wait between rounds of attempts. It has the methods of github.com/cenkalti/backoff, whose
// values fit. A Redialer calls it from one goroutine at a time, and not while it holds a lock.
type Backoff interface {
	// NextBackOff returns the next wait; 0 is none, and a negative one means that there is to be no further attempt.
	NextBackOff() time.Duration

	// Reset makes the next wait the first one again. It is called at the beginning of each outage.
	Reset()
}

// Jitter is a [Backoff] with full jitter: each wait is drawn evenly from 0 to a limit, both included, and the limit
// doubles from one wait to the next until it is Max. So clients that were cut off together do not come back together.
// It never says stop, and may be asked any number of times.
//
// The zero value is ready. It must not be copied once it is in use, or be used by several goroutines at once.
type Jitter struct {
	// First is the limit of the first wait. 0 or less: 50 ms.
	First time.Duration

	// Max is the highest limit. 0 or less: 5 s. Below First: First.
	Max time.Duration

	// Source is where the draws come from; with the same seed they are the same. Nil: random.
	Source rand.Source

	limit time.Duration // of the next wait; 0 before the first
}

// NextBackOff draws the next wait. It does not block.
func (j *Jitter) NextBackOff() time.Duration {
	first, highest := j.First, j.Max
	if first <= 0 {
		first = defaultFirst
	}
	if highest <= 0 {
		highest = defaultMax
	}
	highest = max(first, highest)
	limit := min(max(j.limit, first), highest)
	if limit > highest/2 { // compared this way round, nothing overflows
		j.limit = highest
	} else {
		j.limit = 2 * limit
	}
	return draw(j.Source, limit)
}

// Reset makes First the limit of the next wait. It does not touch Source.
func (j *Jitter) Reset() { j.limit = 0 }

// draw returns a duration from 0 to limit, both included, each as likely as the other. A nil source is random.
func draw(source rand.Source, limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	n := uint64(limit) + 1 // at most 1<<63: it does not overflow
	if source == nil {
		return time.Duration(rand.Uint64N(n)) //nolint:gosec // at most limit; nothing here is a secret
	}
	return time.Duration(rand.New(source).Uint64N(n)) //nolint:gosec // likewise
}
