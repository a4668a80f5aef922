package chaos

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The checker finds each thing that may go wrong, and nothing where nothing did.
func TestChecker(t *testing.T) {
	line := func(i uint64) string { return string(appendLine(nil, i)) + "\n" }
	for _, tc := range []struct {
		name                            string
		sessions                        int
		lines                           []uint64
		back, dup, outOfOrder, notThere uint64
	}{
		{"good", 1, []uint64{0, 1, 2, 3}, 4, 0, 0, 0},
		{"good, two sessions", 2, []uint64{0, 2, 4, 1, 3, 6, 5}, 7, 0, 0, 0},
		{"gap", 1, []uint64{0, 1, 3}, 3, 0, 1, 1},
		{"gap in one of two sessions", 2, []uint64{0, 1, 4, 3}, 3 + 1, 0, 1, 1},
		{"twice", 1, []uint64{0, 1, 1, 2, 0}, 3, 2, 0, 0},
		{"swapped", 1, []uint64{0, 2, 1, 3}, 4, 0, 2, 0},
		{"swapped and twice", 1, []uint64{0, 2, 1, 1, 3}, 4, 1, 2, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChecker(tc.sessions)
			for _, i := range tc.lines {
				_, _ = io.WriteString(c, line(i))
			}
			assert.Equal(t, []uint64{tc.back, tc.dup, tc.outOfOrder, tc.notThere},
				[]uint64{c.back, c.duplicated, c.outOfOrder, uint64(len(c.missing))})
			assert.Empty(t, c.strange)
		})
	}

	c := newChecker(1)
	all := line(0) + "what\n" + line(1)[:3] + "\n" + line(1) + `{"sent":2}` + "\n"
	for i := range all { // byte by byte
		_, _ = io.WriteString(c, all[i:i+1])
	}
	assert.EqualValues(t, 2, c.back)
	assert.Len(t, c.strange, 2)
	assert.Equal(t, `{"sent":2}`, string(c.last))
}

// Recovery is measured to the line that was asked for, in each session.
func TestCheckerRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChecker(2)
		write := func(i uint64) { fmt.Fprintf(c, "%s\n", appendLine(nil, i)) }
		write(0)
		require.False(t, c.begun())
		write(1)
		require.True(t, c.begun())
		require.True(t, c.recovered())
		c.expect(0)
		c.expect(4)
		after := func(d time.Duration) { <-time.After(d) }
		after(time.Second)
		write(2) // the first of session 0
		after(time.Second)
		write(4) // both
		require.False(t, c.recovered())
		write(3)
		require.False(t, c.recovered())
		write(5)
		require.True(t, c.recovered())
		assert.EqualValues(t, 4, c.recovery.TotalCount())
		assert.InDelta(t, 1e6, c.recovery.Min(), 1e3)
		assert.InDelta(t, 2e6, c.recovery.Max(), 2e3)
		assert.InDelta(t, 2e6, c.recovery.ValueAtQuantile(50), 2e3)
	})
}

// The lines have the sizes that they are meant to have.
func TestLines(t *testing.T) {
	var total, most int
	for i := range uint64(10_000) {
		n := len(appendLine(nil, i))
		total, most = total+n, max(most, n)
	}
	assert.InDelta(t, 250, total/10_000, 50)
	assert.Greater(t, most, 16<<10)
}

// Feeding keeps its rate, and ends in order.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		f := feed(w, 2000)
		c := newChecker(1)
		go func() {
			<-time.After(time.Second)
			close(f.stop)
		}()
		_, err := io.Copy(c, r)
		require.NoError(t, err)
		<-f.done
		assert.Equal(t, f.fed.Load(), c.back)
		assert.InDelta(t, 2000, c.back, 20)
		assert.Zero(t, c.duplicated+c.outOfOrder)
	})
}
