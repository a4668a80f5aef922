package main

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// made is a set of results that were not measured.
func made() set {
	one := func(subject, mode string, rates ...float64) result {
		r := result{key: key{oneWay, subject, "tcp", mode, 64}}
		for _, v := range rates {
			r.Rounds = append(r.Rounds, figures{rate: v, cpu: 1e9 / v, allocs: 0.001})
		}
		return r
	}
	failed := one("mangos", "")
	failed.Error = "one\ntwo"
	cut := result{key: key{recovery, session, "tcp", "", tiny}, Rounds: []figures{{p50: 300, p90: 500, p99: 2000, most: 9000, samples: 300}}}
	return newSet([]result{
		one(floor, "", 4e7, 2e7, 4e7), one(session, single, 2e7, 1e7, 1e7), one("NATS core", "", 2e6, 2e6, 2e6), one("gRPC stream", "", 1e6, 3e6, 1e6), failed, cut,
	})
}

func TestReport(t *testing.T) {
	sections := map[string]string{}
	for _, sec := range made().report() {
		sections[sec.name] = sec.text
	}
	assert.Equal(t, `| tcp | 64 B: k/s | of floor | cpu ns | allocs | 1 KiB: k/s | of floor | cpu ns | allocs | 64 KiB: k/s | of floor | cpu ns | allocs |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| floor | 40,000 | 1.00 | 25.0 | 0.001 | – | – | – | – | – | – | – | – |
| session, single | 10,000 | 0.500 | 100 | 0.001 | – | – | – | – | – | – | – | – |
| NATS core | 2,000 | 0.050 | 500 | 0.001 | – | – | – | – | – | – | – | – |
| gRPC stream | 1,000 | 0.025 | 1,000 | 0.001 | – | – | – | – | – | – | – | – |
| mangos | – | – | – | – | – | – | – | – | – | – | – | – |
`, sections["one-way"])
	assert.Contains(t, sections["best-peer"], "| 64 B | NATS core | 2,000 | 5.00 × |")
	assert.Contains(t, sections["recovery"], "| RST to the next message: session | 300 | 500 | 2,000 | 9,000 | 300 |")
	assert.Equal(t, "- one-way/mangos/tcp/64 B: one; two\n", sections["failures"])
	assert.NotContains(t, sections, "round-trip", "what was not measured is left out")
	assert.NotContains(t, sections, "many")

	targets := sections["targets"]
	assert.Contains(t, targets, "| 64 B one way, tcp, beside the floor | ≥ 0.400 × | 0.500 × | met |")
	assert.Contains(t, targets, "| 64 B one way, tcp, beside the best peer, NATS core | ≥ 5.00 × | 5.00 × | met |")
	assert.Contains(t, targets, "| from an RST to the next message, p50 | ≤ 400 µs | 300 µs | met |")
	assert.Contains(t, targets, "| from an RST to the next message, p99 | ≤ 1,200 µs | 2,000 µs | **missed** |")
	assert.Contains(t, targets, "| 1 KiB one way, tcp, beside the floor | ≥ 0.750 × | – | not measured |")

	with := made()
	with.many = &many{Clients: 2, Limit: "so it is", Figures: figures{"sessions": 100_000, "server idle cpu %": 6}}
	text := with.targetTable()
	assert.Contains(t, text, "| sessions at once | ≥ 100,000 | 100,000 | met |")
	assert.Contains(t, text, "| ≤ 5.00 % | 6.00 % | **missed** |")
	assert.Contains(t, with.manyTable(), "| sessions at once | 100,000 |\n| all servers together: processor time while idle, of one core | 6.00 % |\n\nso it is.\n")
}

func TestVerdict(t *testing.T) {
	for want, c := range map[string]check{
		"not measured": {value: math.NaN(), atLeast: 1},
		"met":          {value: 1, atMost: 1},
		"**missed**":   {value: 0.9, atLeast: 1},
	} {
		assert.Equal(t, want, c.verdict())
	}
	assert.Equal(t, "**missed**", check{value: 1.1, atMost: 1}.verdict())
}

func TestFill(t *testing.T) {
	doc := "a\n<!-- begin: one -->\nold\n<!-- end: one -->\nb\n<!-- begin: two -->\n<!-- end: two -->\nc\n"
	got, err := fill(doc, []section{{"one", "", "new\n"}})
	require.NoError(t, err)
	assert.Equal(t, "a\n<!-- begin: one -->\n\nnew\n\n<!-- end: one -->\nb\n<!-- begin: two -->\n<!-- end: two -->\nc\n", got)
	again, err := fill(got, []section{{"one", "", "new\n"}})
	require.NoError(t, err)
	assert.Equal(t, got, again)
	_, err = fill(doc, []section{{"three", "", ""}})
	require.ErrorContains(t, err, "begin: three")
	_, err = fill("<!-- begin: one -->\n", []section{{"one", "", ""}})
	assert.ErrorContains(t, err, "end: one")
}

// The document has a place for everything that the program may say.
func TestDocument(t *testing.T) {
	doc, err := os.ReadFile("../docs/performance.md")
	require.NoError(t, err)
	all := []section{{name: "machine"}}
	for _, name := range sectionNames {
		all = append(all, section{name: name})
	}
	_, err = fill(string(doc), all)
	require.NoError(t, err)
	for _, sec := range made().report() {
		assert.Contains(t, sectionNames, sec.name)
	}
	for _, line := range strings.Split(string(doc), "\n") {
		if name, ok := strings.CutPrefix(line, "<!-- begin: "); ok {
			name = strings.TrimSuffix(name, " -->")
			assert.True(t, name == "machine" || slices.Contains(sectionNames, name), "nothing is ever written to %q", name)
		}
	}
}

func TestPlots(t *testing.T) {
	dir := t.TempDir()
	names, err := made().plots(dir)
	require.NoError(t, err)
	assert.Equal(t, []string{"throughput.png", "recovery.png"}, names, "there is nothing to draw for round trips")
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(string(b), "\x89PNG"), name)
	}
}
