package tls

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHandshakesDropSilentOnesFirst(t *testing.T) {
	var s handshakes
	a, b, c, d := s.add(nil), s.add(nil), s.add(nil), s.add(nil)
	s.spoke(c)
	s.spoke(a)
	s.spoke(a) // no hello is counted twice
	require.Equal(t, 4, s.len())

	// The silent ones by age; then those that have spoken, in the order in which they did.
	for _, want := range []*handshake{b, d, c, a} {
		require.Same(t, want, s.drop())
		require.True(t, want.dropped)
		require.False(t, s.remove(want), "it has left")
	}
	require.Zero(t, s.len())
	s.spoke(b) // too late
	require.Zero(t, s.len())
}

func TestHandshakesTakenForClose(t *testing.T) {
	var s handshakes
	a, b := s.add(nil), s.add(nil)
	s.spoke(a)
	require.ElementsMatch(t, []*handshake{a, b}, s.takeAll())
	require.Zero(t, s.len())
	require.False(t, a.dropped)
}
