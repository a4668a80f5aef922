package tls_test

import (
	"bytes"
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tls"
)

var _ transport.Dialer = tls.Dialer{}

func TestDialVerifies(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	c, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	s := accept(t, ln)

	for _, cs := range []cryptotls.ConnectionState{c.ConnectionState(), s.ConnectionState()} {
		require.True(t, cs.HandshakeComplete)
		require.Equal(t, uint16(cryptotls.VersionTLS13), cs.Version)
		require.Equal(t, tls.ALPN, cs.NegotiatedProtocol)
	}
	require.Len(t, c.ConnectionState().VerifiedChains, 1)
	require.Equal(t, "test peer", c.ConnectionState().PeerCertificates[0].Subject.CommonName)
	require.Equal(t, c.LocalAddr().String(), s.RemoteAddr().String())
	require.Equal(t, ln.Addr().String(), c.RemoteAddr().String())
	require.IsType(t, (*net.TCPConn)(nil), c.NetConn())
}

func TestExporterIsTheSameOnBothSides(t *testing.T) {
	client, server := pair(t)
	cs, ss := client.ConnectionState(), server.ConnectionState()
	ours, err := cs.ExportKeyingMaterial("EXPORTER-towline-test", []byte("ctx"), 32)
	require.NoError(t, err)
	theirs, err := ss.ExportKeyingMaterial("EXPORTER-towline-test", []byte("ctx"), 32)
	require.NoError(t, err)
	require.Len(t, ours, 32)
	require.Equal(t, ours, theirs)
}

func TestDialLeavesConfigAlone(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	cfg := a.trust()
	_, err := dial(t, ln, cfg)
	require.NoError(t, err)
	require.Empty(t, cfg.ServerName)
	require.Empty(t, cfg.NextProtos)
	require.Zero(t, cfg.MinVersion)
}

// Each case is a server's certificate that a client must refuse, with an error that says why.
func TestCertificateRefused(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		name   string
		cert   func(*x509.Certificate)
		client *cryptotls.Config
		text   []string
		check  func(t *testing.T, err error)
	}{
		{
			name: "wrong name",
			cert: func(c *x509.Certificate) {
				c.DNSNames, c.IPAddresses = []string{"example.org", "www.example.org"}, []net.IP{net.IPv4(192, 0, 2, 1)}
			},
			client: a.trust(),
			text:   []string{"is for example.org, www.example.org, 192.0.2.1, not for \"127.0.0.1\""},
			check: func(t *testing.T, err error) {
				require.ErrorAs(t, err, new(x509.HostnameError))
			},
		},
		{
			name:   "no name",
			cert:   func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil },
			client: a.trust(),
			text:   []string{"is for no host", "test peer"},
			check:  func(*testing.T, error) {},
		},
		{
			name:   "unknown authority",
			client: newAuthority(t).trust(),
			text:   []string{"authority that is not trusted here", "Files.CA or RootCAs", "pin its fingerprint sha256:"},
			check: func(t *testing.T, err error) {
				require.ErrorAs(t, err, new(x509.UnknownAuthorityError))
			},
		},
		{
			name: "expired",
			cert: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			},
			client: a.trust(),
			text:   []string{"expired at", "this machine's clock says"},
			check: func(t *testing.T, err error) {
				require.ErrorAs(t, err, new(x509.CertificateInvalidError))
			},
		},
		{
			name: "not yet valid",
			cert: func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
			},
			client: a.trust(),
			text:   []string{"not valid before", "this machine's clock says", "check the clock"},
			check: func(t *testing.T, err error) {
				require.ErrorAs(t, err, new(x509.CertificateInvalidError))
			},
		},
		{
			name:   "not yet valid by the caller's own clock",
			client: &cryptotls.Config{RootCAs: a.pool(), Time: func() time.Time { return time.Now().Add(-48 * time.Hour) }},
			text:   []string{"not valid before", "check the clock"},
			check:  func(*testing.T, error) {},
		},
		{
			name:   "not for servers",
			cert:   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			client: a.trust(),
			text:   []string{"was refused"},
			check: func(t *testing.T, err error) {
				require.ErrorAs(t, err, new(x509.CertificateInvalidError))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			reported := make(failures, 1)
			ln := listen(t, &tls.Config{
				TLS:            &cryptotls.Config{Certificates: []cryptotls.Certificate{a.issue(c.cert)}},
				HandshakeError: reported.report,
			})
			_, err := dial(t, ln, c.client)
			require.Error(t, err)
			for _, text := range append(c.text, ln.Addr().String()) {
				require.ErrorContains(t, err, text)
			}
			require.NotContains(t, err.Error(), "\n")
			require.ErrorAs(t, err, new(*cryptotls.CertificateVerificationError))
			c.check(t, err)

			err = <-reported
			require.ErrorAs(t, err, new(cryptotls.AlertError))
			require.ErrorContains(t, err, "does not trust this side's certificate")
		})
	}
}

func TestMutualTLS(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 1)
	cfg := a.serving()
	cfg.ClientAuth, cfg.ClientCAs = cryptotls.RequireAndVerifyClientCert, a.pool()
	ln := listen(t, &tls.Config{TLS: cfg, HandshakeError: reported.report})

	with := a.trust()
	with.Certificates = []cryptotls.Certificate{a.issue(func(c *x509.Certificate) { c.Subject.CommonName = "alice" })}
	_, err := dial(t, ln, with)
	require.NoError(t, err)
	cs := accept(t, ln).ConnectionState()
	require.Len(t, cs.VerifiedChains, 1)
	require.Equal(t, "alice", cs.VerifiedChains[0][0].Subject.CommonName)

	// The refusal comes with the first Read, even when the client has written before that.
	refusal := func(cfg *cryptotls.Config) error {
		c, err := dial(t, ln, cfg)
		if err != nil {
			return err
		}
		_, _ = c.Write([]byte("hello"))
		_, err = c.Read(make([]byte, 1))
		return err
	}
	err = refusal(a.trust())
	var alert cryptotls.AlertError
	require.ErrorAs(t, err, &alert)
	require.EqualValues(t, 116, alert)
	require.ErrorContains(t, err, "wants a certificate from this side")
	require.ErrorAs(t, err, new(*net.OpError))
	require.ErrorContains(t, <-reported, "didn't provide a certificate")

	stranger := a.trust()
	stranger.Certificates = []cryptotls.Certificate{newAuthority(t).issue(nil)}
	// A client does not even offer a certificate of an authority that the server does not name: make it.
	stranger.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) {
		return &stranger.Certificates[0], nil
	}
	err = refusal(stranger)
	require.ErrorAs(t, err, &alert)
	require.ErrorContains(t, err, "does not trust this side's certificate")
	err = <-reported
	require.ErrorAs(t, err, new(*cryptotls.CertificateVerificationError))
	require.ErrorContains(t, err, "Files.CA or ClientCAs")
}

func TestALPN(t *testing.T) {
	a := newAuthority(t)
	offer := func(protos []string) *cryptotls.Config {
		cfg := a.trust()
		cfg.NextProtos = protos
		return cfg
	}
	serve := func(protos []string) net.Listener {
		cfg := a.serving()
		cfg.NextProtos = protos
		return listen(t, &tls.Config{TLS: cfg})
	}
	mismatch := func(err error) {
		t.Helper()
		var alert cryptotls.AlertError
		require.ErrorAs(t, err, &alert)
		require.EqualValues(t, 120, alert)
		require.ErrorContains(t, err, tls.ALPN)
	}

	_, err := dial(t, serve([]string{"h2"}), offer(nil))
	mismatch(err)
	_, err = dial(t, serve([]string{}), offer(nil)) // knows no ALPN
	mismatch(err)
	c, err := dial(t, serve([]string{}), offer([]string{}))
	require.NoError(t, err)
	require.Empty(t, c.ConnectionState().NegotiatedProtocol)
	c, err = dial(t, serve(nil), offer([]string{})) // as a client that knows no ALPN does
	require.NoError(t, err)
	require.Empty(t, c.ConnectionState().NegotiatedProtocol)
	c, err = dial(t, serve([]string{"x", "y"}), offer([]string{"y"}))
	require.NoError(t, err)
	require.Equal(t, "y", c.ConnectionState().NegotiatedProtocol)
}

func TestOldVersionsRefused(t *testing.T) {
	a := newAuthority(t)
	reported := make(failures, 1)
	ln := listen(t, &tls.Config{TLS: a.serving(), HandshakeError: reported.report})
	old := a.trust()
	old.MaxVersion = cryptotls.VersionTLS12
	_, err := dial(t, ln, old)
	require.ErrorContains(t, err, "MaxVersion is TLS 1.2")

	old.ServerName = "localhost"
	err = cryptotls.Client(bare(t, ln), old).Handshake()
	require.ErrorContains(t, err, "protocol version not supported")
	require.ErrorContains(t, <-reported, "unsupported versions")

	serving := a.serving()
	serving.MaxVersion = cryptotls.VersionTLS12
	_, err = tls.Listen(t.Context(), "127.0.0.1:0", &tls.Config{TLS: serving})
	require.ErrorContains(t, err, "MaxVersion is TLS 1.2")

	server := bareServer(t, func(c net.Conn) { _ = cryptotls.Server(c, serving).Handshake() })
	_, err = dial(t, server, a.trust())
	require.ErrorContains(t, err, "does not speak TLS 1.3")
	require.ErrorAs(t, err, new(cryptotls.AlertError))
}

func TestPeerDoesNotSpeakTLS(t *testing.T) {
	for name, c := range map[string]struct{ answer, text string }{
		"plain": {"\x00\x00\x00\x10\x00\x01", `does not speak TLS (first bytes "\x00\x00\x00\x10\x00"): for a plain Towline server, dial tcp://`},
		"http":  {"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP without TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			ln := bareServer(t, func(conn net.Conn) {
				_, _ = io.ReadFull(conn, make([]byte, 16))
				_, _ = io.WriteString(conn, c.answer)
				_, _ = io.Copy(io.Discard, conn)
			})
			_, err := dial(t, ln, &cryptotls.Config{})
			require.ErrorContains(t, err, c.text)
			require.ErrorAs(t, err, new(cryptotls.RecordHeaderError))
		})
	}
}

func TestPeerClosesInHandshake(t *testing.T) {
	ln := bareServer(t, func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 16)) })
	_, err := dial(t, ln, &cryptotls.Config{})
	require.ErrorContains(t, err, "closed the connection during the handshake; if it does not speak TLS, dial it without")
	require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
}

func TestHandshakeTimeout(t *testing.T) {
	ln := bareServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	d := tls.Dialer{Addr: ln.Addr().String(), HandshakeTimeout: 20 * time.Millisecond}
	_, err := d.DialContext(t.Context())
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller's context has not ended")
	var ne net.Error
	require.ErrorAs(t, err, &ne)
	require.True(t, ne.Timeout())
	require.ErrorContains(t, err, "not done within 20ms")

	for _, timeout := range []time.Duration{0, -1, time.Hour} {
		d.HandshakeTimeout = timeout
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = d.DialContext(ctx)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(20*time.Millisecond, cancel).Stop()
	_, err = d.DialContext(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestServerName(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: &cryptotls.Config{Certificates: []cryptotls.Certificate{
		a.issue(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"example.org"}, nil }),
	}}})
	under := transport.DialerFunc(func(context.Context) (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) })

	for _, d := range []tls.Dialer{
		{Addr: "example.org:7000", Config: a.trust(), Under: under},
		{Config: &cryptotls.Config{RootCAs: a.pool(), ServerName: "example.org"}, Under: under},
		{GetConfig: func() (*cryptotls.Config, error) { return a.trust(), nil }, Addr: "example.org:7000", Under: under},
	} {
		c, err := d.DialContext(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}

	_, err := tls.Dialer{Config: a.trust(), Under: under}.DialContext(t.Context())
	require.ErrorContains(t, err, `such as "example.org:7000"`)
	_, err = tls.Dialer{GetConfig: func() (*cryptotls.Config, error) { return nil, os.ErrNotExist }}.DialContext(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = tls.Dialer{Addr: "127.0.0.1"}.DialContext(t.Context())
	require.Error(t, err)
}

// Certificates are verified the same way when a session is resumed, and the connection is none the worse.
func TestSessionResumption(t *testing.T) {
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	cfg := a.trust()
	cfg.ClientSessionCache = cryptotls.NewLRUClientSessionCache(1)
	for i := range 2 {
		c, err := dial(t, ln, cfg)
		require.NoError(t, err)
		s := accept(t, ln)
		_, err = s.Write([]byte("ticket rides along"))
		require.NoError(t, err)
		got := make([]byte, 6)
		_, err = io.ReadFull(c, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(got, []byte("ticket")))
		require.Equal(t, i == 1, c.ConnectionState().DidResume)
		require.NotEmpty(t, c.ConnectionState().VerifiedChains)
	}
}
