package datagram_test

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

func TestFrameErrorText(t *testing.T) {
	for _, c := range []struct {
		err  datagram.FrameError
		want string
	}{
		{datagram.FrameError{Err: datagram.ErrTooLarge, Value: 20, Limit: 10, Sending: true},
			"datagram: not sent: payload of 20 bytes, the limit is 10"},
		{datagram.FrameError{Err: datagram.ErrTooLarge, Value: 20, Limit: 10, Header: []byte{0, 0, 0, 24, 0, 1, 0, 7}},
			"datagram: received payload of 20 bytes, the limit is 10 (header 0000001800010007)"},
		{datagram.FrameError{Err: datagram.ErrTooLarge, Value: 1017, Limit: 1016, Detail: "a control frame"},
			"datagram: received payload of 1017 bytes, the limit is 1016; a control frame"},
		{datagram.FrameError{Err: datagram.ErrVersion, Value: 9, Detail: "more"},
			"datagram: received version 9, expected 1; more"},
		{datagram.FrameError{Err: datagram.ErrSize, Value: 3, Header: []byte{0, 0, 0, 3}},
			"datagram: received size field 3, expected 4 or more (header 00000003)"},
		{datagram.FrameError{Err: datagram.ErrFraming, Detail: "no comma"},
			"datagram: received bad framing; no comma"},
		{datagram.FrameError{Err: datagram.ErrFraming, Sending: true, Detail: "a newline"},
			"datagram: not sent: bad framing; a newline"},
	} {
		require.Equal(t, c.want, c.err.Error())
		require.ErrorIs(t, &c.err, c.err.Err)
	}
}

// What a strange peer seems to speak is told, however its first bytes were cut, and once only if a cut hides it.
func TestExplain(t *testing.T) {
	for first, want := range map[string]string{
		"GET / HTTP/1.1\r\n":                       "HTTP client",
		"OPTIONS * HTTP/1.1\r\n":                   "HTTP client",
		"CONNECT a:1 HTTP/1.1\r\n":                 "HTTP client",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":         "HTTP client",
		"HTTP/1.1 400 Bad Request\r\n":             "HTTP server",
		"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4":     "tls://",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc":     "tls://",
		"\x15\x03\x03\x00\x02\x02\x28":             "tls://",
		"SSH-2.0-OpenSSH_9.9\r\n":                  "SSH",
		"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n":     "PROXY",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c":   "PROXY",
		"\x00\x00\x00\x10\x00\x02\x00\x01":         "session",
		"\x00\x00\x00\x10\x00\x09\x00\x01":         "",
		"GETS nothing":                             "",
		"\x16\x03\x09\x00\xc8\x01\x00\x00\xc4abcd": "",
	} {
		for _, cut := range []int{1, 3, 5, 6, 7, 8, 100} {
			_, err := datagram.NewReader(&chunked{data: []byte(first), sizes: []int{cut}}, nil).Read()
			var e *datagram.FrameError
			require.ErrorAs(t, err, &e, "%q", first)
			if want == "" {
				require.Empty(t, e.Detail, "%q", first)
				continue
			}
			require.Contains(t, e.Error(), want, "%q in reads of %d", first, cut)
		}
	}
}

// A Framing may return one error value on many connections: the Reader must not write to it.
func TestExplainLeavesAFramingsErrorAlone(t *testing.T) {
	shared := &datagram.FrameError{Err: datagram.ErrFraming}
	f := framingFunc(func([]byte, int) (datagram.Datagram, int, int, error) { return datagram.Datagram{}, 0, 0, shared })
	_, err := datagram.NewReader(&chunked{data: []byte("GET / HTTP/1.1\r\n")}, &datagram.Options{Framing: f}).Read()
	require.ErrorIs(t, err, datagram.ErrFraming)
	require.ErrorContains(t, err, "HTTP client")
	require.Empty(t, shared.Detail)
}

// A stored error does not hold the buffer that its bytes were in.
func TestErrorOwnsItsHeader(t *testing.T) {
	src := []byte("\x00\x00\x00\x10\x00\x09\x00\x01")
	_, _, err := datagram.Parse(src)
	src[0] = 0xff
	var e *datagram.FrameError
	require.ErrorAs(t, err, &e)
	require.Equal(t, "\x00\x00\x00\x10\x00\x09\x00\x01", string(e.Header))
}

func TestReaderStreamErrors(t *testing.T) {
	good := encode(t, datagram.Datagram{Recipient: 7, Payload: []byte("hello")})

	t.Run("an error of the stream comes as it is, after what came before it", func(t *testing.T) {
		broken := errors.New("broken")
		r := datagram.NewReader(iotest.DataErrReader(&chunked{data: good, end: broken}), nil)
		_, err := r.Read()
		require.NoError(t, err)
		_, err = r.Read()
		require.Equal(t, broken, err)
	})
	t.Run("an error that came with bytes is told once, without another read", func(t *testing.T) {
		broken, calls := errors.New("broken"), 0
		r := datagram.NewReader(readerFunc(func(p []byte) (int, error) {
			if calls++; calls > 1 {
				return 0, io.EOF
			}
			return copy(p, good), broken
		}), nil)
		_, err := r.Read()
		require.NoError(t, err)
		_, err = r.Read()
		require.Equal(t, broken, err)
		require.Equal(t, 1, calls)
		_, err = r.Read()
		require.Equal(t, io.EOF, err)
	})
	t.Run("a wrapped end is an end", func(t *testing.T) {
		_, err := datagram.NewReader(&chunked{end: fmt.Errorf("wrapped: %w", io.EOF)}, nil).Read()
		require.Equal(t, io.EOF, err)
		_, err = datagram.NewReader(&chunked{data: good[:9], end: fmt.Errorf("wrapped: %w", io.EOF)}, nil).Read()
		require.Equal(t, io.ErrUnexpectedEOF, err)
	})
	t.Run("the stream's own ErrUnexpectedEOF stays that", func(t *testing.T) {
		r := datagram.NewReader(&chunked{data: good, end: io.ErrUnexpectedEOF}, nil)
		_, err := r.Read()
		require.NoError(t, err)
		_, err = r.Read()
		require.Equal(t, io.ErrUnexpectedEOF, err)
	})
	t.Run("a reader that never gives anything", func(t *testing.T) {
		_, err := datagram.NewReader(readerFunc(func([]byte) (int, error) { return 0, nil }), nil).Read()
		require.Equal(t, io.ErrNoProgress, err)
	})
	t.Run("a reader that gives nothing now and then", func(t *testing.T) {
		src, i := &chunked{data: good, sizes: []int{1}}, 0
		r := datagram.NewReader(readerFunc(func(p []byte) (int, error) {
			if i++; i%50 != 0 {
				return 0, nil
			}
			return src.Read(p)
		}), nil)
		d, err := r.Read()
		require.NoError(t, err)
		require.Equal(t, "hello", string(d.Payload))
	})
	for _, n := range []int{-1, 1 << 30} {
		_, err := datagram.NewReader(readerFunc(func([]byte) (int, error) { return n, nil }), nil).Read()
		require.ErrorContains(t, err, "impossible count")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// framingFunc is a Framing of which only Next counts.
type framingFunc func(src []byte, seen int) (d datagram.Datagram, n, need int, err error)

func (f framingFunc) Next(src []byte, seen int) (datagram.Datagram, int, int, error) {
	return f(src, seen)
}

func (framingFunc) Append(dst []byte, d datagram.Datagram) ([]byte, error) {
	return append(dst, d.Payload...), nil
}
