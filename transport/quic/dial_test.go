package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestManyDialsOverOneSocket(t *testing.T) {
	e := listen(t, nil)
	s := newTestSocket(t)
	d := e.dialer()
	d.Socket = s

	const dials = 50
	var wg sync.WaitGroup
	var once sync.Once // the others fail because of the first
	fail := func(i int, err error) {
		once.Do(func() {
			t.Errorf("dial %d: %v", i, err)
			_ = e.ln.Close() // Accept would wait for it
		})
	}
	for i := range dials {
		wg.Go(func() {
			conn, err := d.DialContext(t.Context())
			if err != nil {
				fail(i, err)
				return
			}
			if got := conn.LocalAddr().String(); got != s.LocalAddr().String() {
				t.Errorf("local address %s", got)
			}
			_, err = fmt.Fprint(conn, i)
			err = errors.Join(err, conn.Close())
			if err != nil {
				fail(i, err)
			}
		})
	}
	defer wg.Wait()
	seen := make(map[string]bool)
	for range dials {
		conn, err := e.ln.Accept()
		require.NoError(t, err)
		got, err := io.ReadAll(conn)
		require.NoError(t, err)
		seen[string(got)] = true
		require.NoError(t, conn.Close())
	}
	wg.Wait()
	require.Len(t, seen, dials)
}

func TestGetConfig(t *testing.T) {
	e := listen(t, nil)
	d := e.dialer()
	conf, asked := d.Config, 0
	d.Config = nil
	d.GetConfig = func() (*tls.Config, error) { asked++; return conf, nil }
	for range 2 {
		conn, err := d.DialContext(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.(*Conn).CloseNow())
	}
	require.Equal(t, 2, asked)
	broken := errors.New("no such file")
	d.GetConfig = func() (*tls.Config, error) { return nil, broken }
	_, err := d.DialContext(t.Context())
	require.ErrorIs(t, err, broken)
}

func TestSocketClose(t *testing.T) {
	e := listen(t, nil)
	s := newTestSocket(t)
	d := e.dialer()
	d.Socket = s
	a, b := e.connect(t, d)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err := d.DialContext(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)

	_, err = a.Write([]byte("goes on"))
	require.NoError(t, err)
	require.NoError(t, a.Close())
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Equal(t, "goes on", string(got))

	again, err := NewSocket(s.LocalAddr().String())
	require.NoError(t, err, "the last connection closed the socket")
	require.NoError(t, again.Close())
}

func TestBadAddresses(t *testing.T) {
	for _, addr := range []string{"", "localhost", "localhost:nosuchservice", "nosuchhost.invalid:1"} {
		_, err := Dialer{Addr: addr}.DialContext(t.Context())
		var op *net.OpError
		require.ErrorAs(t, err, &op, addr)
		require.Equal(t, "dial", op.Op)
	}
	_, err := NewSocket("nosuchhost.invalid:1")
	require.Error(t, err)
}

// A name whose first address leads nowhere costs a stagger, not the handshake timeout.
func TestSecondAddress(t *testing.T) {
	e := listen(t, nil)
	good := netip.MustParseAddrPort(e.ln.Addr().String())
	hole, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = hole.Close() }()
	bad := netip.MustParseAddrPort(hole.LocalAddr().String())

	d := e.dialer()
	conf := dialerTLS(d.Config, "localhost")
	start := time.Now()
	won, err := race(t.Context(), []netip.AddrPort{bad, good}, func(ctx context.Context, addr netip.AddrPort) (*attempt, error) {
		return d.attempt(ctx, addr, conf, newTiming(0, 0, 0))
	}, (*attempt).discard)
	require.NoError(t, err)
	require.Less(t, time.Since(start), defaultHandshakeTimeout/2)
	require.Equal(t, good, won.to.AddrPort())
	won.discard()
}

func TestRace(t *testing.T) {
	addrs := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.3:1")}
	slow := &net.OpError{Op: "dial", Err: syscall.ETIMEDOUT}
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	type outcome struct {
		after time.Duration
		err   error
	}
	tests := []struct {
		name      string
		outcomes  []outcome
		want      int // index of the winner, or -1
		err       error
		took      time.Duration
		discarded int
	}{
		{"first at once", []outcome{{0, nil}, {0, nil}, {0, nil}}, 0, nil, 0, 0},
		{"second overtakes", []outcome{{time.Hour, slow}, {100 * time.Millisecond, nil}, {0, nil}}, 1, nil, stagger + 100*time.Millisecond, 0},
		{"failure starts the next", []outcome{{0, refused}, {0, refused}, {10 * time.Millisecond, nil}}, 2, nil, 10 * time.Millisecond, 0},
		{"both succeed", []outcome{{stagger + 10*time.Millisecond, nil}, {10*time.Millisecond + 1, nil}, {0, nil}}, 0, nil, stagger + 10*time.Millisecond, 1},
		{"all fail", []outcome{{time.Second, slow}, {0, refused}, {0, slow}}, -1, refused, time.Second, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var discarded atomic.Int32
				start := time.Now()
				got, err := race(t.Context(), addrs, func(ctx context.Context, addr netip.AddrPort) (int, error) {
					for i := range addrs {
						if addrs[i] != addr {
							continue
						}
						timer := time.NewTimer(test.outcomes[i].after)
						if test.name == "both succeed" {
							<-timer.C // succeeds although it is cancelled
							return i, nil
						}
						select {
						case <-ctx.Done():
							return 0, ctx.Err()
						case <-timer.C:
							return i, test.outcomes[i].err
						}
					}
					panic("unknown address")
				}, func(int) { discarded.Add(1) })
				took := time.Since(start)
				<-time.After(time.Second) // on the bubble's clock: lets the losers finish
				synctest.Wait()
				require.Equal(t, test.err, err)
				if test.want >= 0 {
					require.Equal(t, test.want, got)
				}
				require.Equal(t, test.took, took)
				require.EqualValues(t, test.discarded, discarded.Load())
			})
		})
	}
}

func TestInterleave(t *testing.T) {
	var ips []netip.Addr
	for _, s := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "::ffff:192.0.2.2"} {
		ips = append(ips, netip.MustParseAddr(s))
	}
	var got []string
	for _, ip := range interleave(ips) {
		got = append(got, ip.String())
	}
	require.Equal(t, []string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"}, got)
}

// Everything holds over a network that loses one datagram in eight, closes above all.
func TestLossyNetwork(t *testing.T) {
	e := listen(t, nil)
	r := newRelay(t, e.ln.Addr(), func(n int64) bool { return n%8 == 5 })
	d := e.dialer()
	d.Addr = r.front.LocalAddr().String()
	for i := range 10 {
		a, b := e.connect(t, d)
		if i%2 == 1 {
			a, b = b, a
		}
		want := randomBytes(100 << 10)
		_, err := a.Write(want)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		start := time.Now()
		require.NoError(t, b.Close())
		require.Less(t, time.Since(start), defaultLinger/2, "the peer was gone already, and said so")
	}
}

// A zone is no part of the name that a certificate is for; and what GetConfig says is told as all else.
func TestDialConfig(t *testing.T) {
	require.Equal(t, "fe80::1", dialerTLS(nil, "fe80::1%eth0").ServerName)
	require.Equal(t, "localhost", dialerTLS(nil, "localhost").ServerName)
	odd := errors.New("odd")
	_, err := Dialer{Addr: "127.0.0.1:1", GetConfig: func() (*tls.Config, error) { return nil, odd }}.DialContext(t.Context())
	require.ErrorIs(t, err, odd)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
}
