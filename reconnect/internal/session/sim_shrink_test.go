package session

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lessening says what of a seed's run is left out. The zero value leaves out nothing. As text it is lines of a word and
// what it is about, after one that has the seed:
//
//	seed 1234
//	messages 3           no more from each application
//	faults 0 7 12        no others, by the order in which they come
//	without ages yields  of what the plan has; see plans
type lessening struct {
	messages int   // 0: as drawn
	faults   []int // nil: all
	without  []string
}

// plans are what can be left out of a plan.
var plans = map[string]func(*plan){
	"ages":    func(p *plan) { p.ages = false },
	"stops":   func(p *plan) { p.stops = false },
	"yields":  func(p *plan) { p.yields = false },
	"silence": func(p *plan) { p.silent = false },
	"writes":  func(p *plan) { p.writeDelay, p.shortWrites = 0, false },
	"latency": func(p *plan) { p.latency = time.Millisecond },
	"crowd":   func(p *plan) { p.dialers = 1 },
	"memory":  func(p *plan) { p.memory = 0 },
	"sizes":   func(p *plan) { p.sizes = 0 },
	"start":   func(p *plan) { p.start = Position{} },
	"token":   func(p *plan) { p.token = false },
	"channel": func(p *plan) { p.exporter = false },
}

func (l *lessening) apply(p *plan) {
	if l.messages > 0 {
		p.messages = min(p.messages, l.messages)
	}
	for _, name := range l.without {
		plans[name](p)
	}
}

func (l *lessening) leavesOut(ordinal int) bool {
	return l.faults != nil && !slices.Contains(l.faults, ordinal)
}

func (l *lessening) text(seed uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n", seed)
	if l.messages > 0 {
		fmt.Fprintf(&b, "messages %d\n", l.messages)
	}
	if l.faults != nil {
		b.WriteString("faults")
		for _, n := range l.faults {
			fmt.Fprintf(&b, " %d", n)
		}
		b.WriteByte('\n')
	}
	if len(l.without) > 0 {
		fmt.Fprintf(&b, "without %s\n", strings.Join(l.without, " "))
	}
	return b.String()
}

// parseSeed is text backwards. Lines that begin with # are comments.
func parseSeed(text string) (seed uint64, l lessening, err error) {
	found := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		switch rest := words[1:]; words[0] {
		case "seed":
			if found = len(rest) == 1; found {
				seed, err = strconv.ParseUint(rest[0], 10, 64)
			}
		case "messages":
			l.messages, err = strconv.Atoi(strings.Join(rest, " "))
		case "faults":
			l.faults = []int{}
			for _, w := range rest {
				var n int
				if n, err = strconv.Atoi(w); err != nil {
					break
				}
				l.faults = append(l.faults, n)
			}
		case "without":
			for _, w := range rest {
				if plans[w] == nil {
					err = fmt.Errorf("there is no %q to leave out", w)
				}
			}
			l.without = rest
		default:
			err = fmt.Errorf("a line that begins with %q", words[0])
		}
		if err != nil {
			return 0, l, err
		}
	}
	if !found {
		return 0, l, fmt.Errorf("no seed")
	}
	return seed, l, nil
}

// shrinkTime bounds how long a failing seed is shrunk.
const shrinkTime = 20 * time.Second

// shrink leaves out as much of a run as it can, so that it is still bad: it fails, in whatever way.
func shrink(seed uint64, l lessening, bad func(m *sim, text string) bool) lessening {
	began := time.Now()
	fails := func(l lessening) bool {
		if time.Since(began) > shrinkTime {
			return false
		}
		m := newSimIn(new(segments), seed, l, false)
		return bad(m, try(m, (*sim).play))
	}
	better := func(change func(*lessening)) bool {
		next := lessening{l.messages, slices.Clone(l.faults), slices.Clone(l.without)}
		change(&next)
		if fails(next) {
			l = next
			return true
		}
		return false
	}
	m := newSimIn(new(segments), seed, l, false)
	try(m, (*sim).play)
	if l.faults == nil {
		all := []int{}
		for n := range m.ordinal {
			all = append(all, n)
		}
		l.faults = all // the same run
	}
	for range 3 { // what one pass leaves out may let the next one leave out more
		before := l.text(seed)
		for size := len(l.faults); size > 0; size /= 2 {
			for i := 0; i+size <= len(l.faults); {
				if !better(func(l *lessening) { l.faults = slices.Delete(l.faults, i, i+size) }) {
					i += size
				}
			}
		}
		for n := m.plan.messages / 2; n > 0; n /= 2 {
			if l.messages == 0 || n < l.messages {
				better(func(l *lessening) { l.messages = n })
			}
		}
		for _, name := range planNames() {
			if !slices.Contains(l.without, name) {
				better(func(l *lessening) { l.without = append(l.without, name) })
			}
		}
		if l.text(seed) == before {
			break
		}
	}
	return l
}

func planNames() (names []string) {
	for name := range plans {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fail fails a test with the story of a seed, shrunk.
func fail(t *testing.T, bad *failed, l lessening) {
	t.Helper()
	again := fmt.Sprintf("seed %d: %s\nto repeat it: SEED=%d go test -run '^TestSim$' ./reconnect/internal/session", bad.seed, bad.text, bad.seed)
	if os.Getenv("SHRINK") == "0" {
		t.Fatal(again)
	}
	l = shrink(bad.seed, l, func(_ *sim, text string) bool { return text != "" })
	m := newSimIn(new(segments), bad.seed, l, true)
	text := try(m, (*sim).play)
	t.Fatalf("%s\nshrunk, it says: %s\n\n%s\nto keep it, put this into reconnect/internal/session/testdata/seeds/NAME.txt:\n\n# %s\n%s",
		again, text, m.story(), strings.SplitN(text, "\n", 2)[0], l.text(bad.seed))
}

// story is the last that happened; TRACE=n is how many lines of it.
func (m *sim) story() string {
	n := 60
	if k, err := strconv.Atoi(os.Getenv("TRACE")); err == nil {
		n = k
	}
	return strings.Join(m.trace[max(0, len(m.trace)-n):], "\n")
}

// TestSeedsThatFailed runs what has failed before, as it was shrunk then: testdata/seeds/*.txt. A change of the
// simulation makes other runs of them; what they have found is told for good in sim_found_test.go.
func TestSeedsThatFailed(t *testing.T) {
	names, err := filepath.Glob("testdata/seeds/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		seed, l, err := parseSeed(string(text))
		require.NoError(t, err, name)
		m := newSimIn(new(segments), seed, l, false)
		if text := try(m, (*sim).play); text != "" {
			fail(t, &failed{seed, name + ": " + text}, l)
		}
	}
}

// TestShrinkText: what is written about a seed is read as it was meant.
func TestShrinkText(t *testing.T) {
	for _, l := range []lessening{
		{}, {messages: 3}, {faults: []int{}}, {faults: []int{4, 77}, without: []string{"ages", "crowd"}},
	} {
		seed, got, err := parseSeed("# why\n" + l.text(12))
		require.NoError(t, err)
		require.EqualValues(t, 12, seed)
		require.Equal(t, l, got)
	}
	for _, bad := range []string{"", "seed", "seed x", "seed 1\nfaults x", "seed 1\nwithout sense", "seed 1\nmore 3"} {
		_, _, err := parseSeed(bad)
		require.Error(t, err, bad)
	}
}

// TestShrink: a run that is bad because of one fault and a few datagrams is shrunk to about those.
func TestShrink(t *testing.T) {
	bad := func(m *sim, text string) bool { return text == "" && m.hits[skipAgain] > 0 && m.hits[blackHole] > 0 }
	for seed := range uint64(1000) {
		m := newSim(seed, false)
		if !bad(m, try(m, (*sim).play)) {
			continue
		}
		l := shrink(seed, lessening{}, bad)
		t.Logf("%d faults, of at most %d datagrams:\n%s", m.ordinal, m.plan.messages, l.text(seed))
		require.LessOrEqual(t, len(l.faults), 3)
		require.Less(t, l.messages, m.plan.messages)
		require.NotEmpty(t, l.without)
		m = newSimIn(new(segments), seed, l, false)
		require.True(t, bad(m, try(m, (*sim).play)), "what is left must still be bad")
		return
	}
	t.Fatal("no seed is bad")
}
