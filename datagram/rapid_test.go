package datagram_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

// drip is a stream of which a part has arrived. When nothing has, reading fails with an error that passes.
type drip struct {
	here, later []byte
	most        int // bytes of one read
}

var errDry = errors.New("nothing has arrived")

func (d *drip) Read(p []byte) (int, error) {
	if len(d.here) == 0 {
		return 0, errDry
	}
	n := copy(p[:min(len(p), d.most)], d.here)
	d.here = d.here[n:]
	return n, nil
}

// The chunked reader as a state machine of pgregory.net/rapid, which guards D1, D4 and D6 of docs/delivery.md: frames
// arrive in pieces of any size, reads fail in between, and are taken one by one or in runs; each comes once, whole and in
// order, as soon as it is there, and what was handed out never changes. A failure prints the steps, and the -rapid.seed
// that repeats it.
func TestRapidReader(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			line  drip
			r     = datagram.NewReader(&line, &datagram.Options{Control: true, MaxPayload: 300_000})
			all   [][]byte // frames that are to come
			read  int      // bytes that the Reader has of those
			kept  [][]byte // handed out
			were  [][]byte // and what they looked like
			sizes = rapid.OneOf(rapid.IntRange(0, 60), rapid.IntRange(0, 60), rapid.IntRange(0, 3000),
				rapid.IntRange(datagram.LargeFrame-20, datagram.LargeFrame+4), rapid.IntRange(65_000, 66_000),
				rapid.Map(rapid.IntRange(-600, 100), func(n int) int { return 128<<10 + n }), rapid.IntRange(0, 250_000))
			number = 0
		)
		keep := func(b []byte) {
			kept, were = append(kept, b), append(were, bytes.Clone(b))
			if len(kept) > 20 {
				kept, were = kept[1:], were[1:]
			}
		}
		whole := func() bool { return len(all) > 0 && read >= len(all[0]) }
		t.Repeat(map[string]func(*rapid.T){
			"frame": func(t *rapid.T) {
				number++
				version, size := uint16(datagram.Version), sizes.Draw(t, "size")
				if rapid.IntRange(0, 4).Draw(t, "control") == 0 {
					version, size = datagram.ControlVersion, size%1000
				}
				f := frame(version, uint16(number), pattern(number, size))
				all = append(all, f)
				line.later = append(line.later, f...)
			},
			"arrive": func(t *rapid.T) {
				n := min(len(line.later), rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 100_000)).Draw(t, "bytes"))
				line.here, line.later = append(line.here, line.later[:n]...), line.later[n:]
				line.most = rapid.SampledFrom([]int{1 << 20, 1 << 20, 1000, 7, 1}).Draw(t, "at most")
			},
			"fill": func(t *rapid.T) {
				if whole() {
					t.Skip("there is something to take")
				}
				before := len(line.here)
				err := r.Fill()
				read += before - len(line.here)
				if before == 0 {
					require.ErrorIs(t, err, errDry)
				} else {
					require.NoError(t, err)
					require.Less(t, len(line.here), before)
				}
			},
			"next": func(t *rapid.T) {
				if len(all) > 0 && read >= 6 && datagram.ParseHeader(all[0]).Version != datagram.Version {
					t.Skip("a control frame is taken by Frames")
				}
				d, ok, err := r.Next()
				require.NoError(t, err)
				require.Equal(t, whole(), ok)
				if ok {
					require.True(t, bytes.Equal(all[0][datagram.HeaderSize:], d.Payload))
					require.Equal(t, datagram.ParseHeader(all[0]).Recipient, d.Recipient)
					read -= len(all[0])
					all = all[1:]
					keep(d.Payload)
				}
			},
			"frames": func(t *rapid.T) {
				run, err := r.Frames()
				require.NoError(t, err)
				require.Equal(t, whole(), run.N > 0, "a frame that is there is handed out, and no other")
				require.True(t, bytes.Equal(bytes.Join(all[:run.N], nil), run.Raw))
				for _, f := range all[:run.N] {
					require.Equal(t, run.Version, datagram.ParseHeader(f).Version)
				}
				read -= len(run.Raw)
				all = all[run.N:]
				keep(run.Raw)
			},
			"": func(t *rapid.T) {
				for i := range kept {
					require.True(t, bytes.Equal(were[i], kept[i]), "what was handed out has changed")
				}
			},
		})
	})
}
