package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of sections 8 to 12 of docs/protocol.md, each named after the rule that it is about.

func TestR115AckComesFirst(t *testing.T) {
	// The listener's PING comes together with its WELCOME. PONG has the status too, but does not confirm.
	p := newPair(t)
	p.connect()
	p.forth()
	p.send(p.l, "x")
	p.l.Flush()
	p.back()
	require.Equal(t, Live, p.d.State())
	require.Equal(t, []Kind{KindAck, KindPong}, kindsOf(p.pull(p.d)))

	// So it is with a PING of the dialer's own.
	p = newPair(t)
	p.connect()
	p.forth()
	p.back()
	p.d.pingDue = true
	require.Equal(t, []Kind{KindAck, KindPing}, kindsOf(p.pull(p.d)))
}

func TestR109AckWithData(t *testing.T) {
	// An ACK that is due soon goes with data that is written anyway, not with data that is held up.
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.NoError(t, p.data(s, "x"))
		p.now += s.cfg.AckDelay / 2
		s.credit = s.log.unsent.B
		p.send(s, "y")
		require.False(t, s.Pulls())
		require.Empty(t, p.pull(s))
		s.credit++
		require.Equal(t, []Kind{KindAck, kindData}, kindsOf(p.pull(s)))
	})
}

func TestR124ReplayedFin(t *testing.T) {
	// s has got a datagram and FIN, and gets a replay. What its peer does wrong there is found.
	// Or two datagrams alone.
	for name, step := range map[string]struct {
		rule string
		do   func(p *pair, s *Session) error
	}{
		"FIN before data": {"R-124", func(p *pair, s *Session) error { return p.hear(s, Control{Kind: KindFin}, nil) }},
		"FIN behind other data": {"R-124", func(p *pair, s *Session) error {
			p.data(s, "") // is shorter
			return p.hear(s, Control{Kind: KindFin}, nil)
		}},
		"SKIP in place of FIN": {"R-124", func(p *pair, s *Session) error {
			p.data(s, "x")
			return p.hear(s, Control{Kind: KindSkip, Length: 8}, nil)
		}},
		"SKIP of another length": {"R-123", func(p *pair, s *Session) error {
			p.data(s, "x")
			return p.hear(s, Control{Kind: KindSkip, Length: 8}, nil)
		}},
		"SKIP that is longer": {"R-123", func(p *pair, s *Session) error {
			return p.hear(s, Control{Kind: KindSkip, Length: 80}, nil)
		}},
		"data in place of FIN":   {"R-124", func(p *pair, s *Session) error { return p.data(s, "x", "y") }},
		"data of another length": {"R-123", func(p *pair, s *Session) error { return p.data(s, "x", "") }},
		"data that is longer":    {"R-123", func(p *pair, s *Session) error { return p.data(s, "much longer") }},
		"data behind FIN": {"R-124", func(p *pair, s *Session) error {
			p.data(s, "x")
			p.hear(s, Control{Kind: KindFin}, nil)
			return p.data(s, "y")
		}},
		"SKIP behind FIN": {"R-124", func(p *pair, s *Session) error {
			p.data(s, "x")
			p.hear(s, Control{Kind: KindFin}, nil)
			return p.hear(s, Control{Kind: KindSkip, Length: 8}, nil)
		}},
		"a second FIN": {"R-124", func(p *pair, s *Session) error {
			p.data(s, "x")
			p.hear(s, Control{Kind: KindFin}, nil)
			return p.hear(s, Control{Kind: KindFin}, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p *pair, s *Session) {
				peer := p.side(1 - s.Role())
				p.send(peer, "x")
				if step.rule == "R-123" {
					p.send(peer, "y")
				} else {
					peer.Finish(p.now)
				}
				p.run()
				s.recv.here = Position{}
				p.broken(s, step.do(p, s), step.rule)
			})
		})
	}
}

func TestR123StatusInReplay(t *testing.T) {
	// s has got 3 datagrams and FIN, and a replay begins. A status may say that the replay goes on further up.
	for name, c := range map[string]struct {
		sent Position
		ok   bool
	}{
		"where it is":          {Position{0, 0}, true},
		"further":              {Position{2, 18}, true},
		"before FIN":           {Position{3, 27}, true},
		"all":                  {Position{4, 27}, true},
		"before FIN, too few":  {Position{3, 28}, false},
		"number alone":         {Position{1, 0}, false},
		"bytes alone":          {Position{0, 9}, false},
		"all, too few bytes":   {Position{4, 26}, false},
		"more than arrived":    {Position{5, 27}, false},
		"more, in bytes alone": {Position{2, 28}, false},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p *pair, s *Session) {
				peer := p.side(1 - s.Role())
				for range 3 {
					p.send(peer, "x")
				}
				peer.Finish(p.now)
				p.run()
				s.recv.here = Position{}
				err := p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Sent = c.sent })
				if !c.ok {
					p.broken(s, err, "R-105")
					return
				}
				require.NoError(t, err)
				require.Equal(t, c.sent, s.recv.here)
			})
		})
	}
	both(t, func(t *testing.T, p *pair, s *Session) {
		// FIN alone is missing: no byte is.
		p.side(1 - s.Role()).Finish(p.now)
		p.run()
		s.recv.here = Position{}
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Sent = Position{1, 0} }))
	})
}

func TestR126ConsumedClose(t *testing.T) {
	// A side that acknowledges what its application has finished with does not close before: its peer could not know.
	for _, role := range []Role{Dialer, Listener} {
		t.Run(role.String(), func(t *testing.T) {
			p := livePairOf(t, func(d, l *Config) { d.Consumed, l.Consumed = role == Dialer, role == Listener })
			s, peer := p.side(role), p.side(1-role)
			p.send(peer, "x")
			peer.Finish(p.now)
			s.Finish(p.now)
			p.settle()
			require.False(t, s.Done())
			require.Equal(t, Live, s.State())
			p.connect()
			p.settle()
			require.Equal(t, Live, s.State())
			require.True(t, s.Consume(p.now, 1))
			p.settle()
			require.Equal(t, Ended, s.State())
			require.Equal(t, Ended, peer.State())
			require.NoError(t, s.Err())
			require.NoError(t, peer.Err())
		})
	}
}

func TestR107ConsumedIsAcknowledged(t *testing.T) {
	for _, role := range []Role{Dialer, Listener} {
		consumed := func(d, l *Config) { d.Consumed, l.Consumed = role == Dialer, role == Listener }
		t.Run(role.String()+", while there was no connection", func(t *testing.T) {
			p := livePairOf(t, consumed)
			s, peer := p.side(role), p.side(1-role)
			p.send(peer, "x")
			p.settle()
			require.EqualValues(t, 0, peer.Acked())
			p.d.Detach()
			p.l.Detach()
			require.True(t, s.Consume(p.now, 1))
			p.connect()
			p.run()
			require.EqualValues(t, 1, peer.Acked(), "the new connection begins with an ACK")
		})
		t.Run(role.String()+", what was skipped", func(t *testing.T) {
			p := livePairOf(t, consumed)
			peer := p.side(1 - role)
			for range 2 {
				require.NoError(t, peer.Append(0, runDatagram("late"), 1))
			}
			p.now = 2
			p.run()
			require.EqualValues(t, 2, peer.Acked())
		})
		t.Run(role.String()+", what was skipped in between", func(t *testing.T) {
			p := livePairOf(t, consumed)
			s, peer := p.side(role), p.side(1-role)
			p.send(peer, "a")
			p.run()
			require.NoError(t, peer.Append(0, runDatagram("late"), 1))
			p.send(peer, "b")
			p.now = 2
			p.settle()
			require.EqualValues(t, 0, peer.Acked())
			require.True(t, s.Consume(p.now, 1))
			p.settle()
			require.EqualValues(t, 2, peer.Acked())
			require.False(t, s.Consume(p.now, 2))
			require.False(t, s.Consume(p.now, -1))
			require.True(t, s.Consume(p.now, 1))
			p.settle()
			require.EqualValues(t, 3, peer.Acked())
		})
	}
	t.Run("before the dialer knew", func(t *testing.T) {
		p := newPairOf(t, func(_, l *Config) { l.Consumed = true })
		p.send(p.d, "x")
		p.connect()
		p.forth()
		p.take(p.l, &p.gotL)
		require.True(t, p.l.Consume(p.now, 1))
		p.connect() // WELCOME is lost
		p.run()
		require.Equal(t, [][]byte{[]byte("x")}, p.gotL)
		require.EqualValues(t, 1, p.d.Acked())
	})
}

func TestFarewellBehindTheAnswer(t *testing.T) {
	// The dialer has to be told why, and takes CLOSE only after WELCOME or RESUMED.
	breaks := map[string]func(p *pair){
		"aborted":       func(p *pair) { p.l.Abort() },
		"broken":        func(p *pair) { p.l.Control(p.now, (&Control{Kind: KindGoaway}).Append(nil)) },
		"shutting down": func(p *pair) { p.l.Shutdown() },
	}
	reasons := map[string]CloseReason{"aborted": CloseAborted, "broken": CloseProtocol, "shutting down": CloseShutdown}
	for name, end := range breaks {
		t.Run(name, func(t *testing.T) {
			for i, p := range []*pair{newPair(t), livePair(t)} {
				p.connect()
				p.forth()
				end(p)
				fs := p.pull(p.l)
				require.Equal(t, []Kind{[]Kind{KindWelcome, KindResumed}[i], KindClose}, kindsOf(fs))
				for _, f := range fs {
					p.d.Read(p.now, true)
					p.d.Control(p.now, f.raw)
				}
				require.Equal(t, &ClosedError{reasons[name]}, p.d.Err())
			}
		})
	}
}

func TestEndedStaysEnded(t *testing.T) {
	// A session that ends while a connection is on its way to it does not come to life again.
	p := livePair(t)
	p.d.Detach()
	p.d.Abort()
	p.d.Dial(p.now, nil, nil)
	require.Equal(t, Ended, p.d.State())
	require.False(t, p.d.Pulls())

	p.l.Fence(7, [32]byte{})
	p.l.Drop(ReasonEvicted)
	require.Equal(t, &LostError{ReasonEvicted}, p.l.Err())
	require.Equal(t, &RejectError{Reject: Reject{Reason: ReasonUnknown}}, p.l.Resume(p.now, &Resume{}, nil, nil))
	p.l.Welcome(p.now, nil, nil)
	require.Equal(t, Ended, p.l.State())
	require.False(t, p.l.Pulls())
}

func TestRelease(t *testing.T) {
	p := livePair(t)
	for range 20 {
		p.send(p.d, string(make([]byte, 10_000)))
	}
	var out Out
	require.True(t, p.d.Pull(p.now, &out))
	p.d.Release()
	require.NotZero(t, p.d.Stats().Unacked, "only what has ended is released")
	p.d.Abort()
	before := make([][]byte, len(out.Vec))
	for i, b := range out.Vec {
		before[i] = append([]byte(nil), b...)
	}
	p.d.Release()
	p.check()
	require.Equal(t, before, out.Vec, "a write still reads it")
	p.d.Wrote()
	p.check()
	require.Zero(t, p.mem.out)
	for d := range p.d.Unconfirmed {
		t.Fatal(d)
	}
	ok, err := p.d.Renew(p.rand)
	require.NoError(t, err)
	require.False(t, ok)
}
