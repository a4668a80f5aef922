package blackbox

import (
	"net"
	"net/netip"
	"sync"
)

// UDPCounts is what a UDPProxy has done, in datagrams.
type UDPCounts struct {
	Passed, Dropped [2]uint64
	Flows           int // addresses that sent something
	Rebinds         int // how often a flow got another address
}

// UDPProxy passes UDP datagrams on to a target, as a network with NAT would: each sender gets a port of its own there.
// All methods are safe for any number of goroutines.
type UDPProxy struct {
	front  *net.UDPConn
	target *net.UDPAddr
	wg     sync.WaitGroup

	mu     sync.Mutex
	drop   [2]bool
	closed bool
	flows  map[netip.AddrPort]*net.UDPConn // what each sender's datagrams are sent on from
	counts UDPCounts
}

// NewUDPProxy starts a proxy to target on a port of 127.0.0.1.
func NewUDPProxy(target string) (*UDPProxy, error) {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return nil, err
	}
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	_ = front.SetReadBuffer(4 << 20)
	p := &UDPProxy{front: front, target: to, flows: map[netip.AddrPort]*net.UDPConn{}}
	p.wg.Go(p.up)
	return p, nil
}

// Addr is where to send.
func (p *UDPProxy) Addr() string { return p.front.LocalAddr().String() }

// Drop makes the directions given lose everything, and the others nothing.
func (p *UDPProxy) Drop(up, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = [2]bool{up, down}
}

// Rebind gives each sender another port at the target, as a NAT does that has forgotten it.
func (p *UDPProxy) Rebind() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for from, old := range p.flows {
		back, err := p.open(from)
		if err != nil {
			return err
		}
		p.flows[from] = back
		p.counts.Rebinds++
		_ = old.Close()
	}
	return nil
}

// Counts returns what p has done so far.
func (p *UDPProxy) Counts() UDPCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Close ends p, and waits until nothing of it is left.
func (p *UDPProxy) Close() {
	p.mu.Lock()
	p.closed = true
	_ = p.front.Close()
	for _, back := range p.flows {
		_ = back.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *UDPProxy) up() {
	buf := make([]byte, 65536)
	for {
		n, from, err := p.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			if p.over() {
				return
			}
			continue
		}
		if back := p.take(Up, from); back != nil {
			_, _ = back.Write(buf[:n])
		}
	}
}

// open makes the socket from which a sender's datagrams are sent on, and passes on what comes back there. p.mu is held.
func (p *UDPProxy) open(from netip.AddrPort) (*net.UDPConn, error) {
	back, err := net.DialUDP("udp", nil, p.target)
	if err != nil {
		return nil, err
	}
	_ = back.SetReadBuffer(4 << 20)
	p.wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, err := back.Read(buf)
			if err != nil {
				p.mu.Lock()
				gone := p.closed || p.flows[from] != back
				p.mu.Unlock()
				if gone {
					return
				}
				continue // the target is not there just now
			}
			if p.take(Down, from) == back {
				_, _ = p.front.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	})
	return back, nil
}

func (p *UDPProxy) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// take counts a datagram, and returns the sender's socket; nil if the datagram is to be dropped.
func (p *UDPProxy) take(d Direction, from netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	back := p.flows[from]
	if back == nil && d == Up {
		var err error
		if back, err = p.open(from); err != nil {
			return nil
		}
		p.flows[from] = back
		p.counts.Flows++
	}
	if p.drop[d] {
		p.counts.Dropped[d]++
		return nil
	}
	p.counts.Passed[d]++
	return back
}
