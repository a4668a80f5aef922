package endpoint_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/transport/endpoint"
	"github.com/towline-mq/towline/transport/mem"
	ttls "github.com/towline-mq/towline/transport/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tlsPair returns configurations of a server and of a client that trusts it.
func tlsPair(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	cert, err := ttls.SelfSigned()
	require.NoError(t, err)
	client = new(tls.Config)
	require.NoError(t, ttls.PinFingerprint(client, ttls.Fingerprint(cert.Leaf)))
	return &tls.Config{Certificates: []tls.Certificate{cert}}, client
}

func TestEveryTransport(t *testing.T) {
	server, client := tlsPair(t)
	for _, url := range []string{
		"tcp://127.0.0.1:0", "tls://127.0.0.1:0", "quic://127.0.0.1:0", "unix://" + filepath.Join(t.TempDir(), "s"), "mem://:0",
	} {
		t.Run(url, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var network mem.Network
			u, err := endpoint.Parse(url)
			require.NoError(t, err)
			ln, err := u.Listen(ctx, &endpoint.Config{TLS: server, Mem: &network})
			require.NoError(t, err)
			defer ln.Close()
			real := u.At(ln.Addr())
			assert.Equal(t, u.Scheme, real.Scheme)
			assert.Equal(t, u.Secure(), u.Scheme == "tls" || u.Scheme == "quic")

			served := make(chan error, 1)
			go func() {
				c, err := ln.Accept()
				if err != nil {
					served <- err
					return
				}
				_, err = io.Copy(c, c)
				served <- errors.Join(err, c.Close())
			}()
			d, err := endpoint.Dialer(real.String(), &endpoint.Config{TLS: client, Mem: &network})
			require.NoError(t, err)
			c, err := d.DialContext(ctx)
			require.NoError(t, err)
			_, err = c.Write([]byte("hello"))
			require.NoError(t, err)
			require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
			echo, err := io.ReadAll(c)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(echo))
			require.NoError(t, c.Close())
			require.NoError(t, <-served)
		})
	}
}

func TestGetTLS(t *testing.T) {
	want := errors.New("no certificate today")
	cfg := &endpoint.Config{GetTLS: func() (*tls.Config, error) { return nil, want }}
	for _, url := range []string{"quic://localhost:7000", "tls://localhost:7000"} {
		d, err := endpoint.Dialer(url, cfg)
		require.NoError(t, err, "it is asked at each dial")
		_, err = d.DialContext(t.Context())
		assert.ErrorIs(t, err, want)
	}
}

func TestDialerErrors(t *testing.T) {
	for _, url := range []string{"tcp://localhost:0", "quic://:0", "nonsense"} {
		_, err := endpoint.Dialer(url, nil)
		var bad *endpoint.Error
		assert.ErrorAs(t, err, &bad, url)
	}
	_, err := endpoint.Dialer("mem://echo", nil)
	assert.ErrorIs(t, err, mem.ErrNoNetwork)
	for _, u := range []endpoint.URL{{}, {Scheme: "TCP", Addr: "localhost:7000"}, {Scheme: "http", Addr: "x"}, {Addr: "localhost:7000"}} {
		var bad *endpoint.Error
		_, err := u.Dialer(nil)
		assert.ErrorAs(t, err, &bad)
		_, err = u.Listen(t.Context(), nil)
		assert.ErrorAs(t, err, &bad)
	}
}

func TestListenErrors(t *testing.T) {
	for url, want := range map[string]error{
		"tcp://192.0.2.1:0":              syscall.EADDRNOTAVAIL,
		"unix:///nonexistent/towline/xx": syscall.ENOENT,
		"mem://echo":                     mem.ErrNoNetwork,
	} {
		ln, err := endpoint.Listen(t.Context(), url, nil)
		assert.ErrorIs(t, err, want, url)
		assert.Nil(t, ln, url)
	}
	for _, url := range []string{"nonsense", "tls://127.0.0.1:0", "quic://127.0.0.1:0"} {
		ln, err := endpoint.Listen(t.Context(), url, nil)
		assert.Error(t, err, url)
		assert.Nil(t, ln, url)
	}
}
