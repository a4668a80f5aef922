// Package blackbox tests the two programs as their users meet them, and has the bad networks for that: proxies between
// a dialer and a listener that cut, freeze, slow and drop.
package blackbox

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Direction is one of the two ways through a proxy.
type Direction int

// The directions.
const (
	Up   Direction = iota // from who dials to the target
	Down                  // back
)

// Faults are what a Proxy does to each of its links. The zero value is a good network.
type Faults struct {
	// CutMin and CutMax: each direction of a link draws a number of bytes between the two, and the link is cut right
	// behind the first that is reached, by RST or FIN as chance has it. 0: links are not cut.
	CutMin, CutMax int
	// Rate is how many bytes a second pass in each direction of a link. 0: as many as come.
	Rate int
	// Delay is how long each byte takes longer.
	Delay time.Duration
	// Mute tells neither end that the other one has closed or reset: it looks alive, and nothing more comes from it.
	Mute bool
	// Record keeps what passes Up, for Proxy.Recorded.
	Record bool
}

// ProxyCounts is what a Proxy has done.
type ProxyCounts struct {
	Links        int       // connections that were taken
	Resets, Fins int       // links that were cut in each way
	Unreachable  int       // connections whose target could not be reached
	Bytes        [2]uint64 // that passed in each direction
}

// Cuts is how many links were cut.
func (c ProxyCounts) Cuts() int { return c.Resets + c.Fins }

// Proxy passes TCP streams on to a target, as a bad network would. What it draws depends on its seed and the number of
// the link alone. All methods are safe for any number of goroutines.
type Proxy struct {
	target, addr string
	seed         uint64
	wg           sync.WaitGroup

	mu     sync.Mutex
	ln     net.Listener // nil while connections are refused
	closed bool
	faults Faults
	holes  [2]bool // of links to come
	links  map[*proxyLink]struct{}
	all    []*proxyLink
	counts ProxyCounts
}

// NewProxy starts a proxy to target on a port of 127.0.0.1. The faults may be changed later for the links that are then
// to come.
func NewProxy(target string, seed uint64, f Faults) (*Proxy, error) {
	p := &Proxy{target: target, addr: "127.0.0.1:0", seed: seed, faults: f, links: map[*proxyLink]struct{}{}}
	return p, p.Refuse(false)
}

// Addr is where to dial.
func (p *Proxy) Addr() string { return p.addr }

// SetFaults sets the faults of links to come.
func (p *Proxy) SetFaults(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// Refuse makes the port refuse connections, or take them again.
func (p *Proxy) Refuse(refuse bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if refuse {
		if p.ln != nil {
			_ = p.ln.Close()
		}
		p.ln = nil
		return nil
	}
	if p.ln != nil || p.closed {
		return nil
	}
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.ln, p.addr = ln, ln.Addr().String()
	p.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(nc.(*net.TCPConn)) })
		}
	})
	return nil
}

// Hole opens black holes in the directions given, and closes them in the others, for all links there are and for those
// to come: what a hole swallows waits, and goes on its way when it closes. Neither end is told of anything meanwhile,
// not even that the other one has closed.
func (p *Proxy) Hole(up, down bool) {
	p.mu.Lock()
	p.holes = [2]bool{up, down}
	p.mu.Unlock()
	p.HoleLinks(up, down)
}

// HoleLinks is Hole for the links there are alone.
func (p *Proxy) HoleLinks(up, down bool) {
	for _, l := range p.current() {
		l.hole([2]bool{up, down})
	}
}

// Cut cuts all links there are, by FIN or RST, and returns how many.
func (p *Proxy) Cut(fin bool) int {
	links := p.current()
	for _, l := range links {
		l.cut(fin)
	}
	return len(links)
}

func (p *Proxy) current() []*proxyLink {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*proxyLink, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// Counts returns what p has done so far.
func (p *Proxy) Counts() ProxyCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// Recorded returns what passed Up in the i-th link so far; nil if there was none yet.
func (p *Proxy) Recorded(i int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.all) {
		return nil
	}
	return append([]byte(nil), p.all[i].recorded...)
}

// Close resets all links, and waits until nothing of p is left.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.Refuse(true)
	for _, l := range p.current() {
		l.end(true)
	}
	p.wg.Wait()
}

// proxyLink is one connection through a Proxy.
type proxyLink struct {
	p        *Proxy
	faults   Faults
	ends     [2]*net.TCPConn // the dialer's, where Up comes from; and the target's
	limits   [2]int          // bytes until the cut
	fin      bool            // how it is cut
	recorded []byte          // guarded by p.mu
	dead     chan struct{}   // closed when nothing passes any more

	mu      sync.Mutex
	over    bool // dead is closed
	eofs    int
	holes   [2]bool
	changed chan struct{} // closed when holes change
}

func (p *Proxy) serve(nc *net.TCPConn) {
	to, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	p.mu.Lock()
	p.counts.Links++
	n := p.counts.Links
	if err != nil || p.closed {
		p.counts.Unreachable++
		p.mu.Unlock()
		reset(nc)
		if err == nil {
			reset(to.(*net.TCPConn))
		}
		return
	}
	l := &proxyLink{
		p: p, faults: p.faults, ends: [2]*net.TCPConn{nc, to.(*net.TCPConn)}, holes: p.holes,
		dead: make(chan struct{}), changed: make(chan struct{}),
	}
	rng := rand.New(rand.NewPCG(p.seed, uint64(n)))
	l.limits, l.fin = [2]int{-1, -1}, rng.IntN(2) == 0
	if l.faults.CutMax > 0 {
		for d := range l.limits {
			l.limits[d] = l.faults.CutMin + rng.IntN(l.faults.CutMax-l.faults.CutMin+1)
		}
	}
	p.links[l] = struct{}{}
	p.all = append(p.all, l)
	p.mu.Unlock()

	if l.faults.Rate > 0 {
		for _, c := range l.ends { // else the kernel holds megabytes
			_ = c.SetReadBuffer(16 << 10)
			_ = c.SetWriteBuffer(16 << 10)
		}
	}
	for _, d := range []Direction{Up, Down} {
		size := 4
		if l.faults.Delay > 0 {
			size = 256
		}
		pieces := make(chan piece, size)
		p.wg.Go(func() { l.read(d, pieces) })
		p.wg.Go(func() { l.write(d, pieces) })
	}
}

// piece is some bytes on their way, or an end.
type piece struct {
	data []byte
	err  error
	due  time.Time
}

func (l *proxyLink) read(d Direction, pieces chan<- piece) {
	for {
		buf := make([]byte, 16<<10)
		n, err := l.ends[d].Read(buf)
		due := time.Now().Add(l.faults.Delay)
		for _, x := range []piece{{buf[:n], nil, due}, {nil, err, due}} {
			if len(x.data) == 0 && x.err == nil {
				continue
			}
			select {
			case pieces <- x:
			case <-l.dead:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (l *proxyLink) write(d Direction, pieces <-chan piece) {
	to := l.ends[1-d]
	for {
		var x piece
		select {
		case x = <-pieces:
		case <-l.dead:
			return
		}
		if l.faults.Delay > 0 && !l.wait(time.Until(x.due)) || !l.pass(d) {
			return
		}
		switch {
		case x.err == nil:
		case l.faults.Mute:
			return
		case errors.Is(x.err, io.EOF):
			_ = to.CloseWrite()
			l.mu.Lock()
			l.eofs++
			both := l.eofs == 2
			l.mu.Unlock()
			if both {
				l.end(false)
			}
			return
		default:
			l.end(true)
			return
		}
		data, cut := x.data, false
		if l.limits[d] >= 0 && len(data) >= l.limits[d] {
			data, cut = data[:l.limits[d]], true
		}
		n, err := to.Write(data)
		l.limits[d] -= min(n, max(l.limits[d], 0))
		l.p.mu.Lock()
		l.p.counts.Bytes[d] += uint64(n)
		if l.faults.Record && d == Up {
			l.recorded = append(l.recorded, data[:n]...)
		}
		l.p.mu.Unlock()
		switch {
		case err != nil:
			if !l.faults.Mute && l.pass(1-d) { // it is the other direction that tells of it
				l.end(true)
			}
			return
		case cut:
			l.cut(l.fin)
			return
		}
		if l.faults.Rate > 0 && !l.wait(time.Duration(n)*time.Second/time.Duration(l.faults.Rate)) {
			return
		}
	}
}

// wait returns false if the link has ended.
func (l *proxyLink) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.dead:
		return false
	}
}

// pass waits until there is no hole. It returns false if the link has ended.
func (l *proxyLink) pass(d Direction) bool {
	for {
		l.mu.Lock()
		hole, changed := l.holes[d], l.changed
		l.mu.Unlock()
		if !hole {
			return true
		}
		select {
		case <-changed:
		case <-l.dead:
			return false
		}
	}
}

func (l *proxyLink) hole(holes [2]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holes = holes
	close(l.changed)
	l.changed = make(chan struct{})
}

// finish makes nothing pass any more. It returns false if that was so.
func (l *proxyLink) finish() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.over = true
	close(l.dead)
	l.p.mu.Lock()
	delete(l.p.links, l)
	l.p.mu.Unlock()
	return true
}

// cut is the fault.
func (l *proxyLink) cut(fin bool) {
	if !l.finish() {
		return
	}
	l.p.mu.Lock()
	if fin {
		l.p.counts.Fins++
	} else {
		l.p.counts.Resets++
	}
	l.p.mu.Unlock()
	if !fin {
		reset(l.ends[0])
		reset(l.ends[1])
		return
	}
	// Closing with unread bytes would be a reset.
	for _, c := range l.ends {
		_ = c.CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}
	for _, c := range l.ends {
		l.p.wg.Go(func() {
			_, _ = io.Copy(io.Discard, struct{ io.Reader }{c})
			_ = c.Close()
		})
	}
}

// end ends a link whose ends did, or whose proxy does.
func (l *proxyLink) end(hard bool) {
	if !l.finish() {
		return
	}
	for _, c := range l.ends {
		if hard {
			reset(c)
		} else {
			_ = c.Close()
		}
	}
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
