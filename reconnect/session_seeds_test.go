package reconnect_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/towline-mq/towline/internal/seeds"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
)

// The driver, with its real goroutines, in a bubble with time of its own, over in-process connections that break. It
// guards D1 to D5 of docs/delivery.md for what the machine's simulation cannot see: the goroutines, locks, waits,
// channels and contexts of package reconnect.
//
// Each seed draws a plan: which faults there are (some are off), the options of both sides, who sends and receives by
// which form of call, and how each session ends. For a while the faults go on; then they stop, and everything that was
// accepted must arrive within the time that D2 allows. seeds_check_test.go says what must hold in the end.
//
// Time is the bubble's, but the order in which its goroutines run is the scheduler's: a seed repeats a plan, not a run.
// A failure prints what was wrong, the plan, and what happened, with the bubble's time in front. To repeat the plan:
//
//	SEED=n go test -race -count=20 -run TestSessionSeeds ./reconnect
func TestSessionSeeds(t *testing.T) {
	count := uint64(150)
	if raceEnabled {
		count = 500
	}
	from, count := seeds.Range(t, count)
	start := time.Now()
	total := new(seedTotals)
	var next, failed atomic.Uint64
	t.Run("seeds", func(t *testing.T) {
		for w := range min(runtime.GOMAXPROCS(0), int(min(count, 1024))) {
			t.Run(fmt.Sprint(w), func(t *testing.T) {
				t.Parallel()
				for failed.Load() < 3 {
					i := next.Add(1) - 1
					if i >= count {
						return
					}
					if !runSeed(t, from+i, total) {
						failed.Add(1)
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d seeds from %d: %d sessions, %d messages, %d faults, %d reconnects, %d lost sessions, greatest recovery %v, %.1f s",
		count, from, total.sessions.Load(), total.messages.Load(), total.faults.Load(), total.reconnects.Load(),
		total.lost.Load(), time.Duration(total.recovery.Load()).Round(time.Millisecond), time.Since(start).Seconds())
	for name := range total.seen.missing() {
		if count >= 150 {
			assert.Fail(t, "no seed brought this about: "+name)
		}
	}
	if count > 1 {
		t.Log(total.seen.String())
	}
}

// seedTotals are the figures of all seeds.
type seedTotals struct {
	sessions, messages, faults, reconnects, lost, recovery atomic.Uint64

	seen situations
}

// runSeed runs one plan, in a bubble, and reports whether all was well.
func runSeed(t *testing.T, seed uint64, total *seedTotals) (ok bool) {
	p := drawPlan(seed)
	log := new(seedLog)
	returned := false
	defer func() {
		if !returned && !t.Failed() {
			// The bubble panics: somebody waits for ever.
			fmt.Fprintf(os.Stderr, "seed %d: a goroutine is left, or waits for ever\n%v\n%v\n%s\n", seed, p, log, p.again())
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		r := newSeedRun(p, log, total)
		r.run()
		if len(r.faulty) > 0 {
			for _, f := range r.faulty {
				t.Error(f)
			}
			t.Logf("%v\n%v\n%s", p, log, p.again())
			return
		}
		ok = true
	})
	returned = true
	return ok
}

// seedPlan is what a seed decides.
type seedPlan struct {
	seed    uint64
	buffer  int           // of each connection, in bytes
	chaos   time.Duration // how long faults go on
	listen  reconnect.ListenOptions
	auth    time.Duration // how long Authenticate takes, at most
	server  serverPlan
	dialers []dialerPlan
}

// serverPlan is what becomes of the listener.
type serverPlan struct {
	every    time.Duration // between two of these, on average; 0: none
	close    bool          // an endpoint is closed and opened again
	restart  bool          // it ends, and another takes its place that knows of nothing
	shutdown bool          // the same in good order
	side     sidePlan
}

// dialerPlan is a dialer's session.
type dialerPlan struct {
	open      bool // by Open, not Dial
	strict    bool
	fallback  bool
	attempts  int // limit of each outage; 0: none
	o         reconnect.SessionOptions
	every     time.Duration // between two faults, on average; 0: none
	faults    []string
	perConn   []string // what connections are born with
	side      sidePlan
	end       string
	endAfter  time.Duration // for ends in the middle
	endWithin time.Duration // of closes with a limit
}

// sidePlan is what an application does with its session.
type sidePlan struct {
	senders   []senderPlan
	receivers []string
	flushes   bool
	closesCh  bool // ends its sending by closing the channel, if it has one
}

type senderPlan struct {
	form  string
	count int
	pause time.Duration // at most
	big   bool
}

var (
	sendForms    = []string{"Send", "Send with ctx", "TrySend", "SendBatch", "C", "SendExpiring", "any"}
	receiveForms = []string{"Receive", "Receive with ctx", "ReceiveBatch", "All", "C", "Each"}
	lineFaults   = []string{
		"cut", "end", "cut after", "freeze", "freeze up", "freeze down", "late", "slow", "byte by byte", "short write", "refuse",
		"hang", "hang for ever", "redial", "split",
	}
	birthFaults = []string{"cut in the handshake", "cut early", "cut later", "byte by byte", "short write", "slow"}
	allEnds     = []string{
		"good", "good", "good", "good", "good", "half", "dialer Close", "listener Close", "both Close", "dialer Close within",
		"dialer CloseNow", "listener CloseNow",
	}
)

func drawPlan(seed uint64) *seedPlan {
	rng := rand.New(rand.NewPCG(seed, 0x70_77))
	p := &seedPlan{
		seed: seed, buffer: one(rng, 1<<10, 8<<10, 64<<10, 64<<10), chaos: span(rng, time.Second, 25*time.Second),
		auth: one(rng, 0, 0, 50*time.Millisecond, time.Second),
	}
	p.listen = reconnect.ListenOptions{
		SessionOptions:   drawOptions(rng),
		Expiry:           one(rng, time.Second, 3*time.Second, 20*time.Second, 0, 0),
		HandshakeTimeout: one(rng, 2*time.Second, 0),
		MaxHandshakes:    one(rng, 1, 0, 0),
		MaxSessions:      one(rng, 2, 0, 0, 0, 0, 0),
		MaxDetached:      one(rng, 1, 0, 0, 0),
		Memory:           one(rng, int64(1), 256<<10, 0),
	}
	p.server = serverPlan{
		close: rng.IntN(3) == 0, restart: rng.IntN(4) == 0, shutdown: rng.IntN(6) == 0,
		every: span(rng, p.chaos/8, p.chaos), side: drawSide(rng, p.chaos),
	}
	for range one(rng, 1, 1, 1, 2, 3, 4) {
		d := dialerPlan{
			open: rng.IntN(3) == 0, strict: rng.IntN(4) == 0, fallback: rng.IntN(3) == 0, attempts: one(rng, 0, 0, 0, 0, 0, 0, 0, 6),
			o: drawOptions(rng), every: span(rng, p.chaos/60, p.chaos/4), faults: some(rng, lineFaults),
			side: drawSide(rng, p.chaos), end: one(rng, allEnds...), endAfter: span(rng, 0, p.chaos*5/4),
			endWithin: span(rng, 0, 2*time.Second),
		}
		if rng.IntN(2) == 0 {
			d.perConn = some(rng, birthFaults)
		}
		if rng.IntN(10) == 0 {
			d.every = 0
		}
		p.dialers = append(p.dialers, d)
	}
	return p
}

func drawOptions(rng *rand.Rand) reconnect.SessionOptions {
	return reconnect.SessionOptions{
		SendBuffer: one(rng, 1, 2<<10, 32<<10, 0), MaxWindow: one(rng, 1, 256<<10, 0), AckConsumed: rng.IntN(4) == 0,
		PingAfter: one(rng, 100*time.Millisecond, time.Second, 0),
	}
}

func drawSide(rng *rand.Rand, chaos time.Duration) sidePlan {
	s := sidePlan{flushes: rng.IntN(2) == 0, closesCh: rng.IntN(2) == 0}
	for range 1 + rng.IntN(4) {
		n := 10 + rng.IntN(100)
		s.senders = append(s.senders, senderPlan{
			form: one(rng, sendForms...), count: n, pause: one(rng, 0, chaos/time.Duration(n), 2*chaos/time.Duration(n)),
			big: rng.IntN(4) == 0,
		})
	}
	for range one(rng, 1, 1, 2, 3) {
		s.receivers = append(s.receivers, one(rng, receiveForms...))
	}
	return s
}

// one draws one of them.
func one[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

// some draws about half of them.
func some(rng *rand.Rand, of []string) (out []string) {
	for _, s := range of {
		if rng.IntN(2) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// span draws a duration.
func span(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(max(to-from, 0))+1))
}

func (p *seedPlan) String() string {
	return fmt.Sprintf("plan: %v of faults, buffer %d, authenticate %v\n  listener: %s expiry=%v handshake=%v/%d sessions=%d/%d memory=%d\n  server: %+v%s",
		p.chaos, p.buffer, p.auth, optionsOf(&p.listen.SessionOptions), p.listen.Expiry, p.listen.HandshakeTimeout,
		p.listen.MaxHandshakes, p.listen.MaxSessions, p.listen.MaxDetached, p.listen.Memory, p.server, dialersOf(p.dialers))
}

func optionsOf(o *reconnect.SessionOptions) string {
	return fmt.Sprintf("buffer=%d window=%d consumed=%v ping=%v", o.SendBuffer, o.MaxWindow, o.AckConsumed, o.PingAfter)
}

func dialersOf(ds []dialerPlan) (s string) {
	for i, d := range ds {
		s += fmt.Sprintf("\n  dialer %d: %s open=%v strict=%v fallback=%v attempts=%d fault every %v of %q, born with %q, end %q after %v within %v, %+v",
			i, optionsOf(&d.o), d.open, d.strict, d.fallback, d.attempts, d.every, d.faults, d.perConn, d.end, d.endAfter, d.endWithin, d.side)
	}
	return s
}

func (p *seedPlan) again() string {
	return fmt.Sprintf("repeat the plan of seed %d: SEED=%d go test -race -count=20 -run TestSessionSeeds ./reconnect", p.seed, p.seed)
}

// bound is how long after the faults everything must have arrived: noticing, a dial that hangs and its answer, waits,
// what was under way on a slow line, and what a GOAWAY or a listener that was full has asked for.
func (p *seedPlan) bound(d *dialerPlan) time.Duration {
	if p.listen.MaxSessions > 0 {
		return seedPatience // it may have to wait for others to end
	}
	ping := d.o.PingAfter
	if ping == 0 {
		ping = reconnect.DefaultPingAfter
	}
	b := 2*ping + 10*time.Second + 5*time.Second + 2*5*time.Second
	b += slowLatency + slowJitter + time.Duration(p.buffer)*time.Second/slowRate
	if p.server.shutdown {
		b += 2 * goAwayTime
	}
	if d.fallback {
		b += 15 * time.Second // the other endpoint hung as well
	}
	return b + p.auth + 2*time.Second
}

const (
	// seedPatience, in the bubble's time, is when a seed is given up.
	seedPatience = time.Hour

	slowLatency = 200 * time.Millisecond
	slowJitter  = 100 * time.Millisecond
	slowRate    = 20_000 // bytes a second, at least
	goAwayTime  = time.Second
)

// policy is a dialer's.
func (d *dialerPlan) policy() *redial.Policy {
	if d.attempts == 0 && !d.fallback {
		return nil
	}
	return &redial.Policy{MaxAttempts: d.attempts, ReturnAfter: 2 * time.Second}
}

// pass lets time pass, or returns false if done comes first.
func pass(done <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		runtime.Gosched()
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-done:
		return false
	}
}

func (r *seedRun) run() {
	defer r.cancel()
	r.serve()
	for i := range r.dialers {
		d := r.dialers[i]
		r.apps.Go(func() { d.run() })
		r.actors.Go(func() { d.chaos() })
	}
	r.actors.Go(r.serverChaos)
	pass(nil, r.p.chaos)
	close(r.quiet)
	r.actors.Wait()
	r.heal()
	r.healed = time.Now()
	close(r.well)
	r.apps.Wait()
	r.bounded(context.Background(), "Listener.Close", time.Second+r.p.auth+50*time.Millisecond, func(context.Context) { r.l.Close() })
	r.accepting.Wait()
	synctest.Wait() // the last events are told
	r.check()
}
