package redial

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	defaultAttemptTimeout = 10 * time.Second
	defaultStableAfter    = time.Minute
	defaultReturnAfter    = time.Minute
	defaultMaxDelay       = 5 * time.Minute
)

// Policy says how a [Redialer] goes about its work. The zero value has no limits and is right for most programs: it
// tries at once, then with growing waits, until it is told to stop. [New] copies it; one Policy may serve any number of
// Redialers. [Redialer.SetPolicy] changes it.
//
// The functions are called under no lock, from the goroutine that dials, which waits for them: they may take their time,
// and must not call Dial or DialPreferred of the same Redialer. The context that they get ends with Dial's, by Close and
// by Restart. Those that serve several Redialers must be safe for several goroutines.
type Policy struct {
	// Backoff makes the waits between rounds, once for each Redialer. Nil: a [Jitter], 50 ms to 5 s.
	Backoff func() Backoff

	// Source makes what chance is drawn from, once for each Redialer: by the default Backoff, for the spread of
	// [Link.Delay] and for [Link].ReturnAfter. Nil: random. It is there for tests and simulations that must be
	// repeatable.
	Source func() rand.Source

	// MaxAttempts is how many attempts an outage may take, each dial of one endpoint being one. 0 or less: no limit.
	MaxAttempts int

	// FirstOnce is whether, as long as no connection was ever made, each endpoint is tried once and Dial then gives up:
	// a wrong address is an error at once, and only what worked once is dialled again and again.
	FirstOnce bool

	// MaxTime is how long an outage may keep Dial busy, dialling and waiting. A wait that would end later is not begun,
	// and an attempt is cut short. What [Link.Delay] asked for does not count. 0 or less: no limit.
	MaxTime time.Duration

	// AttemptTimeout bounds one attempt, from the resolving of the name to the end of the handshake. It works through
	// the dialer's context. 0: 10 s. Negative: the dialer's own limits alone.
	AttemptTimeout time.Duration

	// IsFatal tells errors after which an endpoint need not be tried again from those that can pass. It decides alone,
	// but for errors marked by [Fatal]; it can call on the package's own [IsFatal]. It is not asked about the end of
	// Dial's own context. Nil: IsFatal.
	IsFatal func(error) bool

	// StableAfter is how long a connection must have lasted, from when it was made to the next Dial, to count as good
	// without [Link.Progress]. 0: 1 min. Negative: only Progress counts.
	StableAfter time.Duration

	// ReturnAfter is how long to stay with a fallback before what is preferred is tried again; see [Link].ReturnAfter.
	// 0: 1 min. Negative: for ever.
	ReturnAfter time.Duration

	// MaxDelay bounds each of the two times that [Link.Delay] is given, since they come from the peer. 0: 5 min.
	// Negative: no delay is ever granted.
	MaxDelay time.Duration

	// OnAttempt is asked before each attempt, when the wait for it is over, and the attempt begins when it returns nil: so
	// that of many Redialers only some dial at once, or only so many in a second. The Wait method of a Limiter of
	// golang.org/x/time/rate can be used as it is. What it waits counts towards MaxTime and not towards AttemptTimeout.
	// Its context ends also when MaxTime is over; any other error ends Dial, and is its Reason. Who gives something for an
	// attempt, as a semaphore does, takes it back when OnFailure or OnConnected tells of it, or the dialer's DialContext
	// returns: an attempt that was ended by Dial's context, by Close or by Restart is told to nobody else. Nil: at once.
	OnAttempt func(ctx context.Context) error

	// OnFailure is told of each failed attempt, before the wait that follows it, and decides what comes next: it can
	// stop, choose the wait, or put another endpoint in the place of the one that failed. The time that it takes counts
	// towards the wait. Nil: all is as the policy says. An attempt that was ended by Dial's context, by Close or by
	// Restart is not a failure.
	OnFailure func(ctx context.Context, f Failure) Decision

	// OnConnected gets each new connection before anybody else does: to log in, to say hello, to set options that then
	// hold after each redial. It is part of the attempt: AttemptTimeout includes it, and an error is a failed attempt,
	// marked by [Fatal] the end of Dial. Its reads and writes end when ctx ends; deadlines that it sets are taken away
	// when it returns. Nil: nothing is done.
	OnConnected func(ctx context.Context, c Connection) error
}

// Failure is one attempt that failed, for [Policy].OnFailure.
type Failure struct {
	// Endpoint is the index of the dialer that failed.
	Endpoint int

	// Err is why.
	Err error

	// Fatal is whether the endpoint is out of the question until the outage ends.
	Fatal bool

	// Attempts counts the attempts of this outage up to this one, and Total those since New.
	Attempts, Total int

	// Wait is how long until the next attempt begins. 0: at once. Negative: Dial gives up now, or the attempt was one
	// of DialPreferred, which tries each endpoint once.
	Wait time.Duration
}

// withDefaults returns a copy of p, which may be nil, in which each 0 is replaced by what it means.
func (p *Policy) withDefaults() Policy {
	var q Policy
	if p != nil {
		q = *p
	}
	orElse := func(d *time.Duration, other time.Duration) {
		if *d == 0 {
			*d = other
		}
	}
	orElse(&q.AttemptTimeout, defaultAttemptTimeout)
	orElse(&q.StableAfter, defaultStableAfter)
	orElse(&q.ReturnAfter, defaultReturnAfter)
	orElse(&q.MaxDelay, defaultMaxDelay)
	if q.IsFatal == nil {
		q.IsFatal = IsFatal
	}
	return q
}
