package blackbox

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ttls "github.com/towline-mq/towline/transport/tls"
)

// certificate writes a certificate and its key to files. It is its own authority.
func certificate(t testing.TB, name string) (cert, key string) {
	t.Helper()
	c, err := ttls.SelfSigned(name)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	_, err = tls.LoadX509KeyPair(cert, key)
	require.NoError(t, err)
	return cert, key
}

func TestCertificates(t *testing.T) {
	serverCert, serverKey := certificate(t, "127.0.0.1")
	clientCert, clientKey := certificate(t, "client")
	otherCert, otherKey := certificate(t, "other")
	listen := []string{"tls://127.0.0.1:0", "quic://127.0.0.1:0"}

	t.Run("files", func(t *testing.T) {
		s := startServer(t, listen, "--tls-cert", serverCert, "--tls-key", serverKey)
		for _, url := range s.urls {
			client(t, strings.NewReader("x\n"), "--connect", url, "--tls-ca", serverCert).require(t, 0, "each once")
			client(t, strings.NewReader("x\n"), "--connect", url, "--tls-ca", otherCert).require(t, 3, "no authority trusted here")
			client(t, strings.NewReader("x\n"), "--connect", strings.Replace(url, "127.0.0.1", "localhost", 1), "--tls-ca", serverCert).
				require(t, 3, "127.0.0.1")
		}
		require.NotContains(t, s.out.text(), "certificate", "it was not made here")
		s.stop()
	})

	for _, files := range []bool{true, false} {
		name, flags := "client certificates, made server certificate", []string{"--tls-client-ca", clientCert}
		if files {
			name, flags = "client certificates, all in files", with(flags, "--tls-cert", serverCert, "--tls-key", serverKey)
		}
		t.Run(name, func(t *testing.T) {
			s := startServer(t, listen, flags...)
			for i, url := range s.urls {
				to := s.to(i)
				if files {
					to = []string{"--connect", url, "--tls-ca", serverCert}
				}
				in := func() *strings.Reader { return strings.NewReader("x\n") }
				client(t, in(), with(to, "--tls-cert", clientCert, "--tls-key", clientKey)...).require(t, 0, "each once")
				client(t, in(), to...).require(t, 3, "the server wants a client certificate that its authorities signed; give --tls-cert and --tls-key")
				client(t, in(), with(to, "--tls-cert", otherCert, "--tls-key", otherKey)...).require(t, 3, "the server does not trust the authority of --tls-cert")
			}
			s.err.wait(t, "handshake failed", 4)
			s.stop()
		})
	}

	// The promise of --help, with a certificate of the server's own and with one in files.
	for _, files := range []bool{true, false} {
		name, flags := "authorities are read again, made server certificate", []string(nil)
		if files {
			name, flags = "authorities are read again, all in files", []string{"--tls-cert", serverCert, "--tls-key", serverKey}
		}
		t.Run(name, func(t *testing.T) {
			authority := filepath.Join(t.TempDir(), "ca.pem")
			install := func(cert string) {
				pem, err := os.ReadFile(cert)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(authority+".new", pem, 0o600))
				require.NoError(t, os.Rename(authority+".new", authority))
			}
			install(clientCert)
			s := startServer(t, listen, with(flags, "--tls-client-ca", authority)...)
			connect := func(i int, cert, key string) result {
				to := s.to(i)
				if files {
					to = []string{"--connect", s.urls[i], "--tls-ca", serverCert}
				}
				return client(t, strings.NewReader("x\n"), with(to, "--tls-cert", cert, "--tls-key", key)...)
			}
			for i := range s.urls {
				connect(i, clientCert, clientKey).require(t, 0, "each once")
				connect(i, otherCert, otherKey).require(t, 3, "the server does not trust the authority of --tls-cert")
			}
			install(otherCert)
			for i := range s.urls {
				require.Eventually(t, func() bool { return connect(i, otherCert, otherKey).code == 0 }, patience, 50*time.Millisecond,
					"the server looks at the file once a second")
				connect(i, clientCert, clientKey).require(t, 3, "the server does not trust the authority of --tls-cert")
			}
			s.stop()
		})
	}
}
