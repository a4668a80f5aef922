package datagram_test

import (
	"bytes"
	"hash/crc32"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

// lengths draws payload lengths of all kinds: tiny ones by the dozen, and some around each boundary.
func lengths(t *rapid.T) []int {
	tiny := rapid.IntRange(0, 100)
	return rapid.SliceOfN(rapid.OneOf(tiny, tiny, tiny, tiny, rapid.IntRange(0, 5000), rapid.IntRange(16_000, 17_000),
		rapid.IntRange(65_000, 66_000), rapid.IntRange(130_000, 132_000), rapid.IntRange(0, 300_000)), 0, 40).Draw(t, "lengths")
}

// readSizes draws how a stream is cut, with passing errors in between.
func readSizes(t *rapid.T) []int {
	sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 20), rapid.IntRange(1, 5000), rapid.IntRange(60_000, 70_000)), 0, 8).Draw(t, "reads")
	return append(sizes, rapid.IntRange(1, 70_000).Draw(t, "last")) // so that not all are errors
}

// Payloads that were handed out never change, whatever is read afterwards and whatever their owner appends to them.
func TestPayloadsNeverChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		noise := pattern(1, 400_000)
		var stream []byte
		var want []uint32
		for i, n := range lengths(t) {
			p := noise[i : i+n]
			stream = append(stream, encode(t, datagram.Datagram{Recipient: uint16(i), Payload: p})...)
			want = append(want, crc32.ChecksumIEEE(p))
		}
		src := &chunked{data: stream, sizes: readSizes(t)}
		scribble := rapid.Bool().Draw(t, "scribble")
		r := datagram.NewReader(src, nil)
		var kept []datagram.Datagram
		for {
			d, err := r.Read()
			if err == errPassing {
				continue
			}
			if err != nil {
				require.Equal(t, io.EOF, err)
				break
			}
			kept = append(kept, d)
			require.Equal(t, want[len(kept)-1], crc32.ChecksumIEEE(d.Payload))
			if scribble {
				_ = append(d.Payload, "scribbled over what lies behind"...)
			}
		}
		require.Len(t, kept, len(want))
		for i, d := range kept {
			require.EqualValues(t, i, d.Recipient)
			require.Equal(t, want[i], crc32.ChecksumIEEE(d.Payload), "payload %d changed after it was handed out", i)
		}
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)
	})
}

// The caller may write to its payload: neither a neighbour nor the stream is touched.
func TestPayloadsAreTheCallers(t *testing.T) {
	want := []datagram.Datagram{{Recipient: 1, Payload: []byte("one")}, {Recipient: 2, Payload: []byte("two")}, {Recipient: 3}, {Recipient: 4, Payload: pattern(4, 40_000)}}
	r := datagram.NewReader(&chunked{data: encode(t, want...), sizes: []int{20}}, nil)
	for _, w := range want {
		d, err := r.Read()
		require.NoError(t, err)
		requireSame(t, []datagram.Datagram{w}, []datagram.Datagram{d})
		for i := range d.Payload {
			d.Payload[i] = 0xee
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	d := datagram.Datagram{Recipient: 7, Payload: []byte("hello")}
	c := d.Clone()
	d.Payload[0] = 'j'
	require.Equal(t, datagram.Datagram{Recipient: 7, Payload: []byte("hello")}, c)
	require.Nil(t, datagram.Datagram{Recipient: 7}.Clone().Payload)
	require.Empty(t, datagram.Datagram{Payload: []byte{}}.Clone().Payload)
	require.Equal(t, "recipient 7, 5 bytes", c.String())
}

// What was given to Append and Write is not looked at again.
func TestSendersCopy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scratch := make([]byte, 400_000)
		var atOnce, wrote, queued writes
		w := datagram.NewWriter(&wrote, nil)
		b := datagram.NewBuffer(nil)
		var appended []byte
		for i, n := range lengths(t) {
			d := datagram.Datagram{Recipient: uint16(i), Payload: scratch[i : i+n]}
			copy(d.Payload, pattern(i, n))
			atOnce.bytes = append(atOnce.bytes, encode(t, d)...)
			var err error
			appended, err = datagram.Append(appended, d)
			require.NoError(t, err)
			require.NoError(t, w.Write(d))
			require.NoError(t, b.Append(d))
			clear(d.Payload)
		}
		require.NoError(t, w.Flush())
		require.NoError(t, w.Flush())
		_, err := b.WriteTo(&queued)
		require.NoError(t, err)
		for _, got := range [][]byte{appended, wrote.bytes, queued.bytes} {
			require.True(t, bytes.Equal(atOnce.bytes, got))
		}
		require.Zero(t, b.Segments())
		require.Zero(t, w.Buffered())
	})
}
