package main

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestMedian(t *testing.T) {
	assert.True(t, math.IsNaN(median(nil)))
	assert.InDelta(t, 3, median([]float64{9, 1, 3}), 0)
	vs := []float64{4, 1, 3, 2}
	assert.InDelta(t, 2.5, median(vs), 0)
	assert.Equal(t, []float64{4, 1, 3, 2}, vs, "it is not sorted in place")
}

// A ratio is taken within each round: a machine that is half as fast in one of them changes nothing.
func TestRatio(t *testing.T) {
	a, b := key{Subject: "a"}, key{Subject: "b"}
	s := newSet([]result{
		{key: a, Rounds: []figures{{rate: 10}, {rate: 5}, {rate: 30}}},
		{key: b, Rounds: []figures{{rate: 20}, {rate: 10}, {rate: 40}}},
	})
	assert.InDelta(t, 0.5, s.ratio(a, b, rate), 0)
	assert.InDelta(t, 10, s.of(a, rate), 0)
	assert.InDelta(t, 6, s.spread(a, rate), 0)
	assert.False(t, there(s.ratio(a, b, cpu)), "no round has it")
	assert.False(t, there(s.ratio(a, key{Subject: "c"}, rate)), "not measured")
	assert.False(t, there(s.spread(a, cpu)))
}

func TestPercentiles(t *testing.T) {
	var took []time.Duration
	for i := range 1000 {
		took = append(took, time.Duration(1000-i)*time.Microsecond)
	}
	f := percentiles(took)
	assert.InDelta(t, 501, f[p50], 0)
	assert.InDelta(t, 901, f[p90], 0)
	assert.InDelta(t, 991, f[p99], 0)
	assert.InDelta(t, 1000, f[most], 0)
	assert.NotContains(t, f, p999, "nothing lies beyond it")
	assert.Equal(t, figures{samples: 0}, percentiles(nil))
	assert.Equal(t, figures{samples: 1, most: 2}, percentiles([]time.Duration{2 * time.Microsecond}))
}

func TestDigits(t *testing.T) {
	for want, v := range map[string]float64{
		"–": math.NaN(), "0": 0, "0.003": 0.003, "0.500": 0.5, "1.00": 0.9999, "9.99": 9.99, "10.0": 9.996, "12.3": 12.34,
		"999": 999.4, "1,000": 999.9, "-2,000": -2000, "1,234,567": 1234567, "2e-05": 0.00002,
	} {
		assert.Equal(t, want, digits(v), "%v", v)
	}
}
