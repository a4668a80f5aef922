package datagram_test

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

type vector struct {
	Name       string
	Stream     hexBytes
	MaxPayload int64 `json:"max_payload"`
	Frames     []struct {
		Recipient uint16
		Payload   hexBytes
	}
	Error  string
	Reason string
}

type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	s, err := strconv.Unquote(string(b))
	if err != nil {
		return err
	}
	*h, err = hex.DecodeString(s)
	return err
}

func (v vector) options() *datagram.Options { return &datagram.Options{MaxPayload: int(v.MaxPayload)} }

func (v vector) limit() uint64 {
	if v.MaxPayload == 0 {
		return datagram.DefaultMaxPayload
	}
	return uint64(v.MaxPayload)
}

func (v vector) datagrams() []datagram.Datagram {
	var ds []datagram.Datagram
	for _, f := range v.Frames {
		ds = append(ds, datagram.Datagram{Recipient: f.Recipient, Payload: f.Payload})
	}
	return ds
}

// bad returns what follows the good frames.
func (v vector) bad() []byte {
	n := 0
	for _, f := range v.Frames {
		n += datagram.HeaderSize + len(f.Payload)
	}
	return v.Stream[n:]
}

func loadVectors(t testing.TB) []vector {
	b, err := os.ReadFile("../testdata/datagram.json")
	require.NoError(t, err)
	var vs []vector
	require.NoError(t, json.Unmarshal(b, &vs))
	seen := map[string]bool{}
	kept := vs[:0]
	for _, v := range vs {
		require.False(t, seen[v.Name], "two vectors are called %q", v.Name)
		require.NotEmpty(t, v.Reason, v.Name)
		seen[v.Name] = true
		if v.MaxPayload <= math.MaxInt-datagram.HeaderSize {
			kept = append(kept, v)
		}
	}
	return kept
}

func forVectors(t *testing.T, f func(t *testing.T, v vector)) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) { f(t, v) })
	}
}

// requireEnd checks the error that ended a stream, and every value in it.
func (v vector) requireEnd(t *testing.T, err error) {
	t.Helper()
	var kind error
	var value, limit uint64
	bad := v.bad()
	switch v.Error {
	case "":
		require.Equal(t, io.EOF, err)
		return
	case "unexpected-eof":
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NotErrorIs(t, err, io.EOF)
		return
	case "size":
		kind, value = datagram.ErrSize, uint64(binary.BigEndian.Uint32(bad))
	case "version":
		kind, value = datagram.ErrVersion, uint64(binary.BigEndian.Uint16(bad[4:]))
	case "too-large":
		kind, value, limit = datagram.ErrTooLarge, uint64(binary.BigEndian.Uint32(bad))-4, v.limit()
	default:
		t.Fatalf("the vector has an unknown error %q", v.Error)
	}
	for _, k := range []error{datagram.ErrSize, datagram.ErrVersion, datagram.ErrTooLarge, datagram.ErrFraming, io.EOF, io.ErrUnexpectedEOF} {
		require.Equal(t, k == kind, errors.Is(err, k), "%v is %v", err, k)
	}
	var e *datagram.FrameError
	require.ErrorAs(t, err, &e)
	require.Equal(t, value, e.Value)
	require.Equal(t, limit, e.Limit)
	require.False(t, e.Sending)
	require.GreaterOrEqual(t, len(e.Header), 4)
	require.LessOrEqual(t, len(e.Header), datagram.HeaderSize)
	require.Equal(t, string(bad[:len(e.Header)]), string(e.Header))
	require.Contains(t, err.Error(), fmt.Sprint(value))
	if len(v.Frames) > 0 && value != 2 {
		require.Empty(t, e.Detail, "a peer that sent a good frame is no stranger")
	}
}

// requireReader checks what both ways make of the stream that open returns.
func requireReader(t *testing.T, v vector, open func() io.Reader) {
	t.Helper()
	for _, read := range ways {
		got, err := read(t, datagram.NewReader(open(), v.options()))
		requireSame(t, v.datagrams(), got)
		v.requireEnd(t, err)
	}
}

func TestVectorsAreMany(t *testing.T) { require.GreaterOrEqual(t, len(loadVectors(t)), 100) }

func TestVectorsParse(t *testing.T) {
	forVectors(t, func(t *testing.T, v vector) {
		rest := []byte(v.Stream)
		for _, want := range v.datagrams() {
			d, next, err := datagram.Parse(rest)
			require.NoError(t, err)
			requireSame(t, []datagram.Datagram{want}, []datagram.Datagram{d})
			require.Equal(t, len(d.Payload), cap(d.Payload), "an append to the payload must not reach the next frame")
			require.Equal(t, string(rest[len(rest)-len(next):]), string(next))
			rest = next
		}
		d, next, err := datagram.Parse(rest)
		if v.Error == "too-large" { // Parse has no limit but its input
			if size := int64(binary.BigEndian.Uint32(rest)); int64(len(rest)) >= size+4 {
				require.NoError(t, err)
				require.Len(t, d.Payload, int(size-4))
				return
			}
			v.Error = "unexpected-eof"
		}
		require.Equal(t, string(rest), string(next), "an error takes nothing")
		require.Zero(t, d)
		v.requireEnd(t, err)
	})
}

func TestVectorsReader(t *testing.T) {
	forVectors(t, func(t *testing.T, v vector) {
		whole := func() io.Reader { return &chunked{data: v.Stream} }
		inReads := func(sizes ...int) func() io.Reader {
			return func() io.Reader { return &chunked{data: v.Stream, sizes: sizes} }
		}
		requireReader(t, v, whole)
		requireReader(t, v, func() io.Reader { return iotest.OneByteReader(whole()) })
		requireReader(t, v, func() io.Reader { return iotest.HalfReader(whole()) })
		requireReader(t, v, func() io.Reader { return iotest.DataErrReader(whole()) })
		requireReader(t, v, func() io.Reader { return iotest.DataErrReader(iotest.OneByteReader(whole())) })
		requireReader(t, v, func() io.Reader { return iotest.TimeoutReader(iotest.OneByteReader(whole())) })
		requireReader(t, v, inReads(0, 1))
		requireReader(t, v, inReads(0, 3, 0, 0, 8))
		for cut := 1; cut < len(v.Stream); cut++ {
			requireReader(t, v, inReads(cut, math.MaxInt))
		}
	})
}

// A deadline error that comes together with bytes loses neither.
func TestVectorsReaderBytesWithError(t *testing.T) {
	forVectors(t, func(t *testing.T, v vector) {
		requireReader(t, v, func() io.Reader { return &bothReader{data: v.Stream} })
	})
}

// bothReader gives two bytes and a passing error in each read.
type bothReader struct{ data []byte }

func (r *bothReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(2, len(p))], r.data)
	r.data = r.data[n:]
	return n, errPassing
}

func TestVectorsEncode(t *testing.T) {
	forVectors(t, func(t *testing.T, v vector) {
		if v.Error != "" {
			t.Skip("the stream is not one that is written")
		}
		require.Equal(t, string(v.Stream), string(encode(t, v.datagrams()...)))

		var plain, later, flushed writes
		b := datagram.NewBuffer(v.options())
		w := datagram.NewWriter(&later, v.options())
		f := datagram.NewWriter(&flushed, v.options())
		for _, d := range v.datagrams() {
			require.NoError(t, b.Append(d))
			require.NoError(t, w.Write(d))
			require.NoError(t, f.Write(d))
			require.NoError(t, f.Flush())
		}
		require.Equal(t, len(v.Stream), b.Len())
		require.Equal(t, len(v.Stream), w.Buffered())
		n, err := b.WriteTo(&plain)
		require.NoError(t, err)
		require.EqualValues(t, len(v.Stream), n)
		require.NoError(t, w.Flush())
		for _, got := range []writes{plain, later, flushed} {
			require.Equal(t, string(v.Stream), string(got.bytes))
		}
		require.LessOrEqual(t, later.calls, 1, "small frames travel together")
		require.Len(t, v.datagrams(), flushed.calls)
	})
}

// writes takes everything and counts the calls.
type writes struct {
	bytes []byte
	calls int
}

func (w *writes) Write(p []byte) (int, error) {
	w.calls++
	w.bytes = append(w.bytes, p...)
	return len(p), nil
}
