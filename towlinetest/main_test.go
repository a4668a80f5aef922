package towlinetest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	towtls "github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // most of the time is waiting
	goleak.VerifyTestMain(m)
}

// caseTime bounds a case: with the race detector and all transports at once some take a while.
const caseTime = 2 * time.Minute

// world makes a listener and what dials it, over each of Towline's transports.
type world struct {
	name string
	make func(t testing.TB) (net.Listener, transport.Dialer)
}

func worlds() []world {
	return []world{
		{"tcp", func(t testing.TB) (net.Listener, transport.Dialer) {
			ln, err := tcp.Listen(t.Context(), "127.0.0.1:0", nil)
			require.NoError(t, err)
			return ln, tcp.Dialer{Addr: ln.Addr().String()}
		}},
		{"tls", func(t testing.TB) (net.Listener, transport.Dialer) {
			served, trusted := identity(t)
			ln, err := towtls.Listen(t.Context(), "127.0.0.1:0", &towtls.Config{TLS: served})
			require.NoError(t, err)
			return ln, towtls.Dialer{Addr: ln.Addr().String(), Config: trusted}
		}},
		{"quic", func(t testing.TB) (net.Listener, transport.Dialer) {
			served, trusted := identity(t)
			ln, err := quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: served})
			require.NoError(t, err)
			return ln, quic.Dialer{Addr: ln.Addr().String(), Config: trusted}
		}},
		{"unix", func(t testing.TB) (net.Listener, transport.Dialer) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := unix.Listen(t.Context(), path, nil)
			require.NoError(t, err)
			return ln, unix.Dialer{Path: path}
		}},
		{"mem", func(t testing.TB) (net.Listener, transport.Dialer) {
			network := new(mem.Network)
			ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: network})
			require.NoError(t, err)
			return ln, mem.Dialer{Network: network, Addr: "s"}
		}},
	}
}

// identity makes a certificate for a server, and what trusts it alone.
func identity(t testing.TB) (served, trusted *tls.Config) {
	cert, err := towtls.SelfSigned()
	require.NoError(t, err)
	trusted = new(tls.Config)
	require.NoError(t, towtls.PinFingerprint(trusted, towtls.Fingerprint(cert.Leaf)))
	return &tls.Config{Certificates: []tls.Certificate{cert}}, trusted
}

// startEcho serves echoes until the test ends.
func startEcho(t testing.TB, ln net.Listener, o *reconnect.ListenOptions) *reconnect.Listener {
	l := reconnect.NewListener(ln, o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() { echo(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		wg.Wait()
	})
	return l
}

// echo is the whole of an echo server, for one peer.
func echo(ctx context.Context, conn *reconnect.Conn) {
	defer conn.CloseNow()
	r, w := conn.Reader(), conn.Writer()
	for d, err := range r.All(ctx) {
		if err != nil || w.Send(ctx, d) != nil {
			break // what was good is sent back before the end
		}
	}
	if errors.Is(conn.Err(), reconnect.ErrProtocol) {
		<-conn.Done() // the peer has been told; Close would cut that short
	}
	_ = conn.CloseSend(ctx)
	_ = conn.Close(ctx)
}
