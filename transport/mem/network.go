package mem

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// ErrNoNetwork is the reason in the error of a dial or listen that was given no [Network].
var ErrNoNetwork = errors.New("no mem.Network given")

// Network is a set of names that listeners take and dialers find; each value is a world of its own. The zero value is
// ready. It must not be copied after first use. Its method and its use by [Listen] and [Dialer] are safe from any
// number of goroutines. It needs no closing: it is empty when its listeners are closed.
type Network struct {
	faults Faults

	mu        sync.Mutex
	listeners map[string]*listener
	names     int // names made up so far
	dialers   int // addresses given to dialing ends so far
}

// Faults is the control of every connection and dial of the network.
func (n *Network) Faults() *Faults { return &n.faults }

// Addr is the address of one end of a connection: the name of a listener, or for the end that dialled it the name with
// # and a number behind it. Empty is not the name of anything.
type Addr string

// Network returns "mem".
func (Addr) Network() string { return "mem" }

// String returns the address as it is given to [Dialer] and [Listen].
func (a Addr) String() string { return string(a) }

// listen registers l under name, or under a new one, and tells which.
func (n *Network) listen(name string, l *listener) (Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if base, any := strings.CutSuffix(name, ":0"); any || name == "" {
		if base == "" {
			base = "mem"
		}
		for taken := true; taken; _, taken = n.listeners[name] {
			n.names++
			name = base + ":" + strconv.Itoa(n.names)
		}
	}
	if _, taken := n.listeners[name]; taken {
		return Addr(name), syscall.EADDRINUSE
	}
	if n.listeners == nil {
		n.listeners = make(map[string]*listener)
	}
	n.listeners[name] = l
	l.addr = Addr(name)
	return Addr(name), nil
}

// remove frees the name of l.
func (n *Network) remove(l *listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, string(l.addr))
}

// find gives the listener of a name, or nil.
func (n *Network) find(name string) *listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.listeners[name]
}

// source makes up the address of an end that dials name.
func (n *Network) source(name string) Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialers++
	return Addr(name + "#" + strconv.Itoa(n.dialers))
}
