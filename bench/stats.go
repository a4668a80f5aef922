package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// median returns the middle one of vs, or the mean of the two in the middle; NaN if there are none.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	vs = slices.Sorted(slices.Values(vs))
	mid := len(vs) / 2
	if len(vs)%2 == 1 {
		return vs[mid]
	}
	return (vs[mid-1] + vs[mid]) / 2
}

// set is the results of a run.
type set struct {
	order []key // that of the plan
	by    map[key]result
	many  *many // nil: not run
}

func newSet(results []result) set {
	s := set{by: map[key]result{}}
	for _, r := range results {
		s.order = append(s.order, r.key)
		s.by[r.key] = r
	}
	return s
}

// of returns the median of one figure; NaN if it was not measured.
func (s set) of(k key, name string) float64 {
	var vs []float64
	for _, f := range s.by[k].Rounds {
		if v, ok := f[name]; ok {
			vs = append(vs, v)
		}
	}
	return median(vs)
}

// ratio returns the median of the ratios that one figure of a and of b had in each round; NaN if there was no round that
// had both. What moves the whole machine from round to round moves both, and falls out.
func (s set) ratio(a, b key, name string) float64 {
	ra, rb := s.by[a].Rounds, s.by[b].Rounds
	var vs []float64
	for i := range min(len(ra), len(rb)) {
		va, oka := ra[i][name]
		vb, okb := rb[i][name]
		if oka && okb && vb != 0 {
			vs = append(vs, va/vb)
		}
	}
	return median(vs)
}

// spread returns how far the rounds of one figure lie apart: the greatest over the least; NaN if it was not measured.
func (s set) spread(k key, name string) float64 {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, f := range s.by[k].Rounds {
		if v, ok := f[name]; ok {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	if hi < lo {
		return math.NaN()
	}
	return hi / lo
}

// String is for the progress: all figures in one line.
func (f figures) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, fmt.Sprintf("%s %s", digits(f[name]), name))
	}
	return strings.Join(parts, "   ")
}

// digits writes v with three digits that count, or all those before the point; a dash stands for what is not there.
func digits(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == 0:
		return "0"
	case abs >= 999.5:
		return thousands(int64(math.Round(v)))
	case abs >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case abs >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case abs >= 0.9995:
		return fmt.Sprintf("%.2f", v)
	case abs >= 0.0005:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.1g", v)
}

// thousands writes n with a comma between each three digits.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}
