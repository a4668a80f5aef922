package datagram_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

// answer is what one call of a scripted writer does: take at most n bytes, and return err.
type answer struct {
	n   int
	err error
}

// scripted answers its calls in turn; behind the last it takes everything.
type scripted struct {
	answers []answer
	got     []byte
	calls   int
	largest int
}

func (s *scripted) Write(p []byte) (int, error) {
	s.calls++
	s.largest = max(s.largest, len(p))
	if len(s.answers) == 0 {
		s.got = append(s.got, p...)
		return len(p), nil
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	if a.n >= 0 && a.n <= len(p) {
		s.got = append(s.got, p[:a.n]...)
	}
	return a.n, a.err
}

var errBroken = errors.New("broken")

func small(i int) datagram.Datagram {
	return datagram.Datagram{Recipient: uint16(i), Payload: pattern(i, 24)}
}

func big(i, n int) datagram.Datagram {
	return datagram.Datagram{Recipient: uint16(i), Payload: pattern(i, n)}
}

func TestWriterFinishesShortWrites(t *testing.T) {
	for _, d := range []datagram.Datagram{small(1), big(2, 65_529), big(3, 200_000)} {
		sink := &scripted{answers: []answer{{n: 1}, {n: 7}, {n: 2}}}
		w := datagram.NewWriter(sink, nil)
		require.NoError(t, w.Write(d))
		require.NoError(t, w.Flush())
		require.True(t, bytes.Equal(encode(t, d), sink.got))
	}
}

// A write that fails is final: no later call writes a byte, and each returns the same error.
func TestWriterIsPoisoned(t *testing.T) {
	for name, c := range map[string]struct {
		answers []answer
		want    error
	}{
		"fails at once":             {[]answer{{0, errBroken}}, errBroken},
		"fails after some":          {[]answer{{5, errBroken}}, errBroken},
		"fails after a short write": {[]answer{{3, nil}, {2, errBroken}}, errBroken},
		"takes nothing":             {[]answer{{0, nil}}, io.ErrShortWrite},
		"a deadline":                {[]answer{{5, os.ErrDeadlineExceeded}}, os.ErrDeadlineExceeded},
		"takes a negative number":   {[]answer{{-1, nil}}, nil},
		"takes more than there is":  {[]answer{{math.MaxInt, nil}}, nil},
	} {
		for _, n := range []int{24, 65_536, 65_537, 300_000} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, n), func(t *testing.T) {
				sink := &scripted{answers: c.answers}
				w := datagram.NewWriter(sink, nil)
				err := w.Write(big(1, n))
				if err == nil {
					err = w.Flush()
				}
				if c.want != nil {
					require.Equal(t, c.want, err)
				} else {
					require.ErrorContains(t, err, "impossible count")
				}
				require.True(t, bytes.HasPrefix(encode(t, big(1, n)), sink.got))
				calls := sink.calls
				for _, again := range []error{w.Write(small(2)), w.Write(big(3, 100_000)), w.Flush(),
					w.Write(datagram.Datagram{Payload: make([]byte, datagram.DefaultMaxPayload+1)})} {
					require.Equal(t, err, again)
				}
				require.Equal(t, calls, sink.calls)
			})
		}
	}
}

func TestTooLargeLeavesSendersUsable(t *testing.T) {
	for _, limit := range []int{1, 24, 65_536, 65_537, 100_000} {
		o := &datagram.Options{MaxPayload: limit}
		sink := &scripted{}
		w, b := datagram.NewWriter(sink, o), datagram.NewBuffer(o)
		refused := big(1, limit+1)
		for _, err := range []error{w.Write(refused), b.Append(refused)} {
			var e *datagram.FrameError
			require.ErrorAs(t, err, &e)
			require.ErrorIs(t, err, datagram.ErrTooLarge)
			require.Equal(t, datagram.FrameError{Err: datagram.ErrTooLarge, Sending: true, Value: uint64(limit + 1), Limit: uint64(limit)}, *e)
		}
		require.Zero(t, sink.calls)
		require.Zero(t, w.Buffered())
		require.Zero(t, b.Len())
		require.Zero(t, b.Segments())
		require.NoError(t, w.Write(big(2, limit)))
		require.Error(t, w.Write(refused))
		require.NoError(t, w.Flush())
		require.True(t, bytes.Equal(encode(t, big(2, limit)), sink.got))
	}
}

// Options out of range mean the default or the most that can be.
func TestOptionsRange(t *testing.T) {
	for _, n := range []int{math.MinInt, -1, 0} {
		err := datagram.NewBuffer(&datagram.Options{MaxPayload: n}).Append(datagram.Datagram{Payload: make([]byte, datagram.DefaultMaxPayload+1)})
		var e *datagram.FrameError
		require.ErrorAs(t, err, &e)
		require.EqualValues(t, datagram.DefaultMaxPayload, e.Limit)
	}
	r := datagram.NewReader(&chunked{data: datagram.Header{Size: math.MaxUint32, Version: 1}.Append(nil)}, &datagram.Options{MaxPayload: math.MaxInt})
	_, err := r.Read()
	if math.MaxInt > math.MaxUint32 {
		require.Equal(t, io.ErrUnexpectedEOF, err, "the largest size there is can be allowed")
	} else {
		require.ErrorIs(t, err, datagram.ErrTooLarge)
	}
}

// A Writer waits for 64 KiB or Flush, and gives a plain stream pieces of 64 KiB but for a large payload's rest.
func TestWriterGathers(t *testing.T) {
	sink := &scripted{}
	w := datagram.NewWriter(sink, nil)
	for i := range 2047 { // 2048 frames of 32 bytes are 64 KiB
		require.NoError(t, w.Write(small(i)))
	}
	require.Zero(t, sink.calls)
	require.Equal(t, 2047*32, w.Buffered())
	require.NoError(t, w.Write(small(2047)))
	require.Equal(t, 1, sink.calls)
	require.Zero(t, w.Buffered())
	require.NoError(t, w.Flush())
	require.Equal(t, 1, sink.calls, "nothing to flush, nothing written")

	require.NoError(t, w.Write(small(1)))
	require.NoError(t, w.Write(big(2, 1<<20)))
	require.Equal(t, 3, sink.calls, "one segment, then the rest of the payload from where it lies")
	require.Greater(t, sink.largest, 1<<20-datagram.SegmentSize)
	require.Zero(t, w.Buffered(), "a large payload is written at once")
}

// WriteTo that failed goes on behind the last byte taken, whatever was appended in between; and what is empty holds
// nothing.
func TestBufferGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := datagram.NewBuffer(nil)
		sink := &scripted{}
		var want []byte
		var counted int64
		write := func(script []answer) {
			sink.answers = script
			n, err := b.WriteTo(sink)
			counted += n
			if err == nil {
				require.Zero(t, b.Len())
			}
			require.EqualValues(t, len(sink.got), counted)
		}
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			for i, n := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(65_000, 66_000), rapid.IntRange(0, 200_000)), 0, 6).Draw(t, "append") {
				require.NoError(t, b.Append(big(i, n)))
				want = append(want, encode(t, big(i, n))...)
			}
			write(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) answer {
				return answer{
					rapid.OneOf(rapid.IntRange(-1, 10), rapid.IntRange(0, 70_000), rapid.Just(65_536)).Draw(t, "n"),
					rapid.SampledFrom([]error{nil, nil, errPassing}).Draw(t, "err"),
				}
			}), 0, 5).Draw(t, "answers"))
			require.Equal(t, len(want)-len(sink.got), b.Len())
			require.True(t, bytes.HasPrefix(want, sink.got))
			require.LessOrEqual(t, b.Segments(), b.Len()/datagram.SegmentSize+2)
			if b.Len() == 0 {
				require.Zero(t, b.Segments())
			}
		}
		write(nil)
		require.True(t, bytes.Equal(want, sink.got))
		require.Zero(t, b.Segments())
	})
}

// Vectored writes to real connections give the same bytes.
func TestVectoredWrite(t *testing.T) {
	var all []datagram.Datagram
	for i, n := range []int{0, 1, 64<<10 - 9, 64<<10 - 8, 64<<10 - 7, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128<<10 - 8, 128 << 10, 1 << 20, 10_000_000, 5} {
		all = append(all, big(i, n), small(i))
	}
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			c, s := pair(t, network)
			wrote := make(chan error, 1)
			go func() {
				defer c.Close()
				wrote <- func() error {
					w := datagram.NewWriter(c, nil)
					for _, d := range all {
						if err := w.Write(d); err != nil {
							return err
						}
					}
					if err := w.Flush(); err != nil {
						return err
					}
					b := datagram.NewBuffer(nil)
					for _, d := range all {
						if err := b.Append(d); err != nil {
							return err
						}
					}
					_, err := b.WriteTo(c)
					if b.Segments() > 0 {
						return errors.New("an empty Buffer holds segments")
					}
					return err
				}()
			}()
			r := datagram.NewReader(s, nil)
			for range 2 {
				for i, want := range all {
					d, err := r.Read()
					require.NoError(t, err)
					require.Equal(t, want.Recipient, d.Recipient)
					require.True(t, bytes.Equal(want.Payload, d.Payload), "datagram %d of %d bytes", i, len(want.Payload))
				}
			}
			require.NoError(t, <-wrote)
			_, err := r.Read()
			require.Equal(t, io.EOF, err)
		})
	}
}

// A vectored write that a deadline cuts goes on where it was cut; a Writer's is final.
func TestVectoredWriteCut(t *testing.T) {
	c, s := pair(t, "tcp")
	b := datagram.NewBuffer(nil)
	require.NoError(t, b.Append(small(0)))
	require.NoError(t, b.Append(big(1, 12_000_000))) // more than the system takes without a reader
	whole := b.Len()
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
	n, err := b.WriteTo(c)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, whole-int(n), b.Len())
	require.Positive(t, b.Len())

	got := make(chan []byte, 1)
	go func() {
		all, _ := io.ReadAll(s)
		got <- all
	}()
	require.NoError(t, c.SetWriteDeadline(time.Time{}))
	m, err := b.WriteTo(c)
	require.NoError(t, err)
	require.Equal(t, whole, int(n+m))
	require.Zero(t, b.Segments())
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	require.True(t, bytes.Equal(encode(t, small(0), big(1, 12_000_000)), <-got))

	w := datagram.NewWriter(c, nil)
	err = w.Write(big(2, 100_000))
	require.Error(t, err)
	require.Equal(t, err, w.Write(small(3)))
	require.Equal(t, err, w.Flush())
}
