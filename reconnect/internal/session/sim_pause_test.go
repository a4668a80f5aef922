package session

import (
	"testing"
	"time"
)

// quiet is a simulation without faults but for those that a test makes.
func quiet(seed uint64, tracing bool) *sim {
	m := newSim(seed, tracing)
	p := &m.plan
	p.weights, p.total = [numFaults]int{}, 0
	p.latency = min(p.latency, 30*time.Millisecond)
	p.answerTimeout = 5 * time.Second
	p.writeDelay, p.silent, p.stops, p.late = min(p.writeDelay, time.Millisecond), false, false, true
	p.faults = 40 * time.Second
	return m
}

// undisturbed runs a simulation, with what disturb does again and again until it heals. The connection must live.
func undisturbed(t *testing.T, disturb func(*sim)) {
	first, count := seedRange(t, 30)
	for seed := first; seed < first+count; seed++ {
		play := func(m *sim) {
			var again func()
			again = func() {
				if !m.healed {
					disturb(m)
					m.after(m.between(8*time.Second, 12*time.Second), again)
				}
			}
			m.after(m.between(0, 5*time.Second), again)
			m.play()
			for _, d := range m.dialers {
				if d.dials != 1 {
					m.failf("%s: %d dials, and no reason for one", d.name, d.dials-1)
				}
			}
		}
		if text := try(quiet(seed, false), play); text != "" {
			report(t, text, quiet(seed, true), play)
		}
	}
}

// TestSimPause: a process that stops for 3 s is not taken for dead.
func TestSimPause(t *testing.T) {
	undisturbed(t, func(m *sim) { m.pause(m.rng.IntN(2), 3*time.Second) })
}

// TestSimSuspend: two that stop for half a minute, and wake together, go on.
func TestSimSuspend(t *testing.T) {
	undisturbed(t, func(m *sim) {
		m.pause(dialing, 30*time.Second)
		m.pause(listening, 30*time.Second)
	})
}

// TestSimClock: a clock that jumps ahead kills nothing.
func TestSimClock(t *testing.T) {
	undisturbed(t, func(m *sim) { m.jump(m.rng.IntN(2), m.between(12*time.Second, 100*time.Second)) })
}
