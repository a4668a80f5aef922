package redial

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
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
	endpoints []transport.Dialer
	policy    Policy
	closed    chan struct{}

	// Who has put the one value into turn holds:
	turn    chan struct{}
	backoff Backoff
	source  rand.Source // nil: random
	total   int         // attempts ever
	out     bool        // an outage is under way
	outage  outage
	link    *Link     // the newest, until review has looked at it
	newest  *Link     // the newest, also after that
	steered time.Time // no attempt before this

	mu     sync.Mutex
	cancel context.CancelFunc // ends the attempt under way; nil if there is none
}

// New makes a Redialer for the dialers, which lead to the same peer in order of preference, each with its own address,
// options and handshake. It does not dial yet. Policy may be nil.
func New(endpoints []transport.Dialer, policy *Policy) *Redialer {
	r := &Redialer{
		endpoints: slices.Clone(endpoints),
		policy:    policy.withDefaults(),
		closed:    make(chan struct{}),
		turn:      make(chan struct{}, 1),
	}
	if r.policy.Source != nil {
		r.source = r.policy.Source()
	}
	if r.policy.Backoff != nil {
		r.backoff = r.policy.Backoff()
	} else {
		r.backoff = &Jitter{Source: r.source}
	}
	return r
}

// Dial connects. It makes its first attempt at once if this is the beginning of an outage, and otherwise goes on where
// the last Dial stopped; the package comment says how. It blocks until there is a connection or ctx ends, Close is
// called, the policy's limits are reached or no endpoint is left that might be tried; until its turn comes, if another
// dial is under way; and for as long as a dialer goes on when its context has ended, or a hook takes.
//
// The error is an [*Error]. After one that the policy or a fatal error brought about, the next Dial begins a new
// outage. After the end of ctx it goes on with the old one, its waits included. A connection that arrives when ctx has
// ended or the Redialer was closed is closed.
func (r *Redialer) Dial(ctx context.Context) (*Link, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.release()
	if len(r.endpoints) == 0 {
		return nil, &Error{Reason: errNoEndpoints, Fatal: true}
	}
	r.review(time.Now())
	if !r.out {
		r.begin()
	}
	if err := r.wait(ctx, time.Until(r.steered)); err != nil {
		return nil, r.outage.error(err, r.outage.spent)
	}
	r.steered = time.Time{}

	start, before := time.Now(), r.outage.spent
	defer func() { r.outage.spent = before + time.Since(start) }()
	var failed *Failure
	for {
		now := time.Now()
		wait, why := r.outage.plan(&r.policy, r.backoff, before+now.Sub(start), now)
		if failed != nil && r.policy.OnFailure != nil {
			if failed.Wait = wait; why != nil {
				failed.Wait = -1
			}
			r.policy.OnFailure(*failed)
		}
		if why == nil {
			why = r.wait(ctx, wait-time.Since(now))
		} else {
			r.out = false
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
			return r.connected(conn, i), nil
		}
		failed = r.failure(i, err)
		r.outage.fail(i, err, failed.Fatal, isMarked(err), time.Now())
	}
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

// limit is how long the next attempt may take, when the outage has taken elapsed already. Not positive: as long as it
// likes.
func (r *Redialer) limit(elapsed time.Duration) time.Duration {
	limit := r.policy.AttemptTimeout
	if r.policy.MaxTime > 0 {
		left := max(r.policy.MaxTime-elapsed, 1)
		if limit < 0 || left < limit {
			limit = left
		}
	}
	return limit
}

// attempt dials endpoint i once.
func (r *Redialer) attempt(ctx context.Context, i int, limit time.Duration) (net.Conn, error) {
	r.total++
	actx, cancel := bounded(ctx, limit)
	defer cancel()
	if !r.arm(cancel) {
		return nil, net.ErrClosed
	}
	defer r.disarm()
	conn, err := r.endpoints[i].DialContext(actx)
	switch {
	case err == nil && conn == nil:
		return nil, Fatal(errors.New("the dialer returned neither a connection nor an error"))
	case err == nil:
		return conn, nil
	case ctx.Err() == nil && actx.Err() == context.DeadlineExceeded && !isMarked(err) &&
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
		return nil, &slowError{limit, err}
	}
	return nil, err
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// arm lets Close end the attempt under way, unless it has been called already.
func (r *Redialer) arm(cancel context.CancelFunc) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	return !r.isClosed()
}

func (r *Redialer) disarm() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = nil
}

// wait returns nil after d, at once if d is not positive, or why the waiting ended before.
func (r *Redialer) wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-r.closed:
		}
	}
	return r.ended(ctx)
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
	r.link, r.newest = l, l
	return l
}

func (r *Redialer) failure(i int, err error) *Failure {
	fatal := isMarked(err) || r.policy.IsFatal(err)
	return &Failure{Endpoint: i, Err: err, Fatal: fatal, Attempts: r.outage.attempts, Total: r.total}
}
