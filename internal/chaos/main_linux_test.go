package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is several programs. Without variables it runs the tests of the harness itself. With TOWLINE_CHAOS it
// is the supervisor, who cleans up whatever happens to what it starts: the same binary again, as the run, which in turn
// starts helpers in namespaces.
const (
	roleVar = "TOWLINE_CHAOS_ROLE"
	tagVar  = "TOWLINE_CHAOS_TAG" // the prefix of all names of the run
	dirVar  = "TOWLINE_CHAOS_DIR" // the programs, and other files

	namePrefix = "towline-chaos-"
)

var roles = map[string]func(args []string) error{
	"wire":        wireMain,
	"sessions":    sessionsMain,
	"soak-server": soakServerMain,
}

func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	switch main := roles[role]; {
	case main != nil:
		if err := main(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
			os.Exit(1)
		}
		os.Exit(0)
	case role == "" && os.Getenv("TOWLINE_CHAOS") != "":
		os.Exit(supervise(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// self is this binary in another role.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	if exe, err := os.Executable(); err == nil {
		cmd.Path = exe
	}
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	mortal(cmd)
	return cmd
}

// mortal makes a process end with the one that started it.
func mortal(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// supervise runs the tests in a process of their own, and removes what they leave.
func supervise(args []string) int {
	// The death signal of the child hangs on the thread that starts it.
	runtime.LockOSThread()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)

	if why := prepare(); why != "" {
		fmt.Println("chaos: skipped:", why)
		return 0
	}
	for _, what := range remove(stale) {
		fmt.Fprintln(os.Stderr, "chaos: removed what a killed run had left:", what)
	}
	tag := namePrefix + identity(os.Getpid())
	mine := func(name string) bool { return name == tag || strings.HasPrefix(name, tag+"-") }
	defer remove(mine)
	defer strays(tag)
	dir := filepath.Join(os.TempDir(), tag)
	if err := os.Mkdir(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := programs(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	child := self("run", args...)
	child.Env = append(child.Env, tagVar+"="+tag, dirVar+"="+dir)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	var err error
	for waiting := true; waiting; {
		select {
		case sig := <-signals:
			_ = child.Process.Signal(sig) // it may have ended already
		case err = <-ended:
			waiting = false
		}
	}
	if err != nil {
		if state := child.ProcessState; state != nil && state.ExitCode() > 0 {
			return state.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	_ = os.RemoveAll(dir)
	if left := append(strays(tag), remove(mine)...); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "chaos: the run has left behind:", strings.Join(left, ", "))
		return 1
	}
	return 0
}

// programs puts the programs in dir. A supervisor that was started by a run takes those of the run.
func programs(dir string) error {
	from := os.Getenv(dirVar)
	if from == "" {
		cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "../../cmd/echo-server", "../../cmd/echo-client")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	}
	var errs []error
	for _, name := range []string{"echo-server", "echo-client"} {
		errs = append(errs, os.Link(filepath.Join(from, name), filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// identity tells a process from all others that have its id later: the id, and when it began.
func identity(pid int) string { return fmt.Sprintf("%d-%s", pid, began(pid)) }

// began is when a process began, in the kernel's ticks since boot; "" if there is none.
func began(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The name, in parentheses, may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// stale says whether a name belongs to a run that is no more.
func stale(name string) bool {
	rest, ok := strings.CutPrefix(name, namePrefix)
	parts := strings.Split(rest, "-")
	if !ok || len(parts) < 2 {
		return false
	}
	pid, err := strconv.Atoi(parts[0])
	return err == nil && began(pid) != parts[1]
}

// remove removes the namespaces and directories whose names are chosen, with the processes inside, and returns what there
// was.
func remove(chosen func(name string) bool) (removed []string) {
	out, _ := exec.Command("ip", "netns", "list").Output() // there may be none
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !chosen(name) {
			continue
		}
		pids, _ := exec.Command("ip", "netns", "pids", name).Output()
		for _, pid := range strings.Fields(string(pids)) {
			if n, err := strconv.Atoi(pid); err == nil {
				_ = syscall.Kill(n, syscall.SIGKILL)
				removed = append(removed, "process "+pid+" in "+name)
			}
		}
		_ = exec.Command("ip", "netns", "del", name).Run()
		removed = append(removed, "namespace "+name)
	}
	entries, _ := os.ReadDir(os.TempDir())
	for _, e := range entries {
		if path := filepath.Join(os.TempDir(), e.Name()); chosen(e.Name()) {
			_ = os.RemoveAll(path)
			removed = append(removed, path)
		}
	}
	return removed
}

// strays kills the processes that a run has started, which have its tag in their environment, and returns which.
func strays(tag string) (killed []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ")) // it may have ended
		if slices.Contains(strings.Split(string(environ), "\x00"), tagVar+"="+tag) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			killed = append(killed, "process "+e.Name())
		}
	}
	return killed
}

// prepare sees that there is all that a run needs, installs what is missing, and says why there can be none.
func prepare() (why string) {
	if os.Geteuid() != 0 {
		return "network namespaces need root"
	}
	packages := map[string]string{"ip": "iproute2", "ss": "iproute2", "tc": "iproute2", "nft": "nftables"}
	missing := func() (tools, from []string) {
		for _, tool := range []string{"ip", "ss", "tc", "nft"} {
			if _, err := exec.LookPath(tool); err != nil {
				tools, from = append(tools, tool), append(from, packages[tool])
			}
		}
		return tools, from
	}
	if tools, from := missing(); len(tools) > 0 {
		if err := install(from); err != nil {
			return fmt.Sprintf("there is no %s, and installing failed: %v", strings.Join(tools, ", "), err)
		}
		if tools, _ = missing(); len(tools) > 0 {
			return "there is no " + strings.Join(tools, ", ")
		}
	}
	probe := namePrefix + identity(os.Getpid()) + "-probe"
	if out, err := exec.Command("ip", "netns", "add", probe).CombinedOutput(); err != nil {
		return "no network namespaces here: " + strings.TrimSpace(string(out))
	}
	defer exec.Command("ip", "netns", "del", probe).Run()
	for _, try := range [][]string{
		{"ip", "-n", probe, "link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1"},
		{"ip", "netns", "exec", probe, "nft", "add", "table", "ip", "probe"},
	} {
		if out, err := exec.Command(try[0], try[1:]...).CombinedOutput(); err != nil {
			return fmt.Sprintf("%s: %s", strings.Join(try, " "), strings.TrimSpace(string(out)))
		}
	}
	return ""
}

func install(packages []string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.New("there is no apt-get")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	get := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.WaitDelay = time.Second
		return cmd.CombinedOutput()
	}
	args := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)
	out, err := get(args...)
	if err != nil {
		_, _ = get("update", "-qq") // the second attempt tells
		out, err = get(args...)
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	return nil
}
