package session

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// Every cut of a small conversation: there are few enough of them that none needs to be drawn.

// breach is where a connection of a conversation breaks.
type breach struct {
	conn, from, at int
	late           bool // what is behind it is not lost, but comes when the next connection is there
}

// conversation makes a simulation in which both sides say a little and finish, and connections break as cuts say.
func conversation(messages int, consumed, tracing bool, cuts ...breach) *sim {
	m := newSim(1, tracing)
	m.plan = plan{
		maxPayload: 1000, sendBuffer: 64 << 10, minWindow: InitialCredit, maxWindow: InitialCredit,
		consumed: [2]bool{consumed, consumed}, ackDelay: 5 * time.Millisecond, answerTimeout: 5 * time.Second,
		expiry: time.Minute, messages: messages, exactly: true, batch: 1, latency: time.Millisecond,
		takePace: time.Millisecond, sendPace: time.Millisecond, maxWait: 5 * time.Second,
	}
	m.healed = true
	m.cuts = cuts
	return m
}

// converse runs it.
func (m *sim) converse() {
	m.open()
	m.run(3*time.Minute, m.finished)
	m.verdict()
	if m.dialers[0].s.err != nil || len(m.server.ends) != 1 || len(m.conns) > 1+2*len(m.cuts) {
		m.failf("%v, %d sessions, %d connections", m.dialers[0].s.err, len(m.server.ends), len(m.conns))
	}
}

// broken runs a conversation with cuts, and fails the test if anything is wrong.
func broken(t *testing.T, messages int, consumed bool, cuts ...breach) *sim {
	t.Helper()
	m := conversation(messages, consumed, false, cuts...)
	if text := try(m, (*sim).converse); text != "" {
		report(t, fmt.Sprintf("cuts %+v, consumed %v: %s", cuts, consumed, text),
			conversation(messages, consumed, true, cuts...), (*sim).converse)
	}
	return m
}

// TestCuts cuts a conversation behind every byte of it.
func TestCuts(t *testing.T) {
	var runs int
	step := 1
	if raceEnabled {
		step = 11
	}
	for _, consumed := range []bool{false, true} {
		whole := broken(t, 3, consumed)
		for from := range 2 {
			for at := 0; at <= whole.conns[0].lanes[from].delivered; at += step {
				for _, late := range []bool{false, true} {
					broken(t, 3, consumed, breach{conn: 0, from: from, at: at, late: late})
					runs++
				}
			}
		}
	}
	t.Logf("%d conversations", runs)
}

// TestCutsTwice cuts the shortest conversation, and the one that goes on with it. PAIRS=1 makes all pairs of cuts;
// otherwise only so many that each offset comes up on either side.
func TestCutsTwice(t *testing.T) {
	step := 41
	if raceEnabled || testing.Short() {
		step = 997
	}
	if os.Getenv("PAIRS") != "" {
		step = 1
	}
	var runs int
	whole := broken(t, 1, false)
	for from := range 2 {
		for at := range whole.conns[0].lanes[from].delivered + 1 {
			first := breach{conn: 0, from: from, at: at, late: at%2 == 1}
			once := broken(t, 1, false, first)
			if len(once.conns) < 2 {
				continue
			}
			for again := range 2 {
				for k := at % step; k <= once.conns[1].lanes[again].delivered; k += step {
					broken(t, 1, false, first, breach{conn: 1, from: again, at: k, late: k/step%2 == 1})
					runs++
				}
			}
		}
	}
	t.Logf("%d conversations", runs)
}
