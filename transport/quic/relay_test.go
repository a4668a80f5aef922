package quic

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay passes datagrams between one dialer and a listener, both ways, as a bad network would.
type relay struct {
	front  *net.UDPConn // the dialer's side
	back   *net.UDPConn // the listener's side
	dialer atomic.Pointer[netip.AddrPort]
	lose   func(n int64) bool // says whether the n-th datagram gets lost
	count  atomic.Int64
	wg     sync.WaitGroup
}

// newRelay starts a relay to the listener's address.
func newRelay(t *testing.T, to net.Addr, lose func(n int64) bool) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	back, err := net.DialUDP("udp", nil, to.(*net.UDPAddr))
	require.NoError(t, err)
	r := &relay{front: front, back: back, lose: lose}
	r.wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := front.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.dialer.Store(&from)
			if !r.lose(r.count.Add(1)) {
				_, _ = back.Write(buf[:n])
			}
		}
	})
	r.wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, err := back.Read(buf)
			if err != nil {
				return
			}
			if to := r.dialer.Load(); to != nil && !r.lose(r.count.Add(1)) {
				_, _ = front.WriteToUDPAddrPort(buf[:n], *to)
			}
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *relay) stop() {
	_ = r.front.Close()
	_ = r.back.Close()
	r.wg.Wait()
}
