package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/towline-mq/towline/internal/seeds"
)

// situation is something that must happen in some of the runs: if it never does, the runs do not test it.
type situation int

const (
	reset situation = iota
	cutBetween
	cutInHeader
	cutInPayload
	cutInHello
	cutInWelcome
	cutInResume
	cutInResumed
	cutInControl
	oneByteReads
	writerStalled
	lateBytes
	takenOverLive
	takenOverInWrite
	takenOverInRead
	takenOverTwice
	dialWaited
	dialRefused
	attachedAnew
	leftByDialer
	helloAgain
	helloAfterData
	resumedLost
	resumeConfirms
	nothingToReplay
	resumedWithReplay
	dropped
	replayPassed
	cursorMoved
	ackedInWrite
	creditUsedUp
	windowGrown
	logFull
	flushed
	pingSent
	pongCame
	silence
	lateTick
	partialAck
	blackHole
	blackHoleOneWay
	clockJumped
	ageExceeded
	skipSent
	skipAgain
	finAgain
	finConfirmed
	closeCame
	stopCame
	stopWithData
	stopDropsQueue
	goawayCame
	rejectedAgain
	tombstoneAsked
	tombstoneClosed
	closeLost
	expired
	restarted
	restartSeen
	sessionLost
	lostWithCount
	renewed
	cannotRenew
	redelivered
	helloReplayed
	resumeReplayed
	restoredDialer
	restoredListener
	restoredLog
	consumedInPart
	emptyDatagram
	hugeDatagram
	exhausted
	byteFlipped
	numSituations
)

var situations = [numSituations]string{
	"a connection is reset", "cut between frames", "cut inside a header", "cut inside a payload", "cut inside HELLO",
	"cut inside WELCOME", "cut inside RESUME", "cut inside RESUMED", "cut inside another control frame",
	"reads of one byte", "a write waits for room", "late bytes on a fenced connection",
	"taken over while the old connection looks alive", "taken over while the old one writes",
	"taken over with bytes unread", "taken over twice before the writer has ended", "a dial waits for the old writer",
	"a dial is refused", "a live dialer dials again", "the dialer gives its connection up", "HELLO again",
	"HELLO again after data was delivered", "RESUMED lost after the listener went on",
	"RESUME confirms the session", "RESUMED with nothing to replay", "RESUMED with a replay", "replayed datagrams dropped",
	"a replay passes what has arrived within one run", "the cursor moves during a replay",
	"acknowledged while it is being written", "credit used up", "window grown", "log full", "flush", "PING", "PONG",
	"a silent connection is given up", "a late Tick", "ACK for a part of a frame", "black hole", "black hole one way",
	"a clock jumps", "a datagram expires", "SKIP", "SKIP replayed", "FIN replayed", "FIN acknowledged", "CLOSE",
	"STOP", "data after STOP", "STOP drops what waits", "GOAWAY", "rejected for now", "a tombstone answers",
	"a tombstone answers closed", "CLOSE lost, and answered by REJECT", "a session expires", "the listener is restarted",
	"the dialer sees the restart", "the session is lost", "lost, and how much arrived is known", "renewed",
	"cannot be renewed", "delivered again, and marked", "HELLO repeated by an attacker", "RESUME repeated by an attacker",
	"the dialer's side restored", "the listener's side restored", "restored with a log", "consumed in part",
	"an empty datagram", "a datagram longer than the window", "the counts are used up", "a byte is changed",
}

// newSim makes everything, and lets nothing happen yet.
func newSim(seed uint64, tracing bool) *sim {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	m := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), secret: rand.NewChaCha8(key), tracing: tracing}
	m.draw()
	return m
}

// open makes the two sides.
func (m *sim) open() {
	m.server = m.newServer()
	s, err := NewDialer(m.config(Dialer), m.secret)
	if err != nil {
		m.failf("NewDialer: %v", err)
	}
	e := &end{m: m, name: "dialer    ", s: s}
	m.dialer = &dialer{end: e}
	e.idle = m.dialer.idleFunc
	e.app = m.newApp(e)
	m.dialer.redial()
	e.app.wake()
}

// finished reports whether all is over.
func (m *sim) finished() bool {
	if m.void {
		return true
	}
	if d := m.dialer; d.s.state != Ended || d.renewing || d.cur != nil || d.s.Readable() {
		return false
	}
	for _, e := range m.server.ends {
		if !e.gone && (e.s.state != Ended || e.cur != nil || e.s.Readable()) {
			return false
		}
	}
	return true
}

// play runs it all.
func (m *sim) play() {
	m.open()
	m.after(0, m.disturb)
	m.run(m.plan.faults, func() bool { return m.void })
	m.now = max(m.now, m.plan.faults)
	m.heal()
	// A dead connection is found in 10 s, a process that was stopped goes on within 30 s, a session that nobody asks for
	// expires.
	m.run(m.now+120*time.Second+2*m.plan.expiry, m.finished)
	m.verdict()
}

// verdict checks what must be true in the end.
func (m *sim) verdict() {
	d := m.dialer
	if !m.finished() {
		text := fmt.Sprintf("not finished after all faults have ended: dialer %v, err %v", d.s.state, d.s.err)
		for _, e := range m.server.ends {
			text += fmt.Sprintf("; %s %v, gone %v, err %v", e.name, e.s.state, e.gone, e.s.err)
		}
		m.failf("%s", text)
	}
	defer func() {
		d.forget()
		for _, e := range m.server.ends {
			e.forget()
		}
		if m.mem.out != 0 {
			m.failf("%d segments are not given back", m.mem.out)
		}
	}()
	if m.flipped || m.void {
		return
	}
	if d.lost {
		if !isLost(d.s.err) {
			m.failf("dialer: lost by %v", d.s.err)
		}
		return
	}
	last := m.server.latest(d.s.id)
	stopped := false
	for _, e := range m.server.ends {
		if e != last && !e.gone && e.s.err != nil && !isLost(e.s.err) {
			m.failf("%s: ended with %v", e.name, e.s.err)
		}
		stopped = stopped || e.s.recv.stopped
	}
	m.ended(d.end, last)
	m.ended(last, d.end)
	if !stopped {
		m.all(d.app)
	}
	if !d.s.recv.stopped {
		m.all(last.app)
	}
	if !d.s.stopped && !last.s.stopped && len(m.server.ends) == 1 && last.s.err == nil && m.mem.out != 0 {
		m.failf("%d segments are held by sessions that have ended in good order", m.mem.out)
	}
}

// ended checks that a Session has ended in good order.
func (m *sim) ended(e, peer *end) {
	var c *ClosedError
	var r *RejectError
	switch err := e.s.err; {
	case err == nil:
	case e.s.stopped && e.s.log.base != e.s.log.final() && errors.As(err, &c) && c.Reason == CloseDone:
		// The peer wanted no more, and something of ours is unconfirmed.
	case peer.s.recv.stopped && errors.As(err, &r) && r.Reason == ReasonClosed:
		// The same, but the peer has expired before it could say so.
	case e.s.role == Listener && isLost(err) && peer.s.err == nil && (e.s.recv.fin || e.s.recv.stopped):
		// It expired while the dialer's last acknowledgement was not there.
	default:
		m.failf("%s: ended with %v", e.name, err)
	}
}

// all checks that everything was delivered, or reported as expired.
func (m *sim) all(a *app) {
	if a.left > 0 && a.e.s.Accepting() == nil {
		m.failf("%s: %d were not sent", a.e.name, a.left)
	}
	for i := range a.sent {
		if !a.sent[i].delivered && !a.sent[i].expired && !a.sent[i].buried && !m.buried(a, i) {
			m.failf("%s: datagram %d of %d was not delivered", a.e.name, i, len(a.sent))
		}
	}
}

// buried reports whether a datagram was acknowledged by a process that was killed then, and the dialer was done.
func (m *sim) buried(a *app, i int) bool {
	return a == m.dialer.app && m.server.latest(m.dialer.s.id).gone && m.server.buried(uint64(i))
}

// try runs one seed, and returns what was wrong.
func try(m *sim, play func(*sim)) (text string) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			text = r.text
		default:
			text = fmt.Sprintf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	play(m)
	return ""
}

// report fails the test with a trace of the last that happened in a run.
func report(t *testing.T, text string, again *sim, play func(*sim)) {
	t.Helper()
	try(again, play)
	trace := again.trace
	n := 60
	if s, err := strconv.Atoi(os.Getenv("TRACE")); err == nil {
		n = s
	}
	if len(trace) > n {
		trace = trace[len(trace)-n:]
	}
	t.Fatalf("seed %d: %s\nto repeat it: SEED=%d go test -run '^%s$' ./reconnect/internal/session\n%s",
		again.seed, text, again.seed, t.Name(), strings.Join(trace, "\n"))
}

// seedRange is seeds.Range with less to do under the race detector, for there is nothing to race with.
func seedRange(t *testing.T, n uint64) (first, count uint64) {
	if raceEnabled {
		n = max(n/20, 1)
	}
	return seeds.Range(t, n)
}

// TestSim runs the simulation with many seeds. SEEDS=n runs n of them, SEED=n only that one; FROM=n begins there.
func TestSim(t *testing.T) {
	first, count := seedRange(t, 1500)
	var hits [numSituations]int
	var faults, steps, conns int
	began := time.Now()
	for seed := first; seed < first+count; seed++ {
		m := newSim(seed, false)
		if text := try(m, (*sim).play); text != "" {
			if os.Getenv("ALL") != "" { // only what is wrong, for all seeds
				t.Errorf("seed %d: %s", seed, text)
				continue
			}
			report(t, text, newSim(seed, true), (*sim).play)
		}
		for i, n := range m.hits {
			hits[i] += n
		}
		faults += m.faults
		steps += m.steps
		conns += len(m.conns)
	}
	took := time.Since(began)
	t.Logf("%d seeds, %d faults, %d connections, %d events in %v: %.0f faults/s",
		count, faults, conns, steps, took, float64(faults)/took.Seconds())
	for i, n := range hits {
		t.Logf("%9d %s", n, situations[i])
		if n == 0 && count >= 1000 {
			t.Errorf("it never came to this: %s", situations[i])
		}
	}
}
