package mem

import (
	"context"
	"net"
	"slices"
	"sync"
)

// Config is how [Listen] and [Pipe] make connections. nil is the zero Config.
type Config struct {
	// Network is where [Listen] takes its name, and must be given there. A [Pipe] with a Network is covered by that
	// network's Faults; without one it stands alone.
	Network *Network

	// Faults also controls these connections; nil is none besides the network's and their own.
	Faults *Faults

	// Buffer is how many bytes each direction of a connection holds, written and not read. 0 is 64 KiB. Memory is
	// taken as it is needed.
	Buffer int

	// Backlog is how many connections wait for Accept; 0 is 128. Further dials wait until there is room.
	Backlog int
}

// Listen takes a name in cfg.Network and accepts connections dialled to it. An empty name, or one that ends in ":0",
// takes a free one, which Addr of the listener tells. It does not block; ctx matters only if it has ended already.
//
// The error is a *[net.OpError] that matches syscall.EADDRINUSE if the name is taken, or [ErrNoNetwork]. Accept yields
// a *[Conn] and waits until one is dialled or Close is called; it then fails with [net.ErrClosed], as does a second
// Close. Close frees the name, resets the connections that nobody accepted, and leaves the accepted ones alone.
func Listen(ctx context.Context, name string, cfg *Config) (net.Listener, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	fail := func(addr Addr, err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: addr, Err: err}
	}
	if cfg.Network == nil {
		return fail(Addr(name), ErrNoNetwork)
	}
	if err := ctx.Err(); err != nil {
		return fail(Addr(name), err)
	}
	backlog := cfg.Backlog
	if backlog <= 0 {
		backlog = defaultBacklog
	}
	l := &listener{
		network: cfg.Network,
		faults:  cfg.Faults,
		buffer:  cfg.Buffer,
		slots:   make(chan struct{}, backlog),
		queue:   make(chan *Conn, backlog),
		done:    make(chan struct{}),
	}
	addr, err := cfg.Network.listen(name, l)
	if err != nil {
		return fail(addr, err)
	}
	return l, nil
}

// A listener hands connections from dialing goroutines to accepting ones.
type listener struct {
	// Fixed; addr is set by Network.listen.
	network *Network
	addr    Addr
	faults  *Faults
	buffer  int

	// A dial first takes a slot, and with it the right to queue one connection without waiting; Accept frees it.
	slots chan struct{}
	queue chan *Conn
	done  chan struct{}

	mu     sync.Mutex // held to queue and to close, so that nothing is queued afterwards
	held   []*Conn    // kept from Accept by Faults.HoldConns; each has a slot
	closed bool
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closedError("accept")
	default:
	}
	select {
	case c := <-l.queue:
		<-l.slots
		return c, nil
	case <-l.done:
		return nil, l.closedError("accept")
	}
}

func (l *listener) Addr() net.Addr { return l.addr }

func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.closedError("close")
	}
	l.closed = true
	l.network.remove(l)
	close(l.done)
	for _, c := range l.held {
		<-l.slots
		abort(c)
	}
	l.held = nil
	for {
		select {
		case c := <-l.queue:
			<-l.slots
			abort(c)
		default:
			return nil
		}
	}
}

// offer queues an end for Accept; a listener that has closed meanwhile resets it. The caller holds a slot.
func (l *listener) offer(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		<-l.slots
		abort(c)
		return
	}
	l.queue <- c
}

// keep takes an end that is not to be accepted yet. The caller holds a slot.
func (l *listener) keep(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		<-l.slots
		abort(c)
		return
	}
	l.held = append(l.held, c)
}

// letGo queues what keep has taken, unless the listener has closed.
func (l *listener) letGo(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.held, c); i >= 0 {
		l.held = slices.Delete(l.held, i, i+1)
		l.queue <- c
	}
}

func (l *listener) closedError(op string) error {
	return &net.OpError{Op: op, Net: "mem", Addr: l.addr, Err: net.ErrClosed}
}

// abort closes a connection in the way that its peer sees as a reset, where it has such a way.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
