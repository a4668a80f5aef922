package session

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
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
	dialHung
	dialLate
	lateHello
	lateResume
	processPaused
	clogged
	shortWriteFailed
	largestDatagram
	ackDelayed
	passed31
	passed32
	passed63
	heardInVain
	sessionsCompete
	budgetRefused
	budgetReturned
	budgetFloors
	threeSessions
	listenerBusy
	evicted
	otherPrincipal
	tokenRefused
	copyRefused
	copyTaken
	takenFromOriginal
	abortedDialer
	abortedListener
	shutDown
	shutdownTold
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
	"a dial hangs", "a dial that hung works, late", "a HELLO comes after a later one", "a RESUME comes after a later one",
	"a process stops for a while", "a connection is clogged for a while", "a write fails in its middle",
	"a datagram of the largest size", "an acknowledgement waits for its time", "the counts pass 2^31",
	"the counts pass 2^32", "the counts pass 2^63", "a connection is given up whose peer has had the PING",
	"sessions share the budget", "the budget refuses a wider window", "a session gives some of the budget back",
	"the floors are more than the budget", "three sessions at once", "the listener is busy", "a session is evicted",
	"another principal is refused", "a token is refused", "a copy of a session is refused",
	"a copy of a session takes it over", "the original is told that it was taken over", "the dialer aborts",
	"the listener aborts", "the listener shuts down", "the dialer is told of the shutdown",
}

// newRand is a source of its own.
func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// segments is the Memory of a simulation.
type segments struct {
	out  int // which are not given back
	free [2][][]byte
	bufs [][]byte // of connections that are no more
}

// bytes gives an empty slice, which may have room.
func (h *segments) bytes() []byte {
	n := len(h.bufs)
	if n == 0 {
		return nil
	}
	b := h.bufs[n-1]
	h.bufs = h.bufs[:n-1]
	return b[:0]
}

// recycle takes what a simulation's connections had, when it is over, as far as that is worth it: a long run must not
// gather what no other simulation needs.
func (h *segments) recycle(m *sim) {
	keep := func(b []byte) {
		if n := cap(b); n > 0 && n <= 1<<20 && len(h.bufs) < 32 {
			h.bufs = append(h.bufs, b)
		}
	}
	for _, c := range m.conns {
		for i, l := range c.lanes {
			keep(l.q.buf)
			keep(l.inbox.buf)
			if e := c.ends[i]; e != nil {
				keep(e.copy)
			}
		}
	}
}

func (h *segments) list(size int) *[][]byte {
	if size == SmallSegment {
		return &h.free[0]
	}
	return &h.free[1]
}

// Get gives a segment.
func (h *segments) Get(size int) []byte {
	h.out++
	free := h.list(size)
	n := len(*free)
	if n == 0 {
		return make([]byte, size)
	}
	b := (*free)[n-1]
	*free = (*free)[:n-1]
	return b
}

// Put takes one back, and spoils it, for whoever still reads it.
func (h *segments) Put(b []byte) {
	h.out--
	spoil(b)
	*h.list(len(b)) = append(*h.list(len(b)), b)
}

// spoil overwrites what nobody may read any more.
func spoil(b []byte) {
	for len(b) > 0 {
		b = b[copy(b, spoilt[:]):]
	}
}

var spoilt = [64 << 10]byte(bytes.Repeat([]byte{0xdd}, 64<<10))

// noise is what payloads are made of.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
})

// newSim makes everything, and lets nothing happen yet.
func newSim(seed uint64, tracing bool) *sim {
	return newSimIn(new(segments), seed, lessening{}, tracing)
}

// newSimIn is newSim with a Memory that others had before, and less to happen.
func newSimIn(mem *segments, seed uint64, less lessening, tracing bool) *sim {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	m := &sim{
		seed: seed, rng: newRand(seed, 1), secret: rand.NewChaCha8(key), tracing: tracing, mem: mem, less: less,
		noise: noise(),
	}
	m.draw()
	less.apply(&m.plan)
	m.buffer = make([]byte, 0, m.plan.maxPayload)
	return m
}

// open makes the listener and the dialers.
func (m *sim) open() {
	m.server = m.newServer()
	for i := range max(m.plan.dialers, 1) {
		d := m.newDialer("dialer    ")
		if i > 0 {
			d.name = fmt.Sprintf("dialer %d  ", i)
		}
		var err error
		if d.s, err = NewDialer(m.config(Dialer), m.secret); err != nil {
			m.failf("NewDialer: %v", err)
		}
		d.app = m.newApp(d.end)
		m.dialers = append(m.dialers, d)
	}
	for _, d := range m.dialers {
		d.redial()
		d.app.wake()
	}
}

// finished reports whether all is over.
func (m *sim) finished() bool {
	if m.void {
		return true
	}
	for _, d := range m.dialers {
		if d.s.state != Ended || d.renewing || d.cur != nil || d.writers > 0 || d.s.Readable() {
			return false
		}
	}
	for _, e := range m.server.ends {
		if !e.gone && (e.s.state != Ended || e.cur != nil || e.writers > 0 || e.s.Readable()) {
			return false
		}
	}
	for _, d := range m.copies {
		if d.s.state != Ended || d.cur != nil || d.writers > 0 {
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
	m.endCopies()
	// Each datagram has its limit by D2. What is left to send may take a round trip each, and then a session that nobody
	// asks for expires.
	m.run(m.calm+time.Hour+2*m.plan.expiry, m.finished)
	m.verdict()
}

// verdict checks what must be true in the end.
func (m *sim) verdict() {
	if !m.finished() {
		text := "not finished long after all faults have ended"
		for _, d := range append(slices.Clone(m.dialers), m.copies...) {
			text += fmt.Sprintf("; %s %v, err %v", d.name, d.s.state, d.s.err)
		}
		for _, e := range m.server.ends {
			text += fmt.Sprintf("; %s %v, gone %v, err %v", e.name, e.s.state, e.gone, e.s.err)
		}
		m.failf("%s", text)
	}
	orderly := !m.void
	for _, d := range m.dialers {
		if !d.tainted && !m.void {
			m.judge(d)
		}
		last := m.server.last(d)
		orderly = orderly && last != nil && !d.tainted && !d.aborted && !d.lost && !d.s.stopped && !last.s.stopped &&
			last.s.err == nil && d.s.err == nil
	}
	m.server.checkBudget()
	if orderly && len(m.server.ends) == len(m.dialers) && len(m.copies) == 0 && m.mem.out != 0 {
		text := ""
		for _, e := range m.server.ends {
			text += fmt.Sprintf("; %s holds %d, %s %d", e.name, len(e.s.log.segs), e.d.name, len(e.d.s.log.segs))
		}
		m.failf("%d segments are held by sessions that have ended in good order%s", m.mem.out, text)
	}
	for _, d := range append(slices.Clone(m.dialers), m.copies...) {
		d.forget()
	}
	for _, e := range m.server.ends {
		e.forget()
	}
	if m.mem.out != 0 {
		m.failf("%d segments are not given back", m.mem.out)
	}
}

// judge checks the end of one dialer's sessions.
func (m *sim) judge(d *dialer) {
	if d.lost {
		if !isLost(d.s.err) {
			m.failf("%s: lost by %v", d.name, d.s.err)
		}
		return
	}
	if d.aborted {
		m.abortedEnd(d.end)
		for _, e := range m.server.ends {
			if e.d == d && !e.gone {
				m.abortedEnd(e)
			}
		}
		return
	}
	last := m.server.latest(d.s.id)
	stopped := false
	var c *ClosedError
	for _, e := range m.server.ends {
		if e.d != d {
			continue
		}
		// One that the dialer has lost may have had all of its stream, and expired while its last word was not said.
		done := errors.As(e.s.err, &c) && c.Reason == CloseDone && e.s.stopped && e.s.finished()
		if e != last && !e.gone && e.s.err != nil && !isLost(e.s.err) && !done {
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
}

// abortedEnd checks the end of a Session that one of the applications has given up, or whose token was refused.
func (m *sim) abortedEnd(e *end) {
	var c *ClosedError
	var r *RejectError
	switch err := e.s.err; {
	case err == nil, isLost(err), errors.Is(err, ErrAborted), errors.As(err, &c):
	case errors.As(err, &r) && (r.Reason == ReasonClosed || r.Reason == ReasonUnauthorised):
	default:
		m.failf("%s: aborted, and ended with %v", e.name, err)
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
	case e.s.role == Listener && isLost(err) && (e.s.recv.fin || e.s.recv.stopped) &&
		(peer.s.err == nil || peer.s.stopped && errors.As(peer.s.err, &c) && c.Reason == CloseDone):
		// It expired, or was shut down, while the dialer's last word was not there.
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
		if !a.sent[i].delivered && !a.sent[i].expired && !m.buried(a, i) {
			m.failf("%s: datagram %d of %d was not delivered", a.e.name, i, len(a.sent))
		}
	}
}

// buried reports whether a datagram was acknowledged by a process that was killed then: in a session that was lost by
// that, or in the last one.
func (m *sim) buried(a *app, i int) bool {
	d := a.e.d
	return a == d.app && (a.sent[i].acked || m.server.latest(d.s.id).gone) && m.server.buried(d, uint64(i))
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

// figures are what is counted in many runs.
type figures struct {
	seeds, faults, conns, steps, messages int
	slowest                               time.Duration
	slowestSeed                           uint64
	hits                                  [numSituations]int
}

func (f *figures) add(m *sim) {
	f.seeds++
	f.faults += m.faults
	f.steps += m.steps
	f.conns += len(m.conns)
	for _, d := range m.dialers {
		f.messages += len(d.app.sent)
	}
	for _, e := range m.server.ends {
		f.messages += len(e.app.sent)
	}
	if m.slowest > f.slowest {
		f.slowest, f.slowestSeed = m.slowest, m.seed
	}
	for i, n := range m.hits {
		f.hits[i] += n
	}
}

func (f *figures) merge(g *figures) {
	f.seeds += g.seeds
	f.faults += g.faults
	f.steps += g.steps
	f.conns += g.conns
	f.messages += g.messages
	if g.slowest > f.slowest {
		f.slowest, f.slowestSeed = g.slowest, g.slowestSeed
	}
	for i, n := range g.hits {
		f.hits[i] += n
	}
}

// failed is a seed that failed.
type failed struct {
	seed uint64
	text string
}

// runSeeds runs seeds on all processors, each by itself in one goroutine. It stops at the first that fails, and returns
// the lowest of those: seeds begin in their order, so that all below it were right.
func runSeeds(first, count uint64, add func(*sim)) (f figures, bad *failed) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := first
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			var mine figures
			mem := new(segments)
			for {
				mu.Lock()
				seed := next
				stop := bad != nil || seed-first >= count
				next++
				mu.Unlock()
				if stop {
					break
				}
				m := newSimIn(mem, seed, lessening{}, false)
				text := try(m, (*sim).play)
				if text != "" {
					mu.Lock()
					if bad == nil || seed < bad.seed {
						bad = &failed{seed, text}
					}
					mu.Unlock()
					break
				}
				mem.recycle(m)
				mine.add(m)
				if add != nil {
					mu.Lock()
					add(m)
					mu.Unlock()
				}
			}
			mu.Lock()
			f.merge(&mine)
			mu.Unlock()
		})
	}
	wg.Wait()
	return f, bad
}

// TestSim runs the simulation with many seeds. SEEDS=n runs n of them, SEED=n only that one; FROM=n begins there. It
// stops at the first that fails, and shrinks it, unless SHRINK=0. SITUATIONS=1 prints how often it came to each.
func TestSim(t *testing.T) {
	first, count := seedRange(t, 1500)
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	began := time.Now()
	f, bad := runSeeds(first, count, nil)
	if bad != nil {
		fail(t, bad, lessening{})
	}
	took := time.Since(began)
	for i, n := range f.hits {
		if os.Getenv("SITUATIONS") != "" {
			t.Logf("%9d %s", n, situations[i])
		}
		if n == 0 && count >= 1000 {
			t.Errorf("it never came to this: %s", situations[i])
		}
	}
	t.Logf("the slowest delivery after the faults took %v, in seed %d", f.slowest, f.slowestSeed)
	t.Logf("sim: seeds %d..%d, %d seeds, %d messages, %d faults, %d connections, %d events, %d situations, %.0f s, %.0f seeds/s",
		first, first+count-1, f.seeds, f.messages, f.faults, f.conns, f.steps, numSituations,
		took.Seconds(), float64(f.seeds)/took.Seconds())
}
