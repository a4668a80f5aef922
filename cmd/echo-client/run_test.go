package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/transport/endpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// against runs the client against a server that handles its one connection as given, and returns what came of it.
func against(t *testing.T, handle func(net.Conn), input string, flags ...string) (code int, stdout, stderr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		handle(c)
	}()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"--plain", "--connect", "tcp://" + ln.Addr().String()}, flags...), strings.NewReader(input), &out, &errs)
	require.NoError(t, ln.Close())
	<-done
	return code, out.String(), errs.String()
}

// echo sends back what change makes of each datagram, flushed one by one.
func echo(change func(n int, d datagram.Datagram) []datagram.Datagram) func(net.Conn) {
	return func(c net.Conn) {
		r, w := datagram.NewReader(c, nil), datagram.NewWriter(c, nil)
		for n := 0; ; n++ {
			d, err := r.Read()
			if err != nil {
				return
			}
			for _, d := range change(n, d) {
				_ = w.Write(d)
			}
			_ = w.Flush() // the client sees what is missing
		}
	}
}

func TestRunJudges(t *testing.T) {
	var held datagram.Datagram
	for name, tc := range map[string]struct {
		code    int
		summary string
		change  func(n int, d datagram.Datagram) []datagram.Datagram
	}{
		"well": {0, "10 sent, 10 back, each once and in order", func(_ int, d datagram.Datagram) []datagram.Datagram {
			return []datagram.Datagram{d}
		}},
		"lost": {1, "10 sent, 9 back, 1 lost, 0 duplicated, 0 out of order", func(n int, d datagram.Datagram) []datagram.Datagram {
			if n == 4 {
				return nil
			}
			return []datagram.Datagram{d}
		}},
		"duplicated": {1, "10 sent, 10 back, 0 lost, 1 duplicated, 0 out of order", func(n int, d datagram.Datagram) []datagram.Datagram {
			if n == 4 {
				return []datagram.Datagram{d, d}
			}
			return []datagram.Datagram{d}
		}},
		"out of order": {1, "10 sent, 10 back, 0 lost, 0 duplicated, 1 out of order", func(n int, d datagram.Datagram) []datagram.Datagram {
			switch n {
			case 4:
				held = d.Clone()
				return nil
			case 5:
				return []datagram.Datagram{d, held}
			}
			return []datagram.Datagram{d}
		}},
		"changed": {1, "10 sent, 9 back, 1 lost, 0 duplicated, 0 out of order, 1 never sent", func(n int, d datagram.Datagram) []datagram.Datagram {
			if n == 4 {
				d.Payload[len(d.Payload)-1] ^= 1
			}
			return []datagram.Datagram{d}
		}},
		"another recipient": {1, "1 never sent", func(n int, d datagram.Datagram) []datagram.Datagram {
			if n == 4 {
				d.Recipient++
			}
			return []datagram.Datagram{d}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := against(t, echo(tc.change), "", "--count", "10", "--size", "20", "--recipient", "65534")
			assert.Equal(t, tc.code, code)
			assert.Contains(t, stderr, tc.summary)
			// A window that a lost datagram fills for good must not hold up the end.
			code, _, _ = against(t, echo(tc.change), "0123456789abcdefghijklmnopqrst", "--chunk", "3", "--inflight", "1", "--wait", "100ms")
			if name == "well" {
				assert.Equal(t, 0, code)
			} else {
				assert.Equal(t, 1, code)
			}
		})
	}
}

func TestRunOutput(t *testing.T) {
	same := echo(func(_ int, d datagram.Datagram) []datagram.Datagram { return []datagram.Datagram{d} })
	for _, in := range []string{"", "a", "a\n", "\n\n", "a\r\n\nb"} {
		code, out, stderr := against(t, same, in)
		assert.Equal(t, 0, code, stderr)
		assert.Equal(t, in, out)
	}
}

func TestRunServerFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		message string
		handle  func(net.Conn)
		flags   []string
	}{
		"closes": {"closed the connection with 1 datagram on the way", func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 8+64)
		}, []string{"--count", "1"}},
		"cuts a datagram": {"inside a datagram", func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 8+64)
			_, _ = c.Write([]byte{0, 0, 0, 9, 0, 1, 0})
		}, []string{"--count", "1"}},
		"speaks HTTP": {"broke the protocol", func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 8+64)
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		}, []string{"--count", "1"}},
		"resets": {" the connection ", func(c net.Conn) {
			_, _ = io.CopyN(io.Discard, c, 8+64)
			_ = c.(*net.TCPConn).SetLinger(0)
		}, []string{"--duration", "1h"}},
		"answers nothing": {"; gave up on 3 datagrams", func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
			<-time.After(300 * time.Millisecond) // longer than the client waits: it is the one who gives up
		}, []string{"--count", "3", "--wait", "100ms"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := against(t, tc.handle, "", tc.flags...)
			assert.Equal(t, 1, code)
			assert.Contains(t, stderr, tc.message)
			assert.Contains(t, stderr, " sent, 0 back")
		})
	}
}

// A server that echoes and does not close is no fault.
func TestRunServerStaysOpen(t *testing.T) {
	code, _, stderr := against(t, func(c net.Conn) {
		_, _ = io.Copy(c, c)
		_, _ = c.Read(make([]byte, 1)) // until the client is gone
		<-time.After(graceTime / 2)
	}, "", "--count", "3")
	assert.Equal(t, 0, code, stderr)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

func TestRunOutputFails(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"--plain", "--connect", "tcp://" + ln.Addr().String()}, strings.NewReader("a\n"), brokenWriter{}, &stderr)
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr.String(), "cannot write the output: the disk is full")
}

func TestRunInterruptedDial(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	assert.Equal(t, 3, run(ctx, []string{"--connect", "tcp://192.0.2.1:7000"}, strings.NewReader(""), io.Discard, &stderr))
	assert.Contains(t, stderr.String(), "interrupted")
}

// Over QUIC nobody says that nobody is there, whichever clock rings first.
func TestRunSilentQUIC(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	o, err := parse([]string{"--connect", "quic://" + silent.LocalAddr().String(), "--insecure"})
	require.NoError(t, err)
	const hint = "no answer; is echo-server running there, and does the network let UDP through?"
	for name, handshake := range map[string]time.Duration{"the program's": time.Hour, "the transport's": 20 * time.Millisecond} {
		cfg, err := o.tls.config()
		require.NoError(t, err)
		dialer, err := o.connect[0].Dialer(&endpoint.Config{TLS: cfg, HandshakeTimeout: handshake})
		require.NoError(t, err)
		limit := time.Minute
		if handshake > limit {
			limit = 20 * time.Millisecond
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err = dialer.DialContext(ctx)
		cancel()
		require.Error(t, err, name)
		assert.Equal(t, hint, o.connectReason(err), "%s: %v", name, err)
	}
}

// A run with --count that Ctrl-C cuts short has not done its work; one without is over when its user says so.
func TestRunInterruptedLoad(t *testing.T) {
	for flag, want := range map[string]int{"--count=1000000000": 1, "--duration=1h": 0} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var served sync.WaitGroup
		served.Go(func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.CopyN(c, c, 1000)
			cancel()
			_, _ = io.Copy(c, c)
		})
		var stdout, stderr bytes.Buffer
		code := run(ctx, []string{"--plain", "--connect", "tcp://" + ln.Addr().String(), flag, "--rate", "1000"}, strings.NewReader(""), &stdout, &stderr)
		assert.Equal(t, want, code, stderr.String())
		assert.Equal(t, want == 1, strings.Contains(stderr.String(), "interrupted before all 1000000000 were sent"), stderr.String())
		require.NoError(t, ln.Close())
		served.Wait()
	}
}

// The largest --size leaves room for the pattern behind it, on 32-bit systems too.
func TestLargestSize(t *testing.T) {
	o, err := parse([]string{"--count", "1", "--size", strconv.Itoa(maxSize)})
	require.NoError(t, err)
	assert.Positive(t, o.size+shifts)
	_, err = parse([]string{"--count", "1", "--size", strconv.Itoa(maxSize + 1)})
	assert.ErrorContains(t, err, "--size is ")
}

func TestDrawsOver(t *testing.T) {
	for _, tc := range []struct{ input, output, load, want bool }{
		{false, false, false, false},
		{true, false, false, true},
		{false, true, false, true},
		{true, true, true, false},
	} {
		isTrue := func(v any) bool { return v.(bool) }
		assert.Equal(t, tc.want, drawsOver(tc.input, tc.output, tc.load, isTrue), "%+v", tc)
	}
}

func TestRunPrintingFails(t *testing.T) {
	for _, flag := range []string{"--help", "--version"} {
		var stderr bytes.Buffer
		assert.Equal(t, 1, run(t.Context(), []string{flag}, nil, brokenWriter{}, &stderr))
		assert.Equal(t, "echo-client: cannot write the output: the disk is full\n", stderr.String())
	}
}

func TestSummaryJSON(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&summary{Sent: 3, Received: 2, Lost: 1, Seconds: 0.5, RTT: rtt{P50: 1.5}}).writeJSON(&b, 'x'))
	assert.Equal(t, "\n"+`{"sent":3,"received":2,"lost":1,"duplicated":0,"out_of_order":0,"redelivered":0,"reconnects":0,"replayed":0,`+
		`"seconds":0.5,"msgs_per_s":0,"mb_per_s":0,"rtt_us":{"p50":1.5,"p90":0,"p99":0,"p999":0,"max":0}}`+"\n", b.String())
}
