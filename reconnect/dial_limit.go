package reconnect

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// DialLimit bounds how many sessions dial at once, of those that share it (DialOptions.Limit). A process with thousands of
// sessions to one server needs it: when that cuts them all, they all dial in the same moment, and if both machines together
// take longer than an answer may, what they do is given up before it is done, again and again. Sessions to another server
// should have one of their own, or they wait for those of this one.
//
// An attempt counts from when it begins until the listener has answered, but for a second at most, so that a server which
// does not answer holds nobody up for longer. Who waits for a turn has not begun: it is no failure, however long it takes, and
// counts towards redial.Policy.MaxTime alone. The zero value limits nothing.
type DialLimit struct{ turns chan struct{} }

// NewDialLimit returns one for n at once, or panics if n < 1. A few tens for each core of the slower side keep both busy.
func NewDialLimit(n int) *DialLimit {
	if n < 1 {
		panic(fmt.Sprintf("reconnect: NewDialLimit(%d): nobody could dial", n))
	}
	return &DialLimit{make(chan struct{}, n)}
}

// turnTime is how long an attempt counts at most.
const turnTime = time.Second

// take waits for a turn, until ctx ends. The function that it returns gives the turn back, once.
func (l *DialLimit) take(ctx context.Context) (release func(), err error) {
	if l.turns == nil {
		return func() {}, nil
	}
	select {
	case l.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	give := sync.OnceFunc(func() { <-l.turns })
	timer := time.AfterFunc(turnTime, give)
	return func() {
		timer.Stop()
		give()
	}, nil
}

// takeTurn waits for a turn for the next attempt of the session, and gives back what is left of the one before.
func (g *dialing) takeTurn(ctx context.Context) error {
	g.s.mu.Lock()
	g.endTurn()
	g.s.mu.Unlock()
	release, err := g.o.Limit.take(ctx)
	if err != nil {
		return err
	}
	g.s.mu.Lock()
	g.turn = release
	g.s.mu.Unlock()
	return nil
}

// endTurn gives the turn back, if there is one. s.mu is held.
func (g *dialing) endTurn() {
	if g.turn != nil {
		g.turn()
		g.turn = nil
	}
}
