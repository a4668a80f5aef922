package datagram_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

func lines(max int) *datagram.Options {
	return &datagram.Options{MaxPayload: max, Framing: datagram.Lines{Recipient: 7}}
}

func line(s string) datagram.Datagram { return datagram.Datagram{Recipient: 7, Payload: []byte(s)} }

func TestLinesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) string { return strings.ReplaceAll(string(b), "\n", "\r") })
		long := rapid.Map(rapid.IntRange(0, 200_000), func(n int) string { return strings.Repeat("x", n) })
		all := rapid.SliceOfN(rapid.OneOf(text, text, text, long), 0, 12).Draw(t, "lines")
		var sink writes
		w := datagram.NewWriter(&sink, lines(0))
		var want []datagram.Datagram
		for _, s := range all {
			require.NoError(t, w.Write(line(s)))
			want = append(want, line(s))
		}
		require.NoError(t, w.Flush())
		joined := strings.Join(append(all, ""), "\n")
		require.Equal(t, joined, string(sink.bytes))

		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(100, 70_000)), 1, 8).Draw(t, "reads")
		got, err := readAll(t, datagram.NewReader(&chunked{data: sink.bytes, sizes: sizes}, lines(0)))
		require.Equal(t, io.EOF, err)
		requireSame(t, want, got)
	})
}

func TestLinesRefuses(t *testing.T) {
	for name, d := range map[string]datagram.Datagram{
		"a newline":         {Recipient: 7, Payload: []byte("two\nlines")},
		"another recipient": {Recipient: 8, Payload: []byte("one")},
	} {
		t.Run(name, func(t *testing.T) {
			var sink writes
			w := datagram.NewWriter(&sink, lines(0))
			b := datagram.NewBuffer(lines(0))
			for _, err := range []error{w.Write(d), b.Append(d)} {
				var e *datagram.FrameError
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, datagram.ErrFraming)
				require.True(t, e.Sending)
				require.EqualValues(t, len(d.Payload), e.Value)
				require.NotEmpty(t, e.Detail)
			}
			require.Zero(t, b.Segments(), "an empty Buffer holds nothing")
			require.Zero(t, w.Buffered())
			require.NoError(t, w.Write(line("next")))
			require.Error(t, w.Write(d))
			require.NoError(t, w.Flush())
			require.Equal(t, "next\n", string(sink.bytes))

			dst, err := datagram.Lines{Recipient: 7}.Append([]byte("kept"), d)
			require.Error(t, err)
			require.Equal(t, "kept", string(dst))
		})
	}
	require.ErrorIs(t, datagram.NewBuffer(lines(3)).Append(line("four")), datagram.ErrTooLarge)
}

func TestLinesEnds(t *testing.T) {
	for _, c := range []struct {
		stream string
		want   []string
		err    error
	}{
		{"", nil, io.EOF},
		{"\n", []string{""}, io.EOF},
		{"one\n", []string{"one"}, io.EOF},
		{"one", nil, io.ErrUnexpectedEOF},
		{"one\ntwo", []string{"one"}, io.ErrUnexpectedEOF},
		{"one\r\n\r\n", []string{"one\r", "\r"}, io.EOF},
		{"\n\n\x00\n", []string{"", "", "\x00"}, io.EOF},
		{"12345678\n", []string{"12345678"}, io.EOF},
		{"one\n123456789\n", []string{"one"}, datagram.ErrTooLarge},
	} {
		var want []datagram.Datagram
		for _, s := range c.want {
			want = append(want, line(s))
		}
		whole := func() io.Reader { return &chunked{data: []byte(c.stream)} }
		for _, stream := range []io.Reader{whole(), iotest.OneByteReader(whole()), iotest.DataErrReader(whole()),
			&chunked{data: []byte(c.stream), sizes: []int{0, 1}}} {
			got, err := readAll(t, datagram.NewReader(stream, lines(8)))
			requireSame(t, want, got)
			require.ErrorIs(t, err, c.err, "%q", c.stream)
		}
	}
}

// A line without an end is refused soon after the limit, and held in no more than twice its own length.
func TestLinesWithoutEnd(t *testing.T) {
	for _, limit := range []int{1, 100, 10_000, 100_000, 1 << 20} {
		src := &chunked{data: bytes.Repeat([]byte("x"), limit+1<<20)}
		all := len(src.data)
		r := datagram.NewReader(src, lines(limit))
		for {
			_, ok, err := r.Next()
			require.False(t, ok)
			if err != nil {
				var e *datagram.FrameError
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, datagram.ErrTooLarge)
				require.EqualValues(t, limit, e.Limit)
				require.Greater(t, e.Value, e.Limit)
				break
			}
			require.NoError(t, r.Fill())
			require.LessOrEqual(t, r.Held(), 2*(all-len(src.data))+datagram.MaxAhead)
		}
		require.LessOrEqual(t, all-len(src.data), limit+4<<10+datagram.MaxAhead)
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)
	}
}

// counting counts how many bytes its framing is asked to look at that it had not seen before, and how many again.
type counting struct {
	datagram.Framing
	fresh, calls *int
}

func (c counting) Next(src []byte, seen int) (datagram.Datagram, int, int, error) {
	*c.fresh += len(src) - seen
	*c.calls++
	return c.Framing.Next(src, seen)
}

// No byte of a line is searched twice, however it comes.
func TestLinesAreSearchedOnce(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 4095, 4096, 16 << 10, 64 << 10, 300_000} {
		for _, size := range []int{1, 3, 1000, 65536} {
			var fresh, calls int
			o := &datagram.Options{Framing: counting{datagram.Lines{Recipient: 7}, &fresh, &calls}}
			src := append(bytes.Repeat([]byte("x"), n), '\n')
			r := datagram.NewReader(&chunked{data: src, sizes: []int{size}}, o)
			d, err := r.Read()
			require.NoError(t, err)
			require.Len(t, d.Payload, n)
			require.Equal(t, n+1, fresh)
			require.LessOrEqual(t, calls, (n+1+size-1)/size+n/4096+1)
		}
	}
}

// allocated returns how many bytes f takes from the heap, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A long line costs memory in proportion to its length, not to its square.
func TestLongLinesCostTheirLength(t *testing.T) {
	const n = 8 << 20
	stream := append(bytes.Repeat([]byte("x"), n), '\n')
	r := datagram.NewReader(&chunked{data: stream}, lines(n))
	took := allocated(func() {
		d, err := r.Read()
		require.NoError(t, err)
		require.Len(t, d.Payload, n)
	})
	require.LessOrEqual(t, took, uint64(5*n))
}

// A framing that says how long the frame is does not make the Reader move it with each byte.
func TestFramingWithKnownNeedIsNotMovedByEachRead(t *testing.T) {
	for _, n := range []int{3000, 30_000, 60_000, 200_000} {
		stream, err := Netstrings{}.Append(nil, datagram.Datagram{Payload: pattern(n, n)})
		require.NoError(t, err)
		var d datagram.Datagram
		r := datagram.NewReader(&chunked{data: stream, sizes: []int{1}}, &datagram.Options{Framing: Netstrings{}})
		took := allocated(func() { d, err = r.Read() })
		require.NoError(t, err)
		require.True(t, bytes.Equal(pattern(n, n), d.Payload))
		require.LessOrEqual(t, took, uint64(4*n+1<<20), "for a frame of %d bytes", n)
	}
}

func TestFramingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &datagram.Options{Framing: Netstrings{}}
		lengths := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 70_000), rapid.IntRange(60_000, 300_000)), 0, 12).Draw(t, "lengths")
		b := datagram.NewBuffer(o)
		var want []datagram.Datagram
		for i, n := range lengths {
			d := datagram.Datagram{Payload: pattern(i, n)}
			want = append(want, d)
			require.NoError(t, b.Append(d))
		}
		var sink writes
		_, err := b.WriteTo(&sink)
		require.NoError(t, err)
		require.Zero(t, b.Segments())
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(100, 70_000)), 1, 8).Draw(t, "reads")
		src := &chunked{data: sink.bytes, sizes: sizes}
		r := datagram.NewReader(src, o)
		for _, w := range want {
			d, err := r.Read()
			require.NoError(t, err)
			require.True(t, bytes.Equal(w.Payload, d.Payload))
			// The caller owns the payload: what it appends must not reach the frames behind.
			_ = append(d.Payload, "overwritten"...)
		}
		_, err = r.Read()
		require.Equal(t, io.EOF, err)
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)
	})
}

// Whatever a framing returns, the Reader does not panic, loop, or take memory for it.
func TestHostileFraming(t *testing.T) {
	type answer struct {
		n, need int
		payload int
	}
	for name, c := range map[string]struct {
		answer
		want error
	}{
		"longer than src":         {answer{n: 6}, datagram.ErrFraming},
		"far longer":              {answer{n: math.MaxInt}, datagram.ErrFraming},
		"negative":                {answer{n: -1}, datagram.ErrFraming},
		"most negative":           {answer{n: math.MinInt, need: 10}, datagram.ErrFraming},
		"needs nothing":           {answer{}, datagram.ErrFraming},
		"needs what it has":       {answer{need: 5}, datagram.ErrFraming},
		"needs less than nothing": {answer{need: math.MinInt}, datagram.ErrFraming},
		"needs everything":        {answer{need: math.MaxInt}, datagram.ErrTooLarge},
		"needs above the slack":   {answer{need: 1000 + 4<<10 + 1}, datagram.ErrTooLarge},
		"needs what never comes":  {answer{need: 1000 + 4<<10}, io.ErrUnexpectedEOF},
		"payload from nowhere":    {answer{n: 5, payload: 1001}, datagram.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			f := framingFunc(func(src []byte, _ int) (datagram.Datagram, int, int, error) {
				return datagram.Datagram{Payload: make([]byte, c.payload)}, c.n, c.need, nil
			})
			r := datagram.NewReader(&chunked{data: []byte("12345")}, &datagram.Options{MaxPayload: 1000, Framing: f})
			_, err := readAll(t, r)
			require.ErrorIs(t, err, c.want)
			require.Zero(t, r.Held(), "a Reader that has ended holds nothing")
		})
	}
	t.Run("its own error", func(t *testing.T) {
		own := errors.New("own")
		f := framingFunc(func([]byte, int) (datagram.Datagram, int, int, error) { return datagram.Datagram{}, 3, 3, own })
		_, err := readAll(t, datagram.NewReader(&chunked{data: []byte("12345")}, &datagram.Options{Framing: f}))
		require.Equal(t, own, err)
	})
	t.Run("a datagram of its own memory", func(t *testing.T) {
		f := framingFunc(func(src []byte, _ int) (datagram.Datagram, int, int, error) {
			return datagram.Datagram{Payload: []byte("made up")}, len(src), 0, nil
		})
		got, err := readAll(t, datagram.NewReader(&chunked{data: []byte("12345")}, &datagram.Options{Framing: f}))
		require.Equal(t, io.EOF, err)
		requireSame(t, []datagram.Datagram{{Payload: []byte("made up")}}, got)
	})
	t.Run("needs a little more each time", func(t *testing.T) {
		f := framingFunc(func(src []byte, seen int) (datagram.Datagram, int, int, error) {
			return datagram.Datagram{}, 0, len(src) + 70_000, nil
		})
		src := &chunked{data: make([]byte, 1<<20)}
		r := datagram.NewReader(src, &datagram.Options{MaxPayload: 1 << 19, Framing: f})
		_, err := readAll(t, r)
		require.ErrorIs(t, err, datagram.ErrTooLarge)
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)
	})
}

// An encoder may give more than fits, or memory of its own: the Buffer takes what it says. Nothing is no frame: it
// could never be seen to be written.
func TestBufferTakesAnyEncoding(t *testing.T) {
	for _, before := range []int{0, 1, datagram.SegmentSize - 5, datagram.SegmentSize - 1, datagram.SegmentSize} {
		for _, n := range []int{0, 1, 4, 5, 6, datagram.SegmentSize - 1, datagram.SegmentSize, datagram.SegmentSize + 1, 3 * datagram.SegmentSize} {
			own := false
			enc := encoderFunc(func(dst []byte, d datagram.Datagram) ([]byte, error) {
				if own {
					return d.Payload, nil
				}
				return append(dst, d.Payload...), nil
			})
			for _, own = range []bool{false, true} {
				b := datagram.NewBuffer(&datagram.Options{Framing: enc})
				for _, p := range [][]byte{pattern(1, before), pattern(2, n)} {
					err := b.Append(datagram.Datagram{Payload: p})
					if len(p) == 0 {
						require.ErrorIs(t, err, datagram.ErrFraming)
					} else {
						require.NoError(t, err)
					}
				}
				require.Equal(t, before+n, b.Len())
				if b.Len() == 0 {
					require.Zero(t, b.Segments(), "an empty Buffer holds nothing")
				}
				var sink writes
				_, err := b.WriteTo(&sink)
				require.NoError(t, err)
				require.True(t, bytes.Equal(append(pattern(1, before), pattern(2, n)...), sink.bytes))
				require.Zero(t, b.Segments())
			}
		}
	}
}

type encoderFunc func(dst []byte, d datagram.Datagram) ([]byte, error)

func (f encoderFunc) Append(dst []byte, d datagram.Datagram) ([]byte, error) { return f(dst, d) }

func (encoderFunc) Next(src []byte, _ int) (datagram.Datagram, int, int, error) {
	return datagram.Datagram{Payload: src}, len(src), 0, nil
}
