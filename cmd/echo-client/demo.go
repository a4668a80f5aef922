package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/endpoint"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
)

const (
	demoTime = 10 * time.Second
	demoRate = 5000 // a second, which the line can carry when it is slow
	// demoPing is short, so that a line that has gone silent is noticed within the demo.
	demoPing = 250 * time.Millisecond
)

// demoFlags are those that --demo goes with.
var demoFlags = []string{"demo", "duration", "rate", "size", "inflight", "recipient", "wait", "json", "verbose", "v"}

// setDemo makes the demo's options of what was given.
func (o *options) setDemo(given map[string]bool, files []string) error {
	for name := range given {
		if !slices.Contains(demoFlags, name) {
			return program.Usagef("--demo makes its own server, traffic and faults: leave --%s out", name)
		}
	}
	if len(files) > 0 {
		return program.Usagef("--demo makes its own datagrams: leave %q out", files[0])
	}
	if !given["duration"] {
		o.duration = demoTime
	}
	if !given["rate"] {
		o.rate = demoRate
	}
	return nil
}

// demo runs a server and a client in this process, over a line of loopback TCP that is broken all the time, and shows what
// comes of it. It returns the exit code.
func demo(ctx context.Context, o *options, console program.Console, terminal bool) int {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return console.Fail(program.Failed, "cannot listen: %s", program.Reason(err))
	}
	o.connect = []endpoint.URL{{Scheme: endpoint.TCP, Addr: ln.Addr().String()}}
	server := reconnect.NewListener(ln, &reconnect.ListenOptions{
		SessionOptions: reconnect.SessionOptions{PingAfter: demoPing},
		Plain:          reconnect.RefusePlain,
	})
	var serving sync.WaitGroup
	serving.Go(func() { serveDemo(server) })
	defer func() {
		_ = server.Close()
		serving.Wait()
	}()

	l := new(line)
	s := newSession(o, []transport.Dialer{l.dialer(tcp.Dialer{Addr: ln.Addr().String()})})
	s.options.PingAfter = demoPing
	s.log(console.Stderr, o.verbose, false)
	conn, err := s.dial(ctx)
	if err != nil {
		return console.Fail(program.Failed, "cannot connect to %s: %s", o.name(), o.connectReason(err))
	}
	fmt.Fprintf(console.Stderr, "echo-client: a server and a client in this process, and between them %v that is reset, frozen and slowed for %v\n",
		o.connect[0], o.duration)

	c := newClient(o, conn, s, nil, nil)
	c.work.Go(func() { l.suffer(c.stop) })
	stop := c.showLine(console.Stderr, terminal, l)
	err = c.run(ctx)
	stop()
	return c.conclude(console, err)
}

// serveDemo echoes until the listener is closed.
func serveDemo(ln *reconnect.Listener) {
	ctx := context.Background()
	var work sync.WaitGroup
	defer work.Wait()
	for {
		conn, err := ln.Accept(ctx)
		if err != nil {
			return
		}
		work.Go(func() {
			batch := make([]datagram.Datagram, batchCount)
			for {
				n, err := conn.Reader().ReceiveBatch(ctx, batch)
				if err == nil {
					_, err = conn.Writer().SendBatch(ctx, batch[:n])
				}
				if err != nil {
					_ = conn.Close(ctx) // the peer's end, or the session's
					return
				}
				for i := range batch[:n] {
					datagram.Release(batch[i])
				}
			}
		})
	}
}

// line is what the demo's connections go through.
type line struct {
	faults mem.Faults
	newest atomic.Pointer[mem.Faults] // of the newest connection
	now    atomic.Value               // what it suffers, a string
}

// dialer is d through the line.
func (l *line) dialer(d transport.Dialer) transport.Dialer {
	l.now.Store("well")
	l.faults.OnConn(func(_ int, f *mem.Faults) { l.newest.Store(f) })
	return transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		c, err := d.DialContext(ctx)
		if err != nil {
			return nil, err
		}
		return l.faults.Wrap(c), nil
	})
}

// demoFault is something that happens to a line, for some time; then the second function ends it.
type demoFault struct {
	name string
	min  time.Duration
	hit  func(l *line, f *mem.Faults)
	heal func(l *line, f *mem.Faults)
}

func direction() mem.Direction { return []mem.Direction{mem.Both, mem.Up, mem.Down}[rand.N(3)] }

func cut(_ *line, f *mem.Faults) { f.Cut(nil) }

var demoFaults = []demoFault{
	{"reset", 0, cut, nil},
	{"closed", 0, func(_ *line, f *mem.Faults) { f.Cut(io.EOF) }, nil},
	{"cut inside a frame", 0, func(_ *line, f *mem.Faults) {
		f.CutAfter(direction(), int64(rand.N(20_000)), syscall.ECONNRESET)
	}, nil},
	// A black hole. The connection is given up for another one, and ends unseen.
	{"frozen", 2 * demoPing, func(_ *line, f *mem.Faults) { f.Freeze(direction()) }, cut},
	// One that is over before anybody could be sure.
	{"frozen for a moment", demoPing / 4, func(_ *line, f *mem.Faults) { f.Freeze(mem.Both) }, func(_ *line, f *mem.Faults) {
		f.Thaw(mem.Both)
	}},
	{"slow", 2 * demoPing, func(l *line, _ *mem.Faults) {
		l.faults.SetShape(mem.Both, mem.Shape{
			Latency: 10 * time.Millisecond, Jitter: 20 * time.Millisecond, Seed: rand.Uint64(), Rate: 500_000, MaxRead: 1 + rand.N(1000),
		})
	}, func(l *line, _ *mem.Faults) { l.faults.SetShape(mem.Both, mem.Shape{}) }},
}

// suffer breaks the line in all ways in turn, each time in another order, until stop is closed. The line is well then.
func (l *line) suffer(stop <-chan struct{}) {
	pause := func(d time.Duration) (over bool) {
		select {
		case <-time.After(d):
			return false
		case <-stop:
			return true
		}
	}
	for {
		for _, i := range rand.Perm(len(demoFaults)) {
			if pause(100*time.Millisecond + rand.N(200*time.Millisecond)) {
				return
			}
			fault, conn := demoFaults[i], l.newest.Load()
			l.now.Store(fault.name)
			fault.hit(l, conn)
			over := pause(max(fault.min, 100*time.Millisecond))
			if fault.heal != nil {
				fault.heal(l, conn)
			}
			l.now.Store("well")
			if over {
				return
			}
		}
	}
}

// showLine shows the state of a demo until the returned function is called: on a terminal in one line that changes, else
// in a new one each second.
func (c *client) showLine(w io.Writer, terminal bool, l *line) (stop func()) {
	every, format := time.Second, "%s\n"
	if terminal {
		every, format = 100*time.Millisecond, "\r\x1b[K%s"
	}
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(w, format, fit(c.state()+", line "+l.now.Load().(string), terminal))
			case <-quit:
				fmt.Fprintf(w, format, fit(c.state(), terminal))
				if terminal {
					fmt.Fprintln(w)
				}
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
	}
}

// state is the client's in one line. What is lost is known for sure in the end; before that, what was overtaken is.
func (c *client) state() string {
	t, awaited := c.tracker.counts()
	n, _ := c.tracker.onTheWay()
	lost := awaited - uint64(n)
	if c.ctx.Err() != nil {
		lost = awaited
	}
	all := c.totals()
	return fmt.Sprintf("sent %d, echoed %d, unconfirmed %d, reconnects %d, replayed %d, lost %d, duplicated %d",
		t.sent, t.received, c.current().Stats().Unconfirmed, all.reconnects, all.replayed, lost, t.duplicated)
}

// fit cuts a text to the width of the terminal.
func fit(text string, terminal bool) string {
	if !terminal {
		return text
	}
	width, _, err := term.GetSize(2)
	if err != nil || width <= 1 || len(text) < width {
		return text
	}
	return text[:width-1]
}
