package tls_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	cryptotls "crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/tls"
)

// authority signs certificates for tests.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-24 * 365 * time.Hour),
		NotAfter:              time.Now().Add(24 * 365 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{t: t, cert: cert, key: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// issue signs a certificate for 127.0.0.1 and localhost, unless change makes it another.
func (a *authority) issue(change func(*x509.Certificate)) cryptotls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "test peer"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	require.NoError(a.t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return cryptotls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// trust is a client's configuration that believes a.
func (a *authority) trust() *cryptotls.Config { return &cryptotls.Config{RootCAs: a.pool()} }

// serving is a server's configuration with a certificate of a.
func (a *authority) serving() *cryptotls.Config {
	return &cryptotls.Config{Certificates: []cryptotls.Certificate{a.issue(nil)}}
}

// put writes PEM files for a certificate, its key and the authority into dir, and returns what reads them.
func (a *authority) put(dir string, cert cryptotls.Certificate) *tls.Files {
	a.t.Helper()
	f := &tls.Files{
		Cert:     filepath.Join(dir, "cert.pem"),
		Key:      filepath.Join(dir, "key.pem"),
		CA:       filepath.Join(dir, "ca.pem"),
		Interval: -1,
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(a.t, err)
	write(a.t, f.Cert, "CERTIFICATE", cert.Certificate[0])
	write(a.t, f.Key, "PRIVATE KEY", der)
	write(a.t, f.CA, "CERTIFICATE", a.cert.Raw)
	return f
}

func write(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func listen(t testing.TB, cfg *tls.Config) net.Listener {
	t.Helper()
	ln, err := tls.Listen(t.Context(), "127.0.0.1:0", cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func dial(t testing.TB, ln net.Listener, cfg *cryptotls.Config) (*tls.Conn, error) {
	t.Helper()
	c, err := tls.Dialer{Addr: ln.Addr().String(), Config: cfg}.DialContext(t.Context())
	if err != nil {
		require.Nil(t, c)
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn), nil
}

func accept(t testing.TB, ln net.Listener) *tls.Conn {
	t.Helper()
	c, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.(*tls.Conn)
}

// pair returns both ends of one connection.
func pair(t testing.TB) (client, server *tls.Conn) {
	t.Helper()
	a := newAuthority(t)
	ln := listen(t, &tls.Config{TLS: a.serving()})
	client, err := dial(t, ln, a.trust())
	require.NoError(t, err)
	return client, accept(t, ln)
}

// bare connects to ln over TCP and speaks no TLS by itself.
func bare(t testing.TB, ln net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// bareServer is a TCP server that does with each connection what serve says.
func bareServer(t testing.TB, serve func(net.Conn)) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serve(c)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln
}

// failures collects what a listener reports.
type failures chan error

func (f failures) report(_ net.Addr, err error) { f <- err }

func background() context.Context { return context.Background() }
