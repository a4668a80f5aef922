package session

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The explorer runs the real machine, a dialer's and a listener's Session with its Table, through every order of events
// that a small scope has: every order of writes, arrivals, timers and dials; every frame as the last that came through
// before a cut; old connections that go on delivering while new ones are dialled. It guards D1, D2 and D3 of
// docs/delivery.md where the simulator may not come by: in the corners that are small.
//
// A state is both Sessions, their applications, all that is under way, and which faults may still come. From each state
// each step is taken once; a state that was met before is not gone on from again. What must hold is looked at in each: see
// exWorld.check, and take for D1. For D2 one step out of each state is the fair one, which is no fault; the fair steps
// from each state lead to the end, and never into a circle. So it goes on from wherever faults have brought it.
//
// To read a failure: it prints the shortest story that was found, step by step with the state that it led to, and the
// line that repeats it, with EXPLORE_SCOPE and EXPLORE_PATH. The steps are named by
// exOp.String: "pull.Dt+2f" is that the dialer's timer for an ACK fires, it hands over two datagrams, ends its stream,
// and writes; "in.L.1x2" that two frames arrive at the listener on the first connection.
//
// Reductions keep it small, and lose nothing. What an application hands over, the end of its stream and the timer for an
// ACK change nothing that anybody sees until the side's next write: so they come right before that, in all numbers. A
// dialer without a connection can do nothing but dial: so it does at once (scopes with apart have all this as steps of
// their own, which TestExploreReduction compares). A dial that has become stale, for there is a newer one, is refused
// whenever it comes, and changes nothing: with lean it comes at once. What a closed end will never read is not part of a
// state. Times are not, either: the clock stands still, and a timer that runs fires at any time.
//
// What it cannot see: anything about credit and windows, for all bytes of a scope are within the first of it; how long
// something takes; and the drivers, of which it has a small one of its own that does as package reconnect does.

// exScopes are what is explored: all of it in CI, with EXPLORE=full. Quick is what any run of the tests does: the same with
// fewer datagrams or cuts. States is how many there must be, of the one and of the other: fewer are a sign that it does
// not explore any more. Who changes the machine changes them; then they go to nine tenths of what is printed.
var exScopes = []struct {
	exScope
	states      int
	quick       [2]int // datagrams
	quickCuts   int
	quickStates int
}{
	{exScope{name: "base", messages: [2]int{2, 2}, cuts: 2, lean: true}, 950_000, [2]int{2, 2}, 1, 165_000},
	{exScope{name: "whole", messages: [2]int{1, 1}, cuts: 2}, 130_000, [2]int{1, 1}, 1, 17_000},
	{exScope{name: "apart", messages: [2]int{1, 1}, cuts: 1, apart: true}, 45_000, [2]int{1, 0}, 1, 1000},
	{exScope{name: "slow", messages: [2]int{1, 1}, cuts: 1, lean: true, slow: true}, 79_000, [2]int{1, 0}, 1, 1000},
	{exScope{name: "silence", messages: [2]int{1, 0}, cuts: 1, pings: 1, lean: true}, 63_000, [2]int{1, 0}, 0, 1000},
	{exScope{name: "forgets", messages: [2]int{1, 1}, cuts: 1, forgets: true, lean: true}, 14_000, [2]int{1, 1}, 1, 14_000},
	{exScope{name: "consumed", messages: [2]int{1, 1}, cuts: 1, consumed: true, takes: true, lean: true}, 130_000, [2]int{1, 0}, 1, 1000},
	{exScope{name: "ages", messages: [2]int{1, 1}, cuts: 1, ages: true, lean: true}, 130_000, [2]int{1, 0}, 1, 1000},
	{exScope{name: "stops", messages: [2]int{0, 1}, cuts: 1, stops: true, apart: true, lean: true}, 147_000, [2]int{0, 0}, 1, 1000},
	{exScope{name: "aborts", messages: [2]int{1, 1}, cuts: 1, aborts: true, lean: true}, 81_000, [2]int{1, 0}, 1, 1000},
	{exScope{name: "expiry", messages: [2]int{1, 1}, cuts: 1, losses: 1, lean: true}, 21_000, [2]int{1, 1}, 1, 21_000},
	{exScope{name: "restart", messages: [2]int{1, 1}, cuts: 1, losses: 1, restarts: true, lean: true}, 155_000, [2]int{1, 0}, 1, 1000},
}

// explorer goes through a scope.
type explorer struct {
	scope *exScope
	seen  *exSeen
	dist  map[exPrint]uint16 // how far the end is from each state by fair steps; 0: not known yet
	path  []exOp
	bad   []exOp // the path that failed

	steps, ends, deepest, furthest int
	begin                          time.Time
	maxStates                      int
	until                          time.Time
	stopped                        bool // not exhausted

	sessions map[exPrint]bool // if it is not nil: the states of Sessions that were met, on a connection and with all written
}

func (x *explorer) run() error {
	x.begin = time.Now()
	x.dist = make(map[exPrint]uint16)
	w, err := newExWorld(x.scope)
	if err != nil {
		return err
	}
	print := w.print()
	x.dist[print] = 0
	_, err = x.explore(w, print)
	return err
}

// explore goes on from a state that is new. It returns how far it is to the end.
func (x *explorer) explore(w *exWorld, print exPrint) (uint16, error) {
	x.deepest = max(x.deepest, len(x.path))
	x.note(w)
	var space [32]exOp
	ops := w.ops(space[:0])
	if len(ops) == 0 {
		if err := w.final(); err != nil {
			return 0, x.fail(err)
		}
		x.ends++
		x.dist[print] = 1
		return 1, nil
	}
	if w.fault(ops[0]) {
		return 0, x.fail(errors.New("nothing goes on by itself, and it is not the end"))
	}
	var far uint16
	for i, o := range ops {
		if x.stopped || x.over() {
			return 0, nil
		}
		x.path = append(x.path, o)
		next, err := w.apply(o, x.seen)
		if err != nil {
			return 0, x.fail(err)
		}
		x.steps++
		print2 := next.print()
		dist, known := x.dist[print2]
		switch {
		case !known:
			x.dist[print2] = 0
			if dist, err = x.explore(next, print2); err != nil {
				return 0, err
			}
		case i == 0 && dist == 0:
			return 0, x.fail(errors.New("the fair steps lead back to where they came from: it never ends"))
		}
		if i == 0 && !x.stopped {
			far = dist + 1
			x.dist[print] = far
			x.furthest = max(x.furthest, int(far))
		}
		x.path = x.path[:len(x.path)-1]
	}
	return far, nil
}

// note notes the states of both Sessions. That an ACK is due, because its timer has fired, is the first half of a write.
func (x *explorer) note(w *exWorld) {
	for side := range w.sides {
		if s := w.sides[side].s; x.sessions != nil && s != nil && s.state.attached() && s.log.unsent == s.log.final() {
			c := *s
			c.ackDue, c.recv.ackAt = false, 0
			x.sessions[exPrintOf(exAppendPrint([]byte{byte(side)}, &c))] = true
		}
	}
}

// over reports whether a limit is reached.
func (x *explorer) over() bool {
	if x.maxStates > 0 && len(x.dist) >= x.maxStates ||
		!x.until.IsZero() && x.steps%1024 == 0 && time.Now().After(x.until) {
		x.stopped = true
	}
	return x.stopped
}

func (x *explorer) fail(err error) error {
	x.bad = slices.Clone(x.path)
	return err
}

// String is the line of figures.
func (x *explorer) String() string {
	exhausted := "exhausted"
	if x.stopped {
		exhausted = "NOT exhausted"
	}
	return fmt.Sprintf("explore %s: %s, %d states, %d steps, deepest path %d, longest way to the end %d, %d ends, %.1f s",
		x.scope.name, exhausted, len(x.dist), x.steps, x.deepest, x.furthest, x.ends, time.Since(x.begin).Seconds())
}

// replay takes the steps of a path; those that are not possible are left out. It returns what was taken, and the first
// error: that of a step, or of where the fair steps lead from its end.
func exReplay(sc *exScope, path []exOp, tell func(o exOp, w *exWorld, err error)) ([]exOp, error) {
	w, err := newExWorld(sc)
	if err != nil {
		return nil, err
	}
	var took []exOp
	for _, o := range path {
		if !slices.Contains(w.ops(nil), o) {
			continue
		}
		took = append(took, o)
		next, err := w.apply(o, nil)
		tell(o, next, err)
		if err != nil {
			return took, err
		}
		w = next
	}
	for range 500 {
		ops := w.ops(nil)
		if len(ops) == 0 {
			return took, w.final()
		}
		if w.fault(ops[0]) {
			return took, errors.New("nothing goes on by itself, and it is not the end")
		}
		next, err := w.apply(ops[0], nil)
		tell(ops[0], next, err)
		if err != nil {
			return took, err
		}
		w = next
	}
	return took, errors.New("500 fair steps have not led to the end")
}

// shrink leaves out of a path that fails all that is not needed for it to fail.
func exShrink(sc *exScope, path []exOp) []exOp {
	quiet := func(exOp, *exWorld, error) {}
	for again := true; again; {
		again = false
		for size := max(len(path)/2, 1); size > 0; size /= 2 {
			for i := 0; i+size <= len(path); {
				shorter := slices.Concat(path[:i], path[i+size:])
				if took, err := exReplay(sc, shorter, quiet); err != nil {
					path, again = took, true
				} else {
					i++
				}
			}
		}
	}
	return path
}

// exParse finds the steps of a path by their names.
func exParse(t *testing.T, sc *exScope, names string) (path []exOp) {
	w, err := newExWorld(sc)
	require.NoError(t, err)
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' }) {
		ops := w.ops(nil)
		i := slices.IndexFunc(ops, func(o exOp) bool { return o.String() == name })
		require.GreaterOrEqual(t, i, 0, "%s is not possible there, but %v", name, ops)
		path = append(path, ops[i])
		if w, err = w.apply(ops[i], nil); err != nil {
			break
		}
	}
	return path
}

// exTell is the story of a path.
func exTell(sc *exScope, path []exOp) string {
	var b strings.Builder
	steps := 0
	took, err := exReplay(sc, path, func(o exOp, w *exWorld, err error) {
		steps++
		mark := " "
		if steps > len(path) {
			mark = "~" // a fair step
		}
		fmt.Fprintf(&b, "%3d%s %-12v %s\n", steps, mark, o, w.story())
		if err != nil {
			fmt.Fprintf(&b, "     %v\n", err)
		}
	})
	names := make([]string, len(took))
	for i, o := range took {
		names[i] = o.String()
	}
	fmt.Fprintf(&b, "%v, after %d steps and %d fair ones (~)\n", err, len(took), steps-len(took))
	fmt.Fprintf(&b, "again: EXPLORE_SCOPE=%s MESSAGES=%d,%d CUTS=%d EXPLORE_PATH=%s go test -count=1 -run 'TestExplore$' ./reconnect/internal/session",
		sc.name, sc.messages[0], sc.messages[1], sc.cuts, strings.Join(names, ","))
	return b.String()
}

// fault reports whether a step is one that nobody has to expect.
func (w *exWorld) fault(o exOp) bool {
	switch o.kind {
	case exOpLeave:
		return !(&exTurn{exWorld: w}).wire(o.wire).free(o.side)
	case exOpExpire:
		return w.sides[Dialer].s.state != Ended
	case exOpRestart, exOpStop, exOpAbort, exOpSilence, exOpAge:
		return true
	default:
		return false
	}
}

// exNumber is the number that the environment gives, or n.
func exNumber(t *testing.T, name string, n int) int {
	if s := os.Getenv(name); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(t, err, name)
	}
	return n
}

// exMessages is what MESSAGES says: a number for both sides, or one for each.
func exMessages(t *testing.T, s string) (n [2]int) {
	var err error
	for i, x := range strings.SplitN(s+","+s, ",", 3)[:2] {
		n[i], err = strconv.Atoi(x)
		require.NoError(t, err, "MESSAGES")
	}
	return n
}

// exOnlyFull are the situations for which the quick scopes are too small.
var exOnlyFull = []exSituation{exDialledTwice, exStaleResume, exExpiredStopped}

// TestExplore explores the scopes: those of CI with EXPLORE=full, else quick ones. EXPLORE_SCOPE chooses one; MESSAGES (of
// both sides, or "2,1" of the dialer and the listener) and CUTS change its size; STATES and MINUTES limit it. With
// EXPLORE_PATH it follows that path alone. Under the race detector it is but a few thousand steps.
func TestExplore(t *testing.T) {
	var seen exSeen
	full, all := os.Getenv("EXPLORE") == "full", true
	for i := range exScopes {
		sc, least := exScopes[i].exScope, exScopes[i].states
		if only := os.Getenv("EXPLORE_SCOPE"); only != "" && only != sc.name {
			all = false
			continue
		}
		if !full {
			sc.messages, sc.cuts, least = exScopes[i].quick, exScopes[i].quickCuts, exScopes[i].quickStates
			if raceEnabled { // there are no goroutines: it is for memory alone
				if sc.name != "base" && sc.name != "slow" && sc.name != "expiry" {
					continue
				}
				sc.messages, least, all = [2]int{1, 0}, 0, false
			}
		}
		if s := os.Getenv("MESSAGES"); s != "" {
			sc.messages, least, all = exMessages(t, s), 0, false
		}
		if os.Getenv("CUTS") != "" {
			sc.cuts, least, all = exNumber(t, "CUTS", 0), 0, false
		}
		if names, ok := os.LookupEnv("EXPLORE_PATH"); ok {
			path := exParse(t, &sc, names)
			t.Log("\n" + exTell(&sc, path))
			_, err := exReplay(&sc, path, func(exOp, *exWorld, error) {})
			require.NoError(t, err)
			all, seen.quiet = false, true
			continue
		}
		x := &explorer{scope: &sc, seen: &seen, maxStates: exNumber(t, "STATES", 0)}
		if n := exNumber(t, "MINUTES", 0); n > 0 {
			x.until = time.Now().Add(time.Duration(n) * time.Minute)
		}
		if err := x.run(); err != nil {
			t.Errorf("scope %s, after %d states and %d steps: %v\nshortened:\n%s",
				sc.name, len(x.dist), x.steps, err, exTell(&sc, exShrink(&sc, x.bad)))
			all = false
			continue
		}
		fmt.Println(x)
		if x.stopped {
			all = false
		} else {
			assert.GreaterOrEqual(t, len(x.dist), least, "%s: so few states", sc.name)
		}
	}
	if !seen.quiet {
		t.Log(seen.String())
	}
	if !all {
		return
	}
	for what, n := range seen.situations {
		if full || !slices.Contains(exOnlyFull, exSituation(what)) {
			assert.NotZero(t, n, "it has never happened: %s", exSituationNames[what])
		}
	}
	if !full {
		return
	}
	for _, lost := range [...]struct {
		to   Role
		kind Kind
	}{
		{Listener, KindHello}, {Dialer, KindWelcome}, {Listener, KindResume}, {Dialer, KindResumed}, {Dialer, KindReject},
		{Dialer, kindData}, {Listener, kindData}, {Dialer, KindAck}, {Listener, KindAck}, {Dialer, KindFin}, {Listener, KindFin},
		{Dialer, KindClose}, {Listener, KindClose}, {Dialer, KindStop}, {Listener, KindStop}, {Dialer, KindSkip},
		{Listener, KindSkip}, {Dialer, KindPing}, {Listener, KindPing}, {Dialer, KindPong}, {Listener, KindPong},
	} {
		assert.NotZero(t, seen.lost[lost.to][lost.kind], "no cut before kind %v to %v", lost.kind, lost.to)
	}
}

// TestExploreReduction requires that what keeps the scopes small hides nothing that a side can come to: each state of a
// Session, on a connection and with all written, is the same in number and kind when the steps are not put together.
func TestExploreReduction(t *testing.T) {
	if raceEnabled {
		t.Skip("no goroutines")
	}
	var of [2]*explorer
	for i, sc := range [...]exScope{
		{name: "lean", messages: [2]int{1, 1}, cuts: 1, lean: true},
		{name: "apart", messages: [2]int{1, 1}, cuts: 1, apart: true},
	} {
		of[i] = &explorer{scope: &sc, seen: new(exSeen), sessions: make(map[exPrint]bool)}
		require.NoError(t, of[i].run())
	}
	require.Greater(t, len(of[0].sessions), 400)
	require.Equal(t, of[1].sessions, of[0].sessions)
	require.Greater(t, len(of[1].dist), 2*len(of[0].dist))
}
