package tls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/towline-mq/towline/internal/accept"
	"github.com/towline-mq/towline/transport/tcp"
)

const (
	defaultMaxHandshakes = 1024

	// maxReady is how many connections may wait for Accept before the listener stops to take more.
	maxReady = 128

	// A connection that is closed with bytes unread is reset, which may destroy the alert that says why. So a refused
	// peer gets this long, and may send this much, before that.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// Config holds a listener's settings. Only TLS must be set.
type Config struct {
	// TLS has the certificate, and whatever else the server wants. It is copied, never changed. ClientAuth and
	// ClientCAs demand certificates of clients.
	//
	// NextProtos nil: [ALPN]. A client that asks for another protocol is refused; one that asks for none is served, as
	// there are peers that know no ALPN. Set VerifyConnection to be stricter.
	TLS *tls.Config

	// HandshakeTimeout bounds each handshake, from the moment its connection is accepted. 0: 10 s.
	HandshakeTimeout time.Duration

	// MaxHandshakes is how many handshakes may be under way at once. 0: 1024. A newcomer beyond that is served
	// nonetheless, and the oldest handshake whose client has said nothing yet is dropped for it; if all have spoken,
	// the oldest of all.
	MaxHandshakes int

	// HandshakeError, if not nil, is told of each handshake that failed, was refused, or was dropped, but not of those
	// that Close ends. It runs on the goroutine of its handshake, several at a time, and Close waits for it: it must
	// not call Close. Nil: silent.
	HandshakeError func(remote net.Addr, err error)

	// TCP has the settings of the TCP listener that [Listen] opens. Nil: the defaults. [NewListener] ignores it.
	TCP *tcp.Config
}

// Listen listens for TLS on addr, "host:port", over TCP. It is [NewListener] over [tcp.Listen], which tells what addr
// and ctx mean and which errors there are.
func Listen(ctx context.Context, addr string, cfg *Config) (net.Listener, error) {
	// First of all, for nothing is to be undone if it is wrong.
	l, err := newListener(cfg)
	if err != nil {
		return nil, err
	}
	inner, err := tcp.Listen(ctx, addr, cfg.TCP)
	if err != nil {
		return nil, err
	}
	l.start(inner)
	return l, nil
}

// NewListener serves TLS on the connections that inner accepts, and owns inner from then on. It returns an error, and
// leaves inner as it was, if cfg has no certificate or a setting that makes no sense. It does not block.
//
// Connections are accepted and handshakes made in the background, whether or not Accept is called, until 128 wait for
// it. Accept returns a [*Conn] whose handshake is done. It blocks until there is one, or until Close. Errors of inner's
// Accept that call themselves temporary are waited out; any other ends the listener, and Accept returns it once all
// earlier connections have been handed out.
//
// Close closes inner, ends the handshakes under way, closes the connections that nobody has accepted, and returns when
// all that is done; it may take 1 s if one of their peers does not read. Connections that were accepted live on. A
// second Close does no harm and returns the same.
func NewListener(inner net.Listener, cfg *Config) (net.Listener, error) {
	l, err := newListener(cfg)
	if err != nil {
		return nil, err
	}
	l.start(inner)
	return l, nil
}

type listener struct {
	inner   net.Listener
	tls     *tls.Config
	timeout time.Duration
	max     int
	report  func(net.Addr, error)

	closeOnce sync.Once
	closeErr  error
	done      chan struct{}  // closed by Close
	work      sync.WaitGroup // the accepting goroutine, and one for each handshake

	mu      sync.Mutex
	changed sync.Cond // for Accept: there is something in ready, or nothing more to wait for
	room    sync.Cond // for the accepting goroutine: something left ready
	pending handshakes
	ready   []*Conn
	closed  bool
	err     error // that ended the accepting goroutine
}

func newListener(cfg *Config) (*listener, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	tc, err := serverConfig(cfg.TLS)
	if err != nil {
		return nil, err
	}
	if cfg.HandshakeTimeout < 0 || cfg.MaxHandshakes < 0 {
		return nil, fmt.Errorf("tls: a listener's HandshakeTimeout (%v) and MaxHandshakes (%d) cannot be negative: both must have a bound", cfg.HandshakeTimeout, cfg.MaxHandshakes)
	}
	l := &listener{timeout: cfg.HandshakeTimeout, max: cfg.MaxHandshakes, report: cfg.HandshakeError, done: make(chan struct{})}
	if l.timeout == 0 {
		l.timeout = defaultHandshakeTimeout
	}
	if l.max == 0 {
		l.max = defaultMaxHandshakes
	}
	l.changed.L = &l.mu
	l.room.L = &l.mu
	l.watchHellos(tc)
	l.tls = tc
	return l, nil
}

// watchHellos makes cfg tell which clients have spoken, and holds what the user's own GetConfigForClient returns to the
// same rules as cfg.
func (l *listener) watchHellos(cfg *tls.Config) {
	users := cfg.GetConfigForClient
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if h, ok := hello.Context().Value(handshakeKey{}).(*handshake); ok {
			l.mu.Lock()
			l.pending.spoke(h)
			l.mu.Unlock()
		}
		if users == nil {
			return nil, nil
		}
		c, err := users(hello)
		if c == nil || err != nil {
			return c, err
		}
		return harden(c)
	}
}

// handshakeKey is that of a *handshake in the context of its handshake.
type handshakeKey struct{}

func (l *listener) start(inner net.Listener) {
	l.inner = inner
	l.work.Go(l.acceptAll)
}

func (l *listener) Addr() net.Addr { return l.inner.Addr() }

func (l *listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ready) == 0 && !l.closed && (l.err == nil || l.pending.len() > 0) {
		l.changed.Wait()
	}
	switch {
	case l.closed:
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	case len(l.ready) == 0:
		return nil, l.err
	}
	c := l.ready[0]
	l.ready[0] = nil
	if l.ready = l.ready[1:]; len(l.ready) == 0 {
		l.ready = nil
	}
	l.room.Signal()
	return c, nil
}

func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		l.mu.Lock()
		l.closed = true
		close(l.done)
		pending, ready := l.pending.takeAll(), l.ready
		l.ready = nil
		l.changed.Broadcast()
		l.room.Broadcast()
		l.mu.Unlock()

		l.closeErr = l.inner.Close()
		for _, h := range pending {
			_ = h.raw.Close()
		}
		for _, c := range ready {
			l.work.Go(func() { _ = c.Close() })
		}
		l.work.Wait()
	})
	return l.closeErr
}

// acceptAll turns what inner accepts into handshakes, until inner is closed or fails for good.
func (l *listener) acceptAll() {
	wait := accept.MinWait
	for l.waitForRoom() {
		raw, err := l.inner.Accept()
		switch {
		case err == nil:
			wait = accept.MinWait
			l.begin(raw)
		case temporary(err):
			l.pause(wait)
			wait = min(2*wait, accept.MaxWait)
		default:
			l.mu.Lock()
			l.err = err
			l.changed.Broadcast()
			l.mu.Unlock()
			return
		}
	}
}

// temporary tells whether an error of a listener that we know nothing about is worth another try.
func temporary(err error) bool {
	if accept.Passing(err) {
		return true
	}
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Temporary() //nolint:staticcheck // deprecated for its vagueness, but what listeners have for this, and net/http's own test
}

func (l *listener) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done:
	}
}

// waitForRoom waits while as many connections as may be are waiting for Accept. It returns false when the listener is
// closed.
func (l *listener) waitForRoom() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ready) >= maxReady && !l.closed {
		l.room.Wait()
	}
	return !l.closed
}

// begin starts a handshake, in the place of an older one if there are too many.
func (l *listener) begin(raw net.Conn) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		_ = raw.Close()
		return
	}
	var old *handshake
	if l.pending.len() >= l.max {
		old = l.pending.drop()
	}
	h := l.pending.add(raw)
	l.work.Go(func() { l.run(h) })
	l.mu.Unlock()

	if old != nil {
		_ = old.raw.Close() // its goroutine sees that, and reports it
	}
}

// run makes one handshake. Nothing before it asks anything of the connection: the PROXY protocol's, for one, block in
// RemoteAddr until the client has spoken.
func (l *listener) run(h *handshake) {
	c := newConn(h.raw, l.tls, tls.Server)
	// A deadline rather than a context: that would cost a second goroutine for each handshake.
	err := h.raw.SetDeadline(time.Now().Add(l.timeout))
	if err == nil {
		err = c.tls.HandshakeContext(context.WithValue(context.Background(), handshakeKey{}, h))
	}
	if err == nil {
		err = h.raw.SetDeadline(time.Time{})
	}
	if err != nil {
		l.failed(h, err)
		return
	}

	l.mu.Lock()
	ours := l.pending.remove(h)
	if ours {
		l.ready = append(l.ready, c)
		l.changed.Signal()
	}
	l.mu.Unlock()
	if !ours { // dropped, or the listener closed, in the last moment
		l.failed(h, net.ErrClosed)
	}
}

func (l *listener) failed(h *handshake, err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		linger(h.raw)
	}
	_ = h.raw.Close()

	l.mu.Lock()
	l.pending.remove(h)
	closed, dropped := l.closed, h.dropped
	l.changed.Broadcast() // for an Accept that waits for the last handshakes
	l.mu.Unlock()
	if closed || l.report == nil {
		return
	}
	remote := h.raw.RemoteAddr()
	p := party{client: true, cfg: l.tls}
	if remote != nil {
		p.addr = remote.String()
	}
	if dropped {
		err = p.fail(err, "handshake with %s: dropped for a newer one, as %d (MaxHandshakes) were under way and this was the oldest", p.addr, l.max)
	} else {
		err = p.explain(err)
	}
	l.report(remote, err)
}

// linger lets a peer that is about to be closed read what was written to it.
func linger(raw net.Conn) {
	half, ok := raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if raw.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		_, _ = io.CopyN(io.Discard, raw, lingerBytes)
	}
}
