package tcp

import (
	"math"
	"time"
)

const defaultUserTimeout = 30 * time.Second

// userTimeoutMillis turns a UserTimeout field into what the system wants, and says whether to set it at all.
func userTimeoutMillis(d time.Duration) (ms int, set bool) {
	switch {
	case d < 0:
		return 0, false
	case d == 0:
		d = defaultUserTimeout
	}
	// Below a millisecond the system would read 0, which turns the limit off.
	return int(min(max(d.Milliseconds(), 1), math.MaxInt32)), true
}
