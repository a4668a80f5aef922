package redial_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/redial"
)

// A backoff as a state machine of pgregory.net/rapid, part of what holds D2 of docs/delivery.md: whatever waits and
// resets came before, a wait is from 0 to a limit that doubles from First to Max and begins anew with Reset; the draws
// are those of the source, one for each wait. A failure prints the steps, and the -rapid.seed that repeats it.
func TestRapidBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(-2, 10), rapid.Int64Range(1, int64(time.Minute)),
			rapid.Just(int64(math.MaxInt64)))
		first, highest := time.Duration(settings.Draw(t, "first")), time.Duration(settings.Draw(t, "max"))
		seed := rapid.Uint64().Draw(t, "seed")
		j := redial.Jitter{First: first, Max: highest, Source: rand.NewPCG(seed, 1)}
		source := rand.New(rand.NewPCG(seed, 1))
		if first <= 0 {
			first = 50 * time.Millisecond
		}
		if highest <= 0 {
			highest = 5 * time.Second
		}
		highest = max(first, highest)
		waits := 0 // since the last Reset
		t.Repeat(map[string]func(*rapid.T){
			"wait": func(t *rapid.T) {
				limit := highest
				if waits < 63 && first <= highest>>waits {
					limit = first << waits
				}
				got := j.NextBackOff()
				require.LessOrEqual(t, got, limit)
				require.Equal(t, time.Duration(source.Uint64N(uint64(limit)+1)), got, "an even draw up to %v", limit)
				waits++
			},
			"reset": func(*rapid.T) {
				j.Reset()
				waits = 0
			},
		})
	})
}
