package datagram_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

var withControl = &datagram.Options{Control: true}

// frame returns a frame of any version.
func frame(version, recipient uint16, payload []byte) []byte {
	h := datagram.Header{Size: uint32(len(payload) + 4), Version: version, Recipient: recipient}
	return append(h.Append(nil), payload...)
}

// nextRun waits for a run.
func nextRun(r *datagram.Reader) (datagram.Run, error) {
	for {
		run, err := r.Frames()
		if err != nil || run.N > 0 {
			return run, err
		}
		if err := r.Fill(); err != nil {
			return datagram.Run{}, err
		}
	}
}

// A run is as long as what has arrived lets it be: to the next control frame, large frame, bad frame or unfinished one.
func TestRunsAreTheLongest(t *testing.T) {
	small := func(n int) (out []byte) {
		for i := range n {
			out = append(out, frame(1, uint16(i), pattern(i, i%50))...)
		}
		return out
	}
	control := frame(2, 6, make([]byte, 42))
	large := frame(1, 7, make([]byte, datagram.LargeFrame))
	barelyLarge := frame(1, 7, make([]byte, datagram.LargeFrame-datagram.HeaderSize))
	notLarge := frame(1, 7, make([]byte, datagram.LargeFrame-datagram.HeaderSize-1))
	for name, c := range map[string]struct {
		parts [][]byte
		n     []int
		err   error
	}{
		"small":                 {[][]byte{small(40)}, []int{40}, io.EOF},
		"one":                   {[][]byte{small(1)}, []int{1}, io.EOF},
		"control":               {[][]byte{control, control, control}, []int{1, 1, 1}, io.EOF},
		"control between":       {[][]byte{small(3), control, small(4), control}, []int{3, 1, 4, 1}, io.EOF},
		"control first":         {[][]byte{control, small(4)}, []int{1, 4}, io.EOF},
		"large between":         {[][]byte{small(3), large, small(4)}, []int{3, 1, 4}, io.EOF},
		"barely large":          {[][]byte{small(3), barelyLarge, small(4)}, []int{3, 1, 4}, io.EOF},
		"nearly large":          {[][]byte{small(3), notLarge, small(4)}, []int{8}, io.EOF},
		"large ones":            {[][]byte{large, large, barelyLarge, large}, []int{1, 1, 1, 1}, io.EOF},
		"a bad version behind":  {[][]byte{small(3), frame(3, 0, nil), small(1)}, []int{3}, datagram.ErrVersion},
		"a bad size behind":     {[][]byte{small(3), {0, 0, 0, 3}, small(1)}, []int{3}, datagram.ErrSize},
		"bad behind control":    {[][]byte{control, {0, 0, 0, 3}}, []int{1}, datagram.ErrSize},
		"too large behind":      {[][]byte{small(3), frame(2, 0, make([]byte, 1017))}, []int{3}, datagram.ErrTooLarge},
		"unfinished behind":     {[][]byte{small(3), frame(1, 0, make([]byte, 9))[:16]}, []int{3}, io.ErrUnexpectedEOF},
		"cut header behind":     {[][]byte{small(3), {0, 0, 0}}, []int{3}, io.ErrUnexpectedEOF},
		"unfinished control":    {[][]byte{small(3), control[:49]}, []int{3}, io.ErrUnexpectedEOF},
		"nothing":               {nil, nil, io.EOF},
		"a header of ones":      {[][]byte{small(2), bytes.Repeat([]byte{0xff}, 8)}, []int{2}, datagram.ErrVersion},
		"the largest claim":     {[][]byte{small(2), {0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0}}, []int{2}, datagram.ErrTooLarge},
		"a size of 0, as data":  {[][]byte{small(2), {0, 0, 0, 0, 0, 1, 0, 0}}, []int{2}, datagram.ErrSize},
		"a size of 3, control":  {[][]byte{small(2), {0, 0, 0, 3, 0, 2, 0, 0}}, []int{2}, datagram.ErrSize},
		"an empty control body": {[][]byte{frame(2, 9, nil), frame(1, 9, nil)}, []int{1, 1}, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			stream := bytes.Join(c.parts, nil)
			r := datagram.NewReader(&chunked{data: stream}, withControl)
			var n []int
			var raw []byte
			total := 0
			for {
				run, err := nextRun(r)
				if err != nil {
					require.ErrorIs(t, err, c.err)
					break
				}
				requireRun(t, run)
				n = append(n, run.N)
				total += run.N
				raw = append(raw, run.Raw...)
			}
			require.True(t, bytes.HasPrefix(stream, raw))
			if c.err == io.EOF {
				require.Len(t, raw, len(stream))
			}
			if len(stream) <= 4<<10 { // it came in one read
				require.Equal(t, c.n, n)
			}
			for _, k := range c.n {
				total -= k
			}
			require.Zero(t, total)
		})
	}
}

// The limit of control frames is their own, and found from the header alone; the other rules hold for them too.
func TestControl(t *testing.T) {
	header := func(size uint32, version uint16) []byte {
		return datagram.Header{Size: size, Version: version, Recipient: 1}.Append(nil)
	}
	for _, c := range []struct {
		first  []byte
		o      datagram.Options
		err    error
		value  uint64
		limit  uint64
		detail string
	}{
		{first: frame(2, 1, nil)},
		{first: frame(2, 1, make([]byte, 100))},
		{first: frame(2, 65535, make([]byte, datagram.MaxControl-datagram.HeaderSize))},
		{first: frame(2, 1, make([]byte, 1016)), o: datagram.Options{MaxPayload: 1}},
		{first: header(1021, 2), err: datagram.ErrTooLarge, value: 1017, limit: 1016, detail: "control"},
		{first: header(1021, 2), o: datagram.Options{MaxPayload: 1}, err: datagram.ErrTooLarge, value: 1017, limit: 1016, detail: "control"},
		{first: header(math.MaxUint32, 2), err: datagram.ErrTooLarge, value: math.MaxUint32 - 4, limit: 1016, detail: "control"},
		{first: header(3, 2), err: datagram.ErrSize, value: 3},
		{first: header(0, 2), err: datagram.ErrSize},
		{first: header(20, 3), err: datagram.ErrVersion, value: 3},
		{first: header(20, 0), err: datagram.ErrVersion, value: 0},
		{first: header(20, 0x0201), err: datagram.ErrVersion, value: 0x0201},
		{first: header(1021, 1), o: datagram.Options{MaxPayload: 1016}, err: datagram.ErrTooLarge, value: 1017, limit: 1016},
	} {
		t.Run(fmt.Sprintf("%x", c.first[:8]), func(t *testing.T) {
			c.o.Control = true
			for cut := 1; cut <= len(c.first); cut++ {
				src := &chunked{data: c.first, sizes: []int{cut, math.MaxInt}}
				r := datagram.NewReader(src, &c.o)
				run, err := nextRun(r)
				if c.err == nil {
					require.NoError(t, err)
					requireRun(t, run)
					require.EqualValues(t, datagram.ControlVersion, run.Version)
					require.Equal(t, c.first, run.Raw)
					d, ok := run.Next()
					require.True(t, ok)
					require.Equal(t, datagram.ParseHeader(c.first).Recipient, d.Recipient)
					require.Equal(t, string(c.first[datagram.HeaderSize:]), string(d.Payload))
					continue
				}
				var e *datagram.FrameError
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, c.err)
				require.Equal(t, c.value, e.Value)
				require.Equal(t, c.limit, e.Limit)
				require.Contains(t, e.Detail, c.detail)
				require.Zero(t, r.Held())
			}
			for cut := 1; c.err != nil && cut < len(c.first); cut++ {
				_, err := nextRun(datagram.NewReader(&chunked{data: c.first[:cut]}, &c.o))
				judged := cut >= 6 || cut >= 4 && c.err == datagram.ErrSize
				require.Equal(t, judged, errors.Is(err, c.err), "%d bytes: %v", cut, err)
				require.Equal(t, !judged, errors.Is(err, io.ErrUnexpectedEOF))
			}
		})
	}
}

// Only Frames yields control frames, and only where Options say so.
func TestControlIsRefused(t *testing.T) {
	stream := append(encode(t, datagram.Datagram{Recipient: 7, Payload: []byte("hello")}), frame(2, 1, make([]byte, 50))...)
	for _, o := range []*datagram.Options{nil, {}, withControl} {
		for way, take := range map[string]func(*datagram.Reader) error{
			"Read":   func(r *datagram.Reader) error { _, err := r.Read(); return err },
			"Frames": func(r *datagram.Reader) error { _, err := nextRun(r); return err },
		} {
			if way == "Frames" && o == withControl {
				continue
			}
			for cut := 1; cut < len(stream); cut++ {
				r := datagram.NewReader(&chunked{data: stream, sizes: []int{cut, math.MaxInt}}, o)
				require.NoError(t, take(r))
				err := take(r)
				var e *datagram.FrameError
				require.ErrorAs(t, err, &e)
				require.ErrorIs(t, err, datagram.ErrVersion)
				require.EqualValues(t, 2, e.Value)
				if o == withControl {
					require.Contains(t, e.Detail, "only Frames")
				} else {
					require.Contains(t, e.Detail, "the peer wants a session")
				}
				_, again := r.Frames()
				require.Equal(t, err, again)
			}
		}
	}
}

// A Reader with a Framing has no frames to take in runs, and goes on.
func TestFramesOfAFraming(t *testing.T) {
	for _, control := range []bool{false, true} {
		o := lines(0)
		o.Control = control
		r := datagram.NewReader(&chunked{data: []byte("one\ntwo\n")}, o)
		for _, want := range []string{"one", "two"} {
			run, err := r.Frames()
			require.Zero(t, run)
			require.ErrorIs(t, err, errors.ErrUnsupported)
			d, err := r.Read()
			require.NoError(t, err)
			require.Equal(t, want, string(d.Payload))
		}
		_, err := r.Read()
		require.Equal(t, io.EOF, err)
	}
}

func TestRunNext(t *testing.T) {
	var empty datagram.Run
	d, ok := empty.Next()
	require.False(t, ok)
	require.Zero(t, d)

	want := []datagram.Datagram{{Recipient: 1, Payload: []byte("one")}, {Recipient: 2}, {Recipient: 3, Payload: []byte("three")}}
	raw := encode(t, want...)
	run := datagram.Run{Raw: append(make([]byte, 0, 100), raw...), N: 3, Version: 1}
	for i, w := range want {
		d, ok := run.Next()
		require.True(t, ok)
		requireSame(t, []datagram.Datagram{w}, []datagram.Datagram{d})
		require.Equal(t, len(want)-i-1, run.N)
		if i < 2 {
			require.Equal(t, len(d.Payload), cap(d.Payload))
		} else {
			require.Equal(t, 100-len(raw)+len(d.Payload), cap(d.Payload))
		}
	}
	require.Nil(t, run.Raw, "an empty run holds no memory")
	_, ok = run.Next()
	require.False(t, ok)

	for _, bad := range [][]byte{raw[:3], raw[:10], {0, 0, 0, 0, 0, 1, 0, 0}, {0, 0, 0, 3, 0, 1, 0, 0}, {255, 255, 255, 255, 0, 1, 0, 0}} {
		require.Panics(t, func() { (&datagram.Run{Raw: bad[:len(bad):len(bad)]}).Next() })
	}
}

// A payload from a run has the capacity of one from Read, wherever its frame began.
func TestRunCapacity(t *testing.T) {
	heap() // empties the pools: what others released would be received into, by chance
	for _, n := range []int{16_000, 16_376, 16_383, 16_384, 20_000, 65_536, 100_000, 300_000} {
		stream := encode(t, datagram.Datagram{Payload: make([]byte, n)}, datagram.Datagram{Payload: make([]byte, 5)},
			datagram.Datagram{Payload: make([]byte, n)}, datagram.Datagram{Payload: make([]byte, n)}, datagram.Datagram{})
		for _, chunk := range []int{100, 1000, 70_000} {
			src := func() *chunked { return &chunked{data: stream, sizes: []int{chunk}} }
			want, _ := readAll(t, datagram.NewReader(src(), nil))
			got, _ := readRuns(t, datagram.NewReader(src(), nil))
			require.Len(t, got, len(want))
			for i := range want {
				require.Len(t, got[i].Payload, len(want[i].Payload))
				require.Equal(t, cap(want[i].Payload), cap(got[i].Payload), "payload %d of %d bytes, read by %d", i, n, chunk)
			}
		}
	}
}

// model is a stream of frames of both versions and how it is cut.
type model struct {
	stream []byte
	frames [][]byte // slices of stream
	src    *chunked
}

func drawModel(t *rapid.T) *model {
	m := &model{}
	var lens []int
	for i, n := range lengths(t) {
		version := uint16(datagram.Version)
		if rapid.IntRange(0, 4).Draw(t, "control") == 0 {
			version, n = datagram.ControlVersion, min(n, datagram.MaxControl-datagram.HeaderSize)
		}
		f := frame(version, uint16(i), pattern(i, n))
		m.stream = append(m.stream, f...)
		lens = append(lens, len(f))
	}
	rest := m.stream
	for _, n := range lens {
		m.frames = append(m.frames, rest[:n])
		rest = rest[n:]
	}
	m.src = &chunked{data: bytes.Clone(m.stream), sizes: readSizes(t)}
	return m
}

// However a stream is cut, the runs together are the stream, and stay so, whatever their owners append to them.
func TestRunsAreTheStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		scribble := rapid.Bool().Draw(t, "scribble")
		r := datagram.NewReader(m.src, withControl)
		var kept []datagram.Run
		for {
			run, err := nextRun(r)
			if err == errPassing {
				continue
			}
			if err != nil {
				require.Equal(t, io.EOF, err)
				break
			}
			requireRun(t, run)
			kept = append(kept, run)
			if scribble {
				_ = append(run.Raw, "scribbled over what lies behind"...)
			}
		}
		n, rest := 0, m.stream
		for _, run := range kept {
			n += run.N
			require.True(t, bytes.HasPrefix(rest, run.Raw))
			rest = rest[len(run.Raw):]
		}
		require.Empty(t, rest)
		require.Len(t, m.frames, n)
		require.LessOrEqual(t, m.src.longest, datagram.MaxAhead)
	})
}

// Frames, Next and Read may be mixed, frame by frame, and what is released between them touches nothing else.
func TestFramesAndNextMixed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(t)
		turns := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 10).Draw(t, "turns")
		release := rapid.Bool().Draw(t, "release")
		r := datagram.NewReader(m.src, withControl)
		type keep struct {
			payload []byte
			sum     uint32
		}
		var kept []keep
		at := 0
		took := func(d datagram.Datagram) {
			want := m.frames[at]
			require.Equal(t, binary.BigEndian.Uint16(want[6:]), d.Recipient)
			require.True(t, bytes.Equal(want[datagram.HeaderSize:], d.Payload))
			if release && at%2 == 0 {
				datagram.Release(d)
			} else {
				kept = append(kept, keep{d.Payload, crc32.ChecksumIEEE(d.Payload)})
			}
			at++
		}
		fill := func() {
			if err := r.Fill(); err != nil {
				require.Equal(t, errPassing, err)
			}
		}
		for i := 0; at < len(m.frames); i++ {
			turn := turns[i%len(turns)]
			if binary.BigEndian.Uint16(m.frames[at][4:]) == datagram.ControlVersion {
				turn = 0
			}
			switch turn {
			case 0:
				run, err := r.Frames()
				require.NoError(t, err)
				requireRun(t, run)
				for d, ok := run.Next(); ok; d, ok = run.Next() {
					took(d)
				}
				require.Zero(t, run.N)
				if run.Version == 0 {
					fill()
				}
			case 1:
				d, ok, err := r.Next()
				require.NoError(t, err)
				if ok {
					took(d)
				} else {
					fill()
				}
			case 2:
				d, err := r.Read()
				if err == nil {
					took(d)
				} else {
					require.Equal(t, errPassing, err)
				}
			}
		}
		for {
			if _, err := r.Read(); err != errPassing {
				require.Equal(t, io.EOF, err)
				break
			}
		}
		for i, k := range kept {
			require.Equal(t, k.sum, crc32.ChecksumIEEE(k.payload), "payload %d changed", i)
		}
	})
}

// FuzzFrames: however a stream is cut, Frames says what Read says; and control frames in it, which Read refuses, change
// nothing for the others.
func FuzzFrames(f *testing.F) {
	mixed := bytes.Join([][]byte{frame(2, 1, make([]byte, 162)), frame(1, 7, []byte("hello")), frame(1, 8, nil), frame(2, 6, make([]byte, 42)),
		frame(1, 9, make([]byte, 20_000)), frame(2, 7, make([]byte, 1016)), frame(2, 7, make([]byte, 1017))}, nil)
	for i, s := range append(seedStreams(f), mixed) {
		f.Add(s, []byte{byte(2*i + 1), 3, 0, byte(i)}, uint32(0), true)
		f.Add(s, []byte{3}, uint32(i), false)
	}
	f.Fuzz(func(t *testing.T, stream, cut []byte, limit uint32, control bool) {
		o := &datagram.Options{MaxPayload: int(limit % (1 << 20)), Control: control}
		src := &chunked{data: stream, sizes: cuts(cut)}
		got, end := readRuns(t, datagram.NewReader(src, o))
		require.LessOrEqual(t, src.longest, datagram.MaxAhead)

		var want []datagram.Datagram
		var wantEnd error
		for rest := stream; ; {
			ds, err := readAll(t, datagram.NewReader(&chunked{data: rest, sizes: cuts(cut)}, o))
			want, wantEnd = append(want, ds...), err
			for _, d := range ds {
				rest = rest[datagram.HeaderSize+len(d.Payload):]
			}
			var e *datagram.FrameError
			if !control || !errors.As(err, &e) || e.Err != datagram.ErrVersion || e.Value != datagram.ControlVersion {
				break
			}
			size := int64(binary.BigEndian.Uint32(rest))
			if size+4 > datagram.MaxControl {
				wantEnd = datagram.ErrTooLarge
				break
			}
			if size+4 > int64(len(rest)) {
				wantEnd = io.ErrUnexpectedEOF
				break
			}
			want = append(want, datagram.Datagram{Recipient: binary.BigEndian.Uint16(rest[6:]), Payload: rest[datagram.HeaderSize : size+4]})
			rest = rest[size+4:]
		}
		requireSame(t, want, got)
		for _, kind := range []error{datagram.ErrSize, datagram.ErrVersion, datagram.ErrTooLarge, io.EOF, io.ErrUnexpectedEOF} {
			require.Equal(t, errors.Is(wantEnd, kind), errors.Is(end, kind), "%v, %v", wantEnd, end)
		}
	})
}
