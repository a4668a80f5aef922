package trywrite_test

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/internal/trywrite"
)

func pair(t *testing.T, network, addr string) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	near, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	far, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return near, far
}

// What a full socket took, and what Writer says is left, are together what it was given.
func TestFull(t *testing.T) {
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")} {
		for _, vectors := range []int{1, 3, 100} {
			t.Run(network, func(t *testing.T) {
				near, far := pair(t, network, addr)
				w := trywrite.New(near)
				if w == nil {
					t.Skip("this system has no write that does not wait")
				}
				var sent, rest []byte
				for next := byte(0); len(rest) == 0; {
					var vec [][]byte
					for range vectors {
						vec = append(vec, bytes.Repeat([]byte{next}, 1+int(next)*311))
						sent = append(sent, vec[len(vec)-1]...)
						next++
					}
					left, err := w.WriteVec(vec)
					rest = bytes.Join(left, nil)
					if err != nil {
						require.ErrorIs(t, err, trywrite.ErrWouldBlock)
						require.NotEmpty(t, rest)
					}
				}
				_ = near.(interface{ CloseWrite() error }).CloseWrite()
				got, err := io.ReadAll(far)
				require.NoError(t, err)
				require.True(t, bytes.Equal(sent[:len(sent)-len(rest)], got))
				require.True(t, bytes.Equal(sent[len(sent)-len(rest):], rest))
			})
		}
	}
}

// half takes half of what it is given.
type half struct{ net.Conn }

func (half) TryWrite(p []byte) (int, error) { return len(p) / 2, nil }

func TestMethod(t *testing.T) {
	w := trywrite.New(half{})
	n, err := w.Write([]byte("abcd"))
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, trywrite.ErrWouldBlock)
	rest, err := w.WriteVec([][]byte{{}, []byte("ab"), []byte("cd")})
	require.ErrorIs(t, err, trywrite.ErrWouldBlock)
	require.Equal(t, [][]byte{[]byte("b"), []byte("cd")}, rest)
	near, _ := net.Pipe()
	require.Nil(t, trywrite.New(near), "it has no such write")
}

func TestBroken(t *testing.T) {
	near, _ := pair(t, "tcp", "127.0.0.1:0")
	w := trywrite.New(near)
	if w == nil {
		t.Skip("this system has no write that does not wait")
	}
	require.NoError(t, near.Close())
	_, err := w.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}
