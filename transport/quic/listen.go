package quic

import (
	"container/list"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// Config sets up a listener. TLS must be set; everything else may stay zero.
type Config struct {
	// TLS holds the certificate, and asks for client certificates if it should. It is copied. NextProtos is "towline/1"
	// if it is empty, and the version is TLS 1.3 at least.
	TLS *tls.Config

	// HandshakeTimeout is how long a peer may take from its first packet until its connection is ready for Accept.
	// 0 means 10 s.
	HandshakeTimeout time.Duration

	// IdleTimeout and KeepAlive are those of [Dialer].
	IdleTimeout, KeepAlive time.Duration

	// MaxHandshakes bounds the peers that are in the TLS handshake, and also those that completed it and then say
	// nothing. Of the latter the oldest makes room for the newest, so that silent peers keep nobody out; beyond the
	// former, peers are refused, and from a quarter of it on they must first prove that their address is theirs, which
	// costs them a round trip. 0 means 1024.
	MaxHandshakes int

	// HandshakeError, if not nil, is told of each peer that began a handshake and did not get as far as Accept, and
	// why. It is called from many goroutines at once, each time from one of its own, and never once the listener is
	// closed. The address may be forged if the handshake had not got far. Peers beyond MaxHandshakes are refused
	// without a word.
	HandshakeError func(remote net.Addr, err error)
}

// backlog is how many ready connections wait for Accept. Further ones are refused.
const backlog = 1024

// Listen opens a UDP socket on addr, "host:port", and returns a [net.Listener] whose Accept returns a *[Conn] for each
// peer that completed its handshake; slow and silent peers never hold it up. An empty host is all addresses; port 0 is
// one that the system chooses: Addr returns the *[net.UDPAddr] with it. Listen blocks only if host is a name, until ctx
// ends; ctx has no effect on the listener afterwards. Without a certificate in cfg it returns an error.
//
// The listener's Close refuses the connections that were not taken yet and unblocks Accept with an error that matches
// [net.ErrClosed]. Connections taken before go on, on the same UDP socket, which is closed with the last of them: until
// then the port stays in use. If the private key in cfg.TLS.Certificates can be exported, a server that was killed and
// is started again on the same port tells the peers of the old one that their connections are gone.
func Listen(ctx context.Context, addr string, cfg *Config) (net.Listener, error) {
	if cfg == nil || !hasCertificate(cfg.TLS) {
		return nil, &net.OpError{Op: "listen", Net: "quic", Err: errNoCertificate}
	}
	sock, err := openSocket(ctx, "udp", addr, resetKey(cfg.TLS))
	if err != nil {
		return nil, err
	}
	conf := listenerTLS(cfg.TLS)
	times := newTiming(cfg.HandshakeTimeout, cfg.IdleTimeout, cfg.KeepAlive)
	l := &listener{
		sock:   sock,
		times:  times,
		limit:  cfg.MaxHandshakes,
		report: cfg.HandshakeError,
		scene:  scene{handshake: times.handshake, idle: times.idle, protos: conf.NextProtos},
		ready:  make(chan *Conn, backlog),
		closed: make(chan struct{}),
	}
	if l.limit <= 0 {
		l.limit = 1024
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	sock.tr.ConnContext = l.begin
	sock.tr.VerifySourceAddress = func(net.Addr) bool { return l.handshakes.Load() >= int64(l.limit+3)/4 }
	l.ql, err = sock.tr.Listen(conf, times.config(false))
	if err != nil {
		sock.release()
		return nil, &net.OpError{Op: "listen", Net: "quic", Addr: sock.udp.LocalAddr(), Err: l.scene.explain(err)}
	}
	for range takers {
		l.wg.Go(l.run)
	}
	return l, nil
}

var errNoCertificate = errors.New("QUIC needs a certificate: set Config.TLS with Certificates or GetCertificate")

func hasCertificate(conf *tls.Config) bool {
	return conf != nil && (len(conf.Certificates) > 0 || conf.GetCertificate != nil || conf.GetConfigForClient != nil)
}

// resetKey returns a function that derives the secret behind stateless resets from the private key, so that it survives a
// restart, and from the address and the machine's name: another listener with this certificate must not give away what
// ends the connections of this one [RFC 9000, section 21.11]. The key is nil if there is no private key to see.
func resetKey(conf *tls.Config) func(net.Addr) *quicgo.StatelessResetKey {
	return func(local net.Addr) *quicgo.StatelessResetKey {
		if len(conf.Certificates) == 0 {
			return nil
		}
		private, err := x509.MarshalPKCS8PrivateKey(conf.Certificates[0].PrivateKey)
		if err != nil {
			return nil
		}
		host, _ := os.Hostname() // "" is a name
		info := "towline/1 quic stateless reset of " + local.String() + " on " + host
		key, err := hkdf.Key(sha256.New, private, nil, info, len(quicgo.StatelessResetKey{}))
		if err != nil {
			return nil
		}
		return (*quicgo.StatelessResetKey)(key)
	}
}

// listener turns QUIC connections into Conns. Each peer passes three stages: the handshake inside quic-go, counted by
// handshakes; silent, until its preface arrived; ready.
type listener struct {
	sock   *socket
	ql     *quicgo.Listener
	times  timing
	limit  int
	report func(net.Addr, error)
	scene  scene

	ctx        context.Context // ends the waits for prefaces
	cancel     context.CancelCauseFunc
	wg         sync.WaitGroup
	handshakes atomic.Int64
	closing    atomic.Bool

	mu     sync.Mutex
	silent list.List // of context.CancelCauseFunc, oldest first
	closed chan struct{}
	err    error // why it closed; set before closed is closed
	ready  chan *Conn
}

// Reasons for which the listener gives up on a peer.
var (
	errCrowded = errors.New("the peer opened no stream and had to make room for others")
	errSilent  = errors.New("the peer completed the handshake and then opened no stream in time")
	errFull    = errors.New("too many connections wait for Accept")
	errPreface = errors.New("the peer speaks another protocol on the stream")
)

// entry is a peer's place among those in the handshake.
type entry struct {
	since time.Time
	done  atomic.Bool
}

type entryKey struct{}

// begin is called for the first packet of each peer.
func (l *listener) begin(ctx context.Context, info *quicgo.ClientInfo) (context.Context, error) {
	if l.handshakes.Add(1) > int64(l.limit) {
		l.handshakes.Add(-1)
		return nil, errCrowded
	}
	e := &entry{since: time.Now()}
	remote := info.RemoteAddr
	context.AfterFunc(ctx, func() { // the connection ended, perhaps long after its handshake
		if l.leave(e) {
			l.failed(remote, context.Cause(ctx))
		}
	})
	return context.WithValue(ctx, entryKey{}, e), nil
}

// leave takes a peer out of the handshake stage, once.
func (l *listener) leave(e *entry) bool {
	if !e.done.CompareAndSwap(false, true) {
		return false
	}
	l.handshakes.Add(-1)
	return true
}

// takers is how many goroutines take completed handshakes from quic-go, which refuses peers once 32 wait to be taken: each
// that stands ready is room for one more. On a busy machine a single one comes too late if 50 peers dial at once, for all of
// their handshakes may be scheduled before it.
const takers = 32

// run takes completed handshakes from quic-go, and waits for nothing else, not even for a lock.
func (l *listener) run() {
	for {
		qc, err := l.ql.Accept(context.Background())
		if err != nil {
			l.shut(l.scene.explain(err))
			return
		}
		l.wg.Add(1)
		go func() {
			since := time.Now()
			if e, ok := qc.Context().Value(entryKey{}).(*entry); ok {
				l.leave(e)
				since = e.since
			}
			ctx, cancel := context.WithCancelCause(l.ctx)
			err := l.admit(ctx, qc, since, l.enter(cancel))
			cancel(nil)
			l.wg.Done()
			if err != nil {
				l.failed(qc.RemoteAddr(), err) // may call Close, which waits for wg
			}
		}()
	}
}

// enter adds a peer to the silent ones, and drops the oldest if they are too many.
func (l *listener) enter(cancel context.CancelCauseFunc) *list.Element {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.silent.Len() >= l.limit {
		l.silent.Remove(l.silent.Front()).(context.CancelCauseFunc)(errCrowded)
	}
	return l.silent.PushBack(cancel)
}

// admit waits for the stream and its preface and hands the connection to Accept. It closes qc on error.
func (l *listener) admit(ctx context.Context, qc *quicgo.Conn, since time.Time, place *list.Element) error {
	ctx, cancel := context.WithDeadlineCause(ctx, since.Add(l.times.handshake), errSilent)
	defer cancel()
	stream, err := qc.AcceptStream(ctx)
	if err == nil {
		err = readPreface(ctx, stream)
	}
	l.mu.Lock()
	l.silent.Remove(place)
	l.mu.Unlock()
	if err == nil {
		err = l.offer(qc, stream)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	code := codeBusy
	switch {
	case errors.Is(err, errSilent):
		code = codeSlow
	case errors.Is(err, errPreface):
		code = codePreface
	}
	_ = qc.CloseWithError(code, err.Error()) // never fails
	return err
}

// readPreface reads the preface from stream, until ctx ends.
func readPreface(ctx context.Context, stream *quicgo.Stream) error {
	stop := context.AfterFunc(ctx, func() { _ = stream.SetReadDeadline(time.Unix(1, 0)) })
	var got [len(preface)]byte
	_, err := io.ReadFull(stream, got[:])
	if !stop() {
		return context.Cause(ctx)
	}
	switch {
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return fmt.Errorf("%w: its stream ended inside the preface", errPreface)
	case err != nil:
		return err
	case got != preface:
		return fmt.Errorf("%w: expected the preface % x, got % x", errPreface, preface, got)
	}
	return nil
}

// offer makes a connection ready for Accept.
func (l *listener) offer(qc *quicgo.Conn, stream *quicgo.Stream) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if isDone(l.closed) {
		return net.ErrClosed
	}
	if len(l.ready) == cap(l.ready) {
		return errFull
	}
	if err := l.sock.acquire(); err != nil {
		return err
	}
	l.ready <- newConn(qc, stream, l.sock, qc.LocalAddr(), l.times.idle)
	return nil
}

// failed reports a peer that did not get as far as Accept. Peers that went away in good order, such as dialers that
// tried several addresses, are none of the user's business; nor is what Close does.
func (l *listener) failed(remote net.Addr, err error) {
	var app *quicgo.ApplicationError
	if l.report == nil || isDone(l.closed) || errors.As(err, &app) && app.Remote && app.ErrorCode == codeClosed {
		return
	}
	s := l.scene
	s.peer = remote.String()
	l.report(remote, &net.OpError{Op: "accept", Net: "quic", Source: l.Addr(), Addr: remote, Err: s.explain(err)})
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.ready:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, l.opError("accept", l.err)
}

// Addr returns the address of the UDP socket.
func (l *listener) Addr() net.Addr { return l.sock.udp.LocalAddr() }

// Close ends the listener. It blocks until its goroutines are gone, which takes no peer's help.
func (l *listener) Close() error {
	if !l.closing.CompareAndSwap(false, true) {
		return l.opError("close", net.ErrClosed)
	}
	l.shut(net.ErrClosed)
	l.cancel(net.ErrClosed)
	_ = l.ql.Close() // ends the handshakes, and then run
	l.wg.Wait()
	for {
		select {
		case c := <-l.ready:
			c.abort(codeBusy, "the listener was closed")
			_ = c.Close()
		default:
			l.sock.release()
			return nil
		}
	}
}

// shut makes Accept fail for the given reason, once. No connection becomes ready afterwards.
func (l *listener) shut(reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !isDone(l.closed) {
		l.err = reason
		close(l.closed)
	}
}

func (l *listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "quic", Addr: l.Addr(), Err: err}
}
