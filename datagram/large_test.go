package datagram_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// A large frame is gathered in pieces of 64 KiB, and what is behind it comes with the last of them. Nothing of that is
// lost, wherever the pieces end, and whatever buffer the frame gets: one that was released may be just long enough.
func TestBehindLargeFrames(t *testing.T) {
	const piece = 64 << 10
	big := make([]byte, 3*piece+100)
	_, _ = rand.NewChaCha8([32]byte{}).Read(big)
	small := func(n, i int) []byte { return fmt.Appendf(nil, "%d behind a frame of %d", i, n) }
	for _, pieces := range []int{2, 3} {
		for _, release := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d pieces, released %v", pieces, release), func(t *testing.T) {
				for n := pieces*piece - 550; n <= pieces*piece+20; n += 3 {
					var stream []byte
					var err error
					for range 2 {
						stream, err = datagram.Append(stream, datagram.Datagram{Payload: big[:n]})
						require.NoError(t, err)
						for i := range 80 {
							stream, err = datagram.Append(stream, datagram.Datagram{Payload: small(n, i)})
							require.NoError(t, err)
						}
					}
					r := datagram.NewReader(bytes.NewReader(stream), nil) // which fills each read
					for range 2 {
						d, err := r.Read()
						require.NoError(t, err)
						if !bytes.Equal(big[:n], d.Payload) {
							t.Fatalf("a frame of %d is damaged", n)
						}
						if release {
							datagram.Release(d)
						}
						for i := range 80 {
							d, err := r.Read()
							if err != nil || !bytes.Equal(small(n, i), d.Payload) {
								t.Fatalf("expected %q, got %q, %v", small(n, i), d.Payload, err)
							}
						}
					}
					_, err = r.Read()
					require.ErrorIs(t, err, io.EOF)
				}
			})
		}
	}
}
