package session

import (
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// check returns what is wrong with the table's invariants. It looks at everything.
func (t *Table[S]) check() error {
	listed := 0
	for p := range t.lists {
		l := &t.lists[p]
		var before *tableEntry[S]
		n := 0
		for e := l.first; e != nil; before, e = e, e.next {
			n++
			switch {
			case t.sessions[e.id] != e || e.in != place(p) || e.prev != before || n > len(t.sessions):
				return fmt.Errorf("session %x is in the wrong list, or twice", e.id)
			case place(p) != placeAttached && e.confirmed != (place(p) == placeConfirmed):
				return fmt.Errorf("session %x is in the other list of detached ones", e.id)
			case place(p) != placeAttached && before != nil && e.since < before.since, e.since > t.now:
				return fmt.Errorf("session %x is not in the order of time", e.id)
			case t.tombstones[e.id] != nil:
				return fmt.Errorf("session %x has a tombstone", e.id)
			}
		}
		if l.last != before || l.n != n {
			return fmt.Errorf("list %d has %d sessions and says %d", p, n, l.n)
		}
		listed += n
	}
	if listed != len(t.sessions) || listed > t.config.MaxSessions {
		return fmt.Errorf("%d sessions in lists, %d in all, of at most %d", listed, len(t.sessions), t.config.MaxSessions)
	}

	var before *tombstone
	n := 0
	for d := t.oldest; d != nil; before, d = d, d.next {
		n++
		if t.tombstones[d.id] != d || n > len(t.tombstones) {
			return fmt.Errorf("tombstone %x is not known, or there twice", d.id)
		}
		if before != nil && d.since < before.since || d.since > t.now {
			return fmt.Errorf("tombstone %x is not in the order of time", d.id)
		}
	}
	if t.newest != before || n != len(t.tombstones) || n > t.config.MaxTombstones {
		return fmt.Errorf("%d tombstones in the list, %d in all, of at most %d", n, len(t.tombstones), t.config.MaxTombstones)
	}
	return nil
}

// tableModel is what a Table should be: everything in the order in which it happened, and looked for from the start.
type tableModel struct {
	config     TableConfig
	now        time.Duration
	sessions   []modelSession // the attached ones in the order of attaching, the detached ones in that of detaching
	tombstones []modelTombstone
}

type modelSession struct {
	id                  ID
	s                   int
	attached, confirmed bool
	since               time.Duration
}

type modelTombstone struct {
	id      ID
	why     Reason
	arrived Position
	since   time.Duration
}

func (m *tableModel) find(id ID) int {
	return slices.IndexFunc(m.sessions, func(s modelSession) bool { return s.id == id })
}

func (m *tableModel) tombstone(id ID) int {
	return slices.IndexFunc(m.tombstones, func(d modelTombstone) bool { return d.id == id })
}

// change moves session i to the end, changed.
func (m *tableModel) change(i int, f func(s *modelSession)) {
	s := m.sessions[i]
	m.sessions = slices.Delete(m.sessions, i, i+1)
	f(&s)
	m.sessions = append(m.sessions, s)
}

func (m *tableModel) detached() (n int) {
	for _, s := range m.sessions {
		if !s.attached {
			n++
		}
	}
	return n
}

func (m *tableModel) until(s modelSession) time.Duration {
	if s.confirmed {
		return s.since + m.config.Expiry
	}
	limit := m.config.UnconfirmedExpiry
	if limit == 0 {
		limit = 30 * time.Second
	}
	return s.since + min(limit, m.config.Expiry)
}

// first returns the first session that is one, or nil.
func (m *tableModel) first(is func(s modelSession) bool) *modelSession {
	if i := slices.IndexFunc(m.sessions, is); i >= 0 {
		return &m.sessions[i]
	}
	return nil
}

func (m *tableModel) oldestUnconfirmed() *modelSession {
	return m.first(func(s modelSession) bool { return !s.attached && !s.confirmed })
}

func (m *tableModel) due() (*modelSession, Reason) {
	m.tombstones = slices.DeleteFunc(m.tombstones, func(d modelTombstone) bool {
		return d.since+10*m.config.Expiry <= m.now
	})
	for _, confirmed := range []bool{false, true} {
		s := m.first(func(s modelSession) bool { return !s.attached && s.confirmed == confirmed && m.until(s) <= m.now })
		if s != nil {
			return s, ReasonExpired
		}
	}
	if m.detached() <= m.config.MaxDetached {
		return nil, 0
	}
	if s := m.oldestUnconfirmed(); s != nil {
		return s, ReasonEvicted
	}
	return m.first(func(s modelSession) bool { return !s.attached }), ReasonEvicted
}

func (m *tableModel) deadline() (time.Duration, bool) {
	if m.detached() > m.config.MaxDetached {
		return m.now, true
	}
	var all []time.Duration
	for _, s := range m.sessions {
		if !s.attached {
			all = append(all, m.until(s))
		}
	}
	for _, d := range m.tombstones {
		all = append(all, d.since+10*m.config.Expiry)
	}
	if all == nil {
		return math.MaxInt64, false
	}
	return slices.Min(all), true
}

func (m *tableModel) remove(id ID, why Reason, arrived Position) bool {
	i := m.find(id)
	if i < 0 {
		return false
	}
	m.sessions = slices.Delete(m.sessions, i, i+1)
	if why == 0 {
		return true
	}
	m.tombstones = append(m.tombstones, modelTombstone{id, why, arrived, m.now})
	m.tombstones = m.tombstones[max(len(m.tombstones)-m.config.MaxTombstones, 0):]
	return true
}

// all returns the sessions in the order of Table.All.
func (m *tableModel) all() (vs []int) {
	for p := range place(3) {
		for _, s := range m.sessions {
			if s.attached && p == placeAttached || !s.attached && s.confirmed == (p == placeConfirmed) && p != placeAttached {
				vs = append(vs, s.s)
			}
		}
	}
	return vs
}

func values[S any](seq iter.Seq2[ID, S]) (vs []S) {
	for _, s := range seq {
		vs = append(vs, s)
	}
	return vs
}

// A Table and its model are told the same and say the same: 20 x 100 stories, or as many as -rapid.checks says.
func TestTableModel(t *testing.T) {
	for range 20 {
		rapid.Check(t, tableStory)
	}
}

func tableStory(t *rapid.T) {
	caps := rapid.SampledFrom([]int{0, 1, 2, 3, 5, 8})
	config := TableConfig{
		MaxSessions:       rapid.SampledFrom([]int{8, 5, 3, 2, 1, 0}).Draw(t, "sessions"),
		MaxDetached:       caps.Draw(t, "detached"),
		MaxTombstones:     caps.Draw(t, "tombstones"),
		Expiry:            rapid.SampledFrom([]time.Duration{2 * time.Minute, 10 * time.Second, 0}).Draw(t, "expiry"),
		UnconfirmedExpiry: rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "unconfirmed"),
	}
	table, m := NewTable[int](config), &tableModel{config: config}
	ids := rapid.Map(rapid.IntRange(1, 10), func(n int) ID { return ID{byte(n)} })
	waits := rapid.SampledFrom([]time.Duration{
		0, 0, 1, time.Second - 1, time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, 99 * time.Second,
		2 * time.Minute, 20 * time.Minute, 24 * time.Hour,
	})
	serial := 0
	// now is the time of a call. One in a few read the clock before the call that came before it did.
	now := func(t *rapid.T) time.Duration {
		return m.now - rapid.SampledFrom([]time.Duration{0, 0, 0, time.Millisecond, time.Minute}).Draw(t, "stale")
	}
	remove := func(t *rapid.T, id ID, why Reason) {
		serial++
		arrived := Position{N: uint64(serial), B: math.MaxUint64 - uint64(serial)}
		require.Equal(t, m.remove(id, why, arrived), table.Remove(id, why, arrived, now(t)))
	}
	due := func(t *rapid.T) bool {
		want, wantWhy := m.due()
		id, s, why, ok := table.Due(now(t))
		require.Equal(t, want != nil, ok)
		require.Equal(t, wantWhy, why)
		if !ok {
			require.Zero(t, id)
			require.Zero(t, s)
			return false
		}
		require.Equal(t, want.s, s)
		require.Equal(t, want.id, id)
		remove(t, id, why)
		return true
	}
	add := func(t *rapid.T, id ID) {
		serial++
		want := Reason(0)
		if i := m.tombstone(id); i >= 0 {
			want = m.tombstones[i].why
		} else if m.find(id) >= 0 {
			want = ReasonMismatch
		} else if len(m.sessions) >= config.MaxSessions {
			want = ReasonBusy
		} else {
			m.sessions = append(m.sessions, modelSession{id: id, s: serial, attached: true})
		}
		require.Equal(t, want, table.Add(id, serial))
	}
	t.Repeat(map[string]func(t *rapid.T){
		"wait": func(t *rapid.T) {
			m.now += waits.Draw(t, "wait")
			table.Due(m.now) // and nothing is removed: whoever looks is not obliged to
			m.due()
		},
		"until deadline": func(t *rapid.T) {
			at, ok := table.Deadline()
			if !ok {
				t.Skip("no deadline")
			}
			before := table.Tombstones()
			if at > m.now {
				_, _, _, ok = table.Due(at - 1)
				require.False(t, ok, "before the deadline")
				require.Equal(t, before, table.Tombstones(), "before the deadline")
				m.now = at
			}
			_, _, _, ok = table.Due(m.now)
			require.True(t, ok || table.Tombstones() < before, "at the deadline")
			m.due()
		},
		"add": func(t *rapid.T) { add(t, ids.Draw(t, "id")) },
		"make room and add": func(t *rapid.T) {
			for due(t) {
			}
			if id, _, ok := table.Victim(); ok {
				remove(t, id, ReasonEvicted)
				_, _, ok = table.Victim()
				require.False(t, ok, "one victim is enough")
			}
			add(t, ids.Draw(t, "id"))
		},
		"confirm": func(t *rapid.T) {
			id := ids.Draw(t, "id")
			i := m.find(id)
			ok := i >= 0 && m.sessions[i].attached
			if ok {
				m.sessions[i].confirmed = true
			}
			require.Equal(t, ok, table.Confirm(id))
		},
		"attach": func(t *rapid.T) {
			id := ids.Draw(t, "id")
			i := m.find(id)
			if i >= 0 && !m.sessions[i].attached {
				m.change(i, func(s *modelSession) { s.attached = true })
			}
			require.Equal(t, i >= 0, table.Attach(id))
		},
		"detach": func(t *rapid.T) {
			id := ids.Draw(t, "id")
			i := m.find(id)
			ok := i >= 0 && m.sessions[i].attached
			if ok {
				m.change(i, func(s *modelSession) { s.attached, s.since = false, m.now })
			}
			require.Equal(t, ok, table.Detach(id, now(t)))
		},
		"remove": func(t *rapid.T) {
			remove(t, ids.Draw(t, "id"), rapid.SampledFrom([]Reason{ReasonClosed, ReasonTakenOver, 0}).Draw(t, "why"))
		},
		"due": func(t *rapid.T) { due(t) },
		"sweep": func(t *rapid.T) {
			for due(t) {
			}
		},
		"remove all": func(t *rapid.T) {
			if rapid.IntRange(0, 9).Draw(t, "rare") > 0 {
				t.Skip("rare")
			}
			left := m.all()
			for id, s := range table.All() {
				require.Equal(t, left[0], s)
				left = left[1:]
				remove(t, id, ReasonDraining)
			}
			require.Empty(t, left)
		},
		"": func(t *rapid.T) {
			require.NoError(t, table.check())
			require.Equal(t, len(m.sessions), table.Len())
			require.Equal(t, m.detached(), table.Detached())
			require.Equal(t, len(m.tombstones), table.Tombstones())
			require.Equal(t, m.all(), values(table.All()))
			for n := range 11 {
				id := ID{byte(n)}
				var want modelSession
				i := m.find(id)
				if i >= 0 {
					want = m.sessions[i]
				}
				if s, ok := table.Get(id); ok != (i >= 0) || s != want.s {
					t.Fatalf("session %d is %d, %v; want %d, %v", n, s, ok, want.s, i >= 0)
				}
				var dead modelTombstone
				i = m.tombstone(id)
				if i >= 0 {
					dead = m.tombstones[i]
				}
				if why, arrived, ok := table.Tombstone(id); ok != (i >= 0) || why != dead.why || arrived != dead.arrived {
					t.Fatalf("tombstone %d says %v, %v, %v; want %v", n, why, arrived, ok, dead)
				}
			}
			at, ok := table.Deadline()
			wantAt, wantOK := m.deadline()
			require.Equal(t, wantOK, ok)
			require.Equal(t, wantAt, at)

			victim := m.oldestUnconfirmed()
			_, s, ok := table.Victim()
			require.Equal(t, victim != nil && len(m.sessions) >= config.MaxSessions, ok)
			if ok {
				require.Equal(t, victim.s, s)
			}
		},
	})
}

// A resume and the expiry exclude each other, whichever the driver comes to first: what is in the table lives.
func TestTableExpiryOrResume(t *testing.T) {
	table := NewTable[string](TableConfig{MaxSessions: 2, MaxDetached: 2, MaxTombstones: 2, Expiry: time.Minute})
	early, late := ID{1}, ID{2}
	for _, id := range []ID{early, late} {
		require.Zero(t, table.Add(id, "s"))
		require.True(t, table.Confirm(id))
		require.True(t, table.Detach(id, 0))
	}
	require.True(t, table.Attach(early))
	id, _, why, ok := table.Due(time.Hour)
	require.True(t, ok)
	require.Equal(t, late, id)
	require.Equal(t, ReasonExpired, why)
	require.True(t, table.Remove(id, why, Position{N: 3, B: 30}, time.Hour))
	require.False(t, table.Attach(late))
	_, _, _, ok = table.Due(time.Hour)
	require.False(t, ok)

	require.Equal(t, ReasonExpired, table.Add(late, "again"), "an id with a tombstone is not taken again")
	why, arrived, ok := table.Tombstone(late)
	require.True(t, ok)
	require.Equal(t, ReasonExpired, why)
	require.Equal(t, Position{N: 3, B: 30}, arrived)
	table.Due(time.Hour + 10*time.Minute - 1)
	require.Equal(t, 1, table.Tombstones())
	table.Due(time.Hour + 10*time.Minute)
	require.Zero(t, table.Tombstones())
	require.Zero(t, table.Add(late, "again"))
}

// Who only sends HELLO, and never confirms, displaces nobody who is known.
func TestTableFloodOfHellos(t *testing.T) {
	const known = 10
	table := NewTable[int](TableConfig{MaxSessions: 30, MaxDetached: 20, MaxTombstones: 5, Expiry: time.Hour})
	for i := range known {
		require.Zero(t, table.Add(ID{1, byte(i)}, i))
		table.Confirm(ID{1, byte(i)})
		table.Detach(ID{1, byte(i)}, 0)
	}
	for i := range 1000 {
		now := time.Duration(i)
		id := ID{2, byte(i), byte(i >> 8)}
		if old, _, ok := table.Victim(); ok {
			table.Remove(old, ReasonEvicted, Position{}, now)
		}
		require.Zero(t, table.Add(id, i))
		table.Detach(id, now)
		for {
			old, _, why, ok := table.Due(now)
			if !ok {
				break
			}
			table.Remove(old, why, Position{}, now)
		}
		require.NoError(t, table.check())
	}
	require.Equal(t, 20, table.Detached())
	require.Equal(t, 5, table.Tombstones())
	for i := range known {
		_, ok := table.Get(ID{1, byte(i)})
		require.True(t, ok)
	}
}

// What a config says too much or too little of is taken as the nearest that makes sense.
func TestTableConfig(t *testing.T) {
	table := NewTable[int](TableConfig{
		MaxSessions: -1, MaxDetached: -1, MaxTombstones: -1, Expiry: -1, UnconfirmedExpiry: -1,
	})
	require.Equal(t, TableConfig{}, table.config)
	require.Equal(t, ReasonBusy, table.Add(ID{}, 0))
	_, _, ok := table.Victim()
	require.False(t, ok)

	table = NewTable[int](TableConfig{MaxSessions: 1, MaxDetached: 1, MaxTombstones: 1, Expiry: math.MaxInt64})
	require.Equal(t, 30*time.Second, table.config.UnconfirmedExpiry)
	table.Add(ID{}, 0)
	table.Confirm(ID{})
	table.Detach(ID{}, time.Hour)
	at, ok := table.Deadline()
	require.True(t, ok)
	require.Equal(t, time.Hour+math.MaxUint32*time.Millisecond, at, "as long as WELCOME can say")
	table.Remove(ID{}, ReasonClosed, Position{}, time.Hour)
	at, ok = table.Deadline()
	require.True(t, ok)
	require.Equal(t, time.Hour+10*math.MaxUint32*time.Millisecond, at)
}

func TestTableAllStops(t *testing.T) {
	table := NewTable[int](TableConfig{MaxSessions: 2})
	table.Add(ID{1}, 1)
	table.Add(ID{2}, 2)
	for _, s := range table.All() {
		require.Equal(t, 1, s)
		break
	}
	require.Equal(t, 2, table.Len())
}

// 100,000 sessions cost less than 200 bytes each, as do their tombstones, and no call looks at the others.
func TestTableScale(t *testing.T) {
	const n = 100_000
	id := func(i int) ID { return ID{byte(i), byte(i >> 8), byte(i >> 16), 7} }
	held := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	table := NewTable[*int](TableConfig{MaxSessions: n, MaxDetached: n, MaxTombstones: n, Expiry: time.Minute})
	start, before := time.Now(), held()
	for i := range n {
		require.Zero(t, table.Add(id(i), nil))
		table.Confirm(id(i))
		table.Detach(id(i), time.Duration(i))
	}
	perSession := (held() - before) / n
	for _, i := range []int{0, n / 2, n - 1} {
		require.True(t, table.Attach(id(i)))
		require.True(t, table.Detach(id(i), n))
	}
	for range n {
		old, _, why, ok := table.Due(time.Minute + n)
		if !ok || !table.Remove(old, why, Position{}, time.Minute+n) {
			t.Fatal("an expired session is not due, or not there")
		}
	}
	require.Zero(t, table.Len())
	require.Equal(t, n, table.Tombstones())
	require.NoError(t, table.check())
	table.sessions = nil // what a map has grown to it keeps
	perTombstone := (held() - before) / n
	took := time.Since(start)
	table.Due(time.Hour)
	require.Zero(t, table.Tombstones())

	t.Logf("%d bytes for a session, %d for a tombstone, %v in all", perSession, perTombstone, took)
	require.Less(t, perSession, uint64(200))
	require.Less(t, perTombstone, uint64(200))
	require.Less(t, took, 5*time.Second, "with a scan of the others in any call it would be minutes")
}
