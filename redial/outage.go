package redial

import (
	"errors"
	"net"
	"slices"
	"time"
)

// outage is the account of one outage: what was tried and what is to be tried next. It has no lock and no clock of its
// own.
//
// Invariant: every endpoint below next has been tried in this round or is dead.
type outage struct {
	attempts int           // made so far
	spent    time.Duration // time in Dial, but for the Dial under way
	next     int           // the endpoint to go on with in this round; the number of endpoints if the round is over
	ended    time.Time     // when the last attempt failed, or made a connection
	due      time.Time     // when the next round may begin; zero if its wait has not been drawn
	dead     []bool        // endpoints that failed with a fatal error
	marked   bool          // an error was marked by Fatal
	causes   []error       // the newest failure of each endpoint
	last     error         // the newest failure
	first    bool          // no connection was ever made
}

func newOutage(endpoints int) outage {
	return outage{dead: make([]bool, endpoints), causes: make([]error, endpoints)}
}

// fail notes the failure of the attempt at endpoint i, which ended at now.
func (o *outage) fail(i int, err error, fatal, marked bool, now time.Time) {
	o.ended = now
	o.last = err
	o.causes[i] = err
	o.dead[i] = o.dead[i] || fatal
	o.marked = o.marked || marked
}

// plan chooses the next endpoint and how long to wait for it, with elapsed the time that the outage has taken until
// now; or it says why there is to be no further attempt.
func (o *outage) plan(p *Policy, b Backoff, elapsed time.Duration, now time.Time) (wait time.Duration, why error) {
	if o.marked {
		return 0, errFatal
	}
	o.skipDead()
	if o.next == len(o.dead) && o.firstAlive() == len(o.dead) {
		return 0, errFatal
	}
	if p.MaxAttempts > 0 && o.attempts >= p.MaxAttempts {
		return 0, errAttempts
	}
	if o.next == len(o.dead) {
		if p.FirstOnce && o.first && o.attempts > 0 {
			return 0, errFirst
		}
		if o.due.IsZero() {
			d := b.NextBackOff()
			if d < 0 {
				return 0, errStop
			}
			o.due = o.ended.Add(d)
		}
		wait = max(o.due.Sub(now), 0)
	}
	if p.MaxTime > 0 && wait >= p.MaxTime-elapsed {
		return 0, errTime
	}
	return wait, nil
}

// revive lets endpoint i be tried again, since it leads elsewhere now.
func (o *outage) revive(i int) { o.dead[i], o.marked = false, false }

// begin takes the next endpoint for an attempt.
func (o *outage) begin() (endpoint int) {
	if o.next == len(o.dead) { // a new round
		o.next, o.due = o.firstAlive(), time.Time{}
	}
	endpoint = o.next
	o.next++
	o.attempts++
	return endpoint
}

func (o *outage) skipDead() {
	for o.next < len(o.dead) && o.dead[o.next] {
		o.next++
	}
}

func (o *outage) firstAlive() int {
	for i, dead := range o.dead {
		if !dead {
			return i
		}
	}
	return len(o.dead)
}

// error is what Dial returns for why.
func (o *outage) error(why error, elapsed time.Duration) *Error {
	return &Error{
		Reason:   why,
		Fatal:    errors.Is(why, errFatal) || errors.Is(why, net.ErrClosed),
		Attempts: o.attempts,
		Elapsed:  elapsed,
		Last:     o.last,
		Causes:   slices.Clone(o.causes),
	}
}
