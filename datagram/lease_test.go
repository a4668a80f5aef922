package datagram_test

import (
	"hash/crc32"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// What was not released never changes, whatever was, in whichever goroutine, and however frames were taken.
func TestRunRelease(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var stream []byte
		frames := 0
		for len(stream) < 3<<20 {
			n := rng.IntN(200)
			switch rng.IntN(40) {
			case 0:
				n = rng.IntN(70 << 10)
			case 1:
				n = 60<<10 + rng.IntN(6<<10) // about as long as a slab
			}
			stream = append(stream, frame(1, uint16(frames), pattern(frames, n))...)
			frames++
		}
		r := datagram.NewReader(&chunked{data: stream, sizes: []int{1 + rng.IntN(100<<10), 1 + rng.IntN(5000), 64 << 10}}, nil)
		type kept struct {
			d    datagram.Datagram
			want uint32
		}
		var all []kept
		keep := func(d datagram.Datagram) { all = append(all, kept{d, crc32.ChecksumIEEE(d.Payload)}) }
		releases, done := make(chan datagram.Run, 8), make(chan struct{})
		go func() {
			defer close(done)
			for run := range releases {
				run.Release()
			}
		}()
		got := 0
		check := func(d datagram.Datagram) {
			require.Equal(t, uint16(got), d.Recipient)
			require.Equal(t, crc32.ChecksumIEEE(pattern(got, len(d.Payload))), crc32.ChecksumIEEE(d.Payload))
			got++
		}
		for {
			if rng.IntN(50) == 0 {
				d, ok, err := r.Next()
				require.NoError(t, err)
				if ok {
					check(d)
					keep(d)
				}
			}
			run, err := r.Frames()
			require.NoError(t, err)
			if run.N == 0 {
				if err := r.Fill(); err == io.EOF {
					break
				} else {
					require.NoError(t, err)
				}
				continue
			}
			whole := run
			released := rng.IntN(4) != 0
			for d, ok := run.Next(); ok; d, ok = run.Next() {
				check(d)
				if !released {
					keep(d)
				}
			}
			if released {
				releases <- whole
			}
		}
		close(releases)
		<-done
		require.Equal(t, frames, got)
		for i, k := range all {
			require.Equal(t, k.want, crc32.ChecksumIEEE(k.d.Payload), "payload %d of %d changed, seed %d", i, len(all), seed)
		}
	}
}
