package quic

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/transport"
)

var _ transport.Dialer = Dialer{}

// logged holds what anything in this process wrote to the standard logger.
var logged struct {
	sync.Mutex
	bytes.Buffer
}

type logWriter struct{}

func (logWriter) Write(p []byte) (int, error) {
	logged.Lock()
	defer logged.Unlock()
	return logged.Write(p)
}

func TestMain(m *testing.M) {
	log.SetOutput(logWriter{})
	code := m.Run()
	if code == 0 && logged.Len() > 0 {
		_, _ = os.Stderr.WriteString("logged:\n" + logged.String())
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		code = 1
	}
	os.Exit(code)
}

// authority signs the certificates of tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "test authority"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// endpoints is a listener and what is needed to dial it.
type endpoints struct {
	ca  authority
	ln  net.Listener
	cfg *Config
}

// listen starts a listener on a free port. change, if not nil, changes its configuration first.
func listen(t testing.TB, change func(*Config)) *endpoints {
	t.Helper()
	ca := newAuthority(t)
	cfg := &Config{TLS: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "localhost")}}}
	if change != nil {
		change(cfg)
	}
	ln, err := Listen(t.Context(), "127.0.0.1:0", cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return &endpoints{ca, ln, cfg}
}

func (e *endpoints) dialer() Dialer {
	return Dialer{Addr: e.ln.Addr().String(), Config: &tls.Config{RootCAs: e.ca.pool()}}
}

// connect returns both ends of a new connection: the dialer's first.
func (e *endpoints) connect(t testing.TB, d Dialer) (dialed, accepted *Conn) {
	t.Helper()
	conn, err := d.DialContext(t.Context())
	require.NoError(t, err)
	peer, err := e.ln.Accept()
	require.NoError(t, err)
	dialed, accepted = conn.(*Conn), peer.(*Conn)
	t.Cleanup(func() { hangUp(dialed, accepted) })
	return dialed, accepted
}

// hangUp closes connections without a wait.
func hangUp(conns ...*Conn) {
	for _, c := range conns {
		if c.SetLinger(0) == nil {
			_ = c.Close()
		}
	}
}

// eachWay runs test twice, with the dialer's end first and with the listener's end first.
func eachWay(t *testing.T, test func(t *testing.T, a, b *Conn)) {
	t.Run("dialer first", func(t *testing.T) {
		dialed, accepted := listen(t, nil).pair(t)
		test(t, dialed, accepted)
	})
	t.Run("listener first", func(t *testing.T) {
		dialed, accepted := listen(t, nil).pair(t)
		test(t, accepted, dialed)
	})
}

func (e *endpoints) pair(t testing.TB) (dialed, accepted *Conn) { return e.connect(t, e.dialer()) }

func TestNetConn(t *testing.T) {
	for _, swap := range []bool{false, true} {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			e := listen(t, nil)
			conn, err := e.dialer().DialContext(context.Background())
			if err != nil {
				return nil, nil, nil, err
			}
			peer, err := e.ln.Accept()
			if err != nil {
				return nil, nil, nil, err
			}
			c1, c2 = conn, peer
			if swap {
				c1, c2 = c2, c1
			}
			return c1, c2, func() {
				var wg sync.WaitGroup
				wg.Go(func() { _ = c1.Close() })
				wg.Go(func() { _ = c2.Close() })
				wg.Wait()
				_ = e.ln.Close()
			}, nil
		})
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestWriteThenCloseDelivers(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		want := randomBytes(1 << 20)
		type result struct {
			got []byte
			err error
		}
		results := make(chan result, 1)
		go func() {
			got, err := io.ReadAll(b)
			results <- result{got, err}
		}()
		_, err := a.Write(want)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		r := <-results
		require.NoError(t, r.err)
		require.True(t, bytes.Equal(want, r.got))
		require.NoError(t, b.Close())
	})
}

// What Close promises holds although the whole of the closer's side is gone when it returns, as after os.Exit.
func TestClosedMeansDelivered(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		want := randomBytes(300 << 10) // fits in the peer's window: nobody reads
		_, err := a.Write(want)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		_ = a.sock.udp.Close()

		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	})
}

func TestCloseInEitherOrder(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		for _, c := range []*Conn{a, b} {
			_, err := c.Write([]byte("unread"))
			require.NoError(t, err)
		}
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		require.ErrorIs(t, a.Close(), net.ErrClosed)
	})
}

func TestCloseAtTheSameTime(t *testing.T) {
	e := listen(t, nil)
	for range 50 {
		a, b := e.pair(t)
		errs := make(chan error)
		start := time.Now()
		for _, c := range []*Conn{a, b} {
			go func() {
				_, _ = c.Write([]byte("unread")) // fails if the other side has closed already
				errs <- c.Close()
			}()
		}
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)
		require.Less(t, time.Since(start), defaultLinger)
	}
}

// A deadline far ahead does not keep in memory what is closed.
func TestCloseForgetsDeadline(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		for _, c := range []*Conn{a, b} {
			require.NoError(t, c.SetDeadline(time.Now().Add(time.Hour)))
			require.NoError(t, c.CloseNow())
			require.Nil(t, c.readDeadline.timer)
		}
	})
}
