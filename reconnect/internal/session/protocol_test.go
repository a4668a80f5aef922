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
		"data in place of FIN": {"R-124", func(p *pair, s *Session) error { return p.data(s, "x", "y") }},
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
