package reconnect_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/seeds"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	towtls "github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// road is one transport to a listener that has several.
type road struct {
	name string
	few  uint64 // how many attacks there are unless SEEDS says otherwise: what they cost differs
	ln   net.Listener
	kept *keeper          // below ln, where the collector would close what is forgotten; nil elsewhere
	good transport.Dialer // for those who behave
	bad  transport.Dialer // the same, with what makes many dials cheap
}

// roads are all transports, or the one that TRANSPORT names.
func roads(t *testing.T) []road {
	served, trusted := identity(t)
	cached := trusted.Clone()
	cached.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	var all []road
	few := map[string]uint64{"tls": 1000, "quic": 500}
	for _, name := range []string{"tcp", "unix", "mem", "tls", "quic"} {
		if only := os.Getenv("TRANSPORT"); only != "" && only != name {
			continue
		}
		r := road{name: name, few: cmp.Or(few[name], 3000)}
		if raceEnabled {
			r.few /= 10
		}
		var err error
		switch name {
		case "tcp":
			r.kept = keeping(t, "tcp", "127.0.0.1:0")
			r.ln = r.kept
			r.good = tcp.Dialer{Addr: r.ln.Addr().String()}
		case "unix":
			path := filepath.Join(t.TempDir(), "s")
			r.kept = keeping(t, "unix", path)
			r.ln = r.kept
			r.good = unix.Dialer{Path: path}
		case "mem":
			n := new(mem.Network)
			r.ln = listenMem(t, n, "s")
			r.good = mem.Dialer{Network: n, Addr: "s"}
		case "tls":
			r.kept = keeping(t, "tcp", "127.0.0.1:0")
			r.ln, err = towtls.NewListener(r.kept, &towtls.Config{TLS: served})
			require.NoError(t, err)
			r.good = towtls.Dialer{Addr: r.ln.Addr().String(), Config: trusted}
			r.bad = towtls.Dialer{Addr: r.ln.Addr().String(), Config: cached}
		case "quic":
			r.ln, err = quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: served})
			require.NoError(t, err)
			socket, err := quic.NewSocket("127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = socket.Close() })
			r.good = quic.Dialer{Addr: r.ln.Addr().String(), Config: trusted}
			r.bad = quic.Dialer{Addr: r.ln.Addr().String(), Config: cached, Socket: socket}
		}
		if r.bad == nil {
			r.bad = r.good
		}
		all = append(all, r)
	}
	require.NotEmpty(t, all, "TRANSPORT is none of tcp, unix, mem, tls, quic")
	return all
}

func keeping(t *testing.T, network, addr string) *keeper {
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	return &keeper{Listener: ln}
}

// Dialers that know the protocol send what it does not allow, in thousands of ways, and go away in as many. The listener
// goes on serving: clients that behave have each round trip in bounded time, and lose nothing; each attack ends in bounded
// time, and each connection with a reason of a known type; and in the end nothing of it is left, in memory, goroutines or
// descriptors.
func TestHostileSessions(t *testing.T) {
	all := roads(t)
	f := newFort(t, all[0].ln, reconnect.ListenOptions{
		SessionOptions: reconnect.SessionOptions{MaxPayload: 256 << 10, SendBuffer: 256 << 10, MaxWindow: 256 << 10, PingAfter: time.Second},
		Expiry:         2 * time.Second, HandshakeTimeout: attackTime,
	})
	for _, r := range all[1:] {
		f.l.Add(r.ln)
	}
	for i, r := range all { // what is made once is there, and not counted
		c := newClient(t, r.name, r.good)
		a := &assault{rng: rand.New(rand.NewPCG(1, uint64(i))), road: r}
		require.NoError(t, a.run())
		if a.held != nil {
			reset(a.held)
		}
		c.leave()
	}
	waitUntil(t, func() bool { return f.live.Load() == 0 }, 20*time.Second, "the first clients are gone")
	before := backTo(t, holdings{heap: math.MaxInt64 - growth, goroutines: math.MaxInt, descriptors: math.MaxInt}, 0)

	var good []*client
	for _, r := range all {
		good = append(good, newClient(t, r.name, r.good))
	}
	start := time.Now()
	var wg sync.WaitGroup
	var failed atomic.Int64
	total, tally := uint64(0), []string(nil)
	spent := make([]time.Duration, len(all)) // the longest attack
	for i, r := range all {
		from, count := seeds.Range(t, r.few)
		total += count
		tally = append(tally, fmt.Sprintf("%s %d to %d", r.name, from, from+count-1))
		next := new(atomic.Uint64)
		var mu sync.Mutex
		for range 4 {
			wg.Go(func() {
				var held []net.Conn
				defer func() {
					for _, nc := range held {
						reset(nc)
					}
				}()
				for failed.Load() == 0 {
					k := next.Add(1) - 1
					if k >= count {
						return
					}
					seed := from + k
					h := fnv.New64()
					_, _ = h.Write([]byte(r.name))
					a := &assault{rng: rand.New(rand.NewPCG(seed, h.Sum64())), road: r}
					began := time.Now()
					err := a.run()
					mu.Lock()
					spent[i] = max(spent[i], time.Since(began))
					mu.Unlock()
					if err != nil {
						failed.Add(1)
						assert.NoError(t, err, "again: SEED=%d TRANSPORT=%s go test -count=1 -run TestHostileSessions ./reconnect", seed, r.name)
					}
					if a.held != nil {
						if held = append(held, a.held); len(held) > 8 {
							reset(held[0])
							held = slices.Delete(held, 0, 1)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	took := time.Since(start)
	var report []string
	for i, c := range good {
		c.leave()
		trip, most := p99(c.trips)
		call, mostCall := p99(c.calls)
		if total >= 100 {
			assert.NotEmpty(t, c.trips, c.name)
			assert.NotEmpty(t, c.calls, c.name)
		}
		report = append(report, fmt.Sprintf("%s round trip p99 %v max %v, new session p99 %v max %v, longest attack %v", c.name,
			trip.Round(time.Microsecond), most.Round(time.Microsecond), call.Round(time.Microsecond), mostCall.Round(time.Microsecond),
			spent[i].Round(time.Millisecond)))
	}
	if failed.Load() > 0 {
		f.end()
		return // what is left of it says nothing
	}
	waitUntil(t, func() bool { return f.live.Load() == 0 }, 30*time.Second, "all sessions are gone")
	for _, r := range all {
		if r.kept != nil {
			waitUntil(t, func() bool { return r.kept.open() == 0 }, 30*time.Second, "each connection is closed, on "+r.name)
		}
	}
	after := backTo(t, before, 30*time.Second)
	f.typed()
	f.mu.Lock()
	ends, said := fmt.Sprint(f.ends), fmt.Sprint(f.said)
	if total >= 100 {
		for _, class := range []string{"protocol", "lost", "peer closed"} {
			assert.NotZero(t, f.ends[class], "these attacks are too tame: no session ended as %q, but %v", class, f.ends)
		}
	}
	f.mu.Unlock()
	f.end()
	t.Logf("%s\nends of connections: %s\nlogged: %s\nbefore: %v\nafter: %v", strings.Join(report, "\n"), ends, said, before, after)
	t.Logf("hostile: %d malformed sessions (seeds: %s) in %v, failed %d; then heap %+d KiB, goroutines %+d, descriptors %+d within %v",
		total, strings.Join(tally, ", "), took.Round(time.Millisecond), failed.Load(), (int64(after.heap)-int64(before.heap))>>10,
		after.goroutines-before.goroutines, after.descriptors-before.descriptors, (time.Since(start) - took).Round(time.Millisecond))
}

func waitUntil(t *testing.T, ok func() bool, within time.Duration, what string) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); {
		if time.Now().After(deadline) {
			require.FailNow(t, what+": not within "+within.String())
		}
		<-time.After(5 * time.Millisecond)
	}
}

// assault is one attack.
type assault struct {
	rng  *rand.Rand
	road road
	held net.Conn // left open, and not read
}

func (a *assault) one(of int) bool { return a.rng.IntN(of) == 0 }

// run attacks. An error is the server's fault: it did not answer, or did not end.
func (a *assault) run() error {
	v := newVillain(a.rng, a.road.bad)
	if err := v.dial(); err != nil {
		return fmt.Errorf("dialling: %w", err)
	}
	defer func() {
		if a.held == nil {
			_ = v.nc.Close()
		}
	}()
	var stream []byte
	if a.rng.IntN(10) < 3 {
		stream = a.handshake(v)
	} else {
		var behind []byte
		if a.one(3) {
			behind = v.data(a.rng.IntN(200))
		}
		if err := v.greet(behind...); err != nil {
			return fmt.Errorf("a correct handshake: %w", err)
		}
		if !a.one(8) { // unconfirmed, otherwise
			stream = append(stream, v.control(wire.KindAck)...)
		}
		if a.one(5) {
			if err := a.again(v, stream); err != nil {
				return err
			}
			stream = nil
		}
		stream = append(stream, a.session(v)...)
	}
	return a.leave(v.nc, stream)
}

// again resumes the session, as it should be or with a proof over what should not be.
func (a *assault) again(v *villain, stream []byte) error {
	if _, err := v.nc.Write(stream); err != nil {
		return nil //nolint:nilerr // the server may close what it does not like
	}
	old := v.nc
	if a.one(2) {
		reset(old)
	} else {
		defer reset(old) // it looks alive meanwhile
	}
	if err := v.dial(); err != nil {
		return fmt.Errorf("dialling again: %w", err)
	}
	epoch := []uint64{2, 2, 2, 3, 1, 0, 257, math.MaxUint64}[a.rng.IntN(8)]
	frame := v.resume(epoch, v.nc, func(r *wire.Resume) {
		switch a.rng.IntN(8) {
		case 0:
			r.Sent.N += a.number()
		case 1:
			r.Sent.B += a.number()
		case 2:
			r.Received.N += a.number()
		case 3:
			r.Credit = a.number()
		case 4:
			r.MaxPayload = uint32(a.number())
		case 5:
			r.Flags = uint16(a.number())
		}
	})
	if a.one(6) {
		frame = a.mutate(frame)
	}
	_, _ = v.nc.Write(frame)
	return nil
}

// number is one at which counting goes wrong, if it does.
func (a *assault) number() uint64 {
	return []uint64{0, 1, 2, math.MaxUint64, math.MaxUint64 - 1, 1 << 63, 1<<63 - 1, 1 << 32, 1<<32 - 1, 1 << 16, 8, 1 << 20, a.rng.Uint64()}[a.rng.IntN(13)]
}

// handshake is a first frame with something wrong about it, and perhaps more behind.
func (a *assault) handshake(v *villain) []byte {
	var frame []byte
	switch a.rng.IntN(8) {
	case 0, 1, 2, 3:
		if a.one(3) {
			v.hello.Token = make([]byte, 1+a.rng.IntN(wire.MaxToken))
		}
		frame = v.hello.Append(nil)
	case 4, 5:
		frame = v.resume(a.number(), v.nc, nil)
	case 6: // what does not come first
		frame = v.control(wire.KindAck + wire.Kind(a.rng.IntN(8)))
		binary.BigEndian.PutUint16(frame[6:], uint16(a.rng.IntN(16)))
	default:
		frame = make([]byte, a.rng.IntN(64))
		_, _ = rngReader{a.rng}.Read(frame)
	}
	if len(frame) > datagram.HeaderSize {
		frame = a.mutate(frame)
		if a.one(3) {
			frame = a.mutate(frame)
		}
	}
	if a.one(3) {
		frame = append(frame, v.data(a.rng.IntN(1000))...)
	}
	return frame
}

// session is what follows a good handshake: frames, of which some have something wrong about them.
func (a *assault) session(v *villain) (stream []byte) {
	var frames [][]byte
	for range 1 + a.rng.IntN(6) {
		frames = append(frames, a.frame(v))
	}
	for range 1 + a.rng.IntN(3) {
		i := a.rng.IntN(len(frames))
		switch a.rng.IntN(8) {
		case 0: // out of order
			j := a.rng.IntN(len(frames))
			frames[i], frames[j] = frames[j], frames[i]
		case 1: // a flood of the same
			n := min(1+a.rng.IntN(1000), 32<<10/max(len(frames[i]), 1))
			frames[i] = slices.Repeat(frames[i], max(n, 2))
		default:
			frames[i] = a.mutate(frames[i])
		}
	}
	return slices.Concat(frames...)
}

// frame is one that may come in a session, or one of those that may not, as it should be.
func (a *assault) frame(v *villain) []byte {
	switch a.rng.IntN(16) {
	case 0:
		return v.data(a.rng.IntN(32 << 10))
	case 1:
		return v.hello.Append(nil)
	case 2:
		return v.resume(2, v.nc, nil)
	case 3:
		return (&wire.Welcome{Version: 1, Epoch: 1, Status: v.status()}).Append(nil)
	case 4:
		return (&wire.Resumed{Epoch: 1, Status: v.status()}).Append(nil)
	case 5:
		return (&wire.Reject{Reason: wire.Reason(a.rng.IntN(12))}).Append(nil)
	case 6, 7:
		return v.data(a.rng.IntN(100))
	default:
		kind := wire.KindAck + wire.Kind(a.rng.IntN(int(wire.KindStop-wire.KindAck)+1))
		b := v.control(kind)
		switch kind {
		case wire.KindFin:
			v.sent.N++
		case wire.KindSkip:
			v.sent.N++
			v.sent.B += 8
		}
		return b
	}
}

// mutate returns frame with something wrong about it.
func (a *assault) mutate(frame []byte) []byte {
	frame = slices.Clone(frame)
	if len(frame) < datagram.HeaderSize {
		return frame
	}
	switch a.rng.IntN(10) {
	case 0: // size
		n := binary.BigEndian.Uint32(frame)
		binary.BigEndian.PutUint32(frame, []uint32{0, 3, 4, n - 1, n + 1, 1020, 1021, 1 << 20, math.MaxUint32, a.rng.Uint32()}[a.rng.IntN(10)])
	case 1: // version of the framing
		binary.BigEndian.PutUint16(frame[4:], []uint16{0, 1, 2, 3, 9, 0x100, 0x200, math.MaxUint16}[a.rng.IntN(8)])
	case 2: // kind, or recipient
		binary.BigEndian.PutUint16(frame[6:], []uint16{0, uint16(a.rng.IntN(14)), 14, 99, 0x100, math.MaxUint16}[a.rng.IntN(6)])
	case 3: // cut short
		frame = frame[:a.rng.IntN(len(frame))]
	case 4: // bits
		for range 1 + a.rng.IntN(8) {
			frame[a.rng.IntN(len(frame))] ^= 1 << a.rng.IntN(8)
		}
	case 5: // bytes that nobody asked for
		at := a.rng.IntN(len(frame) + 1)
		frame = slices.Insert(frame, at, make([]byte, 1+a.rng.IntN(16))...)
	case 6: // an extension area that is none, or one that is
		if len(frame) < datagram.HeaderSize+2 {
			break
		}
		ext := a.extensions()
		binary.BigEndian.PutUint16(frame[len(frame)-2:], uint16(len(ext)+[]int{0, 0, 0, 1, -1}[a.rng.IntN(5)]))
		frame = append(frame, ext...)
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	default: // a field
		body := frame[datagram.HeaderSize:]
		width := []int{2, 4, 8}[a.rng.IntN(3)]
		if len(body) < width {
			break
		}
		at := a.rng.IntN((len(body)-width)/2+1) * 2
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], a.number())
		if a.one(3) { // off by one
			var old [8]byte
			copy(old[8-width:], body[at:])
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(old[:])+[]uint64{1, math.MaxUint64}[a.rng.IntN(2)])
		}
		copy(body[at:at+width], b[8-width:])
	}
	return frame
}

func (a *assault) extensions() (area []byte) {
	for range 1 + a.rng.IntN(4) {
		typ := []uint16{0, 1, 1, 2, 7, 0x7fff, 0x8000, math.MaxUint16}[a.rng.IntN(8)]
		n := []int{0, 1, 4, 100, 768, 769, 1024}[a.rng.IntN(7)]
		area = binary.BigEndian.AppendUint16(area, typ)
		area = binary.BigEndian.AppendUint16(area, uint16(n+[]int{0, 0, 0, 1}[a.rng.IntN(4)]))
		area = append(area, make([]byte, n)...)
	}
	return area
}

// leave writes stream and goes away, in one of several ways. A write that fails is the server's good right.
func (a *assault) leave(nc net.Conn, stream []byte) error {
	way := a.rng.IntN(6)
	if way == 4 { // byte by byte, the last of it
		n := max(0, len(stream)-150)
		_, _ = nc.Write(stream[:n])
		for _, b := range stream[n:] {
			if _, err := nc.Write([]byte{b}); err != nil {
				break
			}
		}
	} else {
		done := make(chan struct{})
		go func() { // the server may answer more than it takes
			defer close(done)
			if way <= 1 || way == 4 {
				_, _ = nc.Write(stream)
			} else {
				_ = nc.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = nc.Write(stream)
			}
		}()
		if way <= 1 {
			err := a.drained(nc, done)
			<-done
			return err
		}
		<-done
	}
	switch way {
	case 2:
		reset(nc)
	case 3:
		a.held = nc
	case 4:
		return a.drained(nc, nil)
	default:
		_ = nc.Close()
	}
	return nil
}

// drained ends this side's sending when that is done, and reads what comes until the server has ended the connection,
// which it must.
func (a *assault) drained(nc net.Conn, done <-chan struct{}) error {
	go func() {
		if done != nil {
			<-done
		}
		if w, ok := nc.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite()
		}
	}()
	n, err := io.Copy(io.Discard, nc)
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the server does not end a connection whose peer has, after %d bytes: %w", n, err)
	}
	return nil
}
