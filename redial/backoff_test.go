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

// highest is a source whose draws are the largest there are, so that waits are their limits.
type highest struct{}

func (highest) Uint64() uint64 { return math.MaxUint64 }

func TestJitterLimitsDouble(t *testing.T) {
	j := redial.Jitter{Source: highest{}}
	for range 2 {
		var got []time.Duration
		for range 10 {
			got = append(got, j.NextBackOff())
		}
		const ms = time.Millisecond
		require.Equal(t, []time.Duration{
			50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms, 5000 * ms,
		}, got)
		j.Reset()
	}
}

func TestJitterStaysInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		settings := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-3, 3), rapid.Just(int64(math.MaxInt64)))
		first := time.Duration(settings.Draw(t, "first"))
		highest := time.Duration(settings.Draw(t, "max"))
		j := redial.Jitter{First: first, Max: highest, Source: rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)}
		limit := first
		if first <= 0 {
			limit = 50 * time.Millisecond
		}
		if highest <= 0 {
			highest = 5 * time.Second
		}
		highest = max(highest, limit)
		for range rapid.IntRange(1, 100).Draw(t, "calls") {
			d := j.NextBackOff()
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, limit)
			if limit > highest/2 {
				limit = highest
			} else {
				limit *= 2
			}
		}
	})
}

func TestJitterForEver(t *testing.T) {
	for _, j := range []*redial.Jitter{{}, {First: 1, Max: math.MaxInt64}, {First: math.MaxInt64}} {
		for range 1_000_000 {
			if j.NextBackOff() < 0 {
				t.Fatal("a negative wait")
			}
		}
	}
}

// Waits are spread evenly: each tenth of the interval gets its tenth, and the mean is the middle.
func TestJitterIsEven(t *testing.T) {
	const n, limit = 100_000, time.Second
	j := redial.Jitter{First: limit, Max: limit, Source: rand.NewPCG(1, 2)}
	var tenths [10]int
	var sum time.Duration
	for range n {
		d := j.NextBackOff()
		sum += d
		tenths[min(d*10/limit, 9)]++
	}
	require.InDelta(t, float64(limit/2), float64(sum/n), float64(limit/100))
	for _, got := range tenths {
		require.InDelta(t, n/10, got, n/10*0.05)
	}
}

func TestJitterSeed(t *testing.T) {
	draw := func(seed uint64) (got [50]time.Duration) {
		j := redial.Jitter{Source: rand.NewPCG(seed, 0)}
		for i := range got {
			got[i] = j.NextBackOff()
		}
		return got
	}
	once, again := draw(1), draw(1)
	require.Equal(t, once, again)
	require.NotEqual(t, once, draw(2))
	var a, b redial.Jitter
	require.NotEqual(t, a.NextBackOff()+a.NextBackOff()<<32, b.NextBackOff()+b.NextBackOff()<<32, "unseeded ones differ")
}
