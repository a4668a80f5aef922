package tls_test

import (
	cryptotls "crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/tls"
)

// Clients that connect and say nothing do not delay one that does.
func TestSilentClientsDelayNobody(t *testing.T) {
	for name, limit := range map[string]int{"below the cap": 0, "far above the cap": 16} {
		t.Run(name, func(t *testing.T) {
			const silent = 500
			a := newAuthority(t)
			ln := listen(t, &tls.Config{TLS: a.serving(), MaxHandshakes: limit})
			for range silent {
				bare(t, ln)
			}
			start := time.Now()
			c, err := dial(t, ln, a.trust())
			require.NoError(t, err)
			s := accept(t, ln)
			require.Less(t, time.Since(start), 5*time.Second, "half a handshake timeout: it did not wait for one")
			require.Equal(t, c.LocalAddr().String(), s.RemoteAddr().String())
		})
	}
}

// Beyond the cap the oldest silent client goes, and hears so by the end of its connection; those that are honest stay.
func TestOldestSilentHandshakeIsDropped(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 8)
	ln := listen(t, &tls.Config{TLS: a.serving(), MaxHandshakes: 2, HandshakeError: reported.report})

	oldest := bare(t, ln)
	bare(t, ln)
	bare(t, ln)
	_, err := oldest.Read(make([]byte, 1))
	require.Error(t, err)
	err = <-reported
	require.ErrorContains(t, err, "dropped for a newer one, as 2 (MaxHandshakes) were under way")
	require.ErrorContains(t, err, oldest.LocalAddr().String())
	require.ErrorIs(t, err, net.ErrClosed)
}

// A client that has sent its hello is not dropped for one that has not, though it is older.
func TestSilentHandshakeIsDroppedBeforeOneThatSpoke(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 8)
	ln := listen(t, &tls.Config{TLS: a.serving(), MaxHandshakes: 2, HandshakeError: reported.report})

	// This client waits before it reads the server's answer.
	raw := bare(t, ln)
	slow := &slowReader{Conn: raw, answered: make(chan struct{}), goOn: make(chan struct{})}
	cfg := a.trust()
	cfg.ServerName = "localhost"
	done := make(chan error, 1)
	go func() { done <- cryptotls.Client(slow, cfg).Handshake() }()
	<-slow.answered

	silent := bare(t, ln)
	bare(t, ln)
	require.ErrorContains(t, <-reported, silent.LocalAddr().String())
	close(slow.goOn)
	require.NoError(t, <-done)
	require.Equal(t, raw.LocalAddr().String(), accept(t, ln).RemoteAddr().String())
}

// slowReader says when its first bytes have arrived, and waits before it hands them out.
type slowReader struct {
	net.Conn
	once           sync.Once
	answered, goOn chan struct{}
}

func (c *slowReader) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.once.Do(func() { close(c.answered); <-c.goOn })
	return n, err
}

func TestSlowHandshakeTimesOut(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 1)
	ln := listen(t, &tls.Config{TLS: a.serving(), HandshakeTimeout: 20 * time.Millisecond, HandshakeError: reported.report})
	c := bare(t, ln)
	_, err := c.Write([]byte{22, 3, 1}) // the beginning of a hello
	require.NoError(t, err)
	err = <-reported
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, c.LocalAddr().String())
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
}

// A client that is refused while its first bytes are on their way reads why, and then the end: not a reset, which may
// destroy the reason.
func TestRefusedClientReadsWhy(t *testing.T) {
	a := newAuthority(t)
	wrote := make(chan struct{})
	cfg := a.serving()
	cfg.ClientAuth = cryptotls.RequestClientCert
	cfg.VerifyConnection = func(cryptotls.ConnectionState) error {
		<-wrote
		return errors.New("not today")
	}
	ln := listen(t, &tls.Config{TLS: cfg})
	c, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	_, err = c.Write(make([]byte, 32<<10)) // more than the server reads at once
	require.NoError(t, err)
	close(wrote)
	_, err = c.Read(make([]byte, 1))
	require.ErrorAs(t, err, new(cryptotls.AlertError))
	_, err = c.NetConn().Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestGarbageInHandshake(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 1)
	ln := listen(t, &tls.Config{TLS: a.serving(), HandshakeError: reported.report})

	c := bare(t, ln)
	_, err := c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	err = <-reported
	require.ErrorAs(t, err, new(cryptotls.RecordHeaderError))
	require.ErrorContains(t, err, `does not speak TLS (first bytes "GET /")`)

	c = bare(t, ln)
	_, err = c.Write([]byte{22, 3, 1, 0, 5, 99, 0, 0, 1, 7}) // a record that holds no hello
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	require.Error(t, <-reported)

	c = bare(t, ln)
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-reported, io.EOF)

	_, err = dial(t, ln, a.trust())
	require.NoError(t, err, "the listener goes on")
}

func TestCloseEndsHandshakes(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving(), HandshakeError: func(_ net.Addr, err error) {
		t.Errorf("what Close ends is no failure: %v", err)
	}})
	var silent []net.Conn
	for range 50 {
		silent = append(silent, bare(t, ln))
	}
	// With this one done, the ones before it are in their handshakes.
	_, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	accept(t, ln)

	var accepting sync.WaitGroup
	for range 3 {
		accepting.Go(func() {
			if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept: %v", err)
			}
		})
	}
	require.NoError(t, ln.Close())
	accepting.Wait()
	for _, c := range silent {
		_, err := c.Read(make([]byte, 1))
		require.Error(t, err)
	}
	require.NoError(t, ln.Close(), "a second Close does no harm")
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}

// A connection that nobody has accepted is closed with the listener, politely.
func TestCloseEndsUnacceptedConnections(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	c, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	_, err = dial(t, ln, a.trust())
	require.NoError(t, err)
	first := accept(t, ln)
	other := first.RemoteAddr().String() != c.LocalAddr().String()
	require.NoError(t, ln.Close())
	if other {
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err)
	}
	_, err = first.Write([]byte("lives on"))
	require.NoError(t, err)
}

// brokenListener fails its Accept a few times in a way that passes, and at last in one that does not.
type brokenListener struct {
	net.Listener
	mu       sync.Mutex
	failures []error
}

func (l *brokenListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.failures) > 0 && l.failures[0] != nil {
		err := l.failures[0]
		l.failures = l.failures[1:]
		return nil, err
	}
	if len(l.failures) > 0 {
		l.failures = l.failures[1:]
	}
	return l.Listener.Accept()
}

type passingError struct{}

func (passingError) Error() string   { return "passes" }
func (passingError) Timeout() bool   { return false }
func (passingError) Temporary() bool { return true }

func TestInnerAcceptErrors(t *testing.T) {
	a := newAuthority(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	final := errors.New("the end")
	ln, err := tls.NewListener(&brokenListener{
		Listener: inner,
		failures: []error{passingError{}, passingError{}, nil, final},
	}, &tls.Config{TLS: a.serving()})
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()

	_, err = dial(t, ln, a.trust())
	require.NoError(t, err)
	accept(t, ln)
	for range 2 {
		_, err = ln.Accept()
		require.ErrorIs(t, err, final)
	}
}

func TestNewListenerOverAnything(t *testing.T) {
	a := newAuthority(t)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = inner.Close() }()
	_, err = tls.NewListener(inner, nil)
	require.ErrorContains(t, err, "Files reads one, SelfSigned makes one")
	_, err = tls.NewListener(inner, &tls.Config{TLS: a.serving(), MaxHandshakes: -1})
	require.ErrorContains(t, err, "cannot be negative")

	ln, err := tls.NewListener(inner, &tls.Config{TLS: a.serving()})
	require.NoError(t, err)
	require.Equal(t, inner.Addr(), ln.Addr())
	_, err = dial(t, ln, a.trust())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	_, err = inner.Accept()
	require.ErrorIs(t, err, net.ErrClosed, "it owns inner")
}

func TestListenErrors(t *testing.T) {
	a := newAuthority(t)
	_, err := tls.Listen(t.Context(), "127.0.0.1", &tls.Config{TLS: a.serving()})
	require.ErrorContains(t, err, `such as "127.0.0.1:7000"`)
	_, err = tls.Listen(t.Context(), "127.0.0.1:0", &tls.Config{})
	require.ErrorContains(t, err, "needs a certificate")
}

// What a user's GetConfigForClient returns keeps to TLS 1.3 and towline/1 too.
func TestOwnGetConfigForClient(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: &cryptotls.Config{
		GetConfigForClient: func(*cryptotls.ClientHelloInfo) (*cryptotls.Config, error) { return a.serving(), nil },
	}})
	c, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	require.Equal(t, tls.ALPN, c.ConnectionState().NegotiatedProtocol)

	old := a.trust()
	old.ServerName, old.MaxVersion = "localhost", cryptotls.VersionTLS12
	require.Error(t, cryptotls.Client(bare(t, ln), old).Handshake())
}

// More connections than may wait for Accept are not lost: they wait in the system's queue.
func TestManyUnaccepted(t *testing.T) {
	const many, ready = 200, 128
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	cfg := a.trust()
	errs := make(chan error, many)
	for range many {
		go func() {
			c, err := tls.Dialer{Addr: ln.Addr().String(), Config: cfg, HandshakeTimeout: time.Minute}.DialContext(background())
			if err == nil {
				err = c.Close()
			}
			errs <- err
		}()
	}
	for range ready {
		require.NoError(t, <-errs)
	}
	for range many {
		require.NoError(t, accept(t, ln).Close())
	}
	for range many - ready {
		require.NoError(t, <-errs)
	}
}
