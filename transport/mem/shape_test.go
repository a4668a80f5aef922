package mem_test

import (
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, nil)
		a.Faults().SetShape(mem.Up, mem.Shape{Latency: time.Second})
		start := time.Now()
		send(t, a, "one")
		pass(time.Second / 2)
		send(t, a, "two")
		a.Faults().SetShape(mem.Up, mem.Shape{})
		send(t, a, "three") // in no time, but not before two
		require.NoError(t, a.Close())
		expect(t, b, "one")
		require.Equal(t, time.Second, time.Since(start))
		expect(t, b, "twothree")
		require.Equal(t, time.Second*3/2, time.Since(start))
		expectError(t, b, io.EOF)
		require.Equal(t, time.Second*3/2, time.Since(start))
	})
}

// The end of the stream takes its time too, and so does the news of it for a writer.
func TestLatencyOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, &mem.Config{Buffer: 4})
		a.Faults().SetShape(mem.Up, mem.Shape{Latency: time.Second})
		start := time.Now()
		send(t, b, "1")
		require.NoError(t, a.Close())
		send(t, b, "2345")
		writeError(t, b, syscall.ECONNRESET) // had to wait for room
		require.Equal(t, time.Second, time.Since(start))
		expectError(t, b, syscall.ECONNRESET)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestJitterIsSeededAndInOrder(t *testing.T) {
	times := func(seed uint64) (got []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			a, b := pipe(t, nil)
			a.Faults().SetShape(mem.Both, mem.Shape{Latency: time.Second, Jitter: time.Second, Seed: seed})
			start := time.Now()
			for i := range 50 {
				send(t, a, string(rune('A'+i)))
				pass(10 * time.Millisecond)
			}
			for i := range 50 {
				expect(t, b, string(rune('A'+i)))
				got = append(got, time.Since(start))
			}
		})
		return got
	}
	first := times(1)
	require.Equal(t, first, times(1))
	require.NotEqual(t, first, times(2))
	require.GreaterOrEqual(t, first[0], time.Second)
	require.Less(t, first[0], 2*time.Second)
	require.IsNonDecreasing(t, first)
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, &mem.Config{Buffer: 1000})
		a.Faults().SetShape(mem.Up, mem.Shape{Rate: 5000})
		start := time.Now()
		go func() {
			_, _ = a.Write(make([]byte, 50_000))
			_ = a.Close()
		}()
		expect(t, b, strings.Repeat("\x00", 50))
		require.Equal(t, 10*time.Millisecond, time.Since(start), "in pieces")
		n, err := io.Copy(io.Discard, b)
		require.NoError(t, err)
		require.EqualValues(t, 50_000-50, n)
		require.InDelta(t, 10, time.Since(start).Seconds(), 0.001)
	})
}

func TestSplitReads(t *testing.T) {
	a, b := pipe(t, nil)
	a.Faults().SetShape(mem.Up, mem.Shape{MaxRead: 1})
	send(t, a, "123456")
	buf := make([]byte, 10)
	n, err := b.Read(buf)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	a.Faults().SetShape(mem.Up, mem.Shape{MaxRead: 3})
	n, err = b.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "234", string(buf[:n]))
	a.Faults().SetShape(mem.Up, mem.Shape{})
	n, err = b.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "56", string(buf[:n]))
}
