package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// drain returns all that a source has, and whether the last was bare.
func drain(t testing.TB, s source) (payloads []string, bare bool, err error) {
	t.Helper()
	for {
		batch, err := s.next()
		if err == io.EOF {
			return payloads, bare, nil
		}
		if err != nil {
			return payloads, bare, err
		}
		require.NotEmpty(t, batch)
		require.False(t, bare, "only the last batch may be bare")
		for _, p := range batch {
			payloads = append(payloads, string(p))
		}
		if bare = s.bare(); bare {
			require.Len(t, batch, 1)
		}
	}
}

func TestCutterLines(t *testing.T) {
	long := strings.Repeat("x", 3*readSize)
	for name, tc := range map[string]struct {
		in   string
		want []string
		bare bool
	}{
		"empty":            {"", nil, false},
		"one empty line":   {"\n", []string{""}, false},
		"empty lines":      {"\n\na\n\n", []string{"", "", "a", ""}, false},
		"no newline":       {"a", []string{"a"}, true},
		"no newline after": {"a\n\nb", []string{"a", "", "b"}, true},
		"carriage return":  {"a\r\nb\r", []string{"a\r", "b\r"}, true},
		"long":             {long + "\n" + long, []string{long, long}, true},
		"binary":           {"\x00\xff\n\x01\n", []string{"\x00\xff", "\x01"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, wrap := range []func(io.Reader) io.Reader{
				func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader,
			} {
				if len(tc.in) > readSize {
					wrap = iotest.HalfReader
				}
				got, bare, err := drain(t, newCutter(wrap(strings.NewReader(tc.in)), 0, 1<<20))
				require.NoError(t, err)
				assert.Equal(t, tc.want, got)
				assert.Equal(t, tc.bare, bare)
			}
		})
	}
}

func TestCutterLineLimit(t *testing.T) {
	for in, ok := range map[string]bool{
		"12345\n": true, "12345": true, "123456\n": false, "123456": false, "a\n123456\nb\n": false, "1234567890": false,
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			_, _, err := drain(t, newCutter(wrap(strings.NewReader(in)), 0, 5))
			assert.Equal(t, ok, err == nil, "%q", in)
			if !ok {
				assert.ErrorContains(t, err, "--chunk")
			}
		}
	}
}

func TestCutterChunks(t *testing.T) {
	in := make([]byte, 5*readSize/2)
	for i := range in {
		in[i] = byte(i * 7 >> 3)
	}
	for _, chunk := range []int{1, 7, 64, 65536, readSize, readSize + 1, len(in), len(in) + 1} {
		got, bare, err := drain(t, newCutter(iotest.HalfReader(bytes.NewReader(in)), chunk, 1))
		require.NoError(t, err)
		assert.False(t, bare)
		assert.Equal(t, string(in), strings.Join(got, ""))
		assert.Len(t, got, (len(in)+chunk-1)/chunk)
		for _, p := range got[:len(got)-1] {
			require.Len(t, p, chunk)
		}
	}
}

func TestCutterReadError(t *testing.T) {
	want := errors.New("disk on fire")
	for _, chunk := range []int{0, 2} {
		got, _, err := drain(t, newCutter(io.MultiReader(strings.NewReader("a\nb\nc"), iotest.ErrReader(want)), chunk, 100))
		assert.ErrorIs(t, err, want)
		assert.Len(t, got, 2, "what came before the error is sent")
	}
}

// What has arrived is returned before more is waited for, so that typing works.
func TestCutterDoesNotWait(t *testing.T) {
	r, w := io.Pipe()
	c := newCutter(r, 0, 100)
	go w.Write([]byte("one\ntwo\nthr"))
	batch, err := c.next()
	require.NoError(t, err)
	require.Len(t, batch, 2)
	go func() {
		w.Write([]byte("ee\n"))
		w.Close()
	}()
	batch, err = c.next()
	require.NoError(t, err)
	assert.Equal(t, "three", string(batch[0]))
}

func TestLoader(t *testing.T) {
	for _, size := range []int{0, 1, 3, 7, 8, 9, 64, 5000, batchBytes + 1} {
		l := newLoader(size, 3000)
		if size > 100 {
			l.count = 20
		}
		seen := make(map[string]int)
		n := uint64(0)
		for {
			batch, err := l.next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			for _, p := range batch {
				require.Len(t, p, size)
				seen[string(p)]++
				if got, ok := l.number(p); size >= 8 {
					require.True(t, ok)
					require.Equal(t, n, got)
				} else {
					require.False(t, ok)
				}
				n++
			}
		}
		assert.Equal(t, l.count, n)
		if size >= 2 {
			assert.Len(t, seen, int(n), "payloads of size %d differ", size)
		}
		if size > 8 {
			p := make([]byte, size)
			l.fill(p, 5)
			p[size-1] ^= 1
			_, ok := l.number(p)
			assert.False(t, ok, "a changed byte is noticed")
			_, ok = l.number(p[:size-1])
			assert.False(t, ok)
		}
	}
}
