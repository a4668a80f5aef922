package mutants

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	root    = "../.." // from here
	machine = "reconnect/internal/session"
	maxSeed = 2000            // that a mutant has to be found within
	limit   = 3 * time.Minute // for one mutant's run: far more than it takes
	atOnce  = 2               // mutants that are built and run at the same time
)

// apply returns the text of a file of the project with the bug in it.
func (m *mutant) apply() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return nil, fmt.Errorf("mutant %s has to be brought up to date: its old text is there %d times in %s, expected once:\n%s",
			m.name, n, m.file, m.old)
	}
	return bytes.Replace(text, []byte(m.old), []byte(m.new), 1), nil
}

// dir is the directory of the package whose tests have to find it.
func (m *mutant) dir() string { return cmp.Or(m.in, machine) }

// find is the test that has to.
func (m *mutant) find() string { return cmp.Or(m.test, "TestSim") }

// TestMutantsApply checks what is cheap to check: so who changes the code learns at once that a mutant is out of date.
func TestMutantsApply(t *testing.T) {
	names := map[string]bool{}
	simulated := 0
	for _, m := range mutants {
		assert.False(t, names[m.name], "two mutants are called %s", m.name)
		names[m.name] = true
		assert.True(t, strings.HasSuffix(m.bug, "."), "%s: the bug is told in a sentence", m.name)
		assert.Regexp(t, `\b(D[1-7]|R-1\d\d)\b`, m.breaks, "%s: it says which claim or requirement it breaks", m.name)
		_, err := m.apply()
		assert.NoError(t, err)
		if m.test == "" {
			simulated++
		}
	}
	assert.GreaterOrEqual(t, simulated, 20, "mutants that the simulation has to find")
}

// result is what became of a mutant.
type result struct {
	mutant
	caught bool
	seed   int    // the first that failed
	said   string // by the test
	took   time.Duration
	err    error // no verdict
}

var failed = regexp.MustCompile(`seed (\d+): ([^\n]*)`)

// needs are the test files of the machine that TestSim is made of: compiling the others takes longer than most hunts.
var needs = regexp.MustCompile(`^(sim|sim_.*|help|pair)_test\.go$`)

// build makes the test binary of a package, with a file replaced if text is not nil, and returns its path. test is what
// it has to have.
func build(t *testing.T, pkg, test, file string, text []byte) (string, error) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "test.exe")
	args := []string{"test", "-c", "-o", bin}
	if text != nil {
		copied, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
		path, err := filepath.Abs(filepath.Join(root, file))
		require.NoError(t, err)
		replace := map[string]string{}
		if test == "TestSim" {
			files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*_test.go"))
			require.NoError(t, err)
			for _, f := range files {
				if !needs.MatchString(filepath.Base(f)) {
					replace[f] = "" // is not there
				}
			}
		}
		replace[path] = copied
		list, err := json.Marshal(map[string]map[string]string{"Replace": replace})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(copied, text, 0o600))
		require.NoError(t, os.WriteFile(overlay, list, 0o600))
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "./"+pkg)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %w (for TestSim, of the test files those alone that match needs, %v)\n%s", err, needs, out)
	}
	return bin, nil
}

// run runs one test of a binary, and returns what it said and whether it passed.
func run(ctx context.Context, bin, pkg, test string, seeds int) (string, bool, error) {
	cmd := exec.CommandContext(ctx, bin, "-test.run", "^("+test+")$", "-test.count=1", "-test.timeout", limit.String())
	if pkg == machine && test != "TestSim" {
		cmd.Args = append(cmd.Args, "-rapid.nofailfile") // a failure is what is asked for
	}
	cmd.Dir = filepath.Join(root, pkg)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SEED=") || strings.HasPrefix(v, "ALL=")
	})
	cmd.Env = append(cmd.Env, "FROM=0", "SEEDS="+strconv.Itoa(seeds), "SHRINK=0", "TRACE=1", "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	exit := new(exec.ExitError)
	switch {
	case err == nil:
		return string(out), true, nil
	case errors.As(err, &exit):
		return string(out), false, nil
	}
	return "", false, err
}

// hunt builds a mutant and lets the test look for it.
func hunt(t *testing.T, m mutant) (r result) {
	r.mutant = m
	text, err := m.apply()
	if err != nil {
		r.err = err
		return r
	}
	bin, err := build(t, m.dir(), m.find(), m.file, text)
	if err != nil {
		r.err = err
		return r
	}
	began := time.Now()
	out, passed, err := run(t.Context(), bin, m.dir(), m.find(), maxSeed)
	r.took = time.Since(began)
	if err != nil || passed {
		r.err = err
		return r
	}
	if m.test != "" {
		if r.caught = strings.Contains(out, "--- FAIL: "+m.test); !r.caught {
			r.err = fmt.Errorf("%s broke down without a verdict:\n%s", m.test, head(out))
		}
		return r
	}
	found := failed.FindStringSubmatch(out)
	if found == nil || !strings.Contains(out, "--- FAIL: TestSim") {
		r.err = fmt.Errorf("TestSim failed, and not by a seed:\n%s", head(out))
		return r
	}
	r.seed, _ = strconv.Atoi(found[1])
	r.said, r.caught = found[2], true
	return r
}

func head(out string) string { return out[:min(len(out), 3000)] }

// TestMutants puts each bug in, and checks that it is found.
func TestMutants(t *testing.T) {
	if os.Getenv("TOWLINE_MUTANTS") == "" {
		t.Skip("builds the session machine some forty times: make mutants, or TOWLINE_MUTANTS=1")
	}
	began := time.Now()
	var mu sync.Mutex
	var results []result
	t.Run("each", func(t *testing.T) {
		free := make(chan struct{}, atOnce)
		for _, m := range mutants {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				free <- struct{}{}
				defer func() { <-free }()
				r := hunt(t, m)
				mu.Lock()
				results = append(results, r)
				mu.Unlock()
				again := fmt.Sprintf("to repeat it: TOWLINE_MUTANTS=1 go test -count=1 -v -run '^TestMutants$/^each$/^%s$' ./internal/mutants", m.name)
				require.NoError(t, r.err, again)
				require.True(t, r.caught, "the mutant survived %s: %s\n%s", m.find(), m.bug, again)
			})
		}
	})
	if len(results) == 0 {
		return // another subtest was asked for
	}
	greatest := 0
	for _, r := range results {
		greatest = max(greatest, r.seed)
	}
	t.Run("none", func(t *testing.T) { sound(t, results, greatest+1) })
	publish(t, results, time.Since(began))
}

// sound checks that the code without a bug passes what has found the mutants: otherwise that was something else.
func sound(t *testing.T, results []result, seeds int) {
	tests := map[string][]string{machine: {"TestSim"}}
	for _, r := range results {
		if r.test != "" && !slices.Contains(tests[r.dir()], r.test) {
			tests[r.dir()] = append(tests[r.dir()], r.test)
		}
	}
	for pkg, names := range tests {
		bin, err := build(t, pkg, "", "", nil)
		require.NoError(t, err)
		out, passed, err := run(t.Context(), bin, pkg, strings.Join(names, "|"), seeds)
		require.NoError(t, err)
		// That a situation has not occurred in so few seeds is nothing that a mutant could have been taken for.
		require.True(t, passed || !failed.MatchString(out) && strings.Count(out, "--- FAIL:") == 1 && strings.Contains(out, "--- FAIL: TestSim"),
			"the code without a bug fails:\n%s", head(out))
	}
}

// publish prints the table, and the figures in one line.
func publish(t *testing.T, results []result, took time.Duration) {
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(a.name, b.name) })
	var b strings.Builder
	b.WriteString("| mutant | breaks | found by | seeds taken | s | what it said |\n|---|---|---|---|---|---|\n")
	caught, simulated := 0, []int{}
	for _, r := range results {
		by, taken, said := r.find(), "–", r.said
		switch {
		case !r.caught:
			by = "**nothing**"
		case r.test == "":
			by += fmt.Sprintf(", seed %d", r.seed)
			taken = strconv.Itoa(r.seed + 1)
			simulated = append(simulated, r.seed+1)
			caught++
		default:
			caught++
		}
		if len([]rune(said)) > 90 {
			said = string([]rune(said)[:90]) + "…"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f | %s |\n", r.name, r.breaks, by, taken, r.took.Seconds(), strings.ReplaceAll(said, "|", "/"))
	}
	slices.Sort(simulated)
	median, greatest := 0, 0
	if n := len(simulated); n > 0 {
		median, greatest = (simulated[(n-1)/2]+simulated[n/2]+1)/2, simulated[n-1]
	}
	fmt.Printf("%s\nmutants %d, caught %d: %d by the simulation, within %d seeds in the median and %d at most of %d, %d by named tests, in %.0f s\n",
		&b, len(results), caught, len(simulated), median, greatest, maxSeed, caught-len(simulated), took.Seconds())
}
