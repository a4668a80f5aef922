package chaos

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// world is three network namespaces: the client's, the router's and the server's.
//
//	client (c) 10.1.0.2 ── 10.1.0.1 (rc) router (rs) 10.2.0.1 ── 10.2.0.2 (s) server
//
// Addresses and names of links are the same in each world; the names of the namespaces are not.
type world struct {
	c, r, s     string // the namespaces
	host, outer int    // the last number of the client's address, and of the router's towards the server
	made        []string
}

const (
	port       = "7000"
	serverAddr = "10.2.0.2:" + port
)

// newWorld makes one. It has to be removed also if there was an error.
func newWorld(name string, natted bool) (*world, error) {
	w := &world{c: name + "-c", r: name + "-r", s: name + "-s", host: 2, outer: 1}
	for _, ns := range []string{w.c, w.r, w.s} {
		if err := command("ip", "netns", "add", ns); err != nil {
			return w, err
		}
		w.made = append(w.made, ns)
		if err := w.set(ns, "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/default/rp_filter=0",
			"net/ipv4/conf/all/promote_secondaries=1", "net/ipv4/conf/default/promote_secondaries=1",
			// The same everywhere, so that figures can be compared: each kernel has it, and lets namespaces choose it.
			"net/ipv4/tcp_congestion_control=reno"); err != nil {
			return w, err
		}
	}
	steps := []string{
		"ip link add name c netns " + w.c + " type veth peer name rc netns " + w.r,
		"ip link add name s netns " + w.s + " type veth peer name rs netns " + w.r,
		"ip -n " + w.c + " addr add 10.1.0.2/24 dev c",
		"ip -n " + w.r + " addr add 10.1.0.1/24 dev rc",
		"ip -n " + w.r + " addr add 10.2.0.1/24 dev rs",
		"ip -n " + w.s + " addr add 10.2.0.2/24 dev s",
	}
	for _, up := range []string{w.c + " c", w.r + " rc", w.r + " rs", w.s + " s", w.c + " lo", w.r + " lo", w.s + " lo"} {
		ns, dev, _ := strings.Cut(up, " ")
		steps = append(steps, "ip -n "+ns+" link set "+dev+" up")
	}
	steps = append(steps, "ip -n "+w.c+" route add default via 10.1.0.1")
	if !natted {
		steps = append(steps, "ip -n "+w.s+" route add default via 10.2.0.1")
	}
	for _, step := range steps {
		if err := command(strings.Fields(step)...); err != nil {
			return w, err
		}
	}
	if err := w.set(w.r, "net/ipv4/ip_forward=1"); err != nil {
		return w, err
	}
	rules := `table ip chaos {
		chain forward { type filter hook forward priority 0; }
		chain output { type filter hook output priority 0; }
	}`
	if natted {
		rules += `
		table ip nat {
			chain out { type nat hook postrouting priority 100; oifname "rs" masquerade; }
			chain invalid { type filter hook forward priority -1; ct state invalid drop; }
		}`
	}
	return w, w.nft(rules)
}

// remove removes the namespaces. Processes there must have ended.
func (w *world) remove() error {
	var errs []error
	for _, ns := range w.made {
		errs = append(errs, command("ip", "netns", "del", ns))
	}
	return errors.Join(errs...)
}

// command runs a command that is expected to work.
func command(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// in is a command in a namespace. It replaces ip, so that its process is the command's.
func (w *world) in(ns string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", ns}, args...)
}

// set sets kernel parameters of a namespace, each as path=value below /proc/sys.
func (w *world) set(ns string, parameters ...string) error {
	var script []string
	for _, p := range parameters {
		path, value, _ := strings.Cut(p, "=")
		script = append(script, "echo "+value+" >/proc/sys/"+path)
	}
	return command(w.in(ns, "sh", "-e", "-c", strings.Join(script, "\n"))...)
}

// nft gives the router's packet filter a script.
func (w *world) nft(script string) error {
	args := w.in(w.r, "nft", "-f", "-")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s\n%s", err, out, script)
	}
	return nil
}

// filter replaces the rules for what passes the router. None: everything passes.
func (w *world) filter(rules ...string) error {
	script := "flush chain ip chaos forward\n"
	for _, rule := range rules {
		script += "add rule ip chaos forward " + rule + "\n"
	}
	return w.nft(script)
}

// mute makes the router say nothing about packets that it cannot pass on, or speak again.
func (w *world) mute(mute bool) error {
	script := "flush chain ip chaos output\n"
	if mute {
		script += "add rule ip chaos output ip protocol icmp drop\n"
	}
	return w.nft(script)
}

// kill ends the connections of one end as an administrator does, who may not spare the listener, and returns how many.
func (w *world) kill(ns, transport string) (int, error) {
	args := w.in(ns, "ss", "-K", "-H", "-n", "-t", "state", "established", "( sport = :"+port+" or dport = :"+port+" )")
	if transport == "quic" { // a client's socket is not connected; there are no others
		args = w.in(ns, "ss", "-K", "-H", "-n", "-u", "-a")
	}
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return 0, fmt.Errorf("ss -K: %w", err)
	}
	return strings.Count(string(out), "\n"), nil
}

// link takes a link down or up, from the client's side or from the router's: the client then loses its routes, or only
// the carrier.
func (w *world) link(client, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	if !client {
		return command("ip", "-n", w.r, "link", "set", "rc", state)
	}
	if err := command("ip", "-n", w.c, "link", "set", "c", state); err != nil || !up {
		return err
	}
	return w.route()
}

func (w *world) route() error {
	return command("ip", "-n", w.c, "route", "replace", "default", "via", "10.1.0.1")
}

// move gives the client another address in place of the one that it has.
func (w *world) move() error {
	before := fmt.Sprintf("10.1.0.%d/24", w.host)
	w.host = 2 + (w.host-1)%200
	return errors.Join(
		command("ip", "-n", w.c, "addr", "add", fmt.Sprintf("10.1.0.%d/24", w.host), "dev", "c"),
		command("ip", "-n", w.c, "addr", "del", before, "dev", "c"),
		w.route(),
	)
}

// rebind gives the router another address towards the server, so that it forgets its translations. If it is picky, it
// passes nothing of connections whose beginning it has not seen; else they appear at the server from nowhere.
func (w *world) rebind(picky bool) error {
	loose := "net/netfilter/nf_conntrack_tcp_loose=1"
	if picky {
		loose = "net/netfilter/nf_conntrack_tcp_loose=0"
	}
	before := fmt.Sprintf("10.2.0.%d/24", w.outer)
	w.outer = 10 + (w.outer+1)%200
	return errors.Join(
		w.set(w.r, loose),
		command("ip", "-n", w.r, "addr", "add", fmt.Sprintf("10.2.0.%d/24", w.outer), "dev", "rs"),
		command("ip", "-n", w.r, "addr", "del", before, "dev", "rs"),
	)
}

// mtu bounds what the router passes on, in bytes; 0: what the links take.
func (w *world) mtu(n int) error {
	var errs []error
	for dev, net := range map[string]string{"rc": "10.1.0.0/24", "rs": "10.2.0.0/24"} {
		args := []string{"ip", "-n", w.r, "route", "replace", net, "dev", dev}
		if n > 0 {
			args = append(args, "mtu", "lock", fmt.Sprint(n))
		}
		errs = append(errs, command(args...))
	}
	if n == 0 { // what the ends have learnt would make the next time harmless
		errs = append(errs, command("ip", "-n", w.c, "route", "flush", "cache"), command("ip", "-n", w.s, "route", "flush", "cache"))
	}
	return errors.Join(errs...)
}

// slow gives the router's links a rate and a queue; "": none.
func (w *world) slow(qdisc string) error {
	var errs []error
	for _, dev := range []string{"rc", "rs"} {
		args := []string{"tc", "-n", w.r, "qdisc", "del", "dev", dev, "root"}
		if qdisc != "" {
			args = append([]string{"tc", "-n", w.r, "qdisc", "replace", "dev", dev, "root"}, strings.Fields(qdisc)...)
		}
		errs = append(errs, command(args...))
	}
	return errors.Join(errs...)
}

// detour leads all that the router passes on through the device of the helper wire, or past it.
func (w *world) detour(on bool) error {
	do := "del"
	if on {
		do = "add"
	}
	return errors.Join(
		command("ip", "-n", w.r, "rule", do, "iif", "rc", "table", "100"),
		command("ip", "-n", w.r, "rule", do, "iif", "rs", "table", "100"),
	)
}

// process is a program at work in a namespace.
type process struct {
	cmd    *exec.Cmd
	stderr *tail
	ended  chan struct{}
}

// started starts cmd, which ends at the latest with this process.
func started(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, stderr: new(tail), ended: make(chan struct{})}
	mortal(cmd)
	cmd.Stderr = p.stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait() // the state tells
		close(p.ended)
	}()
	return p, nil
}

// end waits for the end. Out of time, it kills, and the error says so.
func (p *process) end(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("%s: %s", p.cmd.Args[4], p.cmd.ProcessState)
		}
		return nil
	case <-timer.C:
		p.kill()
		return fmt.Errorf("%s did not end within %v", p.cmd.Args[4], limit)
	}
}

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// kill ends it at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// tail keeps the end of what a process writes.
type tail struct {
	mu  sync.Mutex
	buf []byte
	bad string // the first line of a crash
}

const tailSize = 6000

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if t.bad == "" && strings.Contains(string(t.buf), sign) {
			t.bad = sign
		}
	}
	if len(t.buf) > 2*tailSize && t.bad == "" {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad != "" {
		return string(t.buf[:min(len(t.buf), 4*tailSize)])
	}
	return string(t.buf[max(0, len(t.buf)-tailSize):])
}

// crash says whether the process has crashed.
func (t *tail) crash() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad != "" {
		return errors.New(t.bad)
	}
	return nil
}
