package datagram_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// FuzzParse: no input panics, and what parses is what Append writes.
func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add([]byte(v.Stream))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		before := bytes.Clone(src)
		d, rest, err := datagram.Parse(src)
		require.True(t, bytes.Equal(before, src))
		if err != nil {
			require.Zero(t, d)
			require.True(t, bytes.Equal(src, rest))
			require.Equal(t, len(src) == 0, err == io.EOF)
			return
		}
		again, err := datagram.Append(nil, d)
		require.NoError(t, err)
		require.True(t, bytes.Equal(src, append(again, rest...)))
		h := datagram.ParseHeader(src)
		require.EqualValues(t, len(d.Payload)+4, h.Size)
		require.True(t, bytes.Equal(src[:datagram.HeaderSize], h.Append(nil)))
	})
}

// cuts turns bytes into the sizes of reads: odd ones are small, even ones large, and some pass an error.
func cuts(b []byte) []int {
	var sizes []int
	some := false
	for _, c := range b {
		n := int(c) >> 1
		if c&1 == 0 {
			n *= 300
		}
		sizes = append(sizes, n)
		some = some || n > 0
	}
	if !some {
		return nil
	}
	return sizes
}

// seedStreams gives the vectors' streams, and a few that cross the Reader's boundaries.
func seedStreams(f *testing.F) [][]byte {
	var all [][]byte
	for _, v := range loadVectors(f) {
		all = append(all, v.Stream)
	}
	var mixed []byte
	for i, n := range []int{datagram.LargeFrame, 3, datagram.MaxAhead, 0, 3 * datagram.MaxAhead, 70} {
		mixed = append(mixed, encode(f, datagram.Datagram{Recipient: uint16(i), Payload: make([]byte, n)})...)
	}
	return append(all, mixed, mixed[:len(mixed)-1])
}

// FuzzReader: however a stream is cut, a Reader says what parsing the whole of it says.
func FuzzReader(f *testing.F) {
	for i, s := range seedStreams(f) {
		f.Add(s, []byte{byte(2*i + 1), 3, 0, byte(i)}, uint32(0))
		f.Add(s, []byte{3}, uint32(i))
	}
	f.Fuzz(func(t *testing.T, stream, cut []byte, limit uint32) {
		limit %= 1 << 20
		o := &datagram.Options{MaxPayload: int(limit)}
		if limit == 0 {
			limit = datagram.DefaultMaxPayload
		}
		src := &chunked{data: stream, sizes: cuts(cut)}
		got, end := readAll(t, datagram.NewReader(src, o))
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)
		rest := stream
		for i := 0; ; i++ {
			d, next, err := datagram.Parse(rest)
			// Parse has no limit: a large frame is whole or cut for it.
			if len(rest) >= 6 && (err == nil || err == io.ErrUnexpectedEOF) && datagram.ParseHeader(pad(rest)).Size-4 > limit {
				err = datagram.ErrTooLarge
			}
			if err != nil {
				require.Len(t, got, i)
				for _, kind := range []error{datagram.ErrSize, datagram.ErrVersion, datagram.ErrTooLarge, io.EOF, io.ErrUnexpectedEOF} {
					require.Equal(t, errors.Is(err, kind), errors.Is(end, kind), "%v, %v", err, end)
				}
				return
			}
			require.Less(t, i, len(got))
			require.Equal(t, d.Recipient, got[i].Recipient)
			require.True(t, bytes.Equal(d.Payload, got[i].Payload))
			rest = next
		}
	})
}

// pad makes a header of what may be the first 6 bytes of one.
func pad(b []byte) []byte { return append(bytes.Clone(b[:min(len(b), datagram.HeaderSize)]), 0, 0) }

// FuzzLines: however a text is cut, it falls into its lines, and the lines make the text.
func FuzzLines(f *testing.F) {
	for i, s := range seedStreams(f) {
		f.Add(s, []byte{byte(2*i + 1), 3})
	}
	f.Add([]byte("one\ntwo\r\n\nthree"), []byte{3})
	f.Add(append(bytes.Repeat([]byte("x"), 70_000), '\n'), []byte{4, 1})
	f.Fuzz(func(t *testing.T, text, cut []byte) {
		src := &chunked{data: text, sizes: cuts(cut)}
		got, err := readAll(t, datagram.NewReader(src, lines(0)))
		whole := bytes.Split(text, []byte("\n"))
		last := whole[len(whole)-1]
		require.Len(t, got, len(whole)-1)
		if len(last) > 0 {
			require.Equal(t, io.ErrUnexpectedEOF, err)
		} else {
			require.Equal(t, io.EOF, err)
		}
		var sink writes
		w := datagram.NewWriter(&sink, lines(0))
		for i, d := range got {
			require.True(t, bytes.Equal(whole[i], d.Payload))
			require.EqualValues(t, 7, d.Recipient)
			require.NoError(t, w.Write(d))
		}
		require.NoError(t, w.Flush())
		require.True(t, bytes.Equal(text[:len(text)-len(last)], sink.bytes))
	})
}
