package tls_test

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tls"
)

func TestConformance(t *testing.T) {
	a := newAuthority(t)
	serving, trust := a.serving(), a.trust()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ln, err := tls.Listen(context.Background(), "127.0.0.1:0", &tls.Config{TLS: serving})
		if err != nil {
			return nil, nil, nil, err
		}
		defer func() { _ = ln.Close() }()
		if c1, err = (tls.Dialer{Addr: ln.Addr().String(), Config: trust}).DialContext(context.Background()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = ln.Accept(); err != nil {
			_ = c1.Close()
			return nil, nil, nil, err
		}
		return c1, c2, func() {
			var both sync.WaitGroup
			both.Go(func() { _ = c1.Close() })
			both.Go(func() { _ = c2.Close() })
			both.Wait()
		}, nil
	})
}

func TestHalfClose(t *testing.T) {
	client, server := pair(t)
	_, err := client.Write([]byte("question"))
	require.NoError(t, err)
	require.NoError(t, client.CloseWrite())
	_, err = client.Write([]byte("more"))
	require.Error(t, err)

	got, err := io.ReadAll(server)
	require.NoError(t, err)
	require.Equal(t, "question", string(got))
	_, err = server.Write([]byte("answer"))
	require.NoError(t, err)
	require.NoError(t, server.Close())
	got, err = io.ReadAll(client)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
}

func TestClose(t *testing.T) {
	client, server := pair(t)
	blocked := make(chan error)
	go func() {
		_, err := client.Read(make([]byte, 1))
		blocked <- err
	}()
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-blocked, net.ErrClosed)
	_, err := client.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, client.Close(), net.ErrClosed)
	_, err = server.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

// Whoever can cut the connection cannot make it look like the peer's own end.
func TestConnectionCutBetweenRecords(t *testing.T) {
	client, server := pair(t)
	_, err := server.Write([]byte("a whole record"))
	require.NoError(t, err)
	require.NoError(t, server.NetConn().Close())
	got, err := io.ReadAll(client)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, "without close_notify")
	require.Equal(t, "a whole record", string(got))
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// stalled returns a client whose peer has done its handshake and reads nothing more: each byte written waits.
func stalled(t *testing.T) *tls.Conn {
	t.Helper()
	a := newAuthority(t)
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	cfg := a.serving()
	cfg.NextProtos, cfg.SessionTicketsDisabled = []string{tls.ALPN}, true
	shaken := make(chan error, 1)
	go func() { shaken <- cryptotls.Server(far, cfg).Handshake() }()
	c, err := tls.Dialer{
		Addr:   "localhost:0",
		Config: a.trust(),
		Under:  transport.DialerFunc(func(context.Context) (net.Conn, error) { return near, nil }),
	}.DialContext(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, <-shaken)
	return c.(*tls.Conn)
}

// A peer that does not read holds up Close for a second, not more.
func TestCloseWithPeerThatDoesNotRead(t *testing.T) {
	c := stalled(t)
	start := time.Now()
	err := c.Close()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "without close_notify")
	require.Less(t, time.Since(start), 4*time.Second)
	require.ErrorIs(t, c.Close(), net.ErrClosed)
}

// So does one that has let a Write time out before, and the rest of that Write is not said to have arrived.
func TestCloseAfterTimedOutWrite(t *testing.T) {
	c := stalled(t)
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, c.Close(), os.ErrDeadlineExceeded)
}

// Close ends a Write that is blocked.
func TestCloseEndsBlockedWrite(t *testing.T) {
	client, _ := pair(t)
	writing := make(chan struct{})
	blocked := make(chan error, 1)
	go func() {
		_, err := client.Write(make([]byte, 1000))
		close(writing)
		for err == nil {
			_, err = client.Write(make([]byte, 100_000))
		}
		blocked <- err
	}()
	<-writing
	_ = client.Close()
	require.ErrorIs(t, <-blocked, net.ErrClosed)
}

// Writes that time out, again and again, lose nothing and double nothing: what they say was taken is what arrives.
func TestWritesGoOnAfterTimeouts(t *testing.T) {
	client, server := pair(t)
	const total = 32 << 20 // more than the system's buffers hold
	sent := make([]byte, total)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}

	read := make(chan struct{})
	received := make(chan []byte)
	go func() {
		<-read
		got, _ := io.ReadAll(server)
		received <- got
	}()
	timeouts := 0
	for at := 0; at < total; {
		require.NoError(t, client.SetWriteDeadline(time.Now().Add(2*time.Millisecond)))
		n, err := client.Write(sent[at:])
		at += n
		if err == nil {
			break
		}
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		if timeouts++; timeouts == 5 {
			close(read)
		}
	}
	require.GreaterOrEqual(t, timeouts, 5)
	require.NoError(t, client.SetWriteDeadline(time.Time{}))
	require.NoError(t, client.CloseWrite())
	require.True(t, bytes.Equal(sent, <-received))
}

func TestDeadlines(t *testing.T) {
	client, server := pair(t)
	past := time.Unix(1, 0)
	require.NoError(t, client.SetDeadline(past))
	n, err := client.Write([]byte("x"))
	require.Zero(t, n)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	require.NoError(t, client.SetDeadline(time.Time{}))
	_, err = client.Write([]byte("y"))
	require.NoError(t, err)
	got := make([]byte, 1)
	_, err = io.ReadFull(server, got)
	require.NoError(t, err)
	require.Equal(t, "y", string(got))
}

// An empty Write does nothing, but fails as a full one would.
func TestEmptyWrite(t *testing.T) {
	client, _ := pair(t)
	n, err := client.Write(nil)
	require.Zero(t, n)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_, err = client.Write(nil)
	require.ErrorIs(t, err, net.ErrClosed)
}

// TLS needs no TCP: here it runs over a pipe in memory.
func TestOverAnyStream(t *testing.T) {
	a := newAuthority(t)
	near, far := net.Pipe()
	serverDone := make(chan error)
	go func() {
		cfg := a.serving()
		cfg.NextProtos = []string{tls.ALPN}
		s := cryptotls.Server(far, cfg)
		_, err := s.Write([]byte("over a pipe"))
		_ = s.Close()
		serverDone <- err
	}()
	c, err := tls.Dialer{
		Addr:   "localhost:0",
		Config: a.trust(),
		Under:  transport.DialerFunc(func(context.Context) (net.Conn, error) { return near, nil }),
	}.DialContext(t.Context())
	require.NoError(t, err)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "over a pipe", string(got))
	require.NoError(t, <-serverDone)
	_ = c.Close()
}

// The floor beside which to read the figures is TLS without this package.
func BenchmarkThroughput(b *testing.B) {
	a := newAuthority(b)
	serving := a.serving()
	serving.NextProtos = []string{tls.ALPN}
	for _, bare := range []bool{true, false} {
		name := "towline"
		if bare {
			name = "crypto-tls"
		}
		for _, size := range []int{64, 16 << 10, 256 << 10} {
			b.Run(name+"/"+sizeName(size), func(b *testing.B) {
				var client, server net.Conn
				if bare {
					ln, err := cryptotls.Listen("tcp", "127.0.0.1:0", serving)
					require.NoError(b, err)
					defer func() { _ = ln.Close() }()
					trust := a.trust()
					trust.NextProtos = []string{tls.ALPN}
					shaken := make(chan error, 1)
					go func() {
						var err error
						if server, err = ln.Accept(); err == nil {
							err = server.(*cryptotls.Conn).Handshake()
						}
						shaken <- err
					}()
					client, err = cryptotls.Dial("tcp", ln.Addr().String(), trust)
					require.NoError(b, err)
					require.NoError(b, <-shaken)
				} else {
					ln := listen(b, &tls.Config{TLS: serving})
					c, err := dial(b, ln, a.trust())
					require.NoError(b, err)
					client, server = c, accept(b, ln)
				}
				read := make(chan struct{})
				go func() {
					defer close(read)
					_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{server}, make([]byte, 64<<10))
				}()
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := client.Write(p); err != nil {
						b.Fatal(err)
					}
				}
				_ = client.Close()
				<-read
				_ = server.Close()
			})
		}
	}
}

func sizeName(n int) string {
	if n >= 1<<10 {
		return fmt.Sprintf("%dKiB", n>>10)
	}
	return fmt.Sprintf("%dB", n)
}
