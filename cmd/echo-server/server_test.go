package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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
		assert.Equal(t, "echo-client --connect "+want+" --tls-fingerprint sha256:aa", new(options).clientCommand(endpoint.URL{Scheme: "tls", Addr: addr}, "sha256:aa"))
	}
	o := &options{token: "x", tlsClient: "ca.pem"}
	assert.Equal(t, "echo-client --connect tls://localhost:1 --tls-fingerprint sha256:aa --tls-cert FILE --tls-key FILE --token-file FILE",
		o.clientCommand(endpoint.URL{Scheme: "tls", Addr: "localhost:1"}, "sha256:aa"))
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

var silent = newComplaints(slog.New(slog.DiscardHandler))

// serve is a server on a network of its own, with the options that the flags make.
func serve(t *testing.T, flags ...string) (*server, *mem.Network) {
	t.Helper()
	network := new(mem.Network)
	ln, err := mem.Listen(t.Context(), "echo", &mem.Config{Network: network})
	require.NoError(t, err)
	o, err := parse(flags)
	require.NoError(t, err)
	s := newServer(silent, o.sessions(silent), ln)
	t.Cleanup(func() { s.shutdown(time.Second) })
	return s, network
}

// pair is a server, and a plain connection to it.
func pair(t *testing.T, flags ...string) (*server, *reconnect.Conn) {
	t.Helper()
	s, network := serve(t, flags...)
	conn, err := reconnect.DialPlain(t.Context(), mem.Dialer{Network: network, Addr: "echo"}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return s, conn
}

// session begins a session on that network.
func session(t *testing.T, network *mem.Network, o *reconnect.DialOptions) *reconnect.Conn {
	t.Helper()
	conn, err := reconnect.Dial(t.Context(), mem.Dialer{Network: network, Addr: "echo"}, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func TestServerEchoes(t *testing.T) {
	_, conn := pair(t, "--max-size", "100")
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
	_, conn := pair(t, "--max-size", "100")
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
	s, conn := pair(t)
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
	s, conn := pair(t)
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

func TestServerEchoesSessions(t *testing.T) {
	_, network := serve(t)
	conn := session(t, network, nil)
	const n = 3000
	for i := range n {
		d := datagram.Datagram{Recipient: uint16(i), Payload: []byte{byte(i)}}
		require.NoError(t, conn.Writer().Send(t.Context(), d))
		if i%1000 == 500 {
			network.Faults().Cut(nil)
		}
	}
	require.NoError(t, conn.CloseSend(t.Context()))
	got := 0
	for d, err := range conn.Reader().All(t.Context()) {
		require.NoError(t, err)
		require.Equal(t, datagram.Datagram{Recipient: uint16(got), Payload: []byte{byte(got)}}, d)
		got++
	}
	assert.Equal(t, n, got)
	require.NoError(t, conn.Close(t.Context()))
}

// A session that pauses is served until all do, and its dialer learns that it has to go on elsewhere.
func TestServerDrainsSessions(t *testing.T) {
	s, network := serve(t)
	conn := session(t, network, &reconnect.DialOptions{Strict: true})
	echo := func() {
		require.NoError(t, conn.Writer().Send(t.Context(), datagram.Datagram{}))
		_, err := conn.Reader().Receive(t.Context())
		require.NoError(t, err)
	}
	echo()
	var done sync.WaitGroup
	done.Go(func() { assert.Zero(t, s.shutdown(time.Hour)) })
	<-s.drained.Done()
	echo()
	_, err := conn.Reader().Receive(t.Context())
	lost := new(reconnect.SessionLostError)
	require.ErrorAs(t, err, &lost)
	assert.Empty(t, lost.Unconfirmed)
	done.Wait()
	assert.Zero(t, s.live())
}

// A session that never pauses is cut when the time is over, or when it got the echoes of all that is read.
func TestServerCutsSessions(t *testing.T) {
	s, network := serve(t)
	conn := session(t, network, &reconnect.DialOptions{Strict: true})
	var sending sync.WaitGroup
	sending.Go(func() {
		for conn.Writer().Send(t.Context(), datagram.Datagram{Payload: make([]byte, 100)}) == nil {
		}
	})
	var done sync.WaitGroup
	for i := 0; ; i++ {
		_, err := conn.Reader().Receive(t.Context())
		if err != nil {
			require.ErrorIs(t, err, reconnect.ErrSessionLost)
			break
		}
		if i == 0 {
			done.Go(func() { assert.Equal(t, 1, s.shutdown(200*time.Millisecond)) })
		}
	}
	sending.Wait()
	done.Wait()
}

func TestServerToken(t *testing.T) {
	_, network := serve(t, "--token", "secret")
	for _, token := range []string{"", "wrong", "secre", "secret "} {
		o := new(reconnect.DialOptions)
		if token != "" {
			o.Token = func(context.Context) ([]byte, error) { return []byte(token), nil }
		}
		_, err := reconnect.Dial(t.Context(), mem.Dialer{Network: network, Addr: "echo"}, o)
		assert.ErrorIs(t, err, reconnect.ErrRefused, "%q", token)
	}
	o := &reconnect.DialOptions{Token: func(context.Context) ([]byte, error) { return []byte("secret"), nil }}
	require.NoError(t, session(t, network, o).Close(t.Context()))

	// Who has no way to show a token is not served.
	conn, err := reconnect.DialPlain(t.Context(), mem.Dialer{Network: network, Addr: "echo"}, nil)
	require.NoError(t, err)
	require.NoError(t, conn.Writer().Send(t.Context(), datagram.Datagram{}))
	_, err = conn.Reader().Receive(t.Context())
	assert.Error(t, err)
	require.NoError(t, conn.CloseNow())
}

// What the library says of sessions is for --verbose, and what it says of peers is limited.
func TestLibraryLogs(t *testing.T) {
	for _, verbose := range []bool{false, true} {
		var b bytes.Buffer
		c := newComplaints(newLogger(&b, false, verbose))
		c.now = func() time.Time { return time.Unix(1000, 0) }
		log := slog.New(library{complaints: c}).With("peer", "a").WithGroup("g")
		log.Info("resumed")
		for range 2 * complaintBurst {
			log.Warn("refused", "reason", errors.New("reconnect: because"))
		}
		assert.Equal(t, verbose, strings.Contains(b.String(), `level=DEBUG msg="session resumed" peer=a`), b.String())
		assert.Equal(t, complaintBurst, strings.Count(b.String(), "level=WARN msg=refused peer=a reason=because"))
	}
}

// failing is a listener whose Accept fails, as no transport's should.
type failing struct {
	net.Listener
	calls  chan struct{}
	once   sync.Once
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

func (f *failing) Close() error   { f.once.Do(func() { close(f.closed) }); return nil }
func (f *failing) Addr() net.Addr { return &net.TCPAddr{} }

func TestServerSurvivesAccept(t *testing.T) {
	f := &failing{calls: make(chan struct{}), closed: make(chan struct{})}
	s := newServer(silent, nil, f)
	start := time.Now()
	for range 2 {
		<-f.calls
	}
	assert.GreaterOrEqual(t, time.Since(start), acceptWait, "it does not spin")
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

func TestServerTokenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("secret\n"), 0o600))
	_, network := serve(t, "--token-file", path)
	for token, want := range map[string]error{"secret": nil, "secret\n": reconnect.ErrRefused, path: reconnect.ErrRefused} {
		o := &reconnect.DialOptions{Token: func(context.Context) ([]byte, error) { return []byte(token), nil }}
		conn, err := reconnect.Dial(t.Context(), mem.Dialer{Network: network, Addr: "echo"}, o)
		assert.ErrorIs(t, err, want, "%q", token)
		if err == nil {
			require.NoError(t, conn.Close(t.Context()))
		}
	}
}
