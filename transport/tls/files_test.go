package tls_test

import (
	"bytes"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/tls"
)

// served dials ln and returns the name of the certificate it shows.
func served(t *testing.T, ln net.Listener, trust *cryptotls.Config) string {
	t.Helper()
	c, err := dial(t, ln, trust)
	require.NoError(t, err)
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func named(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

func TestServerCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	f := a.put(dir, a.issue(named("first")))
	f.CA = ""
	reported := make(chan error, 8)
	f.OnError = func(err error) { reported <- err }
	cfg, err := f.Server()
	require.NoError(t, err)
	ln := listen(t, &tls.Config{TLS: cfg})
	require.Equal(t, "first", served(t, ln, a.trust()))

	a.put(dir, a.issue(named("second")))
	require.Equal(t, "second", served(t, ln, a.trust()))

	// A broken file leaves the old certificate in use, and says so once.
	require.NoError(t, os.WriteFile(f.Cert, []byte("not a certificate"), 0o600))
	require.Equal(t, "second", served(t, ln, a.trust()))
	require.Equal(t, "second", served(t, ln, a.trust()))
	err = <-reported
	require.ErrorContains(t, err, f.Cert)
	require.ErrorContains(t, err, "what was read before stays in use")

	// So does one that is gone,
	require.NoError(t, os.Remove(f.Cert))
	require.Equal(t, "second", served(t, ln, a.trust()))
	require.ErrorIs(t, <-reported, os.ErrNotExist)
	require.Empty(t, reported)

	// and a certificate whose key is not there yet.
	third := a.issue(named("third"))
	write(t, f.Cert, "CERTIFICATE", third.Certificate[0])
	require.Equal(t, "second", served(t, ln, a.trust()))
	require.ErrorContains(t, <-reported, "private key does not match")

	a.put(dir, third)
	require.Equal(t, "third", served(t, ln, a.trust()))
	require.Empty(t, reported)
}

// Files are looked at no more often than asked for.
func TestInterval(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	f := a.put(dir, a.issue(named("first")))
	f.Interval = time.Hour
	for range 2 {
		cfg, err := f.Client()
		require.NoError(t, err)
		require.Equal(t, "first", cfg.Certificates[0].Leaf.Subject.CommonName)
		a.put(dir, a.issue(named("second")))
	}
}

// A file whose time and size are the same as before is not read again, once it is old enough for that to mean
// something.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	f := a.put(dir, a.issue(nil))
	old := time.Now().Add(-time.Hour)
	for _, p := range []string{f.Cert, f.Key, f.CA} {
		require.NoError(t, os.Chtimes(p, old, old))
	}
	first, err := f.Client()
	require.NoError(t, err)
	again, err := f.Client()
	require.NoError(t, err)
	require.Same(t, first.RootCAs, again.RootCAs)

	now := time.Now()
	require.NoError(t, os.Chtimes(f.CA, now, now))
	again, err = f.Client()
	require.NoError(t, err)
	require.NotSame(t, first.RootCAs, again.RootCAs)
}

// A file may change twice within one tick of the file system's clock: a young one is read again whatever its time says.
func TestYoungFilesAreReadAgain(t *testing.T) {
	f := &tls.Files{CA: filepath.Join(t.TempDir(), "ca.pem"), Interval: -1}
	now := time.Now()
	put := func(a *authority) {
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
		text = append(text, bytes.Repeat([]byte("\n"), 2000-len(text))...)
		require.NoError(t, os.WriteFile(f.CA, text, 0o600))
		require.NoError(t, os.Chtimes(f.CA, now, now))
	}
	for range 2 {
		a := newAuthority(t)
		put(a)
		cfg, err := f.Client()
		require.NoError(t, err)
		require.True(t, cfg.RootCAs.Equal(a.pool()))
	}
}

func TestClientFilesAreReadAgain(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	f := before.put(dir, before.issue(named("alice")))

	serving := before.serving()
	serving.ClientAuth, serving.ClientCAs = cryptotls.RequireAndVerifyClientCert, before.pool()
	oldLn := listen(t, &tls.Config{TLS: serving})
	serving = after.serving()
	serving.ClientAuth, serving.ClientCAs = cryptotls.RequireAndVerifyClientCert, after.pool()
	newLn := listen(t, &tls.Config{TLS: serving})

	connect := func(ln net.Listener) error {
		c, err := tls.Dialer{Addr: ln.Addr().String(), GetConfig: f.Client}.DialContext(t.Context())
		if err == nil {
			err = c.Close()
		}
		return err
	}
	require.NoError(t, connect(oldLn))
	require.Equal(t, "alice", accept(t, oldLn).ConnectionState().PeerCertificates[0].Subject.CommonName)
	require.ErrorAs(t, connect(newLn), new(x509.UnknownAuthorityError))

	after.put(dir, after.issue(named("bob")))
	require.NoError(t, connect(newLn))
	require.Equal(t, "bob", accept(t, newLn).ConnectionState().PeerCertificates[0].Subject.CommonName)
	require.ErrorAs(t, connect(oldLn), new(x509.UnknownAuthorityError))
}

// A server with authorities wants a certificate of each client, and follows a change of authorities.
func TestServerAuthoritiesAreReadAgain(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	f := before.put(dir, before.issue(nil))
	cfg, err := f.Server()
	require.NoError(t, err)
	reported := make(failures, 1)
	ln := listen(t, &tls.Config{TLS: cfg, HandshakeError: reported.report})

	client := func(a *authority) *cryptotls.Config {
		cfg := before.trust()
		cert := a.issue(nil)
		cfg.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) { return &cert, nil }
		return cfg
	}
	_, err = dial(t, ln, client(before))
	require.NoError(t, err)
	require.NotEmpty(t, accept(t, ln).ConnectionState().VerifiedChains)
	_, err = dial(t, ln, client(after))
	require.NoError(t, err, "a client is refused after its handshake")
	require.ErrorAs(t, <-reported, new(x509.UnknownAuthorityError))

	write(t, f.CA, "CERTIFICATE", after.cert.Raw)
	_, err = dial(t, ln, client(after))
	require.NoError(t, err)
	require.NotEmpty(t, accept(t, ln).ConnectionState().VerifiedChains)
	_, err = dial(t, ln, client(before))
	require.NoError(t, err)
	require.ErrorAs(t, <-reported, new(x509.UnknownAuthorityError))
}

// What the user changes in a server's configuration holds for the certificates to come.
func TestServerConfigChanged(t *testing.T) {
	a := newAuthority(t)
	f := a.put(t.TempDir(), a.issue(nil))
	cfg, err := f.Server()
	require.NoError(t, err)
	cfg.ClientAuth = cryptotls.VerifyClientCertIfGiven
	ln := listen(t, &tls.Config{TLS: cfg})
	_, err = dial(t, ln, a.trust())
	require.NoError(t, err)
	require.Empty(t, accept(t, ln).ConnectionState().PeerCertificates)
}

func TestFilesErrors(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	good := a.put(dir, a.issue(nil))
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))

	_, err := (&tls.Files{}).Server()
	require.ErrorContains(t, err, "Files.Cert and Files.Key")
	_, err = (&tls.Files{Cert: good.Cert}).Server()
	require.ErrorContains(t, err, "go together")
	_, err = (&tls.Files{Key: good.Key}).Client()
	require.ErrorContains(t, err, "go together")
	_, err = (&tls.Files{Cert: good.Cert, Key: filepath.Join(dir, "nowhere")}).Server()
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = (&tls.Files{CA: empty}).Client()
	require.ErrorContains(t, err, "no certificate in PEM in "+empty)

	cfg, err := (&tls.Files{}).Client()
	require.NoError(t, err)
	require.Nil(t, cfg.RootCAs)
	require.Empty(t, cfg.Certificates)
}
