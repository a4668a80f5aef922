package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// counted is a budget that must come out even.
type counted struct {
	limit, used int64
}

func (b *counted) reserve(n int64) bool {
	if n > 0 && b.used+n > b.limit {
		return false
	}
	b.used += n
	return true
}

// budgeted gives the listener's side of a pair a budget.
func budgeted(t *testing.T, b *counted, set func(d, l *Config)) *pair {
	return livePairOf(t, func(d, l *Config) {
		set(d, l)
		l.Reserve = b.reserve
		b.used += int64(l.MinWindow) // which the session counts itself
	})
}

func TestBudgetAfterTheEnd(t *testing.T) {
	// What has arrived is taken after the end of the session, and promises nothing then.
	b := &counted{limit: 1 << 30}
	p := budgeted(t, b, func(_, _ *Config) {})
	p.dontTake = true
	for range 100 {
		p.send(p.d, string(make([]byte, 1000)))
	}
	p.run()
	require.NotZero(t, p.l.recv.heldAt)
	p.l.Abort()
	require.Zero(t, b.used)
	p.dontTake = false
	p.take(p.l, &p.gotL)
	require.NotEmpty(t, p.gotL)
	require.Zero(t, b.used)
}

func TestWindow(t *testing.T) {
	const w = 64 << 10
	b := &counted{limit: 4 * w}
	p := budgeted(t, b, func(_, _ *Config) {})
	fill := func() { // the peer uses all of its credit, and the application takes it
		for p.d.Pending() == 0 {
			p.send(p.d, string(make([]byte, 8000)))
			p.dontTake = true
			p.run()
		}
		p.dontTake = false
		p.run()
		p.run() // what the application took makes room
		require.Zero(t, p.d.Pending())
		require.GreaterOrEqual(t, b.used, int64(p.l.recv.credit-p.l.recv.taken.B), "what was promised is counted")
	}
	require.EqualValues(t, w, p.l.Stats().Window)
	fill()
	require.EqualValues(t, 2*w, p.l.Stats().Window, "doubled")
	fill()
	require.EqualValues(t, 4*w, p.l.Stats().Window)
	fill()
	require.EqualValues(t, 4*w, p.l.Stats().Window, "the budget has no more")
	require.EqualValues(t, 4*w, b.used)

	for range 100 { // the peer is held up by nothing
		p.send(p.d, "x")
		p.run()
	}
	b.limit = 1 << 30
	p.send(p.d, "x")
	p.run()
	require.EqualValues(t, 4*w, p.l.Stats().Window)

	p.settle()
	p.tick(p.l, asks(p.l, p.l.cfg.PingAfter))
	require.EqualValues(t, w, p.l.Stats().Window, "idle")
	fill()
	fill()
	v, err := p.l.Export(p.now)
	require.NoError(t, err)
	p.l.Abort()
	require.Zero(t, b.used)

	for limit, window := range map[int64]uint64{1 << 30: v.Window, 0: w} {
		c := &counted{limit: limit, used: w}
		cfg := p.lcfg
		cfg.Reserve = c.reserve
		l, err := Restore(p.now, cfg, v)
		require.NoError(t, err)
		require.Equal(t, window, l.Stats().Window)
		l.Drop(ReasonEvicted)
		require.Zero(t, c.used)
	}
}

func TestCompaction(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		const n = 3000
		for i := range n {
			require.NoError(t, p.data(s, string(rune('a'+i%26))))
		}
		require.Less(t, len(s.recv.queue), 30, "short runs do not keep a slab each")
		var got int
		for run, ok := s.Take(); ok; run, ok = s.Take() {
			for d, ok := run.Next(); ok; d, ok = run.Next() {
				require.Equal(t, string(rune('a'+got%26)), string(d.Payload))
				got++
			}
		}
		require.Equal(t, n, got)
		p.check()
	})
}

func TestR123Duplicates(t *testing.T) {
	for first := range 5 {
		both(t, func(t *testing.T, p *pair, s *Session) {
			all := []string{"a", "bb", "ccc", "dddd", "eeeee"}
			require.NoError(t, p.data(s, all[:first]...))
			s.recv.here = Position{}
			require.NoError(t, p.data(s, all...))
			require.EqualValues(t, first, s.Stats().Duplicates)
			require.EqualValues(t, 5, s.Arrived())
			var got []string
			for run, ok := s.Take(); ok; run, ok = s.Take() {
				for d, ok := run.Next(); ok; d, ok = run.Next() {
					got = append(got, string(d.Payload))
				}
			}
			require.Equal(t, all, got)
		})
	}
}

func TestGauges(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.Zero(t, s.Oldest(p.now))
		require.True(t, s.Room())
		p.send(s, string(make([]byte, s.cfg.SendBuffer)))
		require.False(t, s.Room())
		p.now += 7
		require.EqualValues(t, 7, s.Oldest(p.now))
		require.EqualValues(t, 1, s.Accepted())
		st := s.Stats()
		require.EqualValues(t, 1, st.Unsent)
		require.EqualValues(t, 1, st.Unacked)
		require.Equal(t, st.UnsentSize, s.Pending())
		p.data(s, "x")
		require.EqualValues(t, 9, s.Stats().Waiting)
		require.True(t, s.Consume(p.now, 100), "without Config.Consumed it does nothing")
	})
}
