package main

import (
	"bytes"
	"context"
	"encoding/json"
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

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// crashing is an echo server for sessions that crashes, and is there again, each time it has echoed as many as said. What
// it took and did not echo is gone.
type crashing struct {
	t        *testing.T
	network  mem.Network
	after    []int // how many echoes before each crash; then none
	lifes    int
	received []string // by all lifes together
	work     sync.WaitGroup
	ln       *reconnect.Listener
}

func (s *crashing) start() {
	ln, err := mem.Listen(context.Background(), "echo", &mem.Config{Network: &s.network})
	require.NoError(s.t, err)
	s.ln = reconnect.NewListener(ln, nil)
	life := s.ln
	s.work.Go(func() {
		conn, err := life.Accept(context.Background())
		if err == nil {
			s.echo(life, conn)
		}
	})
}

func (s *crashing) echo(life *reconnect.Listener, conn *reconnect.Conn) {
	ctx := context.Background()
	left := -1
	if s.lifes < len(s.after) {
		left = s.after[s.lifes]
	}
	s.lifes++
	for {
		if left == 0 {
			_ = conn.Writer().Flush(ctx) // it crashes when the echoes are there, so that the test knows how many
			s.network.Faults().Cut(nil)
			_ = life.Close()
			s.start()
			return
		}
		d, err := conn.Reader().Receive(ctx)
		if err != nil {
			_ = conn.Close(ctx)
			return
		}
		s.received = append(s.received, string(d.Payload))
		_ = conn.Writer().Send(ctx, d)
		left--
	}
}

// run runs a client against the server, with the flags given.
func (s *crashing) run(input string, flags ...string) (c *client, stdout string, err error) {
	s.start()
	o, err := parse(flags)
	require.NoError(s.t, err)
	sessions := newSession(o, dialers(mem.Dialer{Network: &s.network, Addr: "echo"}))
	conn, err := sessions.dial(s.t.Context())
	require.NoError(s.t, err)
	var out bytes.Buffer
	c = newClient(o, conn, sessions, strings.NewReader(input), &out)
	err = c.run(s.t.Context())
	_ = s.ln.Close()
	s.work.Wait()
	return c, out.String(), err
}

func dialers(d ...transport.Dialer) []transport.Dialer { return d }

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(i))
		b.WriteByte('\n')
	}
	return b.String()
}

// Each time the server has crashed, what has not come back is sent again, and nothing else.
func TestSessionLost(t *testing.T) {
	const n = 1000
	for name, flags := range map[string][]string{
		"lines":   nil,
		"chunks":  {"--chunk", "3"},
		"load":    {"--count", strconv.Itoa(n), "--size", "10"},
		"small":   {"--inflight", "2"},
		"slow":    {"--rate", "10000"},
		"numbers": {"--count", strconv.Itoa(n), "--size", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &crashing{t: t, after: []int{100, 0, 1, 300, 5}}
			in := numbers(n)
			c, out, err := s.run(in, flags...)
			require.NoError(t, err)
			sum := c.summary()
			assert.True(t, sum.clean(), sum.String())
			assert.Equal(t, sum.Sent, sum.Received)
			assert.Positive(t, sum.Redelivered)
			assert.LessOrEqual(t, sum.Reconnects, uint64(len(s.after)))
			assert.GreaterOrEqual(t, sum.Reconnects, uint64(3), "all but those that brought nothing")
			if !c.o.load {
				assert.Equal(t, in, out)
			}
			assert.LessOrEqual(t, uint64(len(s.received)), sum.Sent+sum.Redelivered)
		})
	}
}

// A server that is lost when all has come back is no loss.
func TestSessionLostInTheEnd(t *testing.T) {
	s := &crashing{t: t, after: []int{10}}
	c, out, err := s.run(numbers(10))
	require.NoError(t, err)
	assert.Equal(t, numbers(10), out)
	assert.Zero(t, c.redelivered.Load())
}

func TestSessionStrict(t *testing.T) {
	s := &crashing{t: t, after: []int{10}}
	c, _, err := s.run(numbers(1000), "--strict", "--inflight", "20")
	require.ErrorContains(t, err, "has lost the session")
	assert.Regexp(t, `: [0-9]+ datagrams? unconfirmed, [0-9]+ not back$`, err.Error())
	assert.False(t, c.summary().clean())
	assert.EqualValues(t, 10, c.summary().Received)
}

// A server that does not come back is waited for as long as --wait says, and the last trouble is told.
func TestSessionGone(t *testing.T) {
	s := &crashing{t: t}
	s.start()
	o, err := parse([]string{"--count", "1000000", "--rate", "10000", "--wait", "100ms"})
	require.NoError(t, err)
	sessions := newSession(o, dialers(mem.Dialer{Network: &s.network, Addr: "echo"}))
	conn, err := sessions.dial(t.Context())
	require.NoError(t, err)
	s.network.Faults().RefuseDials(-1, nil)
	s.network.Faults().CutAfter(mem.Up, 10_000, nil)
	err = newClient(o, conn, sessions, nil, nil).run(t.Context())
	assert.ErrorContains(t, err, "nothing came back for 100ms (connection refused); gave up on ")
	_ = s.ln.Close()
	s.work.Wait()
}

// Connections that are cut all the time do no harm.
func TestSessionCut(t *testing.T) {
	s := &crashing{t: t}
	c, _, err := s.run("", "--count", "3000", "--rate", "10000", "--cut", "10ms")
	require.NoError(t, err)
	sum := c.summary()
	assert.True(t, sum.clean(), sum.String())
	assert.Positive(t, sum.cuts)
	assert.Positive(t, sum.Reconnects)
	assert.Zero(t, sum.Redelivered)
	assert.Contains(t, sum.String(), " reconnect")
	assert.Contains(t, sum.String(), " cut")
}

// A session whose datagrams are too large for the server says which flag helps.
func TestSessionTooLarge(t *testing.T) {
	var network mem.Network
	ln, err := mem.Listen(t.Context(), "echo", &mem.Config{Network: &network})
	require.NoError(t, err)
	server := reconnect.NewListener(ln, &reconnect.ListenOptions{SessionOptions: reconnect.SessionOptions{MaxPayload: 10}})
	var work sync.WaitGroup
	work.Go(func() { serveDemo(server) })
	o, err := parse([]string{"--chunk", "11"})
	require.NoError(t, err)
	sessions := newSession(o, dialers(mem.Dialer{Network: &network, Addr: "echo"}))
	conn, err := sessions.dial(t.Context())
	require.NoError(t, err)
	err = newClient(o, conn, sessions, strings.NewReader("hello, hello"), io.Discard).run(t.Context())
	assert.ErrorContains(t, err, "takes no payloads of 11 bytes, see echo-server --max-size")
	require.NoError(t, server.Close())
	work.Wait()
}

// A server that asks to be left, and then loses the session, is not dialled before its time.
func TestSessionAway(t *testing.T) {
	var said bytes.Buffer
	s := newSession(&options{}, dialers(mem.Dialer{}))
	s.log(&said, false, true)
	s.event(nil, reconnect.Event{Kind: reconnect.EventGoAway, Wait: time.Hour})
	assert.Contains(t, said.String(), "go away")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.next(ctx)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
}

// A reset is one where the transport has such a thing, below TLS, too.
func TestReset(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	for _, wrap := range []func(net.Conn) net.Conn{
		func(c net.Conn) net.Conn { return c },
		func(c net.Conn) net.Conn { return over{c} },
	} {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		peer, err := ln.Accept()
		require.NoError(t, err)
		reset(wrap(c))
		_, err = peer.Read(make([]byte, 1))
		assert.ErrorContains(t, err, "reset")
		require.NoError(t, peer.Close())
	}
}

type over struct{ net.Conn }

func (o over) NetConn() net.Conn { return o.Conn }

func TestConnectReason(t *testing.T) {
	o, err := parse([]string{"--connect", "tcp://a:1", "--connect", "quic://b:2"})
	require.NoError(t, err)
	one := &net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}
	assert.Equal(t, "there is no host a", o.connectReason(one))
	assert.Equal(t, "tcp://a:1: there is no host a; quic://b:2: no answer; is echo-server running there, and does the network let UDP through?",
		o.connectReason(errors.Join(one, context.DeadlineExceeded)))
	assert.Equal(t, "it hung up at the first word; if it has no sessions, give --plain; if it speaks TLS, connect to tls://a:1",
		o.connectReason(reconnect.ErrNoSessions))
}

// The demo measures, says so line by line, and leaves nothing behind.
func TestDemo(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--demo", "--duration", "2500ms", "--json"}, nil, &stdout, &stderr)
	require.Equal(t, 0, code, stderr.String())
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	require.GreaterOrEqual(t, len(lines), 5, stderr.String())
	assert.Contains(t, lines[0], "reset, frozen and slowed for 2.5s")
	assert.Regexp(t, `^sent [0-9]+, echoed [0-9]+, unconfirmed [0-9]+, reconnects [0-9]+, replayed [0-9]+, lost 0, duplicated 0, line `, lines[1])
	assert.Regexp(t, `lost 0, duplicated 0$`, lines[len(lines)-2])
	assert.Contains(t, lines[len(lines)-1], "each once and in order")
	var s summary
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &s))
	assert.Greater(t, s.Sent, uint64(1000))
	assert.Equal(t, s.Sent, s.Received)
	assert.Positive(t, s.Reconnects)
}

// A demo that loses something fails.
func TestDemoJudges(t *testing.T) {
	c, _, err := (&crashing{t: t}).run("", "--count", "10", "--size", "8")
	require.NoError(t, err)
	c.tracker.judge(&datagram.Datagram{Payload: make([]byte, 8)}, 0)
	assert.Contains(t, c.state(), "lost 0, duplicated 1")
	assert.False(t, c.summary().clean())
}
