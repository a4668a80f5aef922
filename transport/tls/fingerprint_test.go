package tls_test

import (
	cryptotls "crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/tls"
)

func selfSigned(t testing.TB, hosts ...string) cryptotls.Certificate {
	t.Helper()
	cert, err := tls.SelfSigned(hosts...)
	require.NoError(t, err)
	return cert
}

func TestPinnedFingerprint(t *testing.T) {
	cert, other := selfSigned(t, "elsewhere.example"), selfSigned(t)
	ln := listen(t, &tls.Config{TLS: &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}})
	right, wrong := tls.Fingerprint(cert.Leaf), tls.Fingerprint(other.Leaf)
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", right)

	for _, pins := range [][]string{{right}, {wrong, right}, {"SHA256:" + strings.ToUpper(right[7:])}, {colons(right)}} {
		cfg := &cryptotls.Config{}
		require.NoError(t, tls.PinFingerprint(cfg, pins...))
		_, err := dial(t, ln, cfg)
		require.NoError(t, err, pins)
	}

	cfg := &cryptotls.Config{}
	require.NoError(t, tls.PinFingerprint(cfg, wrong))
	_, err := dial(t, ln, cfg)
	require.ErrorAs(t, err, new(*cryptotls.CertificateVerificationError))
	require.ErrorContains(t, err, "its fingerprint is "+right+", expected "+wrong)
}

func colons(fingerprint string) string {
	s := "sha256:"
	for i := len(s); i < len(fingerprint); i += 2 {
		if i > len("sha256:") {
			s += ":"
		}
		s += fingerprint[i : i+2]
	}
	return s
}

// The pin holds when a session is resumed, too, and does not replace a check that was there.
func TestPinnedFingerprintOnResumption(t *testing.T) {
	cert := selfSigned(t)
	ln := listen(t, &tls.Config{TLS: &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}})
	checks := 0
	sessions := cryptotls.NewLRUClientSessionCache(1)
	cfg := &cryptotls.Config{
		ClientSessionCache: sessions,
		VerifyConnection:   func(cryptotls.ConnectionState) error { checks++; return nil },
	}
	require.NoError(t, tls.PinFingerprint(cfg, tls.Fingerprint(cert.Leaf)))
	for i := range 2 {
		c, err := dial(t, ln, cfg)
		require.NoError(t, err)
		require.Equal(t, i == 1, c.ConnectionState().DidResume)
		_, err = accept(t, ln).Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(c, make([]byte, 1)) // with which the ticket comes
		require.NoError(t, err)
	}
	require.Equal(t, 2, checks)

	other := &cryptotls.Config{ClientSessionCache: sessions}
	require.NoError(t, tls.PinFingerprint(other, tls.Fingerprint(selfSigned(t).Leaf)))
	_, err := dial(t, ln, other)
	require.ErrorAs(t, err, new(*cryptotls.CertificateVerificationError))

	mine := errors.New("mine")
	cfg.VerifyConnection = func(cryptotls.ConnectionState) error { return mine }
	require.NoError(t, tls.PinFingerprint(cfg, tls.Fingerprint(cert.Leaf)))
	_, err = dial(t, ln, cfg)
	require.ErrorIs(t, err, mine)
}

// A pinned configuration that a server uses by mistake refuses the clients that show no certificate: nobody passes
// unlooked at.
func TestPinnedFingerprintOfAServer(t *testing.T) {
	cert := selfSigned(t)
	cfg := &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}
	require.NoError(t, tls.PinFingerprint(cfg, tls.Fingerprint(cert.Leaf)))
	failed := make(failures, 1)
	ln := listen(t, &tls.Config{TLS: cfg, HandshakeError: failed.report})
	client := &cryptotls.Config{}
	require.NoError(t, tls.PinFingerprint(client, tls.Fingerprint(cert.Leaf)))
	c, err := dial(t, ln, client)
	if err == nil { // in TLS 1.3 the client's part is over before the server's
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	err = <-failed
	require.ErrorAs(t, err, new(*cryptotls.CertificateVerificationError))
	require.ErrorContains(t, err, "no certificate")
}

func TestMalformedFingerprint(t *testing.T) {
	good := tls.Fingerprint(selfSigned(t).Leaf)
	for _, bad := range []string{"", "sha256:", good[7:], good + "00", good[:len(good)-1], "sha1:" + good[7:], strings.Replace(good, "sha256:", "sha256:xy", 1)} {
		cfg := &cryptotls.Config{}
		require.ErrorContains(t, tls.PinFingerprint(cfg, good, bad), `such as "sha256:e3b0c442`, bad)
		require.False(t, cfg.InsecureSkipVerify)
		require.Nil(t, cfg.VerifyConnection)
	}
	require.Error(t, tls.PinFingerprint(&cryptotls.Config{}))
}

func TestSelfSigned(t *testing.T) {
	leaf := selfSigned(t).Leaf
	require.Equal(t, []string{"localhost"}, leaf.DNSNames)
	require.NoError(t, leaf.VerifyHostname("127.0.0.1"))
	require.NoError(t, leaf.VerifyHostname("::1"))
	require.WithinDuration(t, time.Now().Add(-time.Hour), leaf.NotBefore, time.Minute)
	require.WithinDuration(t, time.Now().Add(365*24*time.Hour), leaf.NotAfter, time.Minute)
	require.NotEqual(t, leaf.SerialNumber, selfSigned(t).Leaf.SerialNumber)

	leaf = selfSigned(t, "a.example", "192.0.2.1").Leaf
	require.NoError(t, leaf.VerifyHostname("a.example"))
	require.NoError(t, leaf.VerifyHostname("192.0.2.1"))
	require.Error(t, leaf.VerifyHostname("localhost"))

	for _, bad := range []string{"", "a.example:7000", "tcp://a.example", "[::1]"} {
		_, err := tls.SelfSigned(bad)
		require.ErrorContains(t, err, `such as "example.org"`)
	}
}

// A self-signed certificate can stand among a client's authorities, and is then verified by name as any other.
func TestSelfSignedAsAuthority(t *testing.T) {
	cert := selfSigned(t)
	ln := listen(t, &tls.Config{TLS: &cryptotls.Config{Certificates: []cryptotls.Certificate{cert}}})
	a := &authority{t: t, cert: cert.Leaf}
	_, err := dial(t, ln, a.trust())
	require.NoError(t, err)
}
