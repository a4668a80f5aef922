package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What was reported as expired is not counted as unconfirmed, while its SKIP is under way: Stats and Unconfirmed agree.
func TestSkippedIsNotUnconfirmed(t *testing.T) {
	p := livePairOf(t, func(_, _ *Config) {})
	require.NoError(t, p.d.Append(p.now, runDatagram("late"), p.now+1))
	p.send(p.d, "other")
	require.EqualValues(t, 2, p.d.Stats().Unacked)
	p.now += 2
	var out Out
	require.True(t, p.d.Pull(p.now, &out))
	p.d.Wrote()
	st := p.d.Stats()
	require.EqualValues(t, 1, st.Expired)
	require.EqualValues(t, 1, st.Unacked)
	var got []string
	for d := range p.d.Unconfirmed {
		got = append(got, string(d.Payload))
	}
	require.Equal(t, []string{"other"}, got)
}
