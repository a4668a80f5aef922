package tcp

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUserTimeoutMillis(t *testing.T) {
	for _, c := range []struct {
		d   time.Duration
		ms  int
		set bool
	}{
		{0, 0, false},
		{-1, 0, false},
		{time.Nanosecond, 1, true},
		{time.Minute, 60_000, true},
		{10_000 * time.Hour, 1<<31 - 1, true},
	} {
		ms, set := userTimeoutMillis(c.d)
		require.Equal(t, c.ms, ms, c.d)
		require.Equal(t, c.set, set, c.d)
	}
}
