package redial

import (
	"net"
	"sync/atomic"
	"time"
)

// Link is a connection that a [Redialer] made, and how it came to be. The fields are not changed after Dial returned.
// Its methods may be called by any number of goroutines, never block, and count only as long as the Redialer has made
// no newer connection: what an old connection has to say late changes nothing.
type Link struct {
	// Conn is the connection as the dialer returned it. It is the caller's to close; the Redialer keeps no hold on it.
	Conn net.Conn

	// Endpoint is the index of the dialer that made it. 0 is the most preferred.
	Endpoint int

	// Attempts is how many attempts there have been in this outage, and Total since New, this one included.
	Attempts, Total int

	// ReturnAfter is how long to stay with this connection before [Redialer.DialPreferred] is called, and between
	// further calls. It is drawn between a half and one and a half of Policy.ReturnAfter, so that clients that fell
	// back together do not return together. 0: do not, since nothing is preferred to this endpoint or the policy says
	// so.
	ReturnAfter time.Duration

	made     time.Time
	progress atomic.Bool
	delay    atomic.Pointer[delay]
}

// delay is what Link.Delay asked for.
type delay struct {
	from          time.Time
	delay, spread time.Duration
}

// Progress says that the connection was worth something: a session resumed on it and moved what had not been moved
// before, or an answer came. The outage is over, and after this connection the next Dial begins a new one, at once and
// with full limits. A connection that was only accepted has not progressed. It may be called as often as is convenient.
func (l *Link) Progress() { l.progress.Store(true) }

// Delay asks the next Dial to make no attempt until delay from now has passed and, on top of that, a time drawn evenly
// from 0 to spread: what a server says that drains, to have its clients back later and not all at once. Each of the two
// is cut to Policy.MaxDelay; negative ones are 0. It holds whether or not the connection progressed, and for all
// endpoints. A later call replaces an earlier one.
func (l *Link) Delay(after, spread time.Duration) {
	l.delay.Store(&delay{time.Now(), after, spread})
}

// breather is how long a connection must have lasted for the next dial to be made without a pause.
const breather = 100 * time.Millisecond

// breathe keeps a server that says something and hangs up from being dialled as fast as it can do that.
func (l *Link) breathe() {
	if left := breather - time.Since(l.made); left > 0 && l.progress.Load() && l.delay.Load() == nil {
		l.Delay(0, left)
	}
}
