package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
	"github.com/towline-mq/towline/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestComplaintsAreLimited(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(1000, 0)
	c := newComplaints(newLogger(&b, false, false))
	c.now = func() time.Time { return now }
	for range 1000 {
		c.warn("bad")
	}
	assert.Equal(t, complaintBurst, strings.Count(b.String(), "msg=bad"))
	b.Reset()
	now = now.Add(time.Second)
	for range 1000 {
		c.warn("bad")
	}
	assert.Equal(t, complaintRate, strings.Count(b.String(), "msg=bad"))
	assert.Contains(t, b.String(), "lines_left_out=900")
	b.Reset()
	now = now.Add(time.Hour)
	c.warn("bad")
	assert.Contains(t, b.String(), "lines_left_out=990")
}

func TestClientCommand(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:7000": "tls://127.0.0.1:7000", "[::]:7000": "tls://localhost:7000", "0.0.0.0:1": "tls://localhost:1", "[::1]:1": "tls://[::1]:1",
	} {
		assert.Equal(t, "echo-client --connect "+want+" --tls-fingerprint sha256:aa", clientCommand(endpoint.URL{Scheme: "tls", Addr: addr}, "sha256:aa"))
	}
}

// The commands that --help shows are at least well formed.
func TestHelpCommands(t *testing.T) {
	commands := regexp.MustCompile(`(?m)^  (echo-server.*)$`).FindAllStringSubmatch(help, -1)
	require.Len(t, commands, 3)
	for _, c := range commands {
		_, err := parse(strings.Fields(c[1])[1:])
		assert.NoError(t, err, c[1])
	}
}

// pair is a server on a network of its own, and a connection to it.
func pair(t *testing.T, maxSize int) (*server, *reconnect.Conn, *mem.Network) {
	t.Helper()
	var network mem.Network
	ln, err := mem.Listen(t.Context(), "echo", &mem.Config{Network: &network})
	require.NoError(t, err)
	s := newServer(slog.New(slog.DiscardHandler), maxSize)
	s.serve(ln, endpoint.URL{Scheme: endpoint.Mem, Addr: "echo"})
	conn, err := reconnect.DialPlain(t.Context(), mem.Dialer{Network: &network, Addr: "echo"}, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.CloseNow()
		s.shutdown(time.Second)
	})
	return s, conn, &network
}

func TestServerEchoes(t *testing.T) {
	_, conn, _ := pair(t, 100)
	for _, d := range []datagram.Datagram{{Recipient: 0, Payload: []byte{}}, {Recipient: 65535, Payload: make([]byte, 100)}} {
		require.NoError(t, conn.Writer().Send(t.Context(), d))
		back, err := conn.Reader().Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, d, back)
	}
	require.NoError(t, conn.CloseSend(t.Context()))
	_, err := conn.Reader().Receive(t.Context())
	assert.Equal(t, io.EOF, err, "after the peer's end the server closes")
}

func TestServerEchoesWhatCameBeforeABadFrame(t *testing.T) {
	_, conn, _ := pair(t, 100)
	good := datagram.Datagram{Recipient: 1, Payload: []byte("good")}
	_, err := conn.Writer().SendBatch(t.Context(), []datagram.Datagram{good, good, {Payload: make([]byte, 101)}})
	require.NoError(t, err)
	for range 2 {
		back, err := conn.Reader().Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, good, back)
	}
	_, err = conn.Reader().Receive(t.Context())
	assert.Equal(t, io.EOF, err)
}

// What had arrived when the draining began is sent back, and then the connection ends in good order.
func TestServerDrains(t *testing.T) {
	s, conn, _ := pair(t, 1000)
	const n = 5000
	for range n {
		require.NoError(t, conn.Writer().Send(t.Context(), datagram.Datagram{Payload: make([]byte, 10)}))
	}
	require.NoError(t, conn.Writer().Flush(t.Context()))
	_, err := conn.Reader().Receive(t.Context())
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Go(func() { assert.Zero(t, s.shutdown(10*time.Second)) })
	got := 1
	for _, err := range conn.Reader().All(t.Context()) {
		require.NoError(t, err)
		got++
	}
	assert.Equal(t, n, got)
	_ = conn.CloseNow()
	done.Wait()
	assert.Zero(t, s.live())
}

// A peer that neither reads nor ends is cut when the time is over.
func TestServerCuts(t *testing.T) {
	s, conn, _ := pair(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() {
		for conn.Writer().Send(ctx, datagram.Datagram{Payload: make([]byte, 1<<20)}) == nil {
		}
	})
	_, err := conn.Reader().Receive(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1, s.shutdown(200*time.Millisecond))
	cancel()
	sending.Wait()
}

// failing is a listener whose Accept fails, as no transport's should.
type failing struct {
	net.Listener
	calls  chan struct{}
	closed chan struct{}
}

func (f *failing) Accept() (net.Conn, error) {
	select {
	case f.calls <- struct{}{}:
		return nil, io.ErrNoProgress
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *failing) Close() error { close(f.closed); return nil }

func TestServerSurvivesAccept(t *testing.T) {
	s := newServer(slog.New(slog.DiscardHandler), 1)
	f := &failing{calls: make(chan struct{}), closed: make(chan struct{})}
	s.serve(f, endpoint.URL{})
	start := time.Now()
	for range 4 {
		<-f.calls
	}
	assert.GreaterOrEqual(t, time.Since(start), 35*time.Millisecond, "it waits 5, 10 and 20 ms, and does not spin")
	assert.Zero(t, s.shutdown(time.Second))
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// Whoever waits for a line that cannot be written shall not wait for ever.
func TestRunPrintingFails(t *testing.T) {
	for _, args := range [][]string{
		{"--help"}, {"--version"}, {"--listen", "tcp://127.0.0.1:0", "--listen", "quic://127.0.0.1:0"},
	} {
		var stderr bytes.Buffer
		assert.Equal(t, 1, run(t.Context(), args, brokenWriter{}, &stderr))
		assert.Equal(t, "echo-server: cannot write the output: the disk is full\n", stderr.String())
	}
}
