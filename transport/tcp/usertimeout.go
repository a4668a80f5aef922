package tcp

import (
	"math"
	"time"
)

// userTimeoutMillis turns a UserTimeout field into what the system wants, and says whether to set it at all.
func userTimeoutMillis(d time.Duration) (ms int, set bool) {
	if d <= 0 {
		return 0, false
	}
	// Below a millisecond the system would read 0, which turns the limit off.
	return int(min(max(d.Milliseconds(), 1), math.MaxInt32)), true
}
