package reconnect_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport/mem"
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

// bearable is how long a good client may wait: no time at all, or what TestSiegeQueue says, but for a machine that is busy
// with both ends of the attack and with other tests. It is less than the HandshakeTimeout of a siege: nobody waits until an
// attacker's time is over.
const bearable = 12 * time.Second

func newSiege(t *testing.T, o reconnect.ListenOptions, app func(*reconnect.Conn) error) *siege {
	o.HandshakeTimeout = 2 * bearable
	if o.Plain == reconnect.PlainIfAnybody {
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
	waitUntil(s.t, s.good.served, patient, "the good client has had a round trip and a new session")
	s.good.leave()
	trip, mostTrip := p99(s.good.trips)
	call, mostCall := p99(s.good.calls)
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

// Five times as many silent connections as there may be handshakes hold nobody up for long: the oldest that have said
// nothing make room.
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

// crowdWait is how long a newcomer may have to wait for those who came before it and said nothing: each MaxHandshakes of
// them keep their places for half a second.
func crowdWait(before, places int) time.Duration {
	return time.Duration(before/places) * 500 * time.Millisecond
}

// crowded is a listener on a network in memory that lets all dial at once and serves them in the order in which they came.
func crowded(t *testing.T, o reconnect.ListenOptions) (*fort, mem.Dialer) {
	n := new(mem.Network)
	ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: n, Backlog: 4096})
	require.NoError(t, err)
	return newFort(t, ln, o), mem.Dialer{Network: n, Addr: "s"}
}

// errand is a good client's session, from the dial to the end, and how long it took.
func errand(t *testing.T, d mem.Dialer) time.Duration {
	t.Helper()
	start := time.Now()
	c, err := reconnect.Dial(bounded(t), d, nil)
	require.NoError(t, err)
	defer c.CloseNow()
	require.NoError(t, c.Writer().Send(t.Context(), text(1, "x")))
	_, err = c.Reader().Receive(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close(t.Context()))
	return time.Since(start)
}

// Who comes behind others that say nothing waits half a second for each MaxHandshakes of them, neither more nor less.
func TestSiegeQueue(t *testing.T) {
	const places = 40
	for _, before := range []int{0, places - 1, places, 2*places - 1, 2 * places, 9*places + 1} {
		t.Run(fmt.Sprintf("%d before", before), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, d := crowded(t, reconnect.ListenOptions{MaxHandshakes: places, Plain: reconnect.RefusePlain})
				for range before {
					nc, err := d.DialContext(t.Context())
					require.NoError(t, err)
					defer nc.Close()
				}
				require.Equal(t, crowdWait(before, places), errand(t, d))
				f.end()
				f.typed()
			})
		})
	}
}

// A byte a second does not keep a place for longer than silence does, however often they come who do it.
func TestSiegeByteASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places, attackers = 8, 40
		f, d := crowded(t, reconnect.ListenOptions{MaxHandshakes: places, Plain: reconnect.RefusePlain})
		over := make(chan struct{})
		var wg sync.WaitGroup
		lift := sync.OnceFunc(func() { close(over); wg.Wait() })
		defer lift()
		var longest [attackers]time.Duration // that one of each kept its connection
		for i := range longest {
			wg.Go(func() {
				for again := 0; ; again++ { // who has to make room comes again
					v := newVillain(newRNG(1000*i+again), d)
					if !assert.NoError(t, v.dial()) {
						return
					}
					start := time.Now()
					for _, b := range v.hello.Append(nil) {
						if _, err := v.nc.Write([]byte{b}); err != nil {
							break
						}
						select {
						case <-time.After(time.Second):
						case <-over:
							v.nc.Close()
							return
						}
					}
					longest[i] = max(longest[i], time.Since(start))
					v.nc.Close()
				}
			})
		}
		synctest.Wait() // all have come
		bound := crowdWait(attackers, places)
		require.Equal(t, bound, errand(t, d), "behind all of them")
		for range 20 {
			<-time.After(270 * time.Millisecond)
			require.LessOrEqual(t, errand(t, d), bound, "a good client")
		}
		lift()
		_, most := p99(longest[:])
		require.LessOrEqual(t, most, bound+500*time.Millisecond+time.Second, "in the queue, in a place, and until it is noticed")
		require.NotZero(t, most)
		f.end()
		f.typed()
	})
}

// greeted is an attacker with a session that it has confirmed.
func (s *siege) greeted(seed int) (*villain, error) {
	v, err := s.villain(seed)
	if err != nil {
		return nil, err
	}
	s.keep(v.nc)
	if err := v.greet(); err != nil {
		return nil, err
	}
	_, err = v.nc.Write(v.control(wire.KindAck))
	return v, err
}

// The header of a large datagram and a little of it costs what has arrived and 64 KiB, not what it says.
func TestSiegeHugeSize(t *testing.T) {
	n := fewer(1000)
	s := newSiege(t, reconnect.ListenOptions{}, echoing)
	s.parallel(n, func(i int) error {
		v, err := s.greeted(i)
		if err == nil {
			_, err = v.nc.Write(append(headless(4+datagram.DefaultMaxPayload, 1, 1), make([]byte, 100)...))
		}
		return err
	})
	s.during(500 * time.Millisecond)
	per := s.each(n)
	assert.Less(t, per, int64(64<<10+sessionCost), "bytes for each")
	s.lift("16 MiB announced and not sent: %d sessions, %d bytes each", n, per)
}

// sessionCost bounds what a session costs, with its connection, goroutines and the attacker's end.
const sessionCost = 64 << 10

// each is what each of n attackers costs now: memory that the collector cannot free, stacks included, but for what a process
// makes once and the good client has.
func (s *siege) each(n int) int64 {
	const once = 256 << 10
	return max(0, int64(holds().heap)-int64(s.before.heap)-once) / int64(n)
}

// Who takes what comes and never acknowledges it makes the application wait, at SendBuffer.
func TestSiegeNeverAcks(t *testing.T) {
	n, buffer := fewer(100), 256<<10
	s := newSiege(t, reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: buffer}, Expiry: 2 * time.Second}, pushing)
	var wg sync.WaitGroup
	s.parallel(n, func(i int) error {
		v, err := s.villain(i)
		if err != nil {
			return err
		}
		s.keep(v.nc)
		v.hello.Credit = 1 << 40
		push, _ := datagram.Append(nil, text(pushRecipient, "as much as you have"))
		if err := v.greet(push...); err != nil {
			return err
		}
		got := make(chan struct{})
		wg.Go(func() {
			_, _ = io.CopyN(io.Discard, v.nc, int64(buffer))
			close(got)
			_, _ = io.Copy(io.Discard, v.nc)
		})
		<-got
		return nil
	})
	per := s.each(n)
	assert.Less(t, per, int64(buffer+64<<10+sessionCost), "bytes for each")
	s.during(time.Second)
	s.lift("never acknowledged: %d sessions, %d bytes each, SendBuffer %d", n, per, buffer)
	wg.Wait()
}

// Who never reads, for minutes, is given up as silent, whatever waits for him, and his session expires.
func TestSiegeNeverReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		o := reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{SendBuffer: 256 << 10}}
		f := newFortOf(t, listenMem(t, n, "s"), o, pushing)
		d := mem.Dialer{Network: n, Addr: "s"}
		var conns []net.Conn
		for i := range 50 {
			v := newVillain(newRNG(i), d)
			require.NoError(t, v.dial())
			require.NoError(t, v.nc.SetDeadline(time.Time{}))
			conns = append(conns, v.nc)
			v.hello.Credit = 1 << 40
			require.NoError(t, v.greet())
			if i%2 == 0 { // confirmed
				_, err := v.nc.Write(v.control(wire.KindAck))
				require.NoError(t, err)
			}
			push := v.data(1)
			push[6], push[7] = pushRecipient>>8, pushRecipient&0xff
			_, err := v.nc.Write(push)
			require.NoError(t, err)
		}
		synctest.Wait()
		require.EqualValues(t, 50, f.live.Load())
		<-time.After(6 * time.Second)
		require.Equal(t, 25, f.logged("disconnected"), "each that was confirmed is given up after 5 s, and told")
		<-time.After(30 * time.Second)
		require.EqualValues(t, 25, f.live.Load(), "those that were never confirmed have expired")
		<-time.After(reconnect.DefaultExpiry)
		require.Zero(t, f.live.Load())
		f.end()
		f.typed()
		for _, nc := range conns {
			nc.Close()
		}
	})
}

// logged is how often the listener logged what.
func (f *fort) logged(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said[what]
}

// Floods of what costs nothing to send: a good client has its turn all the same, nothing gathers, and no more comes back
// than was sent.
func TestSiegeFloods(t *testing.T) {
	for name, frame := range map[string]func(v *villain) []byte{
		"ACK":  func(v *villain) []byte { return v.control(wire.KindAck) },
		"PING": func(v *villain) []byte { return v.control(wire.KindPing) },
		"PONG": func(v *villain) []byte { return v.control(wire.KindPong) },
		"STOP": func(v *villain) []byte { return v.control(wire.KindStop) },
		"SKIP": func(v *villain) []byte {
			b := v.control(wire.KindSkip)
			v.sent.N++
			v.sent.B += 8
			return b
		},
		"empty datagrams": func(v *villain) []byte { return v.data(0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSiege(t, reconnect.ListenOptions{}, echoing)
			flood := fewer(3 << 20)
			var sent, back atomic.Int64
			var wg sync.WaitGroup
			s.parallel(4, func(i int) error {
				v, err := s.greeted(i)
				if err != nil {
					return err
				}
				wg.Go(func() {
					_, _ = io.Copy(counter{&back}, v.nc)
				})
				for at := 0; at < flood; {
					var b []byte
					for len(b) < 60<<10 {
						b = append(b, frame(v)...)
						if name == "SKIP" || name == "empty datagrams" {
							if v.sent.B > 60<<10 { // what is beyond the credit is another test's business
								at = flood
								break
							}
						}
					}
					if _, err := v.nc.Write(b); err != nil {
						return fmt.Errorf("after %d bytes: %w", at, err)
					}
					sent.Add(int64(len(b)))
					at += len(b)
				}
				return nil
			})
			s.during(300 * time.Millisecond)
			held := int64(holds().heap) - int64(s.before.heap)
			assert.Less(t, held, int64(4<<20), "bytes held")
			assert.LessOrEqual(t, back.Load(), sent.Load()+4*1024, "no more comes back than was sent")
			s.lift("%s: %d bytes sent, %d came back, %d held", name, sent.Load(), back.Load(), held)
			wg.Wait()
		})
	}
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// An attacker takes his own session over with each of many dials. That costs nobody else anything.
func TestSiegeResumes(t *testing.T) {
	s := newSiege(t, reconnect.ListenOptions{}, echoing)
	each := uint64(fewer(150))
	var resumed atomic.Int64
	s.parallel(8, func(i int) error {
		v, err := s.greeted(i)
		if err != nil {
			return err
		}
		// On a fast machine all of that is over before a good client has dialled: the attack lasts until one has been served.
		for epoch := uint64(0); epoch < each || !s.good.served() && epoch < 10*each; epoch++ {
			if err := v.dial(); err != nil {
				return err
			}
			s.keep(v.nc) // and nothing is closed
			if _, err := v.nc.Write(v.resume(epoch+2, v.nc, nil)); err != nil {
				return err
			}
			answer, err := readFrame(v.nc)
			if err != nil {
				return err
			}
			if wire.KindOf(answer) != wire.KindResumed {
				return fmt.Errorf("epoch %d: %v", epoch+2, wire.KindOf(answer))
			}
			resumed.Add(1)
		}
		return nil
	})
	height := holds()
	assert.LessOrEqual(t, height.goroutines-s.before.goroutines, 8*4+32, "goroutines: each session has one connection")
	s.lift("%d takeovers of 8 sessions", resumed.Load())
}

// Ids that were made up: of RESUMEs nothing is kept, and of HELLOs no more than MaxSessions, of which those that nobody has
// confirmed make room for others.
func TestSiegeIDs(t *testing.T) {
	n := fewer(1500)
	const most = 200
	s := newSiege(t, reconnect.ListenOptions{MaxSessions: most}, echoing)
	ask := func(frame func(v *villain) []byte) func(i int) error {
		return func(i int) error {
			v, err := s.villain(i)
			if err != nil {
				return err
			}
			defer reset(v.nc)
			if _, err := v.nc.Write(frame(v)); err != nil {
				return err
			}
			_, err = readFrame(v.nc)
			return err
		}
	}
	s.parallel(n, ask(func(v *villain) []byte { return v.resume(2, v.nc, nil) }))
	assert.Equal(t, n, s.f.logged("rejected a dialer"))
	resumes := int64(holds().heap) - int64(s.before.heap)
	assert.Less(t, resumes, int64(1<<20), "bytes kept of RESUMEs")
	s.parallel(n, ask(func(v *villain) []byte { return v.hello.Append(nil) }))
	s.during(200 * time.Millisecond)
	hellos := int64(holds().heap) - int64(s.before.heap)
	assert.Less(t, hellos, int64(most*16<<10+n*256), "bytes kept of HELLOs: %d sessions, and tombstones", most)
	assert.LessOrEqual(t, s.f.live.Load(), int64(most+2), "sessions")
	s.lift("%d made-up ids in RESUME, %d bytes kept; as many in HELLO, %d bytes kept", n, resumes, hellos)
}

// The session of somebody else: who has its id and not its key changes nothing about it, however often he asks.
func TestSiegeTheft(t *testing.T) {
	n := fewer(1000)
	s := newSiege(t, reconnect.ListenOptions{}, echoing)
	owner, err := s.greeted(1)
	require.NoError(t, err)
	refusals := []wire.Reason{wire.ReasonUnknown, wire.ReasonUnauthorised, wire.ReasonMismatch}
	steal := func(i int) error {
		v, err := s.villain(i + 2)
		if err != nil {
			return err
		}
		defer reset(v.nc)
		v.hello.ID = owner.hello.ID
		v.sent = owner.sent
		frame := v.resume(uint64(2+i%3), v.nc, nil) // proved with a key of zeros
		if i%4 == 0 {
			v.hello.Epoch = uint64(2 + i%254)
			frame = v.hello.Append(nil)
		}
		if _, err := v.nc.Write(frame); err != nil {
			return err
		}
		answer, err := readFrame(v.nc)
		if err != nil {
			return err
		}
		if r, err := wire.ParseReject(answer); err != nil || !slices.Contains(refusals, r.Reason) {
			return fmt.Errorf("%x: %v, %w", answer, r.Reason, err)
		}
		return nil
	}
	tried := 0
	for tried < 10*n && (tried == 0 || !s.good.served()) { // on a fast machine one round is over before a good client has dialled
		s.parallel(n, steal)
		tried += n
	}
	want := owner.data(10)
	_, err = owner.nc.Write(want)
	require.NoError(t, err)
	for {
		got, err := readFrame(owner.nc)
		require.NoError(t, err, "the owner goes on, on the connection that it has")
		if got[5] == 1 {
			require.Equal(t, want, got)
			break
		}
	}
	s.lift("%d attempts at one session", tried)
}

// Acknowledgements of what was never sent end the sessions that they are said in, and no memory of those stays but a
// tombstone.
func TestSiegeFutureAcks(t *testing.T) {
	n := fewer(1000)
	s := newSiege(t, reconnect.ListenOptions{}, echoing)
	s.parallel(n, func(i int) error {
		v, err := s.greeted(i)
		if err != nil {
			return err
		}
		st := v.status()
		st.Received = wire.Position{N: 1 + uint64(i), B: 8 * (1 + uint64(i))}
		if _, err := v.nc.Write((&wire.Control{Kind: wire.KindAck, Status: st}).Append(nil)); err != nil {
			return err
		}
		for {
			f, err := readFrame(v.nc)
			if err != nil {
				return err
			}
			if wire.KindOf(f) != wire.KindClose {
				continue
			}
			c, err := wire.ParseControl(f)
			if err != nil || c.Reason != wire.CloseProtocol {
				return fmt.Errorf("%v, %w", c.Reason, err)
			}
			reset(v.nc)
			return nil
		}
	})
	waitUntil(t, func() bool { return s.f.live.Load() <= 2 }, 10*time.Second, "the sessions have ended")
	per := s.each(n)
	assert.Less(t, per, int64(1<<10), "bytes for each")
	s.f.mu.Lock()
	assert.Equal(t, n, s.f.ends["protocol"])
	s.f.mu.Unlock()
	s.lift("acknowledgements of the future: %d sessions, %d bytes each afterwards", n, per)
}

// All sessions lose their connections at once, several times, and come back at once.
func TestSiegeReconnectStorm(t *testing.T) {
	n := fewer(500)
	s := newSiege(t, reconnect.ListenOptions{}, echoing)
	conns := make([]*reconnect.Conn, n)
	s.parallel(n, func(i int) (err error) {
		conns[i], err = reconnect.Dial(bounded(t), tcp.Dialer{Addr: s.addr}, nil)
		return err
	})
	var slowest time.Duration
	const storms = 3
	for storm := range storms {
		start := time.Now()
		for _, c := range conns {
			c.Redial(fmt.Errorf("storm %d", storm))
		}
		s.parallel(n, func(i int) error {
			return s.good.trip(conns[i], storm)
		})
		slowest = max(slowest, time.Since(start))
	}
	resumes := uint64(0)
	for _, c := range conns {
		resumes += c.Stats().Resumes
		assert.Zero(t, c.Stats().Lost)
	}
	assert.GreaterOrEqual(t, resumes, uint64(n*storms))
	s.parallel(n, func(i int) error { return conns[i].Close(bounded(t)) })
	s.lift("%d storms of %d sessions, all back and with a round trip within %v", storms, n, slowest.Round(time.Millisecond))
}
