package blackbox

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/towlinetest"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/endpoint"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// caseTime bounds a case: with the race detector, and all transports at once, 16 MiB take QUIC a while.
const caseTime = 4 * patience

// The programs speak the protocol as docs/protocol.md says (claim D7), on each transport and in both roles. A failure
// names the requirement, and says how to run its case alone.
func TestConformanceOfServer(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0", "tls://localhost:0", "quic://127.0.0.1:0", "unix://" + filepath.Join(t.TempDir(), "s")})
	for _, url := range s.urls {
		scheme := url[:4]
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			r := towlinetest.Server(t, dialerTo(t, url, s.fingerprint, ""), &towlinetest.ServerOptions{Timeout: caseTime})
			t.Logf("%s: %v", url, r)
			require.GreaterOrEqual(t, r.Passed, 410)
			require.Zero(t, r.Skipped)
		})
	}
}

func TestConformanceOfClient(t *testing.T) {
	for _, scheme := range []string{endpoint.TCP, endpoint.Unix} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			r := towlinetest.Client(t, func(tb testing.TB) net.Listener {
				url := "tcp://127.0.0.1:0"
				if scheme == endpoint.Unix {
					url = "unix://" + filepath.Join(tb.TempDir(), "s")
				}
				ln, err := endpoint.Listen(tb.Context(), url, nil)
				require.NoError(tb, err)
				return ln
			}, func(ctx context.Context, addr net.Addr) error {
				cmd := exec.CommandContext(ctx, program("echo-client"), "--connect", scheme+"://"+addr.String(), "--count", "20")
				if out, err := cmd.CombinedOutput(); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}, &towlinetest.ClientOptions{Strict: true, Impatient: true, Timeout: caseTime})
			t.Logf("%s: %v", scheme, r)
			require.GreaterOrEqual(t, r.Passed, 57)
			require.Zero(t, r.Skipped)
		})
	}
}

// TestConformance checks the echo server at ADDR, such as tcp://host:port: make conformance ADDR=… runs it. CA names a
// file with the authorities that its certificate is from, FINGERPRINT that certificate itself ("sha256:…"), TOKEN what it
// wants to be shown, MAX_PAYLOAD its limit in bytes, and PLAIN=no or SESSIONS=no what it does not serve.
func TestConformance(t *testing.T) {
	addr := os.Getenv("ADDR")
	if addr == "" {
		t.Skip("no ADDR")
	}
	o := &towlinetest.ServerOptions{
		Token: []byte(os.Getenv("TOKEN")), NoPlain: os.Getenv("PLAIN") == "no", NoSessions: os.Getenv("SESSIONS") == "no",
	}
	if s := os.Getenv("MAX_PAYLOAD"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		o.MaxPayload = n
	}
	d := dialerTo(t, addr, os.Getenv("FINGERPRINT"), os.Getenv("CA"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	nc, err := d.DialContext(ctx)
	require.NoError(t, err)
	nc.Close()
	r := towlinetest.Server(t, d, o)
	fmt.Printf("%s: %v\n", addr, r)
}

// dialerTo dials a URL, and trusts what the fingerprint or the file says.
func dialerTo(t *testing.T, url, fingerprint, ca string) transport.Dialer {
	cfg := &endpoint.Config{TLS: new(tls.Config)}
	switch {
	case ca != "":
		files := &towtls.Files{CA: ca}
		cfg.GetTLS = files.Client
	case fingerprint != "":
		require.NoError(t, towtls.PinFingerprint(cfg.TLS, fingerprint))
	}
	d, err := endpoint.Dialer(url, cfg)
	if e := new(endpoint.Error); errors.As(err, &e) {
		require.FailNow(t, e.Error())
	}
	require.NoError(t, err)
	return d
}
