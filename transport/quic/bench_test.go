package quic

import (
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// stream writes b.N chunks from w to r.
func stream(b *testing.B, w io.Writer, r io.Reader, size int) {
	b.Helper()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, struct{ io.Reader }{r}, int64(b.N)*int64(size))
		done <- err
	}()
	chunk := make([]byte, size)
	b.ResetTimer()
	for range b.N {
		if _, err := w.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkConn measures one way over loopback; BenchmarkBareStream is the floor beneath it.
func BenchmarkConn(b *testing.B) {
	dialed, accepted := listen(b, nil).pair(b)
	stream(b, dialed, accepted, 64<<10)
}

// BenchmarkBareStream measures quic-go's own stream with the same settings.
func BenchmarkBareStream(b *testing.B) {
	dialed, accepted := listen(b, nil).pair(b)
	stream(b, dialed.stream, accepted.stream, 64<<10)
}

// BenchmarkDialClose measures a whole short connection: handshake, one round trip of data, close by both sides.
func BenchmarkDialClose(b *testing.B) {
	e := listen(b, nil)
	served := make(chan struct{})
	go func() {
		for {
			conn, err := e.ln.Accept()
			if err != nil {
				close(served)
				return
			}
			_, err = io.Copy(conn, conn)
			if err := errors.Join(err, conn.Close()); err != nil {
				b.Error(err)
			}
		}
	}()
	d := e.dialer()
	for b.Loop() {
		conn, err := d.DialContext(b.Context())
		require.NoError(b, err)
		_, err = conn.Write([]byte("ping"))
		require.NoError(b, err)
		require.NoError(b, conn.(*Conn).CloseWrite())
		_, err = io.ReadAll(conn)
		require.NoError(b, err)
		require.NoError(b, conn.Close())
	}
	_ = e.ln.Close()
	<-served
}
