package hostile

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/built"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/quic"
	ttls "github.com/towline-mq/towline/transport/tls"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if bin, err := buildClient(); err == nil {
			_ = os.RemoveAll(filepath.Dir(bin))
		}
		os.Exit(code)
	}))
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := new(authority)
	a.cert, a.key = a.issue(t, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.Subject = pkix.Name{CommonName: "the authority"}
	})
	return a
}

// issue makes a certificate for 127.0.0.1 and localhost that change has changed; of its own, if there is no authority yet.
func (a *authority) issue(t *testing.T, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "somebody"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(c)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	require.NoError(t, err)
	c, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return c, key
}

func (a *authority) pair(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	c, key := a.issue(t, change)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write puts a certificate, or its key, into a file for the programs.
func write(t *testing.T, name, kind string, der []byte) string {
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

func asIs(*x509.Certificate) {}

// serve echoes sessions over name, "tls" or "quic", until the test ends.
func serve(t *testing.T, name string, cfg *tls.Config) string {
	var ln net.Listener
	var err error
	if name == "tls" {
		ln, err = ttls.Listen(t.Context(), "127.0.0.1:0", &ttls.Config{TLS: cfg})
	} else {
		ln, err = quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: cfg})
	}
	require.NoError(t, err)
	l := reconnect.NewListener(ln, nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.CloseNow()
				for d, err := range c.Reader().All(context.Background()) {
					if err != nil || c.Writer().Send(context.Background(), d) != nil {
						return
					}
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				_ = c.Close(ctx)
			})
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		wg.Wait()
	})
	return ln.Addr().String()
}

func dialer(name, addr string, cfg *tls.Config) transport.Dialer {
	if name == "tls" {
		return ttls.Dialer{Addr: addr, Config: cfg}
	}
	return quic.Dialer{Addr: addr, Config: cfg}
}

var buildClient = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "towline-hostile")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "echo-client")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	return bin, built.Programs("../..", dir, "../../cmd/echo-client")
})

// client runs echo-client, and returns what it says and its exit code.
func client(t *testing.T, bin string, args ...string) (said string, code int) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdin = strings.NewReader("x\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return stderr.String(), cmd.ProcessState.ExitCode()
}

// A server or a client that is not who it should be is refused, at once and for good, with an error that programs can tell
// from others and one line that tells people what to do.
func TestIdentities(t *testing.T) {
	bin, err := buildClient()
	require.NoError(t, err)
	ours, others := newAuthority(t), newAuthority(t)
	ca := write(t, "ca.pem", "CERTIFICATE", ours.cert.Raw)
	good := ours.pair(t, asIs)
	hostname := func(err error) bool { _, ok := errors.AsType[x509.HostnameError](err); return ok }
	invalid := func(err error) bool {
		e, ok := errors.AsType[x509.CertificateInvalidError](err)
		return ok && e.Reason == x509.Expired
	}
	usage := func(err error) bool {
		e, ok := errors.AsType[x509.CertificateInvalidError](err)
		return ok && e.Reason == x509.IncompatibleUsage
	}
	unknown := func(err error) bool { _, ok := errors.AsType[x509.UnknownAuthorityError](err); return ok }
	alert := func(want ...tls.AlertError) func(error) bool {
		return func(err error) bool {
			got, ok := errors.AsType[tls.AlertError](err)
			return ok && slices.Contains(want, got)
		}
	}
	demand := func(c tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{c}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ours.pool()}
	}
	signed := func(a *authority, change func(*x509.Certificate)) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{a.pair(t, change)}}
	}
	for name, c := range map[string]struct {
		server *tls.Config
		mine   *tls.Certificate // the client's
		protos []string         // the client's
		is     func(error) bool
		says   string // the program; "": it cannot be made to do it
	}{
		"wrong name": {
			server: signed(ours, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"elsewhere.example"} }),
			is:     hostname, says: "its certificate is for elsewhere.example, not for \"127.0.0.1\": connect to one of its names",
		},
		"expired": {
			server: signed(ours, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
			}),
			is: invalid, says: "its certificate expired at .*: renew it, or check the clock",
		},
		"not yet valid": {
			server: signed(ours, func(c *x509.Certificate) {
				c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
			}),
			is: invalid, says: "its certificate is not valid before .*: check the clock",
		},
		"another authority": {server: signed(others, asIs), is: unknown, says: "no authority trusted here has signed its certificate; give --tls-ca"},
		"a client's certificate": {
			server: signed(ours, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			is:     usage, says: "its certificate is not one for servers",
		},
		"no client certificate": {server: demand(good), is: alert(116), says: "give --tls-cert and --tls-key"},
		"client certificate of another authority": {
			server: demand(good), mine: ptr(others.pair(t, asIs)),
			is: alert(42, 48, 116), says: "the server does not trust the (authority|certificate) of --tls-cert",
		},
		"expired client certificate": {
			server: demand(good), mine: ptr(ours.pair(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })),
			is: alert(42, 45), says: "the server does not trust the certificate of --tls-cert",
		},
		"a server's certificate, shown by the client": {
			server: demand(good), mine: ptr(ours.pair(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
			is: alert(42), says: "the server does not trust the certificate of --tls-cert",
		},
		"another protocol": {
			server: &tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"h3", "http/1.1"}},
			is:     alert(120), says: "towline/1",
		},
		"another protocol, asked for by the client": {server: &tls.Config{Certificates: []tls.Certificate{good}}, protos: []string{"towline/2"}, is: alert(120)},
	} {
		for _, transport := range []string{"tls", "quic"} {
			t.Run(name+", "+transport, func(t *testing.T) {
				addr := serve(t, transport, c.server)
				trust := &tls.Config{RootCAs: ours.pool(), NextProtos: c.protos}
				if c.mine != nil {
					trust.Certificates = []tls.Certificate{*c.mine}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				conn, err := reconnect.Dial(ctx, dialer(transport, addr, trust), nil)
				if err == nil {
					_ = conn.CloseNow()
				}
				require.Error(t, err)
				require.NoError(t, ctx.Err(), "it is not tried again and again")
				assert.True(t, c.is(err), "%T %v", err, err)
				assert.True(t, redial.IsFatal(err) || errors.As(err, new(*redial.Error)), "%v", err)
				if c.says == "" {
					return
				}
				args := []string{"--connect", transport + "://" + addr, "--tls-ca", ca}
				if c.mine != nil {
					der, err := x509.MarshalPKCS8PrivateKey(c.mine.PrivateKey)
					require.NoError(t, err)
					args = append(args, "--tls-cert", write(t, "cert.pem", "CERTIFICATE", c.mine.Certificate[0]),
						"--tls-key", write(t, "key.pem", "PRIVATE KEY", der))
				}
				said, code := client(t, bin, args...)
				assert.Equal(t, 3, code, said)
				assert.Regexp(t, c.says, said)
				assert.Equal(t, 1, strings.Count(said, "\n"), "one line: %s", said)
			})
		}
	}
	t.Run("and who is", func(t *testing.T) {
		for _, transport := range []string{"tls", "quic"} {
			addr := serve(t, transport, demand(good))
			c, err := reconnect.Dial(t.Context(), dialer(transport, addr, &tls.Config{RootCAs: ours.pool(), Certificates: []tls.Certificate{good}}), nil)
			require.NoError(t, err)
			require.NoError(t, c.Writer().Send(t.Context(), datagram.Datagram{Recipient: 1}))
			_, err = c.Reader().Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, c.Close(t.Context()))
		}
	})
}

func ptr[T any](v T) *T { return &v }

// A server that speaks nothing newer than TLS 1.2, or a man who makes it look so, gets no session, and is told apart.
func TestDowngradedTLS(t *testing.T) {
	bin, err := buildClient()
	require.NoError(t, err)
	ours := newAuthority(t)
	ca := write(t, "ca.pem", "CERTIFICATE", ours.cert.Raw)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{ours.pair(t, asIs)}, MaxVersion: tls.VersionTLS12, NextProtos: []string{ttls.ALPN},
	})
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, nc) // makes the handshake
			nc.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = reconnect.Dial(ctx, ttls.Dialer{Addr: ln.Addr().String(), Config: &tls.Config{RootCAs: ours.pool()}}, nil)
	require.Error(t, err)
	require.NoError(t, ctx.Err())
	assert.ErrorContains(t, err, "1.3")
	said, code := client(t, bin, "--connect", "tls://"+ln.Addr().String(), "--tls-ca", ca)
	assert.Equal(t, 3, code, said)
	assert.Equal(t, 1, strings.Count(said, "\n"), said)
}
