package reconnect

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/redial"
)

// failed notes an attempt that did not lead to an answer. It ends the session of a Dial whose endpoints have all failed.
func (g *dialing) failed(endpoint int, err error, wait time.Duration) {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	g.endTurn()
	if s.ended {
		return // its last event has been told
	}
	s.events = append(s.events, Event{Kind: EventDialFailed, Time: time.Now(), Err: err, Wait: wait})
	s.startTelling()
	if !g.once || g.answered {
		return
	}
	if g.broken < maxBroken && broke(err) {
		g.broken++
		return
	}
	g.failures[endpoint] = err
	if gave := g.tried(); gave != nil && g.stopDial != nil {
		g.stopDial(gave)
	}
}

// tried returns how Dial has failed, if it has tried everything. s.mu is held.
func (g *dialing) tried() *gaveUp {
	if !g.once || g.answered || slices.Contains(g.failures, nil) {
		return nil
	}
	if len(g.failures) == 1 {
		return &gaveUp{g.failures[0]}
	}
	return &gaveUp{errors.Join(g.failures...)}
}

// maxBroken is how many connections may break before the answer without counting as attempts of Dial.
const maxBroken = 3

// broke reports whether err, of an attempt, may be a connection that was made and cut.
func broke(err error) bool {
	return isEOF(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errHungUp) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// gaveUp ends a dial for good.
type gaveUp struct{ err error }

func (e *gaveUp) Error() string { return e.err.Error() }

// unanswered notes a connection that ended before an answer.
func (g *dialing) unanswered(rl *redial.Link, err error) {
	if len(g.endpoints) > 1 {
		err = fmt.Errorf("%v: %w", rl.Conn.RemoteAddr(), err)
	}
	g.s.mu.Lock()
	waiting := g.once && !g.answered
	g.s.mu.Unlock()
	var wait time.Duration
	if r := new(session.RejectError); errors.As(err, &r) && r.Reason.Again() {
		wait = millis(r.Delay)
	}
	if waiting || !lostBy(err) { // a loss has an event of its own
		g.failed(rl.Endpoint, err, wait)
	}
}
