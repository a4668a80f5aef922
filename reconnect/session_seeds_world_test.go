package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// seedRun is the world of one seed: a network, a listener and its dialers, and what breaks them.
type seedRun struct {
	p      *seedPlan
	log    *seedLog
	total  *seedTotals
	ctx    context.Context // ends when the seed is given up
	cancel context.CancelFunc
	net    *mem.Network

	quiet, well chan struct{} // no more faults begin; all are over
	healed      time.Time     // set before well is closed

	dialers             []*seedDialer
	apps, actors        sync.WaitGroup
	accepting           sync.WaitGroup
	l                   *reconnect.Listener // serverChaos's, then run's
	lns                 map[string]net.Listener
	restarted, goneAway atomic.Bool
	sides               atomic.Uint32
	mu                  sync.Mutex
	faulty              []string
	told                map[*reconnect.Conn]*eventCheck
	faultCount          atomic.Uint64
}

func newSeedRun(p *seedPlan, log *seedLog, total *seedTotals) *seedRun {
	r := &seedRun{
		p: p, log: log, total: total, net: new(mem.Network), quiet: make(chan struct{}), well: make(chan struct{}),
		lns: map[string]net.Listener{}, told: map[*reconnect.Conn]*eventCheck{},
	}
	log.begin = time.Now()
	r.ctx, r.cancel = context.WithTimeout(context.Background(), seedPatience)
	for i := range p.dialers {
		r.dialers = append(r.dialers, newSeedDialer(r, i))
	}
	return r
}

// fail notes something that must not be.
func (r *seedRun) fail(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	r.log.add("FAILED: %s", s)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faulty) < 10 {
		r.faulty = append(r.faulty, s)
	}
}

func (r *seedRun) did(what string) { r.total.seen.add(what) }

func (r *seedRun) fault(format string, args ...any) {
	r.faultCount.Add(1)
	r.log.add(format, args...)
}

// rng is the source of chance of a part of the world, the same in each run.
func (r *seedRun) rng(part string, n int) *rand.Rand {
	h := uint64(n) + 1
	for _, c := range []byte(part) {
		h = h*1099511628211 ^ uint64(c)
	}
	return rand.New(rand.NewPCG(r.p.seed, h))
}

// serve makes a listener, with all its endpoints.
func (r *seedRun) serve() {
	o := r.p.listen
	o.OnEvent = r.onEvent
	rng := r.rng("authenticate", 0)
	var mu sync.Mutex
	o.Authenticate = func(ctx context.Context, p *reconnect.Peer) (string, error) {
		mu.Lock()
		wait := span(rng, 0, r.p.auth)
		mu.Unlock()
		if r.p.auth > 0 && !pass(ctx.Done(), wait) {
			return "", ctx.Err()
		}
		return string(p.Token), nil
	}
	r.l = reconnect.NewListener(r.listen("kept"), &o)
	for _, name := range []string{"s", "t"} {
		r.open(name)
	}
	l := r.l
	r.accepting.Go(func() {
		for {
			c, err := l.Accept(r.ctx)
			if err != nil {
				if !errors.Is(err, reconnect.ErrClosed) {
					r.fail("Accept: %v", err)
				}
				return
			}
			if !c.IsSession() { // a connection that ended within its first 8 bytes
				r.did("a connection that was cut at once was taken for a plain one")
				c.CloseNow()
				continue
			}
			i, err := strconv.Atoi(c.Principal())
			if err != nil || i >= len(r.dialers) {
				r.fail("a session of %q", c.Principal())
				c.CloseNow()
				continue
			}
			d := r.dialers[i]
			s := newSeedSide(r, c, &r.p.server.side, d, true)
			d.mu.Lock()
			s.name = fmt.Sprintf("listener's %d.%d", i, len(d.bs))
			s.index = len(d.bs)
			d.bs = append(d.bs, s)
			d.mu.Unlock()
			r.name(c, s.name)
			r.log.add("%s: accepted", s.name)
			r.apps.Go(s.run)
		}
	})
}

func (r *seedRun) listen(name string) net.Listener {
	for {
		ln, err := mem.Listen(context.Background(), name, &mem.Config{Network: r.net, Buffer: r.p.buffer})
		if err == nil {
			return ln
		}
		if !pass(r.ctx.Done(), time.Millisecond) {
			panic(err)
		}
	}
}

func (r *seedRun) open(name string) {
	ln := r.listen(name)
	r.lns[name] = ln
	r.l.Add(ln)
}

// serverChaos does to the listener what the plan says.
func (r *seedRun) serverChaos() {
	var acts []func(rng *rand.Rand)
	p := &r.p.server
	if p.close {
		acts = append(acts, func(rng *rand.Rand) {
			name := one(rng, "s", "s", "t")
			r.fault("listener: %q closes", name)
			r.lns[name].Close()
			pass(r.quiet, span(rng, 10*time.Millisecond, 4*time.Second))
			r.open(name)
			r.log.add("listener: %q opens again", name)
			r.did("the listener closed an endpoint and opened it again, with all its sessions")
		})
	}
	if p.restart {
		acts = append(acts, func(rng *rand.Rand) {
			killed := rng.IntN(2) == 0
			r.fault("listener: starts again, killed=%v", killed)
			r.restarted.Store(true)
			if killed {
				r.net.Faults().Cut(nil)
			}
			r.bounded(context.Background(), "Listener.Close", time.Second+r.p.auth+50*time.Millisecond, func(context.Context) { r.l.Close() })
			pass(r.quiet, span(rng, 0, 2*time.Second))
			r.serve()
			r.did("the listener started again, with nothing")
		})
	}
	if p.shutdown {
		acts = append(acts, func(rng *rand.Rand) {
			limit, delay, spread := span(rng, 0, 3*time.Second), span(rng, 0, goAwayTime), span(rng, 0, goAwayTime)
			r.fault("listener: Shutdown for %v, go away for %v + %v", limit, delay, spread)
			r.restarted.Store(true)
			r.goneAway.Store(true)
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			r.bounded(ctx, "Listener.Shutdown", limit+time.Second+r.p.auth+50*time.Millisecond, func(ctx context.Context) {
				if err := r.l.Shutdown(ctx, delay, spread); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					r.fail("Shutdown: %v", err)
				}
			})
			r.serve()
			r.did("the listener shut down and started again")
		})
	}
	if len(acts) == 0 {
		return
	}
	rng := r.rng("server", 0)
	for pass(r.quiet, span(rng, p.every/2, p.every*3/2)) {
		acts[rng.IntN(len(acts))](rng)
	}
}

// bounded fails if fn takes longer than it may.
func (r *seedRun) bounded(ctx context.Context, what string, limit time.Duration, fn func(ctx context.Context)) {
	start := time.Now()
	fn(ctx)
	if took := time.Since(start); took > limit {
		r.fail("D5: %s took %v, may take %v", what, took, limit)
	}
}

// heal makes the network perfect.
func (r *seedRun) heal() {
	all := []*mem.Faults{r.net.Faults()}
	for _, d := range r.dialers {
		all = append(all, &d.lines[0], &d.lines[1])
	}
	for _, f := range all {
		f.OnConn(nil)
		f.RefuseDials(0, nil)
		f.HangDials(0, 0)
		f.SetShape(mem.Both, mem.Shape{})
		f.CutAfter(mem.Both, -1, nil)
		f.FailWrite(mem.Both, 0, 0, nil)
		f.Thaw(mem.Both)
	}
	r.log.add("all faults are over")
}

// seedDialer is a dialer's session, and those at the listener that it has had.
type seedDialer struct {
	r     *seedRun
	i     int
	p     *dialerPlan
	lines [2]mem.Faults // to both endpoints
	a     *seedSide
	ready chan struct{} // a is there

	mu     sync.Mutex
	bs     []*seedSide
	newest *mem.Faults
	conns  *rand.Rand
}

func newSeedDialer(r *seedRun, i int) *seedDialer {
	d := &seedDialer{r: r, i: i, p: &r.p.dialers[i], ready: make(chan struct{}), conns: r.rng("connections", i)}
	for k := range d.lines {
		d.lines[k].OnConn(func(_ int, c *mem.Faults) { d.born(c) })
	}
	return d
}

// born is what happens to a new connection.
func (d *seedDialer) born(c *mem.Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.newest = c
	if len(d.p.perConn) == 0 || d.conns.IntN(3) == 0 {
		return
	}
	rng := d.conns
	what, dir := one(rng, d.p.perConn...), one(rng, mem.Both, mem.Up, mem.Down)
	switch what {
	case "cut in the handshake":
		c.CutAfter(dir, 1+rng.Int64N(200), one(rng, nil, nil, io.EOF))
	case "cut early":
		c.CutAfter(dir, rng.Int64N(2000), one(rng, nil, nil, io.EOF))
	case "cut later":
		c.CutAfter(dir, rng.Int64N(40_000), nil)
	case "byte by byte":
		c.SetShape(dir, mem.Shape{MaxRead: 1 + rng.IntN(3)})
	case "short write":
		c.FailWrite(dir, 1+rng.IntN(10), rng.IntN(300), nil)
	case "slow":
		c.SetShape(dir, slow(rng))
	}
	d.r.did("a connection born with: " + what)
	d.r.fault("dialer %d: new connection, %s %s", d.i, what, wayName(dir))
}

func wayName(d mem.Direction) string { return [...]string{"both ways", "up", "down"}[d] }

func slow(rng *rand.Rand) mem.Shape {
	return mem.Shape{
		Latency: span(rng, 0, slowLatency), Jitter: span(rng, 0, slowJitter), Seed: rng.Uint64(),
		Rate: one(rng, 0, slowRate, 200_000, 2_000_000), MaxRead: one(rng, 0, 0, 1, 7, 100),
	}
}

// chaos breaks the dialer's connections.
func (d *seedDialer) chaos() {
	if d.p.every == 0 || len(d.p.faults) == 0 {
		return
	}
	rng := d.r.rng("chaos", d.i)
	var undoing sync.WaitGroup
	defer undoing.Wait()
	later := func(wait time.Duration, fn func()) {
		undoing.Go(func() {
			pass(d.r.quiet, wait)
			fn()
		})
	}
	for pass(d.r.quiet, span(rng, 0, 2*d.p.every)) {
		d.mu.Lock()
		c := d.newest
		d.mu.Unlock()
		what, dir := one(rng, d.p.faults...), one(rng, mem.Both, mem.Up, mem.Down)
		k, n, wait := rng.IntN(2), 1+rng.IntN(4), span(rng, time.Millisecond, 8*time.Second)
		line := &d.lines[k]
		if rng.IntN(3) == 0 {
			wait /= 100
		}
		d.r.fault("dialer %d: %s, %s, n %d, for %v", d.i, what, wayName(dir), n, wait)
		switch what {
		case "refuse":
			line.RefuseDials(n, nil)
		case "hang":
			line.HangDials(n, wait)
		case "hang for ever":
			line.HangDials(1, 0)
		case "slow":
			line.SetShape(dir, slow(rng))
			later(wait, func() { line.SetShape(dir, mem.Shape{}) })
		case "byte by byte":
			line.SetShape(dir, mem.Shape{MaxRead: n})
			later(wait, func() { line.SetShape(dir, mem.Shape{}) })
		case "split": // nothing gets through to any endpoint, and no dial ends
			for k := range d.lines {
				d.lines[k].Freeze(mem.Both)
				d.lines[k].HangDials(-1, 0)
				later(wait, func() { d.lines[k].HangDials(0, 0); d.lines[k].Thaw(mem.Both) })
			}
		case "redial":
			if a := d.side(); a != nil {
				a.c.Redial(errors.New("asked by the plan"))
			}
		default:
			if c == nil {
				continue
			}
			switch what {
			case "cut":
				c.Cut(nil)
			case "end":
				c.Cut(io.EOF)
			case "cut after":
				c.CutAfter(dir, rng.Int64N(3000), nil)
			case "freeze":
				c.Freeze(dir)
				later(wait, func() { c.Thaw(dir) })
			case "freeze up":
				c.Freeze(mem.Up)
				later(wait, func() { c.Thaw(mem.Up) })
			case "freeze down":
				c.Freeze(mem.Down)
				later(wait, func() { c.Thaw(mem.Down) })
			case "short write":
				c.FailWrite(dir, n, rng.IntN(100), nil)
			case "late": // the old connection goes on delivering when there is another
				c.Freeze(dir)
				if a := d.side(); a != nil {
					pass(d.r.quiet, wait/50)
					a.c.Redial(errors.New("the old connection is to be late"))
					if rng.IntN(2) == 0 {
						pass(d.r.quiet, wait/50)
					}
				}
				c.Thaw(dir)
			}
		}
		d.r.did("fault: " + what)
	}
}

func (d *seedDialer) side() *seedSide {
	select {
	case <-d.ready:
		return d.a
	default:
		return nil
	}
}

// run is the dialer's application.
func (d *seedDialer) run() {
	r := d.r
	ofDialer := func(k int, name string) transport.Dialer {
		return mem.Dialer{Network: r.net, Addr: name, Faults: &d.lines[k]}
	}
	o := &reconnect.DialOptions{
		SessionOptions: d.p.o, Strict: d.p.strict, Redial: d.p.policy(),
		Token: func(context.Context) ([]byte, error) { return []byte(strconv.Itoa(d.i)), nil },
	}
	o.OnEvent = r.onEvent
	if d.p.fallback {
		o.Fallbacks = []transport.Dialer{ofDialer(1, "t")}
	}
	var c *reconnect.Conn
	if !d.p.open {
		ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
		var err error
		if c, err = reconnect.Dial(ctx, ofDialer(0, "s"), o); err != nil {
			r.log.add("dialer %d: Dial: %v", d.i, err)
			r.did("a Dial failed")
			if errors.Is(err, reconnect.ErrProtocol) || errors.Is(err, reconnect.ErrRefused) || errors.Is(err, reconnect.ErrTakenOver) {
				r.fail("dialer %d: Dial: %v", d.i, err)
			}
			d.p.open = true
		}
		cancel()
	}
	if c == nil {
		c = reconnect.Open(ofDialer(0, "s"), o)
	}
	d.a = newSeedSide(r, c, &d.p.side, d, false)
	d.a.name = fmt.Sprintf("dialer %d", d.i)
	r.name(c, d.a.name)
	close(d.ready)
	d.a.run()
}

// newestB is the listener's side that the plan ends.
func (d *seedDialer) newestB() *seedSide {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.bs) == 0 {
		return nil
	}
	return d.bs[len(d.bs)-1]
}

// eventCheck follows the events of a Conn: they tell a story that makes sense.
type eventCheck struct {
	name            string
	up, closed      bool
	expired, losses uint64
	resumed         uint64
	lastLost        bool
}

func (r *seedRun) check4(c *reconnect.Conn) *eventCheck {
	e := r.told[c]
	if e == nil {
		e = new(eventCheck)
		r.told[c] = e
	}
	return e
}

func (r *seedRun) name(c *reconnect.Conn, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check4(c).name = name
}

func (r *seedRun) onEvent(c *reconnect.Conn, e reconnect.Event) {
	r.mu.Lock()
	k := r.check4(c)
	name := k.name
	wrong := ""
	switch {
	case k.closed:
		wrong = "after the last event"
	case (e.Kind == reconnect.EventConnected || e.Kind == reconnect.EventResumed) && k.up:
		wrong = "while connected"
	case e.Kind == reconnect.EventDisconnected && !k.up:
		wrong = "while not connected"
	case e.Kind == reconnect.EventResumed && k.lastLost:
		wrong = "though the session was lost"
	}
	switch e.Kind {
	case reconnect.EventConnected, reconnect.EventResumed:
		k.up, k.lastLost = true, false
		if e.Kind == reconnect.EventResumed {
			k.resumed++
		}
	case reconnect.EventDisconnected:
		k.up = false
	case reconnect.EventLost:
		k.up = false
		k.lastLost = true
		k.losses++
	case reconnect.EventExpired:
		k.expired++
	case reconnect.EventClosed:
		k.closed = true
	}
	r.mu.Unlock()
	r.log.add("%s: event %v", name, e)
	if wrong != "" {
		r.fail("%s: event %q %s", name, e, wrong)
	}
	switch {
	case errors.Is(e.Err, reconnect.ErrNoAnswer):
		r.did("a connection was given up for silence")
	case e.Kind == reconnect.EventGoAway:
		r.did("a side was told to go away")
	case e.Kind == reconnect.EventPeerStopped:
		r.did("a side was told that its peer takes nothing more")
	case errors.Is(e.Err, reconnect.ErrBusy):
		r.did("a dialer was told that the listener is full")
	}
	switch e.Kind {
	case reconnect.EventResumed:
		r.did("a session went on with another connection")
	case reconnect.EventLost:
		r.did("a session was lost, and another took its place")
	case reconnect.EventExpired:
		r.did("a datagram was not sent in its time")
	}
}

// seedLog is what happened.
type seedLog struct {
	begin time.Time
	mu    sync.Mutex
	lines [400]string
	n     int
}

func (l *seedLog) add(format string, args ...any) {
	at := time.Since(l.begin)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines[l.n%len(l.lines)] = fmt.Sprintf("%12v %s", at, fmt.Sprintf(format, args...))
	l.n++
}

func (l *seedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	from := max(0, l.n-len(l.lines))
	fmt.Fprintf(&b, "what happened (%d lines before are gone):\n", from)
	for i := from; i < l.n; i++ {
		b.WriteString(l.lines[i%len(l.lines)] + "\n")
	}
	return b.String()
}

// situations counts by name what must happen now and then, or the seeds prove nothing.
type situations struct {
	mu sync.Mutex
	n  map[string]int
}

func (s *situations) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n[name]++
}
