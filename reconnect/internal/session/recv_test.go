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
	require.True(t, p.l.recv.used)
	p.l.Abort()
	require.Zero(t, b.used)
	p.dontTake = false
	p.take(p.l, &p.gotL)
	require.NotEmpty(t, p.gotL)
	require.Zero(t, b.used)
}
