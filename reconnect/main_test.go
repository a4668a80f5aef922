package reconnect_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	towtls "github.com/towline-mq/towline/transport/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not hang.
const patience = 60 * time.Second

// bounded is the context of a test that must not hang.
func bounded(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// pair makes a connected pair over each kind of stream that behaves differently below a Conn.
type pair struct {
	name string
	make func(tb testing.TB) (a, b net.Conn)
}

func pairs() []pair {
	return []pair{
		{"tcp", func(tb testing.TB) (net.Conn, net.Conn) { return socketPair(tb, "tcp", "127.0.0.1:0") }},
		{"unix", func(tb testing.TB) (net.Conn, net.Conn) {
			return socketPair(tb, "unix", filepath.Join(tb.TempDir(), "s"))
		}},
		{"tls", tlsPair},
		{"quic", quicPair},
		{"mem", func(testing.TB) (net.Conn, net.Conn) { a, b := mem.Pipe(nil); return a, b }},
	}
}

func socketPair(tb testing.TB, network, addr string) (a, b net.Conn) {
	ln, err := net.Listen(network, addr)
	require.NoError(tb, err)
	defer ln.Close()
	a, err = net.Dial(network, ln.Addr().String())
	require.NoError(tb, err)
	b, err = ln.Accept()
	require.NoError(tb, err)
	return a, b
}

func tcpPair(tb testing.TB) (a, b net.Conn) {
	a, b = socketPair(tb, "tcp", "127.0.0.1:0")
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func tlsPair(tb testing.TB) (a, b net.Conn) {
	cert, err := towtls.SelfSigned()
	require.NoError(tb, err)
	ln, err := towtls.Listen(tb.Context(), "127.0.0.1:0", &towtls.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	require.NoError(tb, err)
	defer ln.Close()
	trust := &tls.Config{}
	require.NoError(tb, towtls.PinFingerprint(trust, towtls.Fingerprint(cert.Leaf)))
	a, err = towtls.Dialer{Addr: ln.Addr().String(), Config: trust}.DialContext(tb.Context())
	require.NoError(tb, err)
	b, err = ln.Accept()
	require.NoError(tb, err)
	return a, b
}

func quicPair(tb testing.TB) (a, b net.Conn) {
	cert, err := towtls.SelfSigned()
	require.NoError(tb, err)
	ln, err := quic.Listen(tb.Context(), "127.0.0.1:0", &quic.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	require.NoError(tb, err)
	tb.Cleanup(func() { ln.Close() })
	trust := &tls.Config{}
	require.NoError(tb, towtls.PinFingerprint(trust, towtls.Fingerprint(cert.Leaf)))
	a, err = quic.Dialer{Addr: ln.Addr().String(), Config: trust}.DialContext(tb.Context())
	require.NoError(tb, err)
	b, err = ln.Accept()
	require.NoError(tb, err)
	return a, b
}

// overPairs runs a test over each kind of stream, as a plain connection and as a session, and closes both ends after it.
func overPairs(t *testing.T, o *reconnect.PlainOptions, test func(t *testing.T, a, b *reconnect.Conn)) {
	overPlain(t, o, test)
	so := reconnect.SessionOptions{}
	if o != nil {
		so.MaxPayload, so.SendBuffer = o.MaxPayload, o.SendBuffer
	}
	for _, w := range worlds() {
		t.Run(w.name+" session", func(t *testing.T) {
			s := newSession(t, w, &reconnect.ListenOptions{SessionOptions: so}, &reconnect.DialOptions{SessionOptions: so})
			defer s.end()
			test(t, s.a, s.b)
		})
		t.Run(w.name+" session, listener first", func(t *testing.T) {
			s := newSession(t, w, &reconnect.ListenOptions{SessionOptions: so}, &reconnect.DialOptions{SessionOptions: so})
			defer s.end()
			test(t, s.b, s.a)
		})
	}
}

// overPlain does the same with plain connections alone.
func overPlain(t *testing.T, o *reconnect.PlainOptions, test func(t *testing.T, a, b *reconnect.Conn)) {
	for _, p := range pairs() {
		t.Run(p.name, func(t *testing.T) {
			na, nb := p.make(t)
			a, b := reconnect.NewPlain(na, o), reconnect.NewPlain(nb, o)
			defer a.CloseNow()
			defer b.CloseNow()
			test(t, a, b)
		})
	}
}

func memPair(tb testing.TB, c *mem.Config, o *reconnect.PlainOptions) (a, b *reconnect.Conn) {
	na, nb := mem.Pipe(c)
	a, b = reconnect.NewPlain(na, o), reconnect.NewPlain(nb, o)
	tb.Cleanup(func() { a.CloseNow(); b.CloseNow() })
	return a, b
}

func text(recipient uint16, format string, args ...any) datagram.Datagram {
	return datagram.Datagram{Recipient: recipient, Payload: fmt.Appendf(nil, format, args...)}
}

// canceled returns a context that has ended.
func canceled(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}
