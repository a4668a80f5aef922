// Package seeds says which seeds a seeded test runs. It guards nothing by itself: it gives all such tests the same
// variables, so that a failure is repeated, and new ground is broken, everywhere in the same way.
//
//	SEED=n            that one alone: what a failure prints
//	FROM=n SEEDS=m    m seeds, from n on (0 unless it is given)
package seeds

import (
	"os"
	"strconv"
	"testing"
)

// Range returns the first seed, and how many follow it with the first one counted: n of them, and a quarter with -short,
// unless the environment asks for something else.
func Range(tb testing.TB, n uint64) (from, count uint64) {
	tb.Helper()
	if seed, ok := number(tb, "SEED"); ok {
		return seed, 1
	}
	from, _ = number(tb, "FROM")
	if m, ok := number(tb, "SEEDS"); ok {
		return from, m
	}
	if testing.Short() {
		n = (n + 3) / 4
	}
	return from, n
}

func number(tb testing.TB, name string) (uint64, bool) {
	tb.Helper()
	s := os.Getenv(name)
	if s == "" {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		tb.Fatalf("%s=%q: want a number", name, s)
	}
	return v, true
}
