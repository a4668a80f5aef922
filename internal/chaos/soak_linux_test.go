package chaos

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/blackbox"
	"github.com/towline-mq/towline/internal/seeds"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/endpoint"
)

const (
	steady  = 6 // sessions that live as long as the soak
	passing = 3 // sessions at a time that come and go

	sampleEvery = 2 * time.Second
	settle      = time.Minute      // until there is as much to be forgotten as there ever will be: no less than a quarter
	renewEvery  = 10 * time.Second // the bad network is replaced, as its own books grow
)

// badNet is the network of a soak, which leads to the server.
type badNet interface {
	Addr() string
	Close()
	// strike does some harm, and returns what ends it and when; nil if it is over.
	strike(rng *rand.Rand) (end func(), after time.Duration)
}

type badTCP struct{ *blackbox.Proxy }

func (n badTCP) strike(rng *rand.Rand) (func(), time.Duration) {
	d := 50*time.Millisecond + time.Duration(rng.Int64N(int64(1500*time.Millisecond)))
	holes := [][2]bool{{true, false}, {false, true}, {true, true}}[rng.IntN(3)]
	switch rng.IntN(10) {
	case 0:
		n.Hole(holes[0], holes[1])
		return func() { n.Hole(false, false) }, d
	case 1: // as when a NAT has forgotten them: they look alive until somebody takes over
		n.HoleLinks(holes[0], holes[1])
		return nil, 0
	}
	n.Cut(rng.IntN(2) == 0)
	return nil, 0
}

type badUDP struct{ *blackbox.UDPProxy }

func (n badUDP) strike(rng *rand.Rand) (func(), time.Duration) {
	d := 50*time.Millisecond + time.Duration(rng.Int64N(int64(time.Second)))
	drops := [][2]bool{{true, false}, {false, true}, {true, true}}[rng.IntN(3)]
	if rng.IntN(3) > 0 {
		_ = n.Rebind() // want of a port would be seen
		return nil, 0
	}
	n.Drop(drops[0], drops[1])
	return func() { n.Drop(false, false) }, d
}

// soak is one run.
type soak struct {
	transport string
	target    string
	ctx       context.Context // ends when the clients are to end

	mu  sync.Mutex
	net badNet

	messages, bytes, opened, dials, strikes, redials atomic.Int64
	reconnects, replayed                             atomic.Uint64
}

func (s *soak) renew(seed uint64) error {
	var n badNet
	if s.transport == "quic" {
		p, err := blackbox.NewUDPProxy(s.target)
		if err != nil {
			return err
		}
		n = badUDP{p}
	} else {
		p, err := blackbox.NewProxy(s.target, seed, blackbox.Faults{CutMin: 1000, CutMax: 5_000_000})
		if err != nil {
			return err
		}
		n = badTCP{p}
	}
	s.mu.Lock()
	before := s.net
	s.net = n
	s.mu.Unlock()
	if before != nil {
		before.Close()
	}
	return nil
}

func (s *soak) current() badNet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.net
}

// dialer dials through what the network is at the time, until gone is set.
func (s *soak) dialer(gone *atomic.Bool) transport.Dialer {
	cfg := &endpoint.Config{TLS: &tls.Config{InsecureSkipVerify: true}}
	return transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		if gone.Load() {
			return nil, errors.New("gone")
		}
		s.dials.Add(1)
		d, err := endpoint.Dialer(s.transport+"://"+s.current().Addr(), cfg)
		if err != nil {
			return nil, err
		}
		return d.DialContext(ctx)
	})
}

// story is what happened to a session lately, for those who want to know why it failed.
type story struct {
	mu     sync.Mutex
	events []string
}

func (y *story) tell(_ *reconnect.Conn, e reconnect.Event) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.events = append(y.events, fmt.Sprintf("%s %v wait %v: %v", e.Time.Format("15:04:05.000"), e.Kind, e.Wait, e.Err))
	if len(y.events) > 100 {
		y.events = slices.Delete(y.events, 0, 50)
	}
}

// of adds the story to an error.
func (y *story) of(err error) error {
	if err == nil {
		return nil
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	return fmt.Errorf("%w\n\t%s", err, strings.Join(y.events, "\n\t"))
}

func (s *soak) open(gone *atomic.Bool, y *story) *reconnect.Conn {
	s.opened.Add(1)
	return reconnect.Open(s.dialer(gone), &reconnect.DialOptions{
		SessionOptions: reconnect.SessionOptions{PingAfter: soakPing, OnEvent: y.tell},
		Strict:         true,
		Redial: &redial.Policy{
			AttemptTimeout: 2 * time.Second,
			Backoff:        func() redial.Backoff { return &redial.Jitter{Max: 200 * time.Millisecond} },
		},
	})
}

// payload makes message number n of a session: mostly small, sometimes large.
func payload(rng *rand.Rand, n uint64) []byte {
	size := 20 + rng.IntN(2000)
	switch rng.IntN(500) {
	case 0:
		size = 1 << 20
	case 1, 2, 3, 4, 5, 6, 7:
		size = 64 << 10
	}
	p := make([]byte, size)
	binary.BigEndian.PutUint64(p, n)
	binary.BigEndian.PutUint64(p[size-8:], rng.Uint64())
	binary.BigEndian.PutUint32(p[8:], crc32.ChecksumIEEE(p[12:]))
	return p
}

// verify says whether p is message number n.
func verify(p []byte, n uint64) error {
	if len(p) < 12 {
		return fmt.Errorf("%d bytes", len(p))
	}
	if got := binary.BigEndian.Uint64(p); got != n {
		return fmt.Errorf("number %d in place of %d", got, n)
	}
	if crc32.ChecksumIEEE(p[12:]) != binary.BigEndian.Uint32(p[8:]) {
		return fmt.Errorf("number %d is not what was sent", n)
	}
	return nil
}

// exchange sends messages one behind the other, at most a window of them unanswered, until count or ctx ends, and sees
// that each comes back, once and in order.
func (s *soak) exchange(ctx context.Context, c *reconnect.Conn, rng *rand.Rand, count uint64) error {
	const window = 32
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	room := make(chan struct{}, window)
	sent := make(chan uint64, 1)
	sending, stop := context.WithCancel(context.Background())
	defer stop()
	failed := make(chan error, 1)
	go func() {
		n := uint64(0)
		defer func() { sent <- n }()
		for ; n < count; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			select {
			case room <- struct{}{}:
			case <-sending.Done():
				return
			}
			p := payload(rng, n)
			s.bytes.Add(int64(len(p)))
			if err := c.Writer().Send(sending, datagram.Datagram{Payload: p}); err != nil {
				failed <- err
				return
			}
		}
	}()
	// All is back when what was sent is known and received.
	total, known := uint64(0), false
	for n := uint64(0); ; n++ {
		if !known {
			select {
			case total = <-sent:
				known = true
			default:
			}
		}
		if known && n == total {
			break
		}
		limit, cancel := context.WithTimeout(context.Background(), latest)
		d, err := receive(limit, c, sent, &total, &known, n)
		cancel()
		if err == io.EOF && known && n == total {
			break
		}
		if err != nil {
			stop()
			if !known {
				<-sent
			}
			return fmt.Errorf("message %d: %w", n, err)
		}
		if err := verify(d.Payload, n); err != nil {
			stop()
			if !known {
				<-sent
			}
			return err
		}
		s.messages.Add(1)
		<-room
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// receive receives number n, unless it turns out meanwhile that it was never sent: then it is io.EOF.
func receive(ctx context.Context, c *reconnect.Conn, sent <-chan uint64, total *uint64, known *bool, n uint64) (datagram.Datagram, error) {
	if *known {
		return c.Reader().Receive(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		select {
		case *total = <-sent:
			*known = true
			if *total == n {
				cancel()
			}
		case <-ctx.Done():
		}
	}()
	d, err := c.Reader().Receive(ctx)
	cancel()
	<-watch
	if err != nil && *known && *total == n {
		return d, io.EOF
	}
	return d, err
}

func (s *soak) account(c *reconnect.Conn) {
	st := c.Stats()
	s.reconnects.Add(st.Resumes)
	s.replayed.Add(st.Replayed)
}

// steady is a session that lasts, and in which the program itself gives connections up now and then.
func (s *soak) steady(rng *rand.Rand) error {
	y := new(story)
	c := s.open(new(atomic.Bool), y)
	defer c.CloseNow()
	defer s.account(c)
	quit, done := make(chan struct{}), make(chan struct{})
	restless := rand.New(rand.NewPCG(rng.Uint64(), 1))
	go func() {
		defer close(done)
		for {
			select {
			case <-time.After(time.Duration(restless.Int64N(int64(10 * time.Second)))):
			case <-quit:
				return
			}
			s.redials.Add(1)
			if nc := c.NetConn(); nc != nil && restless.IntN(2) == 0 {
				_ = nc.Close()
			} else {
				c.Redial(errors.New("the network has changed")) // a takeover: the old connection looks alive to the listener
			}
		}
	}()
	err := s.exchange(s.ctx, c, rng, 1<<62)
	close(quit)
	<-done
	if err != nil {
		return y.of(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), latest)
	defer cancel()
	return y.of(c.Close(ctx))
}

// passing are sessions that come, and go in each way that there is.
func (s *soak) passing(rng *rand.Rand) error {
	for s.ctx.Err() == nil {
		gone, y := new(atomic.Bool), new(story)
		c := s.open(gone, y)
		err := s.exchange(s.ctx, c, rng, 1+rng.Uint64N(100))
		s.account(c)
		switch rng.IntN(3) {
		case 0:
			ctx, cancel := context.WithTimeout(context.Background(), latest)
			err = errors.Join(err, c.Close(ctx))
			cancel()
		case 1: // the listener's side goes by expiry
			gone.Store(true)
			if nc := c.NetConn(); nc != nil {
				_ = nc.Close()
			}
		}
		c.CloseNow()
		<-c.Done()
		if err != nil {
			return y.of(err)
		}
	}
	return nil
}

// trouble strikes a few times a second, until stop.
func (s *soak) trouble(rng *rand.Rand, stop <-chan struct{}) error {
	renewed := time.Now()
	for {
		select {
		case <-time.After(100*time.Millisecond + time.Duration(rng.Int64N(int64(400*time.Millisecond)))):
		case <-stop:
			return nil
		}
		if time.Since(renewed) > renewEvery {
			if err := s.renew(rng.Uint64()); err != nil {
				return err
			}
			renewed = time.Now()
		}
		s.strikes.Add(1)
		end, after := s.current().strike(rng)
		if end == nil {
			continue
		}
		select {
		case <-time.After(after):
		case <-stop:
		}
		end()
	}
}

// TestSoak runs sessions for minutes over a network that never stays whole, and sees that neither side grows: heap,
// descriptors and goroutines in the last quarter are those of the second.
func TestSoak(t *testing.T) {
	if os.Getenv("TOWLINE_SOAK") == "" {
		t.Skip("it runs with TOWLINE_SOAK=1, as make soak does")
	}
	minutes, err := strconv.ParseFloat(env("MINUTES", "30"), 64)
	require.NoError(t, err)
	length := time.Duration(minutes * float64(time.Minute))
	from, count := seeds.Range(t, 1)
	for _, transport := range strings.Split(env("TRANSPORT", "tcp,tls,quic"), ",") {
		for seed := from; seed < from+count; seed++ {
			t.Run(fmt.Sprintf("%s, seed %d", transport, seed), func(t *testing.T) { soakOne(t, transport, seed, length) })
		}
	}
}

func soakOne(t *testing.T, transport string, seed uint64, length time.Duration) {
	server, err := startSoakServer(transport)
	require.NoError(t, err)
	defer server.kill()
	empty, err := server.sample()
	require.NoError(t, err)
	own := takeSample()

	ctx, cancel := context.WithTimeoutCause(t.Context(), length, nil)
	defer cancel()
	s := &soak{transport: transport, ctx: ctx}
	_, s.target, _ = strings.Cut(server.url, "://")
	rng := rand.New(rand.NewPCG(seed, 0))
	require.NoError(t, s.renew(seed))
	var (
		clients, network sync.WaitGroup
		calm             = make(chan struct{})
	)
	check := func(who string, err error) {
		if err != nil {
			t.Errorf("%s: %v\nto repeat it: make soak MINUTES=%g TRANSPORT=%s SEED=%d", who, err, length.Minutes(), transport, seed)
			cancel()
		}
	}
	trouble := rand.New(rand.NewPCG(seed, 1))
	network.Go(func() { check("the network", s.trouble(trouble, calm)) })
	for i := range steady {
		rng := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		clients.Go(func() { check(fmt.Sprintf("steady session %d", i), s.steady(rng)) })
	}
	for range passing {
		rng := rand.New(rand.NewPCG(rng.Uint64(), rng.Uint64()))
		clients.Go(func() { check("a passing session", s.passing(rng)) })
	}

	var theirs, ours []sample
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for begin, told := time.Now(), time.Now(); ctx.Err() == nil; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		got, err := server.sample()
		if !assert.NoError(t, err) {
			cancel()
		}
		theirs, ours = append(theirs, got), append(ours, takeSample())
		if time.Since(told) >= time.Minute {
			told = time.Now()
			t.Logf("%v: %d messages; server %+v; clients %+v", time.Since(begin).Round(time.Second), s.messages.Load(), got, ours[len(ours)-1])
		}
	}
	clients.Wait()
	close(calm)
	network.Wait()
	s.current().Close()

	// When all has ended, nothing is left but what is pooled and remembered.
	assert.EventuallyWithT(t, func(t *assert.CollectT) {
		got, err := server.sample()
		assert.NoError(t, err)
		assert.Zero(t, got.Sessions)
		assert.LessOrEqual(t, got.Goroutines, empty.Goroutines+2)
		assert.LessOrEqual(t, got.Files, empty.Files+2)
		assert.LessOrEqual(t, got.Heap, empty.Heap+6<<20)
		now := takeSample()
		assert.LessOrEqual(t, now.Goroutines, own.Goroutines+3)
		assert.LessOrEqual(t, now.Files, own.Files+2)
		assert.LessOrEqual(t, now.Heap, own.Heap+6<<20)
	}, 3*soakExpiry, 500*time.Millisecond, "what remains when all sessions have ended")

	line := fmt.Sprintf("soak %s: %v, %d messages, %.0f MB, %d sessions, %d faults, %d dials, %d resumed, %d replayed; lost, duplicated, out of order: 0",
		transport, length.Round(time.Second), s.messages.Load(), float64(s.bytes.Load())/1e6, s.opened.Load(),
		s.strikes.Load()+s.redials.Load(), s.dials.Load(), s.reconnects.Load(), s.replayed.Load())
	assert.Positive(t, s.reconnects.Load())
	assert.Positive(t, s.replayed.Load())
	line += "; server " + flat(t, "the server's", theirs) + "; clients " + flat(t, "the clients'", ours)
	if t.Failed() {
		line = strings.Replace(line, "lost, duplicated, out of order: 0", "FAILED", 1)
	}
	fmt.Println(line)
	require.NoError(t, server.in.Close())
	<-server.ended
	require.Zero(t, server.cmd.ProcessState.ExitCode(), server.stderr.String())
}

// flat compares the last quarter with the second.
func flat(t *testing.T, whose string, all []sample) string {
	t.Helper()
	n := len(all) / 4
	if n < int(settle/sampleEvery) {
		return fmt.Sprintf("not judged: less than %v", 4*settle)
	}
	early, late := all[n:2*n], all[len(all)-n:]
	var words []string
	for _, m := range []struct {
		name       string
		of         func(sample) int64
		factor     float64
		slack      int64
		unit       float64
		figureUnit string
	}{
		{"heap", func(s sample) int64 { return s.Heap }, 1.1, 2 << 20, 1 << 20, " MiB"},
		{"goroutines", func(s sample) int64 { return int64(s.Goroutines) }, 1.1, 5, 1, ""},
		{"descriptors", func(s sample) int64 { return int64(s.Files) }, 1.1, 5, 1, ""},
		{"RSS", func(s sample) int64 { return s.RSS }, 1.1, 16 << 20, 1 << 20, " MiB"},
	} {
		a, b := median(early, m.of), median(late, m.of)
		words = append(words, fmt.Sprintf("%s %.4g→%.4g%s", m.name, float64(a)/m.unit, float64(b)/m.unit, m.figureUnit))
		assert.LessOrEqual(t, float64(b), float64(a)*m.factor+float64(m.slack), "%s %s: the median of the second quarter, and of the last", whose, m.name)
	}
	return strings.Join(words, ", ")
}

func median(all []sample, of func(sample) int64) int64 {
	values := make([]int64, len(all))
	for i, s := range all {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// The comparison finds what grows, and bears with what only swings.
func TestFlat(t *testing.T) {
	grow := func(by func(i int) sample) bool {
		var all []sample
		for i := range 400 {
			all = append(all, by(i))
		}
		probe := new(testing.T)
		flat(probe, "", all)
		return probe.Failed()
	}
	assert.False(t, grow(func(i int) sample { return sample{Heap: 10 << 20, Goroutines: 20 + i%7, Files: 10 + i%5} }))
	assert.False(t, grow(func(i int) sample { return sample{Heap: int64(10+i%3) << 20} }))
	assert.True(t, grow(func(i int) sample { return sample{Heap: int64(i) << 16} }))
	assert.True(t, grow(func(i int) sample { return sample{Goroutines: 10 + i/20} }))
	assert.True(t, grow(func(i int) sample { return sample{Files: 10 + i/20} }))
	assert.True(t, grow(func(i int) sample { return sample{RSS: int64(i) << 18} }))
}

// What was sent is recognised, and nothing else is.
func TestPayload(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for n := range uint64(2000) {
		p := payload(rng, n)
		require.NoError(t, verify(p, n))
		require.Error(t, verify(p, n+1))
		p[len(p)-1-rng.IntN(min(8, len(p)-12))] ^= 1
		require.Error(t, verify(p, n))
	}
}
