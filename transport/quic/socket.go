package quic

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	quicgo "github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
)

// Socket is one UDP socket that many dials share: set it in [Dialer.Socket]. One port, one pair of kernel buffers and
// one hole in the firewall then serve all connections. Make it with [NewSocket]. Its methods may be called at any time.
type Socket struct {
	s    *socket
	once sync.Once
}

// NewSocket binds a UDP socket to localAddr, "host:port". An empty host is all addresses, IPv4 and IPv6; port 0 is one
// that the system chooses. A socket bound to an address of one family dials that family only.
// The error is a *[net.OpError]. NewSocket blocks only if host is a name.
func NewSocket(localAddr string) (*Socket, error) {
	s, err := openSocket(context.Background(), "udp", localAddr, nil)
	if err != nil {
		return nil, err
	}
	return &Socket{s: s}, nil
}

// LocalAddr returns the *[net.UDPAddr] that the socket is bound to, with the port that was chosen.
func (s *Socket) LocalAddr() net.Addr { return s.s.udp.LocalAddr() }

// Close ends dialing: dials in progress may finish, later ones fail with an error that matches [net.ErrClosed].
// Connections go on, and the UDP socket is closed with the last of them. It does not block. The error is always nil,
// and a second Close does nothing.
func (s *Socket) Close() error {
	s.once.Do(func() {
		s.s.mu.Lock()
		s.s.closed = true
		s.s.mu.Unlock()
		s.s.release()
	})
	return nil
}

// socket is a UDP socket with the QUIC machinery on it. It lives until its owner and all connections have released it.
type socket struct {
	udp *net.UDPConn
	tr  *quicgo.Transport

	mu     sync.Mutex
	refs   int
	closed bool // no new references
}

// openSocket binds a socket, with one reference. resetKey lets a process tell the peers of its predecessor on the same
// port that their connections are gone; nil is a random one.
func openSocket(ctx context.Context, network, addr string, resetKey func(net.Addr) *quicgo.StatelessResetKey) (*socket, error) {
	pc, err := new(net.ListenConfig).ListenPacket(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	udp, ok := pc.(*net.UDPConn)
	if !ok {
		_ = pc.Close()
		return nil, &net.OpError{Op: "listen", Net: "quic", Err: errors.New("not a UDP socket")}
	}
	var key *quicgo.StatelessResetKey
	if resetKey != nil {
		key = resetKey(udp.LocalAddr())
	}
	if key == nil {
		key = new(quicgo.StatelessResetKey)
		_, _ = rand.Read(key[:]) // never fails
	}
	return &socket{
		udp:  udp,
		tr:   &quicgo.Transport{Conn: newPacketConn(udp), StatelessResetKey: key},
		refs: 1,
	}, nil
}

// acquire adds a reference for a connection or a dial.
func (s *socket) acquire() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.refs++
	return nil
}

// release drops a reference. The last one closes the socket and ends its goroutines before release returns.
func (s *socket) release() {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	s.mu.Unlock()
	if last {
		_ = s.tr.Close() // nothing is left on it
		_ = s.udp.Close()
	}
}

// localAddr returns the address from which packets to remote leave. A socket that is bound to no address in particular
// does not know; the system's routes do, and a second socket that is connected, over which nothing is sent, asks them.
func (s *socket) localAddr(remote *net.UDPAddr) net.Addr {
	local, ok := s.udp.LocalAddr().(*net.UDPAddr)
	if !ok || !local.IP.IsUnspecified() {
		return s.udp.LocalAddr()
	}
	probe, err := net.DialUDP("udp", nil, remote)
	if err != nil {
		return local
	}
	defer func() { _ = probe.Close() }()
	if from, ok := probe.LocalAddr().(*net.UDPAddr); ok {
		return &net.UDPAddr{IP: from.IP, Port: local.Port, Zone: from.Zone}
	}
	return local
}

// packetConn is a UDP socket as quic-go should see it. Offloading and ECN work as on the bare socket.
//
// It sizes its own buffers. quic-go would do that too, and log a warning when the kernel gives less, which is nothing a
// library may do. It leaves alone, and does not measure, the buffers of a socket whose descriptor is out of reach: so
// this one keeps it back until both buffers are set.
//
// It lets errors pass that are over when they are told. A kernel tells what happened to a socket once, to whichever call
// comes next: that the system or an administrator aborted it, that memory was short, that a packet met an unreachable
// port. quic-go would end all connections, and a listener for ever.
type packetConn struct {
	*net.UDPConn
	batches *ipv4.PacketConn
	sized   bool // set before the socket is used

	// Owned by the one goroutine that reads.
	failed   time.Time // the last read that did
	failures int       // in a row, each soon after the one before
}

func newPacketConn(udp *net.UDPConn) *packetConn {
	return &packetConn{UDPConn: udp, batches: ipv4.NewPacketConn(udp)}
}

// A socket is broken when this many reads in a row have failed, none later than that after the one before.
const (
	maxFailures = 100
	failureGap  = 100 * time.Millisecond
)

// passingError is one after which to go on reading.
type passingError struct{ error }

func (passingError) Timeout() bool   { return false }
func (passingError) Temporary() bool { return true } // what quic-go asks for

// judge says what an error of a read means.
func (c *packetConn) judge(err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	now := time.Now()
	if now.Sub(c.failed) > failureGap {
		c.failures = 0
	}
	c.failed = now
	if c.failures++; c.failures >= maxFailures {
		return err
	}
	return passingError{err}
}

// ReadBatch is how quic-go reads where it can.
func (c *packetConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := c.batches.ReadBatch(ms, flags)
	return n, c.judge(err)
}

// ReadMsgUDP is how it reads on other systems.
func (c *packetConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, addr, err = c.UDPConn.ReadMsgUDP(b, oob)
	return n, oobn, flags, addr, c.judge(err)
}

// ReadFrom is the third.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := c.UDPConn.ReadFrom(b)
	return n, addr, c.judge(err)
}

// WriteMsgUDP tries twice: an error that is the packet's own, and not the socket's, comes again.
func (c *packetConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, addr)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, addr)
	}
	return n, oobn, err
}

// SetReadBuffer sets the buffer to size bytes, or as near as the system allows.
func (c *packetConn) SetReadBuffer(size int) error {
	setBuffer(c.UDPConn.SetReadBuffer, size)
	return nil
}

// SetWriteBuffer sets the buffer to size bytes, or as near as the system allows. quic-go sets it last.
func (c *packetConn) SetWriteBuffer(size int) error {
	setBuffer(c.UDPConn.SetWriteBuffer, size)
	c.sized = true
	return nil
}

// SyscallConn gives access to the descriptor once both buffers are set.
func (c *packetConn) SyscallConn() (syscall.RawConn, error) {
	if !c.sized {
		return nil, errors.ErrUnsupported
	}
	return c.UDPConn.SyscallConn()
}

// setBuffer tries smaller and smaller sizes: Linux takes any and cuts it down, BSD refuses what is too large.
func setBuffer(set func(int) error, size int) {
	for ; size > 128<<10; size /= 2 {
		if set(size) == nil {
			return
		}
	}
}
