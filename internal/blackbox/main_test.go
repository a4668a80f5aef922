// Package blackbox tests the two programs as their users meet them: as processes, through flags, pipes, signals and
// sockets.
//
// With TOWLINE_BIG=1 in the environment it also moves a million lines and 256 MiB over each transport, and measures the
// memory of both programs.
package blackbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/internal/built"
)

// patience bounds every wait; on a healthy machine none comes near it.
const patience = 30 * time.Second

var bin string // the directory of the programs

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "towline-blackbox")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	args := []string{"../../cmd/echo-server", "../../cmd/echo-client"}
	if race {
		args = append([]string{"-race"}, args...)
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // else each process takes a second to end
	}
	if err := built.Programs("../..", dir, args...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func program(name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(bin, name)
}

// lines gathers what a process writes, and lets tests wait for it.
type lines struct {
	mu      sync.Mutex
	changed chan struct{}
	got     []string
	ended   bool
}

func gather(r io.Reader) *lines {
	l := &lines{changed: make(chan struct{})}
	go func() {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			l.add(s.Text(), false)
		}
		l.add("", true)
	}()
	return l
}

func (l *lines) add(line string, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended = ended; !ended {
		l.got = append(l.got, line)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lines) snapshot() (got []string, ended bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.got...), l.ended, l.changed
}

// await waits until n lines contain text. The error says what there was instead.
func (l *lines) await(text string, n int) error {
	timeout := time.After(patience)
	for {
		got, ended, changed := l.snapshot()
		switch {
		case len(containing(got, text)) >= n:
			return nil
		case ended:
			return fmt.Errorf("the process ended without %d lines with %q:\n%s", n, text, strings.Join(got, "\n"))
		}
		select {
		case <-changed:
		case <-timeout:
			return fmt.Errorf("there are no %d lines with %q:\n%s", n, text, strings.Join(got, "\n"))
		}
	}
}

// wait waits until n lines contain text, and returns the last of them.
func (l *lines) wait(t testing.TB, text string, n int) string {
	t.Helper()
	require.NoError(t, l.await(text, n))
	got, _, _ := l.snapshot()
	return containing(got, text)[n-1]
}

func containing(lines []string, text string) (found []string) {
	for _, line := range lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func (l *lines) text() string {
	got, _, _ := l.snapshot()
	return strings.Join(got, "\n")
}

// server is a running echo-server.
type server struct {
	t           testing.TB
	cmd         *exec.Cmd
	out, err    *lines
	urls        []string // in the order of the flags
	fingerprint string
	exited      chan struct{}
}

// startServer starts echo-server on the given addresses and waits until it listens.
func startServer(t testing.TB, listen []string, args ...string) *server {
	t.Helper()
	for _, url := range listen {
		args = append(args, "--listen", url)
	}
	return start(t, len(listen), exec.Command(program("echo-server"), args...))
}

func start(t testing.TB, listeners int, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{t: t, cmd: cmd, exited: make(chan struct{})}
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	s.out, s.err = gather(stdout), gather(stderr)
	go func() {
		// Wait closes the pipes: only when all was read.
		for _, l := range []*lines{s.out, s.err} {
			for {
				_, ended, changed := l.snapshot()
				if ended {
					break
				}
				<-changed
			}
		}
		_ = cmd.Wait() // the state is what the tests look at
		close(s.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("echo-server's log:\n%s", s.err.text())
		}
		require.NotContains(t, s.err.text(), "DATA RACE")
		require.NotContains(t, s.err.text(), "panic:")
	})
	s.out.wait(t, "listening ", listeners)
	got, _, _ := s.out.snapshot()
	for _, line := range got[:listeners] {
		url, ok := strings.CutPrefix(line, "listening ")
		require.True(t, ok, "the first lines are those of the listeners: %q", line)
		s.urls = append(s.urls, url)
	}
	if strings.Contains(strings.Join(s.urls, " "), "tls://") || strings.Contains(strings.Join(s.urls, " "), "quic://") {
		if !strings.Contains(strings.Join(cmd.Args, " "), "--tls-cert") {
			s.fingerprint = strings.TrimPrefix(s.out.wait(t, "certificate ", 1), "certificate ")
		}
	}
	return s
}

// addr is the host and port, or the path, of a listener.
func (s *server) addr(i int) string {
	_, addr, _ := strings.Cut(s.urls[i], "://")
	return addr
}

func (s *server) signal(sig os.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(sig))
}

// exit waits for the end and returns the code; -1 is a signal.
func (s *server) exit() int {
	s.t.Helper()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		require.FailNow(s.t, "echo-server does not end", s.err.text())
		return 0
	}
}

// stop ends the server as a user would, and checks that it ends well.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	require.Equal(s.t, 0, s.exit())
}

// to are the flags that connect a client to a listener.
func (s *server) to(i int) []string {
	flags := []string{"--connect", s.urls[i]}
	if strings.HasPrefix(s.urls[i], "tls:") || strings.HasPrefix(s.urls[i], "quic:") {
		flags = append(flags, "--tls-fingerprint", s.fingerprint)
	}
	return flags
}

// result is how a client ended.
type result struct {
	out  []byte
	err  string
	code int
}

// client runs echo-client to its end.
func client(t testing.TB, stdin io.Reader, args ...string) result {
	t.Helper()
	cmd := exec.Command(program("echo-client"), args...)
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &stderr
	cmd.WaitDelay = time.Second
	require.NoError(t, cmd.Start())
	timer := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	require.NotContains(t, stderr.String(), "DATA RACE")
	require.NotContains(t, stderr.String(), "panic:")
	return result{out.Bytes(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (r result) require(t testing.TB, code int, message string) {
	t.Helper()
	require.Equal(t, code, r.code, "exit code; stderr: %s", r.err)
	require.Contains(t, r.err, message)
}

// with returns flags with more behind them, and changes neither.
func with(flags []string, more ...string) []string {
	return append(append([]string(nil), flags...), more...)
}

// everywhere is one listener on each transport.
func everywhere(t testing.TB) []string {
	urls := []string{"tcp://127.0.0.1:0", "tls://localhost:0", "quic://127.0.0.1:0", "unix://" + filepath.Join(t.TempDir(), "s")}
	if runtime.GOOS == "linux" {
		urls = append(urls, fmt.Sprintf("unix:@towline-%d-%d", os.Getpid(), time.Now().UnixNano()))
	}
	return urls
}
