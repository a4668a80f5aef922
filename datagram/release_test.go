package datagram_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// endless yields the same frame for ever.
type endless struct {
	frame []byte
	at    int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], e.frame[e.at:])
		n += k
		e.at = (e.at + k) % len(e.frame)
	}
	return n, nil
}

// takeOne are the ways to take one large datagram.
var takeOne = map[string]func(*datagram.Reader) (datagram.Datagram, error){
	"Read": (*datagram.Reader).Read,
	"Frames": func(r *datagram.Reader) (datagram.Datagram, error) {
		for {
			run, err := r.Frames()
			if err != nil {
				return datagram.Datagram{}, err
			}
			if d, ok := run.Next(); ok {
				return d, nil
			}
			if err := r.Fill(); err != nil {
				return datagram.Datagram{}, err
			}
		}
	},
}

// Payloads that are given back are received into again: nothing is allocated for most of them.
func TestReleaseSavesAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("a sync.Pool drops things at random under the race detector")
	}
	for _, n := range []int{16 << 10, 64 << 10, 256 << 10, 1 << 20} {
		want := pattern(1, n)
		frame, err := datagram.Append(nil, datagram.Datagram{Payload: want})
		require.NoError(t, err)
		for way, take := range takeOne {
			read := func(release bool) uint64 {
				r := datagram.NewReader(&endless{frame: frame}, nil)
				return allocated(func() {
					for range 64 {
						d, err := take(r)
						require.NoError(t, err)
						require.True(t, bytes.Equal(want, d.Payload))
						if release {
							datagram.Release(d)
						}
					}
				})
			}
			with, without := read(true), read(false)
			require.Less(t, 4*with, without, "payloads of %d bytes by %s", n, way)
		}
	}
}

// What was not released stays as it was, whatever is released around it.
func TestReleaseTouchesNoOtherPayload(t *testing.T) {
	var stream []byte
	sizes := []int{70_000, 10, 20_000, 65_536, 0, 40_000, 300_000, 16_384, 100, 65_528}
	for i, n := range append(sizes, sizes...) {
		stream, _ = datagram.Append(stream, datagram.Datagram{Payload: pattern(i, n)})
	}
	for _, size := range []int{1 << 20, 70_000, 512, 7} {
		r := datagram.NewReader(&chunked{data: stream, sizes: []int{size}}, nil)
		kept := map[int]datagram.Datagram{}
		for i, n := range append(sizes, sizes...) {
			d, err := r.Read()
			require.NoError(t, err)
			require.True(t, bytes.Equal(pattern(i, n), d.Payload))
			if i%2 == 0 {
				_ = append(d.Payload, "an owner may append"...)
				kept[i] = d
			} else {
				datagram.Release(d)
			}
		}
		for i, d := range kept {
			require.True(t, bytes.Equal(pattern(i, len(d.Payload)), d.Payload))
		}
	}
}

// Any payload may be given to Release.
func TestReleaseOfAnything(t *testing.T) {
	for _, n := range []int{0, 1, 16<<10 - 1, 16 << 10, 1 << 25} {
		datagram.Release(datagram.Datagram{Payload: make([]byte, n)})
	}
	datagram.Release(datagram.Datagram{})
}

// A large buffer that was given back is no gift to a header that announces a large frame and brings nothing.
func TestReleasedMemoryIsNotHeldByClaims(t *testing.T) {
	for _, given := range []int{64 << 10, 100 << 10, 1 << 20, 8 << 20, 31 << 20} {
		for _, claimed := range []int{16 << 10, 60 << 10, 64 << 10, 1 << 20, 8 << 20} {
			for _, arrived := range []int{0, 1, 1000, 100_000} {
				for way, take := range takeOne {
					for range 4 {
						datagram.Release(datagram.Datagram{Payload: make([]byte, given)})
					}
					h := datagram.Header{Size: uint32(4 + claimed), Version: datagram.Version}
					src := &chunked{data: append(h.Append(nil), make([]byte, min(arrived, claimed-1))...), end: errPassing}
					all := len(src.data)
					r := datagram.NewReader(src, nil)
					_, err := take(r)
					require.ErrorIs(t, err, errPassing)
					require.LessOrEqual(t, r.Held(), all+datagram.MaxAhead, "%s: %d claimed, %d given back", way, claimed, given)
				}
			}
		}
	}
}
