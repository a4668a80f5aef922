package session

import (
	"iter"
	"math"
	"time"
)

const (
	// maxExpiry is the longest time that WELCOME can say, in milliseconds: about 49 days.
	maxExpiry = math.MaxUint32 * time.Millisecond

	// defaultUnconfirmedExpiry is UnconfirmedExpiry where none is given.
	defaultUnconfirmedExpiry = 30 * time.Second

	// tombstoneLives says how many times longer than a detached session a tombstone lives.
	tombstoneLives = 10
)

// ID is the id of a session, drawn at random by its dialer.
type ID = [16]byte

// TableConfig sets the limits of a [Table]. The counts have no defaults: 0 or less keeps none.
type TableConfig struct {
	// MaxSessions is how many sessions there may be, with and without a connection.
	MaxSessions int

	// MaxDetached is how many of them may be without a connection. At 0 none outlives its connection.
	MaxDetached int

	// MaxTombstones is how many tombstones are kept; a new one takes the place of the oldest. At 0 a dialer that comes
	// too late learns only that its session is unknown.
	MaxTombstones int

	// Expiry is how long a session is kept without a connection. Tombstones are kept ten times as long.
	// 0 or less keeps none, and no tombstone. It is never more than 2^32 - 1 ms, which is what WELCOME can say.
	Expiry time.Duration

	// UnconfirmedExpiry is the same for a session that its dialer has not confirmed, and so may never have
	// heard of. 0 or less: 30 s. It is never more than Expiry.
	UnconfirmedExpiry time.Duration
}

// Table is what a listener knows of its sessions, and of those that it had. S is what the driver keeps for a session.
//
// A session is attached, which means that it has a connection, or detached; and its dialer has confirmed it or not.
// A session that is removed leaves a tombstone, so that its dialer can be told why it went and how far it had come.
// An id is that of a session or of a tombstone, never of both.
//
// The table removes no session by itself, because only the driver knows what has arrived in it: Due and Victim name a
// session that has to go, and Remove removes it. Being in the table is all that decides whether a session lives. So if
// the driver calls Due and Remove, or Get, the check of the epoch and Attach, without letting go of its lock, then
// expiring a session and resuming it exclude each other.
//
// Times are monotonic, since some start that the driver chose. One that is earlier than another before it counts as
// that one, so the driver need not hold its lock when it reads the clock.
//
// Each call takes constant time, amortised. The table has no lock: the caller guards it.
//
// Invariants, which the tests check after each call: every session is in sessions and in exactly one list; the detached
// are in the list that says whether they are confirmed, and in the order of their time, as are the tombstones; no id is
// in both maps; there are no more sessions than MaxSessions, nor tombstones than MaxTombstones; no time is after now.
type Table[S any] struct {
	config   TableConfig
	now      time.Duration // the latest time that was given
	sessions map[ID]*tableEntry[S]
	lists    [3]tableList[S] // by place

	tombstones     map[ID]*tombstone
	oldest, newest *tombstone
}

// place says in which list an entry is.
type place uint8

const (
	placeAttached    place = iota
	placeUnconfirmed       // detached and not confirmed
	placeConfirmed         // detached and confirmed
)

// tableEntry is a session.
type tableEntry[S any] struct {
	id         ID
	s          S
	prev, next *tableEntry[S]
	since      time.Duration // when it was detached, if it is
	in         place
	confirmed  bool
}

// tableList is a list of sessions, linked through them. The first one came first.
type tableList[S any] struct {
	first, last *tableEntry[S]
	n           int
}

func (l *tableList[S]) push(e *tableEntry[S]) {
	e.prev = l.last
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.n++
}

func (l *tableList[S]) remove(e *tableEntry[S]) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	l.n--
}

// tombstone is what is left of a session.
type tombstone struct {
	id      ID
	arrived Position
	since   time.Duration
	next    *tombstone
	why     Reason
}

// NewTable returns an empty table.
func NewTable[S any](c TableConfig) *Table[S] {
	c.MaxSessions, c.MaxDetached, c.MaxTombstones = max(c.MaxSessions, 0), max(c.MaxDetached, 0), max(c.MaxTombstones, 0)
	c.Expiry = min(max(c.Expiry, 0), maxExpiry)
	if c.UnconfirmedExpiry <= 0 {
		c.UnconfirmedExpiry = defaultUnconfirmedExpiry
	}
	c.UnconfirmedExpiry = min(c.UnconfirmedExpiry, c.Expiry)
	return &Table[S]{config: c, sessions: make(map[ID]*tableEntry[S]), tombstones: make(map[ID]*tombstone)}
}

// Add adds a session that is attached and not confirmed, and returns 0. Otherwise nothing has changed, and it returns
// the reason for REJECT: that of the tombstone if the id has one, [ReasonMismatch] if there is such a session,
// [ReasonBusy] if there are MaxSessions. The driver makes room with Due and Victim before.
func (t *Table[S]) Add(id ID, s S) Reason {
	if dead := t.tombstones[id]; dead != nil {
		return dead.why
	}
	if t.sessions[id] != nil {
		return ReasonMismatch
	}
	if len(t.sessions) >= t.config.MaxSessions {
		return ReasonBusy
	}
	e := &tableEntry[S]{id: id, s: s}
	t.sessions[id] = e
	t.lists[placeAttached].push(e)
	return 0
}

// Get returns the session with this id.
func (t *Table[S]) Get(id ID) (s S, ok bool) {
	e := t.sessions[id]
	if e == nil {
		return s, false
	}
	return e.s, true
}

// Confirm says that the dialer has confirmed the session. It does nothing and returns false if there is no such
// session or it is detached: what confirms a session comes over its connection. Once is enough; more is no mistake.
func (t *Table[S]) Confirm(id ID) bool {
	e := t.sessions[id]
	if e == nil || e.in != placeAttached {
		return false
	}
	e.confirmed = true
	return true
}

// Detach says that the session has no connection any more, and from now on it may expire. It does nothing and returns
// false if there is no such session or it is detached already. A connection that was taken over must not call it: the
// session has another one. Due may then have a session to evict.
func (t *Table[S]) Detach(id ID, now time.Duration) bool {
	e := t.sessions[id]
	if e == nil || e.in != placeAttached {
		return false
	}
	e.since = t.advance(now)
	if e.confirmed {
		t.move(e, placeConfirmed)
	} else {
		t.move(e, placeUnconfirmed)
	}
	return true
}

// Attach says that the session has a connection, by RESUME or by a repeated HELLO. It returns false if there is no such
// session. For one that is attached, and so was taken over, it does nothing and returns true.
func (t *Table[S]) Attach(id ID) bool {
	e := t.sessions[id]
	if e == nil {
		return false
	}
	if e.in != placeAttached {
		t.move(e, placeAttached)
	}
	return true
}

// Remove removes a session, attached or not, and leaves a tombstone that says why, and what had arrived. If why
// is 0 it leaves none: for a session that nobody has been told of. It does nothing and returns false if there is no
// such session.
func (t *Table[S]) Remove(id ID, why Reason, arrived Position, now time.Duration) bool {
	e := t.sessions[id]
	if e == nil {
		return false
	}
	t.lists[e.in].remove(e)
	delete(t.sessions, id)

	now = t.advance(now)
	if why == 0 || t.config.MaxTombstones == 0 {
		return true
	}
	if len(t.tombstones) >= t.config.MaxTombstones {
		t.forget()
	}
	dead := &tombstone{id: id, arrived: arrived, since: now, why: why}
	if t.newest == nil {
		t.oldest = dead
	} else {
		t.newest.next = dead
	}
	t.newest = dead
	t.tombstones[id] = dead
	return true
}

// Tombstone returns what REJECT has to say about a session that was removed: why, and what had arrived.
func (t *Table[S]) Tombstone(id ID) (why Reason, arrived Position, ok bool) {
	dead := t.tombstones[id]
	if dead == nil {
		return 0, Position{}, false
	}
	return dead.why, dead.arrived, true
}

// Due returns a session that the driver has to remove now, and why: [ReasonExpired], or [ReasonEvicted] if more than
// MaxDetached are detached. Evicted is the one that was detached first of those that are not confirmed, or, if there
// are none, of all: so who only sends HELLO displaces nobody who is known. ok is false if there is nothing to do.
//
// The driver calls Due and Remove in turn until then, after each Detach, at Deadline, and before Add. Due also forgets
// the tombstones whose time is over.
func (t *Table[S]) Due(now time.Duration) (id ID, s S, why Reason, ok bool) {
	now = t.advance(now)
	for t.oldest != nil && now-t.oldest.since >= tombstoneLives*t.config.Expiry {
		t.forget()
	}
	for _, p := range [...]place{placeUnconfirmed, placeConfirmed} {
		if e := t.lists[p].first; e != nil && now-e.since >= t.expiry(p) {
			return e.id, e.s, ReasonExpired, true
		}
	}
	if t.Detached() <= t.config.MaxDetached {
		return id, s, 0, false
	}
	e := t.lists[placeUnconfirmed].first
	if e == nil {
		e = t.lists[placeConfirmed].first
	}
	return e.id, e.s, ReasonEvicted, true
}

// Victim returns the session that the driver has to remove, with [ReasonEvicted], before it can add one: the one that
// was detached first of those that are not confirmed. ok is false if there is room, and if there is no such session:
// then nobody is evicted, and Add says busy.
func (t *Table[S]) Victim() (id ID, s S, ok bool) {
	e := t.lists[placeUnconfirmed].first
	if e == nil || len(t.sessions) < t.config.MaxSessions {
		return id, s, false
	}
	return e.id, e.s, true
}

// Deadline returns when Due has something to do, if nothing else happens before; if it has already, that may be in the
// past. ok is false if there is nothing that it waits for.
func (t *Table[S]) Deadline() (at time.Duration, ok bool) {
	if t.Detached() > t.config.MaxDetached {
		return t.now, true
	}
	at = math.MaxInt64
	for _, p := range [...]place{placeUnconfirmed, placeConfirmed} {
		if e := t.lists[p].first; e != nil {
			at = min(at, e.since+t.expiry(p))
		}
	}
	if t.oldest != nil {
		at = min(at, t.oldest.since+tombstoneLives*t.config.Expiry)
	}
	return at, at < math.MaxInt64
}

// All yields the sessions: the attached ones, then the detached ones, those that are not confirmed first; each in the
// order in which they came to be so. Meanwhile the driver may remove the session that it was handed, and change nothing
// else.
func (t *Table[S]) All() iter.Seq2[ID, S] {
	return func(yield func(ID, S) bool) {
		for p := range t.lists {
			for e := t.lists[p].first; e != nil; {
				next := e.next
				if !yield(e.id, e.s) {
					return
				}
				e = next
			}
		}
	}
}

// Len returns how many sessions there are.
func (t *Table[S]) Len() int { return len(t.sessions) }

// Detached returns how many of them have no connection.
func (t *Table[S]) Detached() int { return t.lists[placeUnconfirmed].n + t.lists[placeConfirmed].n }

// Tombstones returns how many tombstones there are.
func (t *Table[S]) Tombstones() int { return len(t.tombstones) }

// advance takes note of the time, and returns it.
func (t *Table[S]) advance(now time.Duration) time.Duration {
	t.now = max(t.now, now)
	return t.now
}

// expiry returns how long a detached session lives.
func (t *Table[S]) expiry(p place) time.Duration {
	if p == placeUnconfirmed {
		return t.config.UnconfirmedExpiry
	}
	return t.config.Expiry
}

// move takes a session from its list to the end of another.
func (t *Table[S]) move(e *tableEntry[S], to place) {
	t.lists[e.in].remove(e)
	e.in = to
	t.lists[to].push(e)
}

// forget removes the oldest tombstone.
func (t *Table[S]) forget() {
	delete(t.tombstones, t.oldest.id)
	t.oldest = t.oldest.next
	if t.oldest == nil {
		t.newest = nil
	}
}
