package session

import (
	"time"

	"github.com/towline-mq/towline/datagram"
)

// No false death: a connection that delivers is not given up. say what is to be heard from a peer, and how
// long the silence may be; here it is noted what each end has really heard, and been asked, and each death is held
// against it.

// life is what one end of a connection knows of the other, in the time of the simulation.
type life struct {
	heard time.Duration // the last sign of life, or the beginning
	asked time.Duration // when this end last began to write a PING
	had   time.Duration // when this end last took a PING of the other's
	parts time.Duration // since when it has read parts of a frame, and written nothing; 0: it has not
	part  time.Duration // the last of these
}

// read notes that bytes were read, which completed a frame or did not.
func (ce *connEnd) read(whole bool) {
	if whole {
		return // heard says of what
	}
	l := &ce.life
	if ce.e.s.answered() {
		l.heard = ce.m.now
	}
	l.part = ce.m.now
	if l.parts == 0 {
		l.parts = ce.m.now
	}
}

// heard notes what is about to be fed.
func (ce *connEnd) heard(run datagram.Run) {
	l := &ce.life
	switch {
	case run.Version == datagram.Version || KindOf(run.Raw) != KindPing:
		l.heard = ce.m.now
		return
	case !ce.e.s.unconfirmed(): // else it says that the peer has heard nothing
		l.heard = ce.m.now
	}
	l.had = ce.m.now
}

// steady reports whether nothing has stood still, or jumped, since then, which this end's clock or process would notice.
func (ce *connEnd) steady(since time.Duration) bool {
	return ce.e != nil && !ce.e.gone && ce.e.cur == ce && !ce.closed && (ce.e.stood == 0 || ce.e.stood < since)
}

// passes reports whether what was written since then arrives, and in time.
func (l *lane) passes(since time.Duration) bool {
	return !l.c.dead && !l.hole && !l.closed && l.frozen <= since
}

// dead is told that the connection was found dead, and fails if it was not.
func (ce *connEnd) dead() {
	m, e, peer := ce.m, ce.e, ce.c.ends[1-ce.side]
	if e.d.tainted || !ce.steady(ce.life.heard) {
		return
	}
	silent, limit := m.now-ce.life.heard, 2*e.s.cfg.PingAfter
	switch {
	case !e.s.answered():
		limit = e.s.cfg.AnswerTimeout
	case e.s.unconfirmed():
		limit = e.s.cfg.PingAfter
	}
	if silent < limit {
		m.failf("%s: conn %d was given up after %v of silence, %v are granted", e.name, ce.c.n, silent, limit)
	}
	if !e.s.answered() {
		return
	}
	if ce.life.asked < ce.life.heard && !ce.writing {
		m.failf("%s: conn %d was given up after %v of silence, and was not asked for a sign of life", e.name, ce.c.n, silent)
	}
	if had := peer.life.had; had > ce.life.heard {
		m.hit(heardInVain)
		if m.now-had > ce.c.slow && peer.steady(had) && !peer.writing && ce.in.passes(had) {
			m.failf("%s: conn %d was given up, and the peer has had the PING for %v, and not answered", e.name, ce.c.n, m.now-had)
		}
	}
	if from := peer.life.parts; from > 0 && m.now-from > time.Second+ce.c.slow && m.now-peer.life.part < time.Second &&
		peer.steady(from) && peer.e.s.answered() && !peer.writing && ce.in.passes(from) {
		m.failf("%s: conn %d was given up, while its peer has read parts of a frame for %v, and said nothing", e.name, ce.c.n, m.now-from)
	}
}
