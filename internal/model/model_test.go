// Package model has spin look at every order of events of a small session: session.pml is the protocol, README.md says
// what of it, which claims that guards (D1, D2, D3), what was proved, and how to read a counterexample.
package model

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// check is one search.
type check struct {
	name   string
	set    string // what bounds it
	cycles bool   // the temporal formula, too, which takes twice the states
	bug    bool   // it has a bug, which has to be found
}

var checks = []check{
	{name: "two cuts", set: "-DND=2 -DNL=1 -DCUTS=2"},
	{name: "two each way", set: "-DND=2 -DNL=2 -DCUTS=1 -DAGE=1", cycles: true},
	{name: "three, one back", set: "-DND=3 -DNL=1 -DCUTS=1 -DAGE=1", cycles: true},
	{name: "a loss", set: "-DND=2 -DNL=1 -DCUTS=0 -DLOSS=1 -DAGE=1", cycles: true},
	{name: "a loss and a cut", set: "-DND=1 -DNL=1 -DCUTS=1 -DLOSS=1 -DAGE=1"},

	{name: "bug 1, fence forgotten", set: "-DCUTS=1 -DMUTANT=1", bug: true},
	{name: "bug 2, older epoch taken", set: "-DNL=0 -DCUTS=2 -DMUTANT=2", bug: true},
	{name: "bug 3, replay delivered again", set: "-DCUTS=1 -DMUTANT=3", bug: true},
	{name: "bug 4, renewed without marks", set: "-DCUTS=0 -DLOSS=1 -DMUTANT=4", bug: true},
	{name: "bug 5, SKIP not counted", set: "-DCUTS=0 -DAGE=1 -DMUTANT=5", bug: true},
	{name: "bug 6, CLOSE not asked for again", set: "-DCUTS=1 -DMUTANT=6", cycles: true, bug: true},
	{name: "bug 7, cursor moved in silence", set: "-DCUTS=1 -DMUTANT=7", bug: true},
	{name: "bug 8, marks forget the HELLO", set: "-DCUTS=1 -DLOSS=1 -DMUTANT=8", bug: true},
	{name: "bug 9, FIN not replayed", set: "-DCUTS=1 -DMUTANT=9", cycles: true, bug: true},
	{name: "bug 10, tombstone forgets how far", set: "-DND=1 -DCUTS=1 -DLOSS=1 -DMUTANT=10", bug: true},
}

const memory = 3800 // MiB that a search may take

// figures are what a search says at its end.
type figures struct {
	errors, states, depth int
	memory, seconds       float64
}

// number returns the first number that the pattern finds.
func number(t *testing.T, out, pattern string) float64 {
	found := regexp.MustCompile(pattern).FindStringSubmatch(out)
	require.NotNil(t, found, "no %q in:\n%s", pattern, out)
	n, err := strconv.ParseFloat(found[1], 64)
	require.NoError(t, err)
	return n
}

// search makes the checker and runs it.
func search(t *testing.T, c check) figures {
	model, err := filepath.Abs("session.pml")
	require.NoError(t, err)
	dir := t.TempDir()
	run := func(name string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
		return string(out)
	}
	run("spin", append(append([]string{"-a"}, strings.Fields(c.set)...), model)...)
	build := []string{"-O1", "-w", "-DCOLLAPSE", "-DVECTORSZ=1024", fmt.Sprintf("-DMEMLIM=%d", memory), "-o", "pan", "pan.c"}
	search := []string{"-m10000", "-w24"}
	if c.cycles {
		search = append(search, "-a")
	} else {
		build = append(build, "-DSAFETY", "-DNOCLAIM")
	}
	run("gcc", build...)
	out := run(filepath.Join(dir, "pan"), search...)

	f := figures{
		errors:  int(number(t, out, `errors: (\d+)`)),
		states:  int(number(t, out, `(\d+) states, stored`)),
		depth:   int(number(t, out, `depth reached (\d+)`)),
		memory:  number(t, out, `([\d.]+)\s+total actual memory usage`),
		seconds: number(t, out, `elapsed time ([\d.]+) seconds`),
	}
	again := fmt.Sprintf("to see how it came to that, in this directory:\n"+
		"spin -a %s session.pml && gcc -O1 -w -DCOLLAPSE -DVECTORSZ=1024 -DREACH %s -o pan pan.c && ./pan -m10000 -i %s; spin -t -p -g %s session.pml",
		c.set, map[bool]string{false: "-DSAFETY -DNOCLAIM"}[c.cycles], map[bool]string{true: "-a"}[c.cycles], c.set)
	if c.bug {
		require.NotZero(t, f.errors, "the bug was not found: the model proves nothing about it")
		return f
	}
	require.Zero(t, f.errors, "%s\n%s", out, again)
	require.NotContains(t, out, "MEMLIM", "not all was looked at")
	require.NotContains(t, out, "Search not completed", "not all was looked at")
	require.NotContains(t, out, "search depth too small", "not all was looked at")
	return f
}

// TestModel lets spin look at everything.
func TestModel(t *testing.T) {
	if os.Getenv("TOWLINE_MODEL") == "" {
		t.Skip("takes minutes and gigabytes: make model, or TOWLINE_MODEL=1")
	}
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getuid() != 0 {
			t.Skipf("there is no %s: apt-get install %s", tool, tool)
		}
		out, err := exec.CommandContext(t.Context(), "apt-get", "install", "-y", "-q", tool).CombinedOutput()
		if err != nil {
			t.Skipf("there is no %s, and it cannot be installed: %v: %.300s", tool, err, out)
		}
	}
	began := time.Now()
	var all figures
	bugs, found, clean := 0, 0, 0
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if c.bug {
				bugs++
			}
			f := search(t, c)
			fmt.Printf("%-34s %9d states, depth %4d, %6.0f MiB, %6.1f s, errors %d\n", c.name, f.states, f.depth, f.memory, f.seconds, f.errors)
			if c.bug {
				found++
				return
			}
			clean++
			all.states += f.states
			all.depth = max(all.depth, f.depth)
			all.memory = max(all.memory, f.memory)
			all.errors += f.errors
		})
	}
	assert.Positive(t, clean+found)
	fmt.Printf("model: %d searches, %d states, depth %d, %.0f MiB at most, errors %d; bugs put in %d, found %d; %.0f s\n",
		clean, all.states, all.depth, all.memory, all.errors, bugs, found, time.Since(began).Seconds())
}
