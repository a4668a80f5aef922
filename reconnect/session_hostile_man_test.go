package reconnect_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	wire "github.com/towline-mq/towline/reconnect/internal/session"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/quic"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// man sits in the middle: he takes connections, dials the target for each, and passes on what comes, frame by frame, but
// for the first frame in each direction of the connections that he tampers with.
type man struct {
	ln     net.Listener
	target transport.Dialer
	wg     sync.WaitGroup

	mu       sync.Mutex
	links    []net.Conn
	conns    int // so far
	from, to int // the connections that are tampered with, from 0 on
	up, down func(frame []byte) []byte
	seen     [2][][]byte // first frames, as they came: up, down
}

func newMan(ln net.Listener, target transport.Dialer) *man {
	m := &man{ln: ln, target: target}
	m.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.pass(nc) })
		}
	})
	return m
}

func (m *man) pass(nc net.Conn) {
	defer nc.Close()
	out, err := m.target.DialContext(context.Background())
	if err != nil {
		return
	}
	defer out.Close()
	m.mu.Lock()
	k := m.conns
	m.conns++
	m.links = append(m.links, nc, out)
	up, down := m.up, m.down
	if k < m.from || k >= m.to {
		up, down = nil, nil
	}
	m.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { m.pump(out, nc, 0, up) })
	wg.Go(func() { m.pump(nc, out, 1, down) })
	wg.Wait()
}

func (m *man) pump(to, from net.Conn, dir int, change func([]byte) []byte) {
	defer func() { closeRaw(to); closeRaw(from) }()
	frame, err := readFrame(from)
	if err != nil {
		return
	}
	m.mu.Lock()
	m.seen[dir] = append(m.seen[dir], bytes.Clone(frame))
	m.mu.Unlock()
	if change != nil {
		frame = change(frame)
	}
	if _, err := to.Write(frame); err == nil {
		_, _ = io.Copy(to, from)
	}
}

// closeRaw does not wait for a peer.
func closeRaw(nc net.Conn) {
	if c, ok := nc.(interface{ CloseNow() error }); ok {
		_ = c.CloseNow()
	}
	_ = nc.Close()
}

// cut breaks what passes now.
func (m *man) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, nc := range m.links {
		closeRaw(nc)
	}
	m.links = nil
}

// tamper changes the first frames of the next n connections.
func (m *man) tamper(n int, up, down func([]byte) []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.from, m.to, m.up, m.down = m.conns, m.conns+n, up, down
}

func (m *man) end() {
	_ = m.ln.Close()
	m.cut()
	m.wg.Wait()
}

// Changes to a frame.
func setting(at int, b ...byte) func([]byte) []byte {
	return func(frame []byte) []byte { return changed(frame, at, b) }
}

// adding appends to the extension area.
func adding(ext ...byte) func([]byte) []byte {
	return func(frame []byte) []byte {
		fixed := map[wire.Kind]int{wire.KindHello: 112, wire.KindWelcome: 140, wire.KindResume: 104, wire.KindResumed: 84}[wire.KindOf(frame)]
		frame = append(bytes.Clone(frame), ext...)
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		at := datagram.HeaderSize + fixed
		binary.BigEndian.PutUint16(frame[at:], uint16(len(frame)-at-2))
		return frame
	}
}

// stripped takes the extensions away.
func stripped(frame []byte) []byte {
	frame = bytes.Clone(frame[:datagram.HeaderSize+112+2])
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	binary.BigEndian.PutUint16(frame[datagram.HeaderSize+112:], 0)
	return frame
}

// Offsets in the bodies of WELCOME and RESUMED.
const (
	atFlags          = 2
	atMaxPayload     = 4
	atHelloCredit    = 104
	atWelcomeEpoch   = 8
	atWelcomeKey     = 32
	atWelcomeExpiry  = 64
	atWelcomeSent    = 68
	atWelcomeProof   = 108
	atResumedExpiry  = 8
	atResumedSent    = 12
	atResumedArrived = 28
	atResumedProof   = 52
)

// ownKey is a public key that the man knows the private one of. All of it: a single byte would be the one that is there
// already once in 256 runs, and then nothing is changed.
var ownKey = append([]byte{9}, make([]byte, 31)...)

// manned is a listener, a man before it, and a dialer's way through him, in one network.
func manned(t *testing.T, o reconnect.ListenOptions) (*fort, *man, transport.Dialer) {
	n := new(mem.Network)
	f := newFort(t, listenMem(t, n, "s"), o)
	m := newMan(listenMem(t, n, "m"), mem.Dialer{Network: n, Addr: "s"})
	return f, m, mem.Dialer{Network: n, Addr: "m"}
}

func token(context.Context) ([]byte, error) { return []byte("a token"), nil }

// Whatever the man changes about the handshake of a new session, no session comes of it that is not what both sides meant:
// the dialer gives each such connection up, and has its session as soon as he lets it.
func TestManInTheHandshake(t *testing.T) {
	for name, c := range map[string]struct{ up, down func([]byte) []byte }{
		"HELLO: the token stripped":       {up: stripped},
		"HELLO: another token":            {up: setting(112+2+4, 'A')},
		"HELLO: an extension more":        {up: adding(0x12, 0x34, 0, 0)},
		"HELLO: a smaller limit":          {up: setting(atMaxPayload, 0, 0, 4, 0)},
		"HELLO: flags":                    {up: setting(atFlags, 0, 1)},
		"HELLO: credit":                   {up: setting(atHelloCredit, u64(1<<60)...)},
		"HELLO: another id":               {up: setting(atID, 1, 2, 3, 4)},
		"WELCOME: a higher version":       {down: setting(0, 0, 2)},
		"WELCOME: a smaller limit":        {down: setting(atMaxPayload, 0, 0, 0, 1)},
		"WELCOME: flags":                  {down: setting(atFlags, 0, 1)},
		"WELCOME: flags that are none":    {down: setting(atFlags, 0x80, 0)},
		"WELCOME: another epoch":          {down: setting(atWelcomeEpoch, u64(7)...)},
		"WELCOME: a key of his own":       {down: setting(atWelcomeKey, ownKey...)},
		"WELCOME: a key without a secret": {down: setting(atWelcomeKey, make([]byte, 32)...)},
		"WELCOME: expiry":                 {down: setting(atWelcomeExpiry, 0, 0, 0, 1)},
		"WELCOME: positions":              {down: setting(atWelcomeSent, u64(1)...)},
		"WELCOME: the proof":              {down: setting(atWelcomeProof, make([]byte, 32)...)},
		"WELCOME: an extension more":      {down: adding(0x12, 0x34, 0, 0)},
		"WELCOME: a critical extension":   {down: adding(0x80, 0, 0, 0)},
		"WELCOME: cut short": {down: func(f []byte) []byte {
			f = bytes.Clone(f[:60])
			binary.BigEndian.PutUint32(f, 56)
			return f
		}},
		"RESUMED for WELCOME": {down: func([]byte) []byte { return (&wire.Resumed{Epoch: 1}).Append(nil) }},
		"ACK for WELCOME":     {down: func([]byte) []byte { return (&wire.Control{Kind: wire.KindAck}).Append(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m, d := manned(t, reconnect.ListenOptions{})
				defer f.end()
				defer m.end()
				const times = 3
				m.tamper(times, c.up, c.down)
				w := new(watch)
				a := reconnect.Open(d, &reconnect.DialOptions{Token: token, SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				defer a.CloseNow()
				want := text(7, "meant for the listener alone")
				require.NoError(t, a.Writer().Send(t.Context(), want))
				got, err := a.Reader().Receive(bounded(t))
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.GreaterOrEqual(t, w.count(reconnect.EventDialFailed)+w.count(reconnect.EventLost), times, "none of his connections worked: %v", w.kinds())
				w.await(t, reconnect.EventConnected, 1)
				for i := range w.count(reconnect.EventDialFailed) {
					err := w.await(t, reconnect.EventDialFailed, i+1).Err
					require.True(t, errors.Is(err, reconnect.ErrProtocol) || errors.Is(err, reconnect.ErrNoAnswer) ||
						errors.Is(err, reconnect.ErrNoSessions) || errors.Is(err, reconnect.ErrSessionLost), "%v", err)
				}
			})
		})
	}
}

// The same with the answer to a RESUME: the session goes on as soon as he lets it, and nothing is lost or doubled.
func TestManInTheResume(t *testing.T) {
	var m *man
	last := func(dir int) []byte { // the last first frame in that direction
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.seen[dir][len(m.seen[dir])-1]
	}
	for name, down := range map[string]func([]byte) []byte{
		"expiry":    setting(atResumedExpiry, 0, 0, 0, 1),
		"epoch":     setting(0, u64(99)...),
		"sent":      setting(atResumedSent, u64(1<<40)...),
		"received":  setting(atResumedArrived, u64(1<<40)...),
		"the proof": setting(atResumedProof, make([]byte, 32)...),
		"extension": adding(0x12, 0x34, 0, 0),
		"the proof of the RESUME, reflected": func(f []byte) []byte {
			return changed(f, atResumedProof, last(0)[datagram.HeaderSize+atResumeProof:][:32])
		},
		"the RESUME itself, reflected": func([]byte) []byte { return last(0) },
		"the WELCOME of before": func([]byte) []byte {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.seen[1][0]
		},
		"a RESUMED of before": func(f []byte) []byte {
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.seen[1]) > 2 {
				return m.seen[1][1]
			}
			return setting(atResumedProof, make([]byte, 32)...)(f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, man, d := manned(t, reconnect.ListenOptions{})
				m = man
				defer f.end()
				defer m.end()
				w := new(watch)
				a, err := reconnect.Dial(bounded(t), d, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
				require.NoError(t, err)
				defer a.CloseNow()
				trip := func(i int) {
					require.NoError(t, a.Writer().Send(bounded(t), numbered(i)))
					got, err := a.Reader().Receive(bounded(t))
					require.NoError(t, err)
					require.Equal(t, numbered(i), got)
				}
				trip(0)
				m.tamper(3, nil, down)
				m.cut()
				trip(1)
				require.GreaterOrEqual(t, w.count(reconnect.EventDialFailed), 3, "%v", w.kinds())
				for i := range 3 {
					require.ErrorIs(t, w.await(t, reconnect.EventDialFailed, i+1).Err, reconnect.ErrProtocol)
				}
				w.await(t, reconnect.EventResumed, 1)
				require.Zero(t, a.Stats().Lost)
			})
		})
	}
}

// What a man on an open network can do by changing what passes: end a session, as anybody can who can cut a cable. He is
// not believed beyond that: what comes of it is an error, and never another session than the one that was meant.
func TestManWhoOnlyHarms(t *testing.T) {
	rejecting := func(reason wire.Reason) func([]byte) []byte {
		return func([]byte) []byte { return (&wire.Reject{Reason: reason}).Append(nil) }
	}
	plain := func([]byte) []byte {
		b, _ := datagram.Append(nil, text(1, "there are no sessions here"))
		return b
	}
	for name, c := range map[string]struct {
		up, down func([]byte) []byte
		is       error
		says     string
	}{
		"a version that nobody speaks":     {up: setting(0, 0, 2), is: reconnect.ErrRefused, says: "version"},
		"an old version":                   {up: setting(0, 0, 0), is: reconnect.ErrRefused, says: "version"},
		"a REJECT: not authorised":         {down: rejecting(wire.ReasonUnauthorised), is: reconnect.ErrRefused, says: "not authorised"},
		"a key of his own in HELLO":        {up: setting(atHelloKey, ownKey...), is: reconnect.ErrProtocol, says: "proof"},
		"a REJECT: version":                {down: rejecting(wire.ReasonVersion), is: reconnect.ErrRefused, says: "version"},
		"a REJECT: taken over":             {down: rejecting(wire.ReasonTakenOver), is: reconnect.ErrTakenOver, says: "taken over"},
		"a REJECT: busy":                   {down: rejecting(wire.ReasonBusy), is: reconnect.ErrBusy, says: "busy"},
		"the session layer stripped":       {down: plain, is: reconnect.ErrNoSessions, says: "no sessions"},
		"HELLO made into a plain datagram": {up: func(f []byte) []byte { return append(headless(uint32(len(f)-4), 1, 1), f[8:]...) }, is: reconnect.ErrNoSessions, says: "no sessions"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m, d := manned(t, reconnect.ListenOptions{})
				defer f.end()
				defer m.end()
				m.tamper(1<<30, c.up, c.down)
				_, err := reconnect.Dial(bounded(t), d, nil)
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, c.says)
			})
		})
	}
}

// Who stands between two TLS or QUIC channels, because a client checks no certificate, cannot pass a session's handshake
// from one to the other: the proofs are bound to the channel.
func TestManBetweenChannels(t *testing.T) {
	for _, name := range []string{"tls", "quic"} {
		t.Run(name, func(t *testing.T) {
			served, _ := identity(t)
			blind := &tls.Config{InsecureSkipVerify: true}
			listen := func() (net.Listener, transport.Dialer) {
				if name == "tls" {
					ln, err := towtls.Listen(t.Context(), "127.0.0.1:0", &towtls.Config{TLS: served})
					require.NoError(t, err)
					return ln, towtls.Dialer{Addr: ln.Addr().String(), Config: blind}
				}
				ln, err := quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: served})
				require.NoError(t, err)
				return ln, quic.Dialer{Addr: ln.Addr().String(), Config: blind}
			}
			ln, direct := listen()
			f := newFort(t, ln, reconnect.ListenOptions{Expiry: time.Second})
			defer f.end()
			mln, through := listen()
			m := newMan(mln, direct)
			defer m.end()

			w := new(watch)
			a := reconnect.Open(through, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: w.onEvent}})
			for i := range 3 {
				err := w.await(t, reconnect.EventDialFailed, i+1).Err
				require.True(t, errors.Is(err, reconnect.ErrProtocol) || errors.Is(err, reconnect.ErrSessionLost), "%v", err)
			}
			require.Zero(t, w.count(reconnect.EventConnected))
			require.NoError(t, a.CloseNow())

			// A RESUME of a session of one channel, with a valid proof, shown on another.
			v := newVillain(newRNG(1), direct)
			require.NoError(t, v.dial())
			first := v.nc
			defer first.Close()
			require.NoError(t, v.greet())
			_, err := first.Write(v.control(wire.KindAck))
			require.NoError(t, err)
			require.NoError(t, v.dial())
			stolen := v.resume(2, v.nc, nil)
			thief := newVillain(newRNG(2), direct)
			require.NoError(t, thief.dial())
			defer thief.nc.Close()
			_, err = thief.nc.Write(stolen)
			require.NoError(t, err)
			answer, err := readFrame(thief.nc)
			require.NoError(t, err)
			require.Equal(t, wire.KindReject, wire.KindOf(answer))
			_, err = v.nc.Write(stolen)
			require.NoError(t, err)
			answer, err = readFrame(v.nc)
			require.NoError(t, err)
			require.Equal(t, wire.KindResumed, wire.KindOf(answer), "where it belongs it is good")
			v.nc.Close()
		})
	}
}

// What one frame of somebody who has proved nothing makes the listener send, in all the time until it has forgotten him.
func TestAmplification(t *testing.T) {
	v := newVillain(newRNG(1), nil)
	hello := v.hello.Append(nil)
	for name, first := range map[string][]byte{
		"HELLO":                     hello,
		"HELLO and an ACK":          append(bytes.Clone(hello), v.control(wire.KindAck)...),
		"HELLO and a PING":          append(bytes.Clone(hello), v.control(wire.KindPing)...),
		"HELLO and a wrong ACK":     append(bytes.Clone(hello), (&wire.Control{Kind: wire.KindAck, Status: wire.Status{Received: wire.Position{N: 1, B: 8}}}).Append(nil)...),
		"HELLO of another version":  changed(hello, 0, []byte{0, 2}),
		"RESUME":                    (&wire.Resume{Version: 1, ID: v.hello.ID, Epoch: 2}).Append(nil),
		"RESUME of another version": (&wire.Resume{Version: 2}).Append(nil),
		"a frame of 4 bytes":        {0, 0, 0, 4, 0, 2, 0, 3},
		"garbage":                   bytes.Repeat([]byte{9}, 100),
		"a byte":                    {0},
		"nothing":                   {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(mem.Network)
				f := newFort(t, listenMem(t, n, "s"), reconnect.ListenOptions{Plain: reconnect.RefusePlain})
				nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(t.Context())
				require.NoError(t, err)
				_, err = nc.Write(first)
				require.NoError(t, err)
				back, _ := io.Copy(io.Discard, nc) // until the listener gives him up
				nc.Close()
				require.LessOrEqual(t, 100*back, 175*int64(len(first)), "%d bytes for %d: docs/security.md says 1.7 times", back, len(first))
				t.Logf("%d bytes for %d: %.2f", back, len(first), float64(back)/float64(max(len(first), 1)))
				<-time.After(10 * time.Minute)
				require.Zero(t, f.live.Load())
				f.end()
			})
		})
	}
}

// An address that somebody else has forged gets no more than three times what was sent in its name, and one packet, before
// it has answered: QUIC's rule [RFC 9000, section 8.1], as quic-go keeps it, which looks before it sends a packet. Once many
// handshakes are under way the listener answers with a Retry alone, which is less than was sent.
func TestAmplificationQUIC(t *testing.T) {
	served, trusted := identity(t)
	ln, err := quic.Listen(t.Context(), "127.0.0.1:0", &quic.Config{TLS: served, MaxHandshakes: 4})
	require.NoError(t, err)
	f := newFort(t, ln, reconnect.ListenOptions{})
	defer f.end()
	// forge sends the first flight of an honest dial from an address that answers nothing, and counts what comes there.
	forge := func() (sent, back int) {
		tap, err := net.ListenPacket("udp", "127.0.0.1:0")
		require.NoError(t, err)
		defer tap.Close()
		ctx, cancel := context.WithCancel(t.Context())
		dialled := make(chan error, 1)
		go func() {
			_, err := quic.Dialer{Addr: tap.LocalAddr().String(), Config: trusted}.DialContext(ctx)
			dialled <- err
		}()
		defer func() {
			cancel()
			require.ErrorIs(t, <-dialled, context.Canceled)
		}()
		forger, err := net.Dial("udp", ln.Addr().String())
		require.NoError(t, err)
		defer forger.Close()
		buf := make([]byte, 2048)
		require.NoError(t, tap.SetReadDeadline(time.Now().Add(patience)))
		for {
			n, _, err := tap.ReadFrom(buf)
			if sent == 0 { // the rest of the first flight is behind it, and the next is not before a fifth of a second
				require.NoError(t, tap.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			}
			if err != nil {
				break
			}
			_, err = forger.Write(buf[:n])
			require.NoError(t, err)
			sent += n
		}
		require.NoError(t, forger.SetReadDeadline(time.Now().Add(1500*time.Millisecond)))
		for {
			n, err := forger.Read(buf)
			if err != nil {
				return sent, back
			}
			back += n
		}
	}
	sent, back := forge()
	assert.Positive(t, back)
	assert.LessOrEqual(t, back, 3*sent+1452, "quic-go's largest packet is the one that may go beyond")
	crowded, less := forge()
	assert.Positive(t, less)
	assert.Less(t, less, crowded, "a quarter of MaxHandshakes is under way: a Retry alone")
	t.Logf("%d bytes for %d: %.2f; while others are in their handshakes %d bytes for %d", back, sent, float64(back)/float64(sent), less, crowded)
}

// What a first frame costs the listener's processor. It is measured, and printed: HELLO is the dearest, for its keys.
func TestFirstFrameCost(t *testing.T) {
	n := new(mem.Network)
	f := newFort(t, listenMem(t, n, "s"), reconnect.ListenOptions{MaxSessions: 100})
	defer f.end()
	d := mem.Dialer{Network: n, Addr: "s"}
	ask := func(frames [][]byte) time.Duration {
		start := time.Now()
		for _, frame := range frames {
			nc, err := d.DialContext(t.Context())
			require.NoError(t, err)
			_, err = nc.Write(frame)
			require.NoError(t, err)
			_, err = readFrame(nc)
			require.NoError(t, err)
			nc.Close()
		}
		return time.Since(start) / time.Duration(len(frames))
	}
	var hellos, resumes [][]byte
	for i := range fewer(200) {
		v := newVillain(newRNG(i), d)
		hellos = append(hellos, v.hello.Append(nil))
		resumes = append(resumes, (&wire.Resume{Version: 1, ID: v.hello.ID, Epoch: 2}).Append(nil))
	}
	resume, hello := ask(resumes), ask(hellos)
	assert.Less(t, hello, 100*time.Millisecond)
	t.Logf("a HELLO takes %v, a RESUME of no session %v, connection and answer included", hello, resume)
}
