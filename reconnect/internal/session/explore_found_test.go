package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What the explorer has found.

// TestFoundStoppedAndNeverClosed: a side that was stopped before the peer took everything ended without an error when
// the peer's CLOSE was lost, and with one when it was not.
func TestFoundStoppedAndNeverClosed(t *testing.T) {
	for name, last := range map[string]func(p *pair, s *Session){
		"CLOSE": func(p *pair, s *Session) { _ = p.hear(s, Control{Kind: KindClose}, nil) },
		"none": func(_ *pair, s *Session) {
			s.Detach()
			s.Drop(ReasonExpired)
		},
	} {
		t.Run("listener, "+name, func(t *testing.T) {
			p := stoppedPair(t, Listener)
			last(p, p.l)
			requireStopped(t, p.l)
		})
	}
	t.Run("dialer, REJECT", func(t *testing.T) {
		p := stoppedPair(t, Dialer)
		p.d.Detach()
		p.d.Dial(p.now, nil, nil)
		_ = p.d.Control(p.now, (&Reject{Reason: ReasonClosed}).Append(nil))
		requireStopped(t, p.d)
	})
}

// stoppedPair is a pair whose streams have both ended; that side's by the peer's STOP, before it took a datagram.
func stoppedPair(t *testing.T, side Role) *pair {
	p := livePair(t)
	s := p.side(side)
	require.NoError(t, p.hear(s, Control{Kind: KindFin}, nil))
	p.send(s, "left behind")
	require.NoError(t, p.hear(s, Control{Kind: KindStop}, nil))
	require.True(t, s.Done())
	return p
}

func requireStopped(t *testing.T, s *Session) {
	t.Helper()
	require.Equal(t, Ended, s.State())
	var closed *ClosedError
	require.ErrorAs(t, s.Err(), &closed)
	require.Equal(t, CloseDone, closed.Reason)
	require.Equal(t, uint64(1), s.Stats().Unacked)
}
