package blackbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// big says that the long variants are wanted.
func big() bool { return os.Getenv("TOWLINE_BIG") != "" }

// seq is what seq 1 n prints.
func seq(n int) []byte { return bytes.TrimPrefix(numbers(n+1), []byte("0\n")) }

// running is an echo-client at work with --json, and what it has written so far.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr *lines

	mu      sync.Mutex
	out     []byte
	changed chan struct{} // closed with the next output
	last    time.Time     // of the last output
	gap     time.Duration // the longest between two outputs
	ended   chan struct{}
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.out) > 0 {
		r.gap = max(r.gap, now.Sub(r.last))
	}
	r.last = now
	r.out = append(r.out, p...)
	close(r.changed)
	r.changed = make(chan struct{})
	return len(p), nil
}

// begin starts echo-client with that input.
func begin(t *testing.T, in []byte, flags ...string) *running {
	t.Helper()
	return beginReading(t, bytes.NewReader(in), flags...)
}

func beginReading(t *testing.T, in io.Reader, flags ...string) *running {
	t.Helper()
	r := &running{t: t, changed: make(chan struct{}), ended: make(chan struct{})}
	r.cmd = exec.Command(program("echo-client"), with(flags, "--json")...)
	r.cmd.Stdin = in
	stderr, err := r.cmd.StderrPipe()
	require.NoError(t, err)
	stdout, err := r.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, r.cmd.Start())
	r.stderr = gather(stderr)
	go func() {
		_, _ = io.Copy(r, stdout)
		for _, ended, changed := r.stderr.snapshot(); !ended; _, ended, changed = r.stderr.snapshot() {
			<-changed
		}
		_ = r.cmd.Wait() // the state is what the tests look at
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
		if t.Failed() {
			t.Logf("echo-client said:\n%s", tail(r.stderr.text(), 4000))
		}
		require.NotContains(t, r.stderr.text(), "DATA RACE")
		require.NotContains(t, r.stderr.text(), "panic:")
	})
	return r
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// reach waits until n bytes have come out.
func (r *running) reach(n int) {
	r.t.Helper()
	timeout := time.After(2 * patience)
	for {
		r.mu.Lock()
		got, changed := len(r.out), r.changed
		r.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-changed:
		case <-r.ended:
			require.FailNow(r.t, "echo-client has ended", "after %d of %d bytes: %s", got, n, r.stderr.text())
		case <-timeout:
			require.FailNow(r.t, "echo-client stands still", "after %d of %d bytes: %s", got, n, r.stderr.text())
		}
	}
}

// outcome is the JSON.
type outcome struct {
	Sent, Received, Lost, Duplicated, Redelivered, Reconnects, Replayed uint64
	OutOfOrder                                                          uint64 `json:"out_of_order"`
	Seconds                                                             float64
	RTT                                                                 map[string]float64 `json:"rtt_us"`
}

// exit waits for the end, and returns the code and the output without the JSON.
func (r *running) exit(within time.Duration) (code int, out []byte, o outcome) {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(within):
		require.FailNow(r.t, "echo-client does not end", "%d bytes out; %s", len(r.out), tail(r.stderr.text(), 2000))
	}
	end := bytes.LastIndexByte(bytes.TrimSuffix(r.out, []byte("\n")), '\n') + 1
	require.NoError(r.t, json.Unmarshal(r.out[end:], &o), "%s: %s", tail(string(r.out), 500), r.stderr.text())
	return r.cmd.ProcessState.ExitCode(), r.out[:end], o
}

// whole sees that everything came back, once and in order.
func (r *running) whole(in []byte, within time.Duration) outcome {
	r.t.Helper()
	code, out, o := r.exit(within)
	require.Equal(r.t, 0, code, tail(r.stderr.text(), 2000))
	if !bytes.Equal(in, out) {
		at := 0
		for at < min(len(in), len(out)) && in[at] == out[at] {
			at++
		}
		require.FailNow(r.t, "the output differs", "%d bytes in, %d out, the first that differs is %d: %q, expected %q",
			len(in), len(out), at, out[at:min(len(out), at+40)], in[at:min(len(in), at+40)])
	}
	n := uint64(bytes.Count(in, []byte("\n")))
	require.Equal(r.t, []uint64{n, n, 0, 0, 0}, []uint64{o.Sent, o.Received, o.Lost, o.Duplicated, o.OutOfOrder})
	return o
}

// through are the flags that connect a client to a listener by way of a proxy.
func (s *server) through(i int, addr string) []string {
	flags := s.to(i)
	scheme, _, _ := strings.Cut(s.urls[i], "://")
	flags[1] = scheme + "://" + addr
	return flags
}

// Whatever goes over a network that cuts connections comes back once, and in order.
func TestSessionCut(t *testing.T) {
	for _, url := range []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:0"} {
		for _, tc := range []struct{ most, n, least int }{
			{20_000, 20_000, 20}, {20_000, 200_000, 200}, {200_000, 20_000, 2}, {200_000, 1_500_000, 200},
		} {
			if tc.n > 20_000 && !big() {
				continue
			}
			t.Run(fmt.Sprintf("%s, %d lines, after up to %d bytes", url[:3], tc.n, tc.most), func(t *testing.T) {
				if !big() { // the long ones are measured one by one
					t.Parallel()
				}
				s := startServer(t, []string{url})
				p := between(t, s.addr(0), 1, Faults{CutMin: 1000, CutMax: tc.most})
				in := seq(tc.n)
				r := begin(t, in, s.through(0, p.Addr())...)
				o := r.whole(in, 4*patience)
				c := p.Counts()
				good := float64(len(in) + 7*tc.n)
				t.Logf("%d lines in %.2f s: %d connections, cut %d times by RST and %d by FIN, %d resumed; %d written again; "+
					"longest pause %v; %.2f times the bytes of a good network up, %.2f down", tc.n, o.Seconds, c.Links, c.Resets,
					c.Fins, o.Reconnects, o.Replayed, r.gap, float64(c.Bytes[Up])/good, float64(c.Bytes[Down])/good)
				assert.GreaterOrEqual(t, c.Cuts(), tc.least)
				if tc.least >= 20 {
					assert.Positive(t, c.Resets)
					assert.Positive(t, c.Fins)
				}
				assert.Positive(t, o.Reconnects)
				assert.Positive(t, o.Replayed)
				assert.Zero(t, o.Redelivered, "no session was lost")
				assert.Less(t, r.gap, 5*time.Second, "dials that lead to nothing are rare")
				s.stop()
			})
		}
	}
}

// A path that swallows everything is noticed, and the stream goes on over another connection within ten seconds.
func TestSessionBlackHole(t *testing.T) {
	t.Parallel()
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	in := seq(2000)
	var proxies []*Proxy
	var clients []*running
	holes := [][2]bool{Up: {true, false}, Down: {false, true}, 2: {true, true}}
	for range holes {
		p := between(t, s.addr(0), 1, Faults{})
		proxies = append(proxies, p)
		clients = append(clients, begin(t, in, with(s.through(0, p.Addr()), "--rate", "1000")...))
	}
	for i, r := range clients {
		r.reach(1000)
		proxies[i].HoleLinks(holes[i][Up], holes[i][Down])
	}
	for i, r := range clients {
		o := r.whole(in, 2*patience)
		t.Logf("up %t, down %t: longest pause %v; %d resumed", holes[i][Up], holes[i][Down], r.gap, o.Reconnects)
		assert.Greater(t, r.gap, time.Second, "the hole has swallowed something")
		assert.Less(t, r.gap, 10*time.Second)
		assert.EqualValues(t, 1, o.Reconnects)
		assert.Zero(t, o.Redelivered)
	}
	for _, p := range proxies {
		p.Close()
	}
	s.stop()
}

// A client that loses its connections goes on at once, though all the old ones still look alive to the server.
func TestSessionCutUnseen(t *testing.T) {
	t.Parallel()
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	p := between(t, s.addr(0), 1, Faults{Mute: true})
	r := begin(t, nil, with(s.through(0, p.Addr()), "--count", "2000", "--rate", "1000", "--cut", "50ms")...)
	code, _, o := r.exit(2 * patience)
	require.Equal(t, 0, code, r.stderr.text())
	assert.Zero(t, o.Lost+o.Duplicated+o.OutOfOrder+o.Redelivered)
	assert.EqualValues(t, 2000, o.Received)
	t.Logf("%d resumed, %d written again; round trips, those across a cut included: p50 %.0f µs, p99 %.0f µs, max %.0f µs",
		o.Reconnects, o.Replayed, o.RTT["p50"], o.RTT["p99"], o.RTT["max"])
	assert.Greater(t, o.Reconnects, uint64(10))
	assert.Zero(t, p.Counts().Cuts())
	assert.Less(t, o.RTT["p99"], 1e6)
	assert.Less(t, o.RTT["max"], 4e6, "no timeout was waited for: the shortest is 5 s")
	p.Close()
	s.stop()
}

// A client of which everything has come back ends when its input does, though its server has gone meanwhile.
func TestSessionServerGoneAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--strict"}} {
		s := startServer(t, []string{"tcp://127.0.0.1:0"})
		in, out, err := os.Pipe()
		require.NoError(t, err)
		r := beginReading(t, in, with(s.to(0), flags...)...)
		const words = "hello\nworld\n"
		_, err = io.WriteString(out, words)
		require.NoError(t, err)
		r.reach(len(words))
		require.NoError(t, s.cmd.Process.Kill())
		s.exit()
		require.NoError(t, out.Close())
		code, got, o := r.exit(patience)
		require.NoError(t, in.Close())
		assert.Equal(t, 0, code, r.stderr.text())
		assert.Equal(t, words, string(got))
		assert.EqualValues(t, 2, o.Received)
	}
}

// A server that is killed and started again on its port has lost all its sessions: the client sends again what has not
// come back, and its output is the same.
func TestSessionServerKilled(t *testing.T) {
	t.Parallel()
	const kills = 10
	n := 10_000
	if big() {
		n = 200_000
	}
	in := seq(n)
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	r := begin(t, in, with(s.to(0), "--rate", fmt.Sprint(n/3))...)
	for i := range kills {
		r.reach(len(in) * (i + 1) / (kills + 2))
		require.NoError(t, s.cmd.Process.Kill())
		s.exit()
		s = startServer(t, []string{s.urls[0]})
	}
	o := r.whole(in, 4*patience)
	t.Logf("%d lines in %.2f s, %d kills: %d redelivered, %d resumed, %d written again; longest pause %v",
		n, o.Seconds, kills, o.Redelivered, o.Reconnects, o.Replayed, r.gap)
	assert.Positive(t, o.Redelivered)
	s.stop()
}

// With --strict a lost session is the end, and what is unconfirmed is counted.
func TestSessionStrict(t *testing.T) {
	t.Parallel()
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	r := begin(t, seq(100_000), with(s.to(0), "--strict", "--rate", "10000")...)
	r.reach(1000)
	require.NoError(t, s.cmd.Process.Kill())
	s.exit()
	s = startServer(t, []string{s.urls[0]})
	code, _, o := r.exit(2 * patience)
	assert.Equal(t, 1, code)
	assert.Regexp(t, `\b[0-9]+ (datagrams? )?(are |is )?.*unconfirmed`, r.stderr.text())
	assert.Positive(t, o.Lost)
	t.Log(r.stderr.text())
	s.stop()
}

// Over QUIC a path that loses everything for a while is survived, and so is another address of the client.
func TestSessionUDPDropped(t *testing.T) {
	t.Parallel()
	n, drops := 5000, []time.Duration{500 * time.Millisecond, 0, 2 * time.Second}
	if big() {
		n, drops = 200_000, []time.Duration{
			time.Second, 0, 3 * time.Second, 7 * time.Second, 0, 500 * time.Millisecond, 12 * time.Second,
		}
	}
	in := seq(n)
	s := startServer(t, []string{"quic://127.0.0.1:0"})
	p, err := NewUDPProxy(s.addr(0))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	r := begin(t, in, with(s.through(0, p.Addr()), "--rate", fmt.Sprint(n/3))...)
	var longest time.Duration
	for i, d := range drops {
		r.reach(len(in) * (i + 1) / (len(drops) + 1))
		if d == 0 {
			require.NoError(t, p.Rebind())
			continue
		}
		p.Drop(true, true)
		<-time.After(d) // that is the fault: nothing is waited for
		p.Drop(false, false)
		r.mu.Lock()
		silent, got := time.Since(r.last), len(r.out)
		r.mu.Unlock()
		healed := time.Now()
		r.reach(min(got+1, len(in)))
		longest = max(longest, time.Since(healed))
		t.Logf("dropped for %v, silent for %v: goes on %v after that", d, silent, time.Since(healed))
	}
	assert.Less(t, longest, 10*time.Second)
	o := r.whole(in, 4*patience)
	c := p.Counts()
	t.Logf("%d lines in %.2f s: %d resumed, %d written again; %d UDP datagrams passed, %d dropped; %d flows, %d rebinds",
		n, o.Seconds, o.Reconnects, o.Replayed, c.Passed[Up]+c.Passed[Down], c.Dropped[Up]+c.Dropped[Down], c.Flows, c.Rebinds)
	assert.Positive(t, c.Dropped[Up])
	assert.Zero(t, o.Redelivered)
	s.stop()
}

// A session that began over QUIC goes on over TLS where UDP stops working.
func TestSessionFallback(t *testing.T) {
	if !big() {
		t.Skip("takes half a minute; set TOWLINE_BIG=1")
	}
	in := seq(20_000)
	s := startServer(t, []string{"quic://127.0.0.1:0", "tls://127.0.0.1:0"})
	p, err := NewUDPProxy(s.addr(0))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	r := begin(t, in, with(s.through(0, p.Addr()), "--connect", s.urls[1], "--rate", "5000")...)
	r.reach(len(in) / 2)
	p.Drop(true, true)
	o := r.whole(in, 2*patience)
	t.Logf("longest pause %v; %d resumed", r.gap, o.Reconnects)
	assert.Positive(t, o.Reconnects)
	assert.Zero(t, o.Redelivered)
	s.stop()
}
