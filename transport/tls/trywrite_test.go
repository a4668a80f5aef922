package tls_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/tls"
)

// fill gives c what it takes without waiting, of data, until it takes no more, and returns how much that was.
func fill(t *testing.T, c *tls.Conn, data []byte) int {
	t.Helper()
	for at := 0; at < len(data); {
		n, err := c.TryWrite(data[at:min(len(data), at+100_000)])
		require.NoError(t, err)
		if at += n; n == 0 {
			return at
		}
	}
	t.Fatal("it takes any amount")
	return 0
}

// tooMuch is more than the system's buffers hold.
var tooMuch = sync.OnceValue(func() []byte {
	p := make([]byte, 24<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
})

// What TryWrite took arrives without another write.
func TestTryWrite(t *testing.T) {
	client, server := pair(t)
	sent := tooMuch()
	n := fill(t, client, sent)
	require.Positive(t, n)
	got := make([]byte, n)
	_, err := io.ReadFull(server, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent[:n], got))
}

// What the connection did not take of it comes before what is written next.
func TestWriteBehindTryWrite(t *testing.T) {
	client, server := pair(t)
	sent := tooMuch()
	n := fill(t, client, sent)
	written := make(chan error, 1)
	go func() {
		_, err := client.Write(sent[n : n+1_000_000])
		if err == nil {
			err = client.CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.True(t, bytes.Equal(sent[:n+1_000_000], got))
}

// Both, again and again, with deadlines that pass in the middle: what they say was taken is what arrives.
func TestWritesOfAllKinds(t *testing.T) {
	client, server := pair(t)
	sent := tooMuch()
	total := len(sent)
	received := make(chan []byte, 1)
	full := make(chan struct{})
	go func() {
		<-full
		got, _ := io.ReadAll(server)
		received <- got
	}()
	r := rand.New(rand.NewPCG(3, 4))
	stood, late := 0, 0
	for at := 0; at < total; {
		p := sent[at:min(total, at+1+r.IntN(200_000))]
		if r.IntN(3) > 0 {
			n, err := client.TryWrite(p)
			require.NoError(t, err)
			if at += n; n < len(p) {
				stood++
			}
			continue
		}
		require.NoError(t, client.SetWriteDeadline(time.Now().Add(2*time.Millisecond)))
		n, err := client.Write(p)
		at += n
		require.NoError(t, client.SetWriteDeadline(time.Time{}))
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			if late++; late == 3 {
				close(full)
			}
		}
	}
	require.Positive(t, stood)
	require.GreaterOrEqual(t, late, 3)
	require.NoError(t, client.CloseWrite())
	require.True(t, bytes.Equal(sent, <-received))
}

// A Write that waits is waited for by nobody who tries.
func TestTryWriteBesideWrite(t *testing.T) {
	client, server := pair(t)
	sent := tooMuch()
	n := fill(t, client, sent)
	written := make(chan error, 1)
	go func() {
		_, err := client.Write(sent[n : n+1])
		written <- err
	}()
	m, err := client.TryWrite([]byte("x"))
	require.NoError(t, err)
	require.Zero(t, m, "what is held back is before it")
	_, err = io.ReadFull(server, make([]byte, n+1))
	require.NoError(t, err)
	require.NoError(t, <-written)
}

// A peer that does not read holds up Close for a second, whatever is held back for it.
func TestCloseBehindTryWrite(t *testing.T) {
	client, _ := pair(t)
	fill(t, client, tooMuch())
	start := time.Now()
	require.ErrorIs(t, client.Close(), os.ErrDeadlineExceeded)
	require.Less(t, time.Since(start), 4*time.Second)
	_, err := client.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = client.TryWrite([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestTryWriteFails(t *testing.T) {
	client, _ := pair(t)
	require.NoError(t, client.SetWriteDeadline(time.Unix(1, 0)))
	n, err := client.TryWrite([]byte("x"))
	require.Zero(t, n)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, client.SetWriteDeadline(time.Time{}))
	n, err = client.TryWrite([]byte("x"))
	require.Equal(t, 1, n)
	require.NoError(t, err, "and the deadline has spoilt nothing")
	require.NoError(t, client.CloseWrite())
	_, err = client.TryWrite([]byte("x"))
	require.Error(t, err, "nothing follows close_notify")
}

// Where the stream below has no write that does not wait, nothing is taken.
func TestTryWriteOverAnyStream(t *testing.T) {
	n, err := stalled(t).TryWrite([]byte("x"))
	require.Zero(t, n)
	require.NoError(t, err)
}

// What TryWrite has held back is no error of CloseWrite, which comes behind it.
func TestCloseWriteBehindTryWrite(t *testing.T) {
	client, server := pair(t)
	n := fill(t, client, tooMuch())
	closed := make(chan error, 1)
	go func() { closed <- client.CloseWrite() }()
	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.NoError(t, <-closed)
	require.True(t, bytes.Equal(tooMuch()[:n], got))
}
