package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scenario is a kind of trouble.
type scenario struct {
	name     string
	about    string
	natted   bool             // the router translates addresses
	sessions int              // 0: one, echo-client's
	redials  bool             // each fault breaks the connection for sure, of TCP and TLS
	loses    bool             // sessions are lost: what was not echoed is sent again, marked
	keeps    bool             // the connection must not be given up
	within   time.Duration    // recovery, where nothing is in its way; 0: latest
	begin    func(*run) error // before the first fault; nil: nothing
	fault    func(*run) error // one fault, from its beginning until it is over
	gap      [2]time.Duration // between faults; 0: 0.5 to 1.5 s
}

const (
	// dead is longer than it takes either side to give up a silent connection, with something unconfirmed; idle, with
	// nothing.
	deadMin, deadMax = 5500 * time.Millisecond, 7500 * time.Millisecond
	// brief is shorter.
	briefMin, briefMax = 500 * time.Millisecond, 2500 * time.Millisecond
)

const (
	// atOnce is time to dial when everybody knows that the connection is gone, on a busy machine.
	atOnce = 5 * time.Second
	// noticed is time to find out that the peer is silent (5 s, and 5 s more if this machine stood still), and to dial.
	noticed = 12 * time.Second
)

const (
	fromClient = `iifname "rc"`
	fromServer = `iifname "rs"`
)

var scenarios = []scenario{
	{name: "flap", about: "the client's link goes down and up, from either end of it", fault: func(r *run) error {
		client := r.rng.IntN(2) == 0
		return r.during(100*time.Millisecond, 1500*time.Millisecond,
			func() error { return r.w.link(client, false) },
			func() error { return r.w.link(client, true) })
	}},
	{name: "drop-up", about: "nothing passes to the server, for longer than the peer may be silent", redials: true,
		fault: filter(deadMin, deadMax, fromClient+" drop")},
	{name: "drop-down", about: "nothing passes to the client, for longer than the peer may be silent", redials: true,
		fault: filter(deadMin, deadMax, fromServer+" drop")},
	{name: "hole-long", about: "nothing passes, for longer than the peer may be silent", redials: true,
		fault: filter(deadMin, deadMax, "drop")},
	{name: "hole-short", about: "nothing passes, for a shorter time",
		fault: filter(briefMin, briefMax, "drop")},
	{name: "kill-client", about: "ss -K at the client, every 500 ms", redials: true, within: atOnce, gap: [2]time.Duration{500 * time.Millisecond, 500 * time.Millisecond},
		fault: func(r *run) error { return r.killed(r.w.c) }},
	{name: "kill-server", about: "ss -K at the server, every 500 ms", redials: true, within: atOnce, gap: [2]time.Duration{500 * time.Millisecond, 500 * time.Millisecond},
		fault: func(r *run) error { return r.killed(r.w.s) }},
	{name: "reset-new", about: "the connection is killed, and new ones are refused", redials: true, fault: func(r *run) error {
		if r.transport == "quic" { // nobody can reset it
			return filter(deadMin, deadMax, "meta l4proto udp reject with icmp port-unreachable")(r)
		}
		return r.during(briefMin, briefMax,
			func() error {
				if err := r.w.filter("tcp flags & (syn | ack) == syn reject with tcp reset"); err != nil {
					return err
				}
				_, err := r.w.kill(r.w.c, r.transport)
				return err
			},
			func() error { return r.w.filter() })
	}},
	{name: "reset-established", about: "connections begin, and are reset when they carry something", redials: true, fault: func(r *run) error {
		rule := "tcp flags & (syn | rst | fin) == 0 reject with tcp reset"
		if r.transport == "quic" {
			rule = "meta l4proto udp reject with icmp port-unreachable"
		}
		return filter(50*time.Millisecond, 1500*time.Millisecond, rule)(r)
	}},
	{name: "loss-2", about: "2 % of the packets are lost", keeps: true, fault: lossy(2)},
	{name: "loss-30", about: "30 % of the packets are lost", fault: lossy(30)},
	{name: "slow", about: "1 Mbit/s with a queue of 200 ms", keeps: true, fault: func(r *run) error {
		return r.through(3*time.Second, 6*time.Second,
			func() error { return r.w.slow("tbf rate 1mbit burst 16kb latency 200ms") },
			func() error { return r.w.slow("") })
	}},
	{name: "on-off", about: "5 s on, 2 s off", gap: [2]time.Duration{5 * time.Second, 5 * time.Second},
		fault: filter(2*time.Second, 2*time.Second, "drop")},
	{name: "address", about: "the client gets another address", redials: true, within: noticed, fault: func(r *run) error {
		return r.instantly(r.w.move)
	}, gap: [2]time.Duration{time.Second, 3 * time.Second}},
	{name: "nat", about: "the router forgets its translations, and has another address; it drops what it does not know, or passes it on", natted: true, redials: true, within: noticed,
		gap: [2]time.Duration{time.Second, 3 * time.Second}, fault: func(r *run) error {
			picky := r.rng.IntN(2) == 0
			return r.instantly(func() error { return r.w.rebind(picky) })
		}},
	{name: "mtu", about: "packets must be smaller, of which the router tells or not", fault: func(r *run) error {
		size := 600
		if r.transport == "quic" {
			size = 1300 // it must be able to begin
		}
		mute := r.rng.IntN(2) == 0
		begin := func() error {
			if err := r.w.mute(mute); err != nil {
				return err
			}
			return r.w.mtu(size)
		}
		end := func() error {
			if err := r.w.mute(false); err != nil {
				return err
			}
			return r.w.mtu(0)
		}
		return r.through(2*time.Second, 7*time.Second, begin, end)
	}},
	{name: "stop-client", about: "SIGSTOP of the client", fault: stop(func(r *run) *process { return r.client })},
	{name: "stop-server", about: "SIGSTOP of the server", fault: stop(func(r *run) *process { return r.server })},
	{name: "restart", about: "SIGKILL of the server, and another one", redials: true, loses: true, gap: [2]time.Duration{time.Second, 3 * time.Second},
		fault: func(r *run) error {
			return r.during(0, 2*time.Second,
				func() error { r.server.kill(); return r.server.stderr.crash() },
				r.serve)
		}},
	{name: "many", about: "500 clients: killed all at once, cut off for short, and for long", sessions: 500, redials: true,
		gap: [2]time.Duration{time.Second, 3 * time.Second},
		fault: func(r *run) error {
			switch r.rng.IntN(3) {
			case 0:
				return filter(deadMin, deadMax, "drop")(r)
			case 1:
				return filter(briefMin, briefMax, "drop")(r)
			}
			if r.transport == "quic" {
				return filter(deadMin, deadMax, fromServer+" drop")(r)
			}
			return r.killed([]string{r.w.c, r.w.s}[r.rng.IntN(2)])
		}},
	{name: "descriptors", about: "the server, or the client, has no descriptor left when the connection is killed", redials: true, fault: func(r *run) error {
		p := r.server
		if r.rng.IntN(2) == 0 || r.transport == "quic" { // whose server needs none for a connection
			p = r.client
		}
		exhaust := func(n uint64) error {
			return unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: 4096}, nil)
		}
		least, most := briefMin, briefMax
		if r.transport == "quic" {
			least, most = deadMin, deadMax
		}
		return r.during(least, most,
			func() error {
				if err := exhaust(3); err != nil {
					return err
				}
				if r.transport == "quic" {
					return r.w.filter("drop")
				}
				_, err := r.w.kill(r.w.c, r.transport)
				return err
			},
			func() error {
				if err := r.w.filter(); err != nil {
					return err
				}
				return exhaust(4096)
			})
	}},
	{name: "jitter", about: "packets take 10 ms and more, overtake each other, come twice and corrupted", keeps: true, begin: wire, fault: func(r *run) error {
		return r.through(2*time.Second, 6*time.Second,
			func() error { return r.w.detour(true) },
			func() error { return r.w.detour(false) })
	}},
}

// filter is a fault that is a rule of the router.
func filter(least, most time.Duration, rule string) func(*run) error {
	return func(r *run) error {
		return r.during(least, most,
			func() error { return r.w.filter(rule) },
			func() error { return r.w.filter() })
	}
}

func lossy(percent int) func(*run) error {
	return func(r *run) error {
		return r.through(3*time.Second, 6*time.Second,
			func() error { return r.w.filter(fmt.Sprintf("numgen random mod 100 < %d drop", percent)) },
			func() error { return r.w.filter() })
	}
}

func stop(who func(*run) *process) func(*run) error {
	return func(r *run) error {
		return r.during(500*time.Millisecond, 7*time.Second,
			func() error { return who(r).signal(syscall.SIGSTOP) },
			func() error { return who(r).signal(syscall.SIGCONT) })
	}
}

// wire starts the helper that is a bad wire, for the router to lead packets through.
func wire(r *run) error {
	cmd := self("wire", "wire", fmt.Sprint(r.seed))
	args := r.w.in(r.w.r, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	cmd.Path, cmd.Args = ipPath(), args
	ready := &waiter{text: "ready", found: make(chan struct{})}
	cmd.Stdout = ready
	var err error
	if r.helper, err = started(cmd); err != nil {
		return err
	}
	if err := ready.wait(r.helper, 10*time.Second); err != nil {
		return err
	}
	for _, step := range []string{"link set wire up", "route add default dev wire table 100"} {
		if err := command(append([]string{"ip", "-n", r.w.r}, strings.Fields(step)...)...); err != nil {
			return err
		}
	}
	return nil
}

func ipPath() string {
	path, err := exec.LookPath("ip")
	if err != nil {
		return "ip"
	}
	return path
}

// waiter is an output of which a text is awaited.
type waiter struct {
	text  string
	found chan struct{} // closed when it has come
	got   []byte
	done  bool
}

func (w *waiter) Write(p []byte) (int, error) {
	if !w.done {
		w.got = append(w.got, p...)
		if strings.Contains(string(w.got), w.text) {
			w.done = true
			close(w.found)
		}
	}
	return len(p), nil
}

func (w *waiter) wait(p *process, limit time.Duration) error {
	select {
	case <-w.found:
		return nil
	case <-p.ended:
		return fmt.Errorf("%v has ended: %s", p.cmd.Args, p.stderr)
	case <-time.After(limit):
		return fmt.Errorf("%v says no %q within %v", p.cmd.Args, w.text, limit)
	}
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
