package datagram_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// chat is a stream of which each Read gives one frame, or what fits of it.
type chat struct {
	left    []byte
	size    int
	longest int // buffer that it was given since it was 0
}

func (c *chat) Read(p []byte) (int, error) {
	c.longest = max(c.longest, len(p))
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), c.size, len(c.left))
	copy(p, c.left[:n])
	c.left = c.left[n:]
	return n, nil
}

// After Idle a Reader holds nothing, reads into a small buffer, and into larger ones again when more comes.
func TestIdle(t *testing.T) {
	var stream []byte
	const n, size = 4000, 100
	for i := range n {
		d := datagram.Datagram{Recipient: uint16(i), Payload: bytes.Repeat([]byte{byte(i)}, size-datagram.HeaderSize)}
		stream, _ = datagram.Append(stream, d)
	}
	src := &chat{left: stream, size: len(stream)}
	r := datagram.NewReader(src, &datagram.Options{Control: true})
	got := 0
	take := func(upTo int) {
		for got < upTo {
			run, err := r.Frames()
			require.NoError(t, err)
			if run.N == 0 {
				require.NoError(t, r.Fill())
				continue
			}
			for d, ok := run.Next(); ok; d, ok = run.Next() {
				require.Equal(t, uint16(got), d.Recipient)
				require.Equal(t, bytes.Repeat([]byte{byte(got)}, size-datagram.HeaderSize), d.Payload)
				got++
			}
		}
	}
	take(n / 2)
	require.Greater(t, src.longest, datagram.MaxAhead/2)

	// A part of a frame has arrived, it may be: that is not let go.
	held := r.Held()
	r.Idle()
	if got*size < len(stream)-len(src.left) {
		require.Equal(t, held, r.Held())
	}
	src.size = size
	for take(got + 1); (len(stream)-len(src.left))%size != 0; take(got + 1) {
		src.size = size - (len(stream)-len(src.left))%size
	}
	_, err := r.Frames() // nothing is left
	require.NoError(t, err)
	r.Idle()
	require.Zero(t, r.Held())

	src.longest, src.size = 0, size
	take(got + 1)
	require.Equal(t, datagram.PeekSize, src.longest)
	require.Equal(t, datagram.PeekSize, r.Held())
	r.Idle() // nothing more is to be had
	require.Equal(t, datagram.PeekSize, r.Held())

	src.size = len(stream)
	take(n)
	require.Greater(t, src.longest, datagram.PeekSize)
	require.ErrorIs(t, r.Fill(), io.EOF)
	r.Idle()
	require.Zero(t, r.Held())
}
