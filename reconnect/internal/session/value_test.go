package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// lose ends p.d as a restart of the listener would.
func (p *pair) lose() {
	p.d.Detach()
	p.d.Dial(p.now, p.exporter, nil)
	err := p.d.Control(p.now, (&Reject{Reason: ReasonUnknown, Instance: [16]byte{8}}).Append(nil))
	require.Error(p.t, err)
	require.Equal(p.t, Ended, p.d.State())
	p.check()
	p.l = nil
}

func (p *pair) renew() {
	p.lose()
	ok, err := p.d.Renew(p.rand)
	require.NoError(p.t, err)
	require.True(p.t, ok)
	p.check()
}

func TestRenewAfterTheEnd(t *testing.T) {
	// A stream that has ended cannot go on in another session, whoever ended it.
	for name, end := range map[string]func(p *pair){
		"own, acknowledged": func(p *pair) { p.d.Finish(p.now) },
		"the peer's":        func(p *pair) { p.l.Finish(p.now) },
		"stopped":           func(p *pair) { p.l.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			p := livePair(t)
			end(p)
			p.run()
			p.lose()
			ok, err := p.d.Renew(p.rand)
			require.NoError(t, err)
			require.False(t, ok)
			require.Equal(t, Ended, p.d.State())
		})
	}
	t.Run("own, not acknowledged", func(t *testing.T) {
		p := livePair(t)
		p.send(p.d, "x")
		p.d.Finish(p.now)
		p.pull(p.d)
		p.renew()
		p.connect()
		p.run()
		require.True(t, p.d.Finished())
		require.Equal(t, "x", string(p.gotL[0]))
	})
	t.Run("a listener's", func(t *testing.T) {
		p := livePair(t)
		p.l.Abort()
		ok, err := p.l.Renew(p.rand)
		require.NoError(t, err)
		require.False(t, ok)
	})
}

func TestR106RenewedIsNotSent(t *testing.T) {
	// What an earlier session sent, this one has not.
	p := livePair(t)
	p.send(p.d, "x")
	p.send(p.d, "y")
	p.pull(p.d)
	p.renew()
	p.connect()
	p.d.credit = p.d.log.base.B + 1 // for x alone
	p.forth()
	p.back()
	p.d.credit = 0
	p.broken(p.d, p.hear(p.d, Control{Kind: KindAck}, func(st *Status) {
		st.Received = p.d.log.end.sub(p.d.log.origin)
	}), "R-106")
}

func TestR110WireDoesNotWrap(t *testing.T) {
	// After Renew the counts of the wire are smaller than those of the log: a forged one must not wrap around.
	for name, change := range map[string]func(st *Status){
		"received": func(st *Status) { st.Received = Position{^uint64(0), ^uint64(0)} },
		"sent":     func(st *Status) { st.Sent = Position{^uint64(0), ^uint64(0)} },
	} {
		t.Run(name, func(t *testing.T) {
			p := livePair(t)
			for range 5 {
				p.send(p.d, "x")
				p.send(p.l, "x")
			}
			p.settle()
			p.send(p.d, "y")
			p.renew()
			p.connect()
			p.settle()
			require.EqualValues(t, 6, p.d.Acked())
			rule := map[string]string{"received": "R-106", "sent": "R-105"}[name]
			p.broken(p.d, p.hear(p.d, Control{Kind: KindAck}, change), rule)
		})
	}
}

func TestR107RenewKeepsSessionsApart(t *testing.T) {
	// Short runs that wait are put together, but not with those of the session before: an acknowledgement is of one only.
	p := livePairOf(t, func(d, _ *Config) { d.Consumed = true })
	p.dontTake = true
	for range smallRuns + 2 {
		p.send(p.l, "old")
		p.run()
	}
	p.renew()
	p.connect()
	p.run()
	require.Equal(t, Live, p.d.State())
	for range 3 {
		p.send(p.l, "new")
		p.run()
	}
	old := smallRuns + 2
	for n := 0; p.d.Readable(); {
		run, ok := p.d.Take()
		require.True(t, ok)
		for _, ok := run.Next(); ok; _, ok = run.Next() {
			n++
		}
		p.check()
	}
	require.True(t, p.d.Consume(p.now, old))
	require.Equal(t, Position{}, p.d.acking().sub(p.d.recv.origin))
	require.True(t, p.d.Consume(p.now, 2))
	require.EqualValues(t, 2, p.d.acking().sub(p.d.recv.origin).N)
	require.False(t, p.d.Consume(p.now, 2))
	require.True(t, p.d.Consume(p.now, 1))
	p.settle()
	require.True(t, p.l.Idle())
}

// busy is a pair with something in every field: unread, unconsumed, skipped and unconfirmed datagrams both ways.
func busy(t *testing.T) *pair {
	p := livePairOf(t, func(d, _ *Config) { d.Consumed = true })
	for _, s := range []*Session{p.d, p.l} {
		p.send(s, "one")
		p.send(s, "two")
	}
	p.settle()
	p.dontTake = true
	for _, s := range []*Session{p.d, p.l} {
		p.send(s, "three")
		require.NoError(t, s.Append(0, runDatagram("late"), 1))
	}
	p.run()
	for _, s := range []*Session{p.d, p.l} {
		p.send(s, "four")
		require.NoError(t, s.Append(p.now, runDatagram("in time"), p.now+1))
		s.Finish(p.now)
	}
	p.dontTake = false
	return p
}

// TestExportRestore exchanges each side for a restored one, in each state, and goes on.
func TestExportRestore(t *testing.T) {
	for _, role := range []Role{Dialer, Listener} {
		for _, state := range allStates {
			for name, make := range map[string]func(t *testing.T) *pair{"new": nil, "busy": busy} {
				t.Run(role.String()+"/"+state.String()+"/"+name, func(t *testing.T) {
					p, s, _, ok := inState(t, role, state)
					if make != nil {
						if ok = ok && (state == Live || state == Detached); ok {
							p = make(t)
							s = p.side(role)
							if state == Detached {
								s.Detach()
							}
						}
					}
					if !ok {
						return
					}
					v, err := s.Export(p.now)
					if state == Ended {
						require.ErrorIs(t, err, ErrFinished)
						return
					}
					require.NoError(t, err)
					again, err := Restore(p.now, s.cfg, v)
					require.NoError(t, err)
					w, err := again.Export(p.now)
					require.NoError(t, err)
					require.Equal(t, v, w)

					if role == Dialer {
						p.d = again
					} else {
						p.l = again
					}
					p.connect()
					p.settle()
					require.Equal(t, Live, p.d.State())
					require.True(t, p.d.Consume(p.now, p.d.recv.open+p.d.recv.stale))
					p.d.Finish(p.now)
					p.l.Finish(p.now)
					p.settle()
					require.Equal(t, Ended, p.d.State())
					require.NoError(t, p.d.Err())
					require.NoError(t, p.l.Err())
					if make != nil {
						require.Len(t, p.gotL, 5)
						require.Len(t, p.gotD, 5)
					}
				})
			}
		}
	}
	p := busy(t)
	for name, spoil := range map[string]func(v *Value){
		"a cut log":   func(v *Value) { v.Log = v.Log[:len(v.Log)-1] },
		"a short log": func(v *Value) { v.Log = nil },
		"a key":       func(v *Value) { v.Private = []byte{1} },
		"positions":   func(v *Value) { v.Taken.N += 100 },
	} {
		v, err := p.d.Export(p.now)
		require.NoError(t, err)
		spoil(v)
		_, err = Restore(p.now, p.d.cfg, v)
		require.Error(t, err, name)
	}
}
