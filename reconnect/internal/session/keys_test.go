package session

import (
	"bytes"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGenerateKey(t *testing.T) {
	r := bytes.NewReader(bytes.Repeat([]byte{7}, 40))
	a, err := GenerateKey(r)
	require.NoError(t, err)
	require.Equal(t, 8, r.Len(), "32 bytes are read, no more and no fewer")
	require.Equal(t, bytes.Repeat([]byte{7}, 32), a.Bytes())
	b, err := GenerateKey(bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	require.NoError(t, err)
	require.Equal(t, PublicKey(a), PublicKey(b))

	_, err = GenerateKey(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualError(t, err, "session: drawing a key: unexpected EOF")
}

func TestLinkPanics(t *testing.T) {
	for _, e := range []uint64{0, 257, math.MaxUint64} {
		require.Panics(t, func() { Link([32]byte{}, e) }, e)
	}
}

// Each link leads to each later one, and to no other.
func TestVerifyLink(t *testing.T) {
	secret := [32]byte{1, 2, 3}
	var links [MaxHellos + 1][32]byte
	for e := uint64(1); e <= MaxHellos; e++ {
		links[e] = Link(secret, e)
	}
	require.Equal(t, secret, links[MaxHellos])
	for a := uint64(1); a <= MaxHellos; a += 17 {
		for b := uint64(1); b <= MaxHellos; b += 15 {
			require.Equal(t, b > a, VerifyLink(links[a], a, links[b], b), "%d to %d", a, b)
			require.False(t, VerifyLink(links[a], a, links[b], b+1))
			require.False(t, VerifyLink(links[b], a, links[a], b))
		}
	}
}

// Whatever a stranger says, a verification ends with false and looks at no byte that is not there.
func TestVerifyForeignFrames(t *testing.T) {
	key := [32]byte{1}
	hello := (&Hello{Version: 1, Epoch: 1}).Append(nil)
	welcome := AppendWelcome(nil, &Welcome{Version: 1}, hello, key, nil)
	resume := AppendResume(nil, &Resume{Version: 1}, key, nil)
	resumed := AppendResumed(nil, &Resumed{}, resume, key, nil)
	require.True(t, VerifyWelcome(welcome, hello, key, nil))
	require.True(t, VerifyResume(resume, key, nil))
	require.True(t, VerifyResumed(resumed, resume, key, nil))
	for _, frame := range [][]byte{hello, welcome, resume, resumed} {
		for n := range frame {
			require.False(t, VerifyWelcome(frame[:n], hello, key, nil))
			require.False(t, VerifyResume(frame[:n], key, nil))
			require.False(t, VerifyResumed(frame[:n], resume, key, nil))
		}
		if !bytes.Equal(frame, welcome) {
			require.False(t, VerifyWelcome(frame, hello, key, nil))
		}
		if !bytes.Equal(frame, resume) {
			require.False(t, VerifyResume(frame, key, nil))
		}
		if !bytes.Equal(frame, resumed) {
			require.False(t, VerifyResumed(frame, resume, key, nil))
		}
	}
}

// Every bit of what a proof covers counts.
func TestProofCoversEveryBit(t *testing.T) {
	key, exporter := [32]byte{1}, bytes.Repeat([]byte{9}, 32)
	resume := AppendResume(nil, &Resume{Version: 1, Token: []byte("who")}, key, exporter)
	for i := range 8 * len(resume) {
		resume[i/8] ^= 1 << (i % 8)
		require.False(t, VerifyResume(resume, key, exporter), "bit %d", i)
		resume[i/8] ^= 1 << (i % 8)
	}
	for i := range exporter {
		exporter[i] ^= 1
		require.False(t, VerifyResume(resume, key, exporter))
		exporter[i] ^= 1
	}
	for i := range key {
		key[i] ^= 1
		require.False(t, VerifyResume(resume, key, exporter))
		key[i] ^= 1
	}
	require.True(t, VerifyResume(resume, key, exporter))
}
