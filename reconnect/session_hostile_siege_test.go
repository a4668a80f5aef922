package reconnect_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// siege is a fort on TCP, and one client that behaves: until the end it goes on with its session, and has new ones
// beside it, each of which must not take longer than bearable for 99 of 100.
type siege struct {
	t      *testing.T
	before holdings
	f      *fort
	addr   string
	good   *client
	mu     sync.Mutex
	conns  []net.Conn // the attackers' ends
}

// bearable is how long a good client may wait: no time at all, but for a machine that is busy with the attack, with both
// ends of it, and with other tests.
const bearable = 2 * time.Second

func newSiege(t *testing.T, o reconnect.ListenOptions, app func(*reconnect.Conn) error) *siege {
	if o.Plain == reconnect.AllowPlain {
		o.Plain = reconnect.RefusePlain
	}
	s := &siege{t: t, before: holds()}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = ln.Addr().String()
	s.f = newFortOf(t, ln, o, app)
	s.good = newClient(t, "good", tcp.Dialer{Addr: s.addr})
	return s
}

// parallel runs n attackers, some at a time, and fails if one does.
func (s *siege) parallel(n int, attack func(i int) error) {
	s.t.Helper()
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range 32 {
		wg.Go(func() {
			for i := range next {
				if err := attack(i); err != nil {
					mu.Lock()
					failed = fmt.Errorf("attacker %d: %w", i, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	require.NoError(s.t, failed)
}

// keep leaves an attacker's connection open until lift.
func (s *siege) keep(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, nc)
}

// villain is an attacker who has dialled.
func (s *siege) villain(seed int) (*villain, error) {
	v := newVillain(newRNG(seed), tcp.Dialer{Addr: s.addr})
	return v, v.dial()
}

// during lets time pass for the good client.
func (s *siege) during(d time.Duration) { <-time.After(d) }

// lift ends the siege: the good client has lost nothing and did not wait for long, Close does not wait for the attackers,
// who still are there, and nothing is left.
func (s *siege) lift(format string, args ...any) {
	s.t.Helper()
	s.good.leave()
	trip, mostTrip := p99(s.good.trips)
	call, mostCall := p99(s.good.calls)
	assert.NotEmpty(s.t, s.good.trips, "the good client had no round trip")
	assert.NotEmpty(s.t, s.good.calls, "the good client had no new session")
	assert.Less(s.t, trip, bearable, "p99 of round trips")
	assert.Less(s.t, call, bearable, "p99 of new sessions")
	s.f.end()
	for _, nc := range s.conns {
		reset(nc)
	}
	s.f.typed()
	after := backTo(s.t, s.before, 20*time.Second)
	s.t.Logf("%s; good client: %d round trips p99 %v max %v, %d new sessions p99 %v max %v; left: %+d goroutines, %+d descriptors",
		fmt.Sprintf(format, args...), len(s.good.trips), trip.Round(10*time.Microsecond), mostTrip.Round(10*time.Microsecond),
		len(s.good.calls), call.Round(10*time.Microsecond), mostCall.Round(10*time.Microsecond),
		after.goroutines-s.before.goroutines, after.descriptors-s.before.descriptors)
}

// fewer is n, or with the race detector a tenth of it.
func fewer(n int) int {
	if raceEnabled {
		return n / 10
	}
	return n
}

// Five times as many silent connections as there may be handshakes hold nobody up: the oldest that have said nothing make
// room.
func TestSiegeSilent(t *testing.T) {
	n, limit := fewer(5000), fewer(reconnect.DefaultMaxHandshakes)
	s := newSiege(t, reconnect.ListenOptions{MaxHandshakes: limit}, echoing)
	s.parallel(n, func(int) error {
		nc, err := net.Dial("tcp", s.addr)
		if err == nil {
			s.keep(nc)
		}
		return err
	})
	height := holds()
	s.during(time.Second)
	served := height.descriptors - s.before.descriptors - n
	assert.LessOrEqual(t, served, limit+16, "connections at the listener's end")
	per := (int64(height.heap) - int64(s.before.heap)) / int64(limit)
	assert.Less(t, per, int64(16<<10), "bytes for each handshake")
	s.lift("silent: %d connections, %d of them open at the listener, %d bytes each", n, served, per)
}

var _ = io.EOF
var _ = context.Background
