package redial_test

import (
	"context"
	cryptotls "crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

type dialFunc = func(context.Context) (net.Conn, error)

// world is servers of all transports, good and bad.
type world struct {
	t       *testing.T
	dir     string
	site    *site
	cert    cryptotls.Certificate
	foreign cryptotls.Certificate

	tlsAddr, mutualTLS, tls12 string
	plain, hangUp, silent     string         // TCP servers without TLS
	alerts                    map[int]string // TCP servers that answer with an alert
	quicAddr, mutualQUIC      string
	hole                      string // takes packets and says nothing
	oldQUIC                   string // speaks other versions of QUIC
	stale, datagrams          string // socket files
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), site: newSite(t, "reset", "hangs"), alerts: make(map[int]string)}
	w.site.faults["reset"].CutAfter(mem.Both, 0, nil)
	w.site.faults["hangs"].HangDials(-1, 0)

	var err error
	w.cert, err = tls.SelfSigned("localhost", "127.0.0.1")
	require.NoError(t, err)
	w.foreign, err = tls.SelfSigned()
	require.NoError(t, err)

	serving := &cryptotls.Config{Certificates: []cryptotls.Certificate{w.cert}}
	mutual := serving.Clone()
	mutual.ClientAuth = cryptotls.RequireAndVerifyClientCert
	mutual.ClientCAs = w.authorities()
	for addr, cfg := range map[*string]*cryptotls.Config{&w.tlsAddr: serving, &w.mutualTLS: mutual} {
		ln, err := tls.Listen(t.Context(), "127.0.0.1:0", &tls.Config{TLS: cfg})
		require.NoError(t, err)
		*addr = w.accept(ln)
	}
	for addr, cfg := range map[*string]*cryptotls.Config{&w.quicAddr: serving, &w.mutualQUIC: mutual} {
		ln, err := quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: cfg})
		require.NoError(t, err)
		*addr = w.accept(ln)
	}
	old := serving.Clone()
	old.MaxVersion = cryptotls.VersionTLS12
	ln, err := cryptotls.Listen("tcp", "127.0.0.1:0", old)
	require.NoError(t, err)
	w.tls12 = w.accept(ln)

	w.plain = w.serve(func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n") })
	w.hangUp = w.serve(func(net.Conn) {})
	w.silent = w.serve(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, alert := range []int{49, 80} {
		w.alerts[alert] = w.serve(func(c net.Conn) {
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, byte(alert)})
		})
	}
	w.hole = w.packets(func([]byte) []byte { return nil })
	w.oldQUIC = w.packets(negotiate)

	w.stale, w.datagrams = filepath.Join(w.dir, "stale"), filepath.Join(w.dir, "datagrams")
	ul, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.stale, Net: "unix"})
	require.NoError(t, err)
	ul.SetUnlinkOnClose(false)
	require.NoError(t, ul.Close())
	ug, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.datagrams, Net: "unixgram"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = ug.Close() })
	return w
}

// accept takes the connections of ln, reads from each, as a handshake may need, and drops it.
func (w *world) accept(ln net.Listener) string {
	return w.run(ln, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
}

// serve is a TCP server that reads something from each connection, does what do says, and ends it in good order.
func (w *world) serve(do func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	return w.run(ln, func(c net.Conn) {
		do(c)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

func (w *world) run(ln net.Listener, serve func(net.Conn)) string {
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
	w.t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}

// packets is a UDP server.
func (w *world) packets(answer func([]byte) []byte) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(w.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if a := answer(buf[:n]); a != nil {
				_, _ = pc.WriteTo(a, from)
			}
		}
	}()
	w.t.Cleanup(func() { _ = pc.Close(); <-done })
	return pc.LocalAddr().String()
}

// negotiate answers a QUIC packet with a Version Negotiation packet (RFC 9000, section 17.2.1) that offers nothing
// useful.
func negotiate(p []byte) []byte {
	dst := p[6 : 6+p[5]]
	rest := p[6+len(dst):]
	src := rest[1 : 1+rest[0]]
	return slices.Concat([]byte{0x80, 0, 0, 0, 0, byte(len(src))}, src, []byte{byte(len(dst))}, dst, []byte{0xfa, 0xce, 0xb0, 0x02})
}

func (w *world) authorities() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(w.cert.Leaf)
	return pool
}

// trust is a client's configuration that believes the servers of this world.
func (w *world) trust(change func(*cryptotls.Config)) *cryptotls.Config {
	cfg := &cryptotls.Config{RootCAs: w.authorities()}
	if change != nil {
		change(cfg)
	}
	return cfg
}

func (w *world) stranger(cfg *cryptotls.Config) {
	cfg.GetClientCertificate = func(*cryptotls.CertificateRequestInfo) (*cryptotls.Certificate, error) { return &w.foreign, nil }
}

func (w *world) pinOther() *cryptotls.Config {
	cfg := &cryptotls.Config{}
	require.NoError(w.t, tls.PinFingerprint(cfg, tls.Fingerprint(w.foreign.Leaf)))
	return cfg
}

func inYears(n int) func(*cryptotls.Config) {
	return func(cfg *cryptotls.Config) { cfg.Time = func() time.Time { return time.Now().AddDate(n, 0, 0) } }
}

func speaks(proto string) func(*cryptotls.Config) {
	return func(cfg *cryptotls.Config) { cfg.NextProtos = []string{proto} }
}

const patience = 300 * time.Millisecond

func (w *world) tcp(addr string) dialFunc { return tcp.Dialer{Addr: addr}.DialContext }

func (w *world) tcpFrom(local, addr string) dialFunc {
	return tcp.Dialer{Addr: addr, LocalAddr: local}.DialContext
}

func (w *world) mem(name string) dialFunc {
	return mem.Dialer{Network: &w.site.network, Addr: name}.DialContext
}

func (w *world) unix(path string) dialFunc { return unix.Dialer{Path: path}.DialContext }

func (w *world) tls(addr string, cfg *cryptotls.Config) dialFunc {
	d := tls.Dialer{Addr: addr, Config: cfg}
	if addr == w.silent {
		d.HandshakeTimeout = patience
	}
	return d.DialContext
}

func (w *world) tlsFiles(ca string) dialFunc {
	return tls.Dialer{Addr: w.tlsAddr, GetConfig: (&tls.Files{CA: ca}).Client}.DialContext
}

func (w *world) quic(addr string, cfg *cryptotls.Config) dialFunc {
	d := quic.Dialer{Addr: addr, Config: cfg}
	if addr == w.hole {
		d.HandshakeTimeout = patience
	}
	return d.DialContext
}

func (w *world) quicClosed() dialFunc {
	s, err := quic.NewSocket("127.0.0.1:0")
	require.NoError(w.t, err)
	require.NoError(w.t, s.Close())
	return quic.Dialer{Addr: w.quicAddr, Config: w.trust(nil), Socket: s}.DialContext
}
