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
