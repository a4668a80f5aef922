package redial

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/transport"
)

// Redialer dials one peer until it is connected, each time it is asked, and remembers between the calls how well that
// went. Make it with [New]. It serves one connection at a time; programs with several have one for each. It is a
// [transport.Dialer] itself.
//
// Its methods may be called by any number of goroutines. Dials run one after the other, never two at once; who comes
// second waits, and then dials for a connection of its own.
type Redialer struct {
	set     atomic.Pointer[Policy] // what was set last, with its defaults
	closed  chan struct{}
	restart chan struct{} // holds a value from Restart until a dial has begun anew

	// setUp does with each new connection what OnConnected does, after it. Nil: nothing.
	setUp func(context.Context, net.Conn) error

	// Who has put the one value into turn holds:
	turn      chan struct{}
	endpoints []transport.Dialer
	seen      *Policy // what policy and backoff were made of
	policy    Policy
	backoff   Backoff
	made      bool        // there has been a connection
	source    rand.Source // nil: random
	total     int         // attempts ever
	out       bool        // an outage is under way
	outage    outage
	link      *Link     // the newest, until review has looked at it
	newest    *Link     // the newest, also after that
	steered   time.Time // no attempt before this

	mu     sync.Mutex
	cancel context.CancelFunc // ends the attempt or the hook under way; nil if there is none
}

// New makes a Redialer for the dialers, which lead to the same peer in order of preference, each with its own address,
// options and handshake. It does not dial yet. Policy may be nil.
func New(endpoints []transport.Dialer, policy *Policy) *Redialer {
	r := &Redialer{
		endpoints: slices.Clone(endpoints),
		closed:    make(chan struct{}),
		restart:   make(chan struct{}, 1),
		turn:      make(chan struct{}, 1),
	}
	r.SetPolicy(policy)
	r.refresh()
	return r
}

// Policy returns the policy that was set last, in which each 0 is replaced by what it means. It does not block.
func (r *Redialer) Policy() Policy { return *r.set.Load() }

// SetPolicy replaces the policy; nil is the default one. It holds from the next attempt on, or the next wait: one that is
// under way goes on. Backoff and Source are asked for new values, so that the waits begin with the first again; what
// an outage has taken of the limits stays taken. It does not block, and may be called by hooks.
func (r *Redialer) SetPolicy(policy *Policy) {
	p := policy.withDefaults()
	r.set.Store(&p)
}

// refresh takes the newest policy over.
func (r *Redialer) refresh() {
	p := r.set.Load()
	if p == r.seen {
		return
	}
	r.seen, r.policy, r.source = p, *p, nil
	if p.Source != nil {
		r.source = p.Source()
	}
	if p.Backoff != nil {
		r.backoff = p.Backoff()
	} else {
		r.backoff = &Jitter{Source: r.source}
	}
}

// Dial connects. It makes its first attempt at once if this is the beginning of an outage, and otherwise goes on where
// the last Dial stopped; the package comment says how. It blocks until there is a connection or ctx ends, Close is
// called, the policy's limits are reached or no endpoint is left that might be tried; until its turn comes, if another
// dial is under way; and for as long as a dialer goes on when its context has ended, or a hook takes.
//
// The error is an [*Error]. After one that the policy or a fatal error brought about, the next Dial begins a new
// outage. After the end of ctx it goes on with the old one, its waits included. A connection that arrives when ctx has
// ended or the Redialer was closed is closed.
func (r *Redialer) Dial(ctx context.Context) (*Link, error) { return r.dial(ctx, 0, Decision{}) }

// dial is Dial after a hook has decided on the end of a connection of endpoint i.
func (r *Redialer) dial(ctx context.Context, i int, d Decision) (*Link, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.release()
	if len(r.endpoints) == 0 {
		return nil, &Error{Reason: errNoEndpoints, Fatal: true}
	}
	r.refresh()
	r.review(time.Now())
	if !r.out {
		r.begin()
	}
	if d.Endpoint != nil {
		r.endpoints[i] = d.Endpoint
		r.outage.revive(i)
	}
	chosen := d.After // the wait that a hook chose; 0: none did
	if chosen != 0 {
		r.steered = time.Time{}
	}
	switch err := r.wait(ctx, time.Until(r.steered)); {
	case err == errRestart:
		r.begin()
		chosen = 0
	case err != nil:
		return nil, r.outage.error(err, r.outage.spent)
	}
	r.steered = time.Time{}

	start, before := time.Now(), r.outage.spent
	defer func() { r.outage.spent = before + time.Since(start) }()
	anew := func() {
		r.begin()
		start, before = time.Now(), 0
	}
	var failed *Failure
	for {
		r.refresh()
		now := time.Now()
		wait, why := r.next(ctx, failed, &chosen, before+now.Sub(start), now)
		switch why {
		case nil:
			if why = r.wait(ctx, wait-time.Since(now)); why != nil {
				break
			}
			r.refresh()
			why = r.admit(ctx, r.left(before+time.Since(start)))
			r.out = why == nil || why == errRestart || r.ended(ctx) != nil
			r.refresh() // the hook may have taken its time
		case errRestart:
			r.restarted()
		default:
			r.out = false
		}
		failed = nil
		if why == errRestart {
			anew()
			continue
		}
		if why != nil {
			return nil, r.outage.error(why, before+time.Since(start))
		}
		i := r.outage.begin()
		conn, err := r.attempt(ctx, i, r.limit(before+time.Since(start)))
		if why := r.ended(ctx); why != nil {
			if err == nil {
				_ = conn.Close()
			}
			r.outage.ended = time.Now()
			return nil, r.outage.error(why, before+time.Since(start)).withCalledOff(i, err)
		}
		if err == nil {
			r.restarted() // what came meanwhile has what it wanted: it must not end the next DialPreferred
			return r.connected(conn, i), nil
		}
		if r.restarted() {
			anew()
			continue
		}
		failed = r.failure(i, err)
		r.outage.fail(i, err, failed.Fatal, isMarked(err), time.Now())
	}
}

// next is how long to wait for the next attempt, by the policy and by the hook, which is told of the failure before, if
// there was one; or why there is none. A wait that a hook chose before is used up.
func (r *Redialer) next(ctx context.Context, failed *Failure, chosen *time.Duration, elapsed time.Duration, now time.Time) (time.Duration, error) {
	wait, why := r.outage.plan(&r.policy, r.backoff, elapsed, now)
	after := *chosen
	*chosen = 0
	if failed != nil && r.policy.OnFailure != nil {
		if failed.Wait = wait; why != nil {
			failed.Wait = -1
		}
		d := r.told(ctx, *failed)
		after = d.After
		if d.Do == Stop {
			return 0, d.stopped()
		}
		if d.Endpoint != nil && why == errFatal {
			wait, why = r.outage.plan(&r.policy, r.backoff, elapsed, now)
		}
		if why != nil && len(r.restart) > 0 {
			return 0, errRestart
		}
	}
	if why != nil || after == 0 {
		return wait, why
	}
	wait = max(after, 0)
	if took := time.Since(now); wait > 0 { // it counts from here
		wait += took
	}
	if r.policy.MaxTime > 0 && wait >= r.policy.MaxTime-elapsed {
		return 0, errTime
	}
	return wait, nil
}

// told tells the hook of a failure, and puts the endpoint that it names in place.
func (r *Redialer) told(ctx context.Context, f Failure) Decision {
	hctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.arm(cancel)
	defer r.disarm()
	d := r.policy.OnFailure(hctx, f)
	if d.Endpoint != nil {
		r.endpoints[f.Endpoint] = d.Endpoint
		r.outage.revive(f.Endpoint)
	}
	return d
}

// DialContext is Dial for those who need a [transport.Dialer]. Without a Link, only Policy.StableAfter tells a
// connection that was good from one that was not.
func (r *Redialer) DialContext(ctx context.Context) (net.Conn, error) {
	link, err := r.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return link.Conn, nil
}

// Close ends the dials under way and all later ones, with errors that match [net.ErrClosed]. It does not wait for them,
// and leaves the connections alone. The error is always nil, and a second Close does nothing.
func (r *Redialer) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isClosed() {
		close(r.closed)
	}
	if r.cancel != nil {
		r.cancel()
	}
	return nil
}

// Restart begins anew: the wait or the attempt under way ends, and the first endpoint is dialled at once, in a new outage
// with full limits. So for a program that learns that the network is back. If no dial is under way it holds for the next
// one. It does not block.
func (r *Redialer) Restart() {
	r.mu.Lock() // over both, so that no attempt that Restart brought about is ended by it
	defer r.mu.Unlock()
	select {
	case r.restart <- struct{}{}:
	default:
	}
	if r.cancel != nil {
		r.cancel()
	}
}

// restarted reports whether Restart was called, once.
func (r *Redialer) restarted() bool {
	select {
	case <-r.restart:
		return true
	default:
		return false
	}
}

// errRestart ends a wait.
var errRestart = errors.New("asked to begin anew")

// take waits for the right to dial.
func (r *Redialer) take(ctx context.Context) error {
	if err := r.ended(ctx); err != nil {
		return &Error{Reason: err, Fatal: r.isClosed()}
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
	case <-r.closed:
	}
	return &Error{Reason: r.ended(ctx), Fatal: r.isClosed()}
}

func (r *Redialer) release() { <-r.turn }

// begin begins an outage.
func (r *Redialer) begin() {
	r.out = true
	r.outage = newOutage(len(r.endpoints))
	r.outage.first = !r.made
	r.backoff.Reset()
}

// review looks at what became of the newest connection, once: it ended the outage, or it was a failed attempt.
func (r *Redialer) review(now time.Time) {
	l := r.link
	if l == nil {
		return
	}
	r.link = nil
	stable := r.policy.StableAfter > 0 && now.Sub(l.made) >= r.policy.StableAfter
	if l.progress.Load() || stable {
		r.out = false
	} else {
		r.outage.fail(l.Endpoint, errUseless, false, false, l.made)
	}
	if d := l.delay.Load(); d != nil && r.policy.MaxDelay > 0 {
		r.steered = d.from.Add(min(max(d.delay, 0), r.policy.MaxDelay) + draw(r.source, min(d.spread, r.policy.MaxDelay)))
	}
}

// arm lets Close and Restart end what begins. If one of them was called just now it ends at once; it returns false after
// Close.
func (r *Redialer) arm(cancel context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	if r.isClosed() || len(r.restart) > 0 {
		cancel()
	}
	return !r.isClosed()
}

func (r *Redialer) disarm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = nil
}

// wait returns nil after d, at once if d is not positive, or why the waiting ended before: errRestart, or as ended says.
func (r *Redialer) wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-r.closed:
		case <-r.restart:
			return errRestart
		}
	}
	if err := r.ended(ctx); err != nil {
		return err
	}
	if r.restarted() {
		return errRestart
	}
	return nil
}

// ended returns why there is to be no dial any more, for the sake of the Redialer or of ctx; or nil.
func (r *Redialer) ended(ctx context.Context) error {
	switch {
	case r.isClosed():
		return net.ErrClosed
	case ctx.Err() != nil:
		return endOf(ctx)
	}
	return nil
}

func (r *Redialer) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

func (r *Redialer) connected(conn net.Conn, i int) *Link {
	l := &Link{Conn: conn, Endpoint: i, Attempts: r.outage.attempts, Total: r.total, made: time.Now()}
	if back := r.policy.ReturnAfter; i > 0 && back > 0 {
		l.ReturnAfter = back/2 + draw(r.source, back)
	}
	r.link, r.newest, r.made, r.outage.first = l, l, true, false
	return l
}

func (r *Redialer) failure(i int, err error) *Failure {
	fatal := isMarked(err) || r.policy.IsFatal(err)
	return &Failure{Endpoint: i, Err: err, Fatal: fatal, Attempts: r.outage.attempts, Total: r.total}
}
