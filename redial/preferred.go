package redial

import (
	"context"
	"net"
	"time"
)

// DialPreferred tries the endpoints that are preferred to link's, once each, without a wait. Call it when the program
// has been on a fallback for link.ReturnAfter, and again after as long if it failed; link's connection stays as it is
// meanwhile. With the new one, move over and close the old one.
//
// It blocks until one connects, all have failed or ctx ends, until its turn comes if another dial is under way, and as
// Dial does; [Redialer.Restart] ends it. Others who dial wait for it: if link's connection breaks meanwhile, end ctx, then call Dial.
//
// The error is an [*Error]. It says so, without an attempt, if nothing is preferred to link's endpoint, or if link is
// not the newest connection of this Redialer. Failed attempts count in Total alone: not in limits, not towards waits.
//
// If the new connection ends without having been of use, the next Dial goes on with the endpoint that follows it.
func (r *Redialer) DialPreferred(ctx context.Context, link *Link) (*Link, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.release()
	r.refresh()
	switch {
	case link == nil || link != r.newest:
		return nil, &Error{Reason: errStale}
	case link.Endpoint == 0:
		return nil, &Error{Reason: errPreferred, Fatal: true}
	}
	start := time.Now()
	tried := newOutage(len(r.endpoints)) // an account of its own, for the error
	for i := range link.Endpoint {
		if why := r.admit(ctx, 0); why != nil {
			if why == errRestart {
				r.Restart() // for the Dial that it was meant for
			}
			return nil, tried.error(why, time.Since(start))
		}
		tried.attempts++
		conn, err := r.attempt(ctx, i, r.policy.AttemptTimeout)
		now := time.Now()
		if why := r.ended(ctx); why != nil {
			if err == nil {
				_ = conn.Close()
			}
			return nil, tried.error(why, time.Since(start)).withCalledOff(i, err)
		}
		if err == nil {
			return r.move(conn, i, now), nil
		}
		if r.restarted() {
			r.Restart() // for the Dial that it was meant for
			return nil, tried.error(errRestart, time.Since(start)).withCalledOff(i, err)
		}
		f := r.failure(i, err)
		f.Attempts, f.Wait = tried.attempts, -1
		tried.fail(i, err, f.Fatal, isMarked(err), now)
		var d Decision
		if r.policy.OnFailure != nil {
			d = r.told(ctx, *f)
		}
		switch {
		case tried.marked:
			return nil, tried.error(errFatal, time.Since(start))
		case d.Do == Stop:
			return nil, tried.error(d.stopped(), time.Since(start))
		}
	}
	return nil, tried.error(errOneRound, time.Since(start))
}

// move makes conn, of endpoint i, the newest connection, in place of one that served until now.
func (r *Redialer) move(conn net.Conn, i int, now time.Time) *Link {
	r.review(now)
	if !r.out {
		r.begin()
	}
	r.outage.attempts++
	r.outage.next, r.outage.due = i+1, time.Time{}
	return r.connected(conn, i)
}
