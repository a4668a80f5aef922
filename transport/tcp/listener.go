package tcp

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/internal/accept"
)

// Config holds a listener's settings. Nil, like the zero value, is a working default.
type Config struct {
	// ListenConfig holds further settings: keepalive, Control hooks, Multipath TCP. It is copied, never changed.
	// Nil: the defaults of package net, which probe a connection after 15 s without traffic.
	ListenConfig *net.ListenConfig

	// UserTimeout is the same setting as [Dialer.UserTimeout], for each accepted connection. 0: the system's
	// own rule.
	UserTimeout time.Duration

	// AcceptError, if not nil, is told of each failure that Accept waits for, such as a want of descriptors, and which its
	// caller does not see. Accept waits for it, too. Nil: silent.
	AcceptError func(err error)
}

// Listen listens on addr, "host:port". An empty host is every address of the machine, over IPv4 and IPv6; port 0 is a
// free port that the system chooses and that the listener's Addr tells. Cfg may be nil. The ctx bounds only the
// resolving of a host name; ending it later changes nothing. Errors are *[net.OpError].
//
// Accept returns *[net.TCPConn]. It does not fail for what passes: when the process or the system is out of file
// descriptors or memory, or a peer gave up while it waited, Accept tries again, after a wait that doubles from 5 ms to
// 1 s. So an error of Accept is final, but for a timeout where SetDeadline was called. Close ends all waits at once,
// and a second Close does no harm. The listener has also the methods SetDeadline, SyscallConn and File of
// [net.TCPListener].
func Listen(ctx context.Context, addr string, cfg *Config) (net.Listener, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	lc := net.ListenConfig{}
	if cfg.ListenConfig != nil {
		lc = *cfg.ListenConfig
	}
	if err := checkAddr(ctx, addr, true); err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &listener{
		TCPListener: ln.(*net.TCPListener),
		userTimeout: cfg.UserTimeout,
		acceptError: cfg.AcceptError,
		done:        make(chan struct{}),
	}, nil
}

type listener struct {
	*net.TCPListener
	userTimeout time.Duration
	acceptError func(error)

	closeOnce sync.Once
	closeErr  error
	done      chan struct{} // closed by Close: ends a wait between two tries of Accept
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err // not c: a nil *net.TCPConn in an interface is not nil
	}
	return c, nil
}

// AcceptTCP is here so that a caller who asks the listener for it gets the same connections as from Accept.
func (l *listener) AcceptTCP() (*net.TCPConn, error) {
	return accept.Retry(l.done, l.acceptError, l.acceptOne)
}

func (l *listener) acceptOne() (*net.TCPConn, error) {
	c, err := l.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	// Not on the listening socket, from which Linux would pass it on: with Multipath TCP, package net's default for
	// listeners, that socket refuses the option. A failure here means that the peer is gone again, on systems that
	// look; the connection's first Read tells that better than a failed Accept.
	if raw, err := c.SyscallConn(); err == nil {
		_ = setUserTimeout(raw, l.userTimeout)
	}
	return c, nil
}

func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.done)
		l.closeErr = l.TCPListener.Close()
	})
	return l.closeErr
}
