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
