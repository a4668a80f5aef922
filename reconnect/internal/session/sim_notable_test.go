package session

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const notable = "testdata/notable.txt"

// TestNotableSeeds runs the seeds that reach what few others do, before all others: testdata/notable.txt has a seed in
// each line, and what it reached when it was written. What a seed reaches changes with the simulation and with the
// machine, so that only what fails is an error; NOTABLE=1 SEEDS=5000 writes the file anew.
func TestNotableSeeds(t *testing.T) {
	if os.Getenv("NOTABLE") != "" {
		writeNotable(t)
	}
	text, err := os.ReadFile(notable)
	require.NoError(t, err)
	var reached, all int
	for line := range strings.Lines(string(text)) {
		number, what, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			continue // a comment
		}
		seed, err := strconv.ParseUint(number, 10, 64)
		require.NoError(t, err)
		m := newSim(seed, false)
		if text := try(m, (*sim).play); text != "" {
			fail(t, &failed{seed, text}, lessening{})
		}
		for what := range strings.SplitSeq(what, "; ") {
			i := slices.Index(situations[:], what)
			require.GreaterOrEqual(t, i, 0, "there is no situation %q", what)
			all++
			if m.hits[i] > 0 {
				reached++
			}
		}
	}
	require.Positive(t, all)
	t.Logf("%d of %d situations are still reached", reached, all)
}

// writeNotable chooses, for each situation that less than one seed in thirty reaches, two seeds that do.
func writeNotable(t *testing.T) {
	first, count := seedRange(t, 3000)
	var in [numSituations]int
	reach := map[situation][]uint64{}
	_, bad := runSeeds(first, count, func(m *sim) {
		for i, n := range m.hits {
			if n > 0 {
				in[i]++
				reach[situation(i)] = append(reach[situation(i)], m.seed)
			}
		}
	})
	if bad != nil {
		fail(t, bad, lessening{})
	}
	what := map[uint64][]string{}
	for i := range numSituations {
		if in[i]*30 > int(count) {
			continue
		}
		seeds := reach[i]
		slices.Sort(seeds)
		for _, seed := range seeds[:min(len(seeds), 2)] {
			what[seed] = append(what[seed], situations[i])
		}
	}
	var seeds []uint64
	for seed := range what {
		seeds = append(seeds, seed)
	}
	slices.Sort(seeds)
	var b strings.Builder
	fmt.Fprintf(&b, "# Seeds of TestSim that reach what less than one in thirty does, and what. See TestNotableSeeds.\n")
	for _, seed := range seeds {
		fmt.Fprintf(&b, "%d  %s\n", seed, strings.Join(what[seed], "; "))
	}
	require.NoError(t, os.WriteFile(notable, []byte(b.String()), 0o644))
}
