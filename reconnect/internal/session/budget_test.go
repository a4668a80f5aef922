package session

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Only floors may take a budget above its limit, and what was granted is what is used.
func TestBudgetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.SampledFrom([]uint64{0, 1, 100, 1000, math.MaxUint64}).Draw(t, "limit")
		b := NewBudget(limit)
		var granted []uint64 // each to be released once
		free := func() uint64 {
			total := limit
			if limit == 0 {
				total = math.MaxUint64
			}
			return total - min(total, b.Used())
		}
		n := rapid.OneOf(rapid.Uint64Range(0, 150), rapid.Just(uint64(math.MaxUint64)), rapid.Custom(func(t *rapid.T) uint64 {
			return free() + rapid.SampledFrom([]uint64{0, 1, math.MaxUint64}).Draw(t, "beside") // 1 more, 1 less
		}))
		t.Repeat(map[string]func(t *rapid.T){
			"floor": func(t *rapid.T) {
				n := rapid.Uint64Range(0, 64).Draw(t, "n")
				if n > math.MaxUint64-b.Used() {
					require.Panics(t, func() { b.Floor(n) })
					return
				}
				b.Floor(n)
				granted = append(granted, n)
			},
			"reserve": func(t *rapid.T) {
				n := n.Draw(t, "n")
				want := n <= free()
				require.Equal(t, want, b.Reserve(n))
				if want {
					granted = append(granted, n)
				}
			},
			"reserve up to": func(t *rapid.T) {
				n := n.Draw(t, "n")
				want := min(n, free())
				require.Equal(t, want, b.ReserveUpTo(n))
				granted = append(granted, want)
			},
			"release": func(t *rapid.T) {
				if len(granted) == 0 {
					t.Skip("nothing was granted")
				}
				b.Release(granted[0])
				granted = granted[1:]
			},
			"": func(t *rapid.T) {
				var used uint64
				for _, n := range granted {
					used += n
				}
				require.Equal(t, used, b.Used())
				require.Equal(t, limit, b.Limit())
			},
		})
		if b.Used() < math.MaxUint64 {
			require.Panics(t, func() { b.Release(b.Used() + 1) })
		}
	})
}

// Floors are granted above the limit, and nothing else is until enough was released.
func TestBudgetFloors(t *testing.T) {
	b := NewBudget(100)
	b.Floor(80)
	b.Floor(80)
	require.EqualValues(t, 160, b.Used())
	require.False(t, b.Reserve(1))
	require.True(t, b.Reserve(0))
	require.Zero(t, b.ReserveUpTo(1))
	b.Release(80)
	require.False(t, b.Reserve(21))
	require.EqualValues(t, 20, b.ReserveUpTo(21))
	require.False(t, b.Reserve(1))
	require.EqualValues(t, 100, b.Used())
}
