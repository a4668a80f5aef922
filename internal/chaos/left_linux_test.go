package chaos

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever ends a run, nothing is left of it: no namespace, no process, no file. What a run could not remove because its
// supervisor was killed, the next one does.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv(tagVar) == "" {
		t.Skip("it runs with TOWLINE_CHAOS=1, as make chaos does")
	}
	for _, tc := range []struct {
		name   string
		signal syscall.Signal
		child  bool // it goes to the run, not to its supervisor
		next   bool // the next run has to remove what is left
	}{
		{name: "Ctrl-C", signal: syscall.SIGINT},
		{name: "a crash", signal: syscall.SIGQUIT, child: true}, // Go's runtime ends as it does with a panic
		{name: "kill -9 of the supervisor", signal: syscall.SIGKILL, next: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := self("", "-test.run=^TestChaos$")
			cmd.Env = append(cmd.Env, "SCENARIO=hole-long", "TRANSPORT=tcp", "SECONDS=60", tagVar+"=")
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			tag := namePrefix + identity(cmd.Process.Pid)
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				strays(tag)
				remove(func(name string) bool { return strings.HasPrefix(name, tag) })
			}()
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.HasPrefix(lines.Text(), "|---") {
			}
			require.Eventually(t, func() bool { return len(left(t, tag).processes) == 3 }, 30*time.Second, 10*time.Millisecond,
				"the run, a server and a client")
			there := left(t, tag)
			require.Len(t, there.namespaces, 3)
			require.Len(t, there.files, 1)

			to := cmd.Process.Pid
			if tc.child {
				to = child(t, to)
			}
			require.NoError(t, syscall.Kill(to, tc.signal))
			for lines.Scan() { // until it ends
			}
			require.Error(t, cmd.Wait())
			if tc.next {
				require.Eventually(t, func() bool { return len(left(t, tag).processes) == 0 }, 30*time.Second, 10*time.Millisecond,
					"processes that outlive their supervisor: %v", left(t, tag))
				assert.NotEmpty(t, remove(stale))
			}
			assert.Equal(t, leftover{}, left(t, tag))
		})
	}
}

type leftover struct{ namespaces, processes, files []string }

func left(t *testing.T, tag string) (l leftover) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").Output()
	require.NoError(t, err)
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, tag) {
			l.namespaces = append(l.namespaces, line)
		}
	}
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	require.NoError(t, err)
	for _, path := range environs {
		if environ, _ := os.ReadFile(path); strings.Contains(string(environ), tagVar+"="+tag+"\x00") {
			l.processes = append(l.processes, path)
		}
	}
	l.files, err = filepath.Glob(filepath.Join(os.TempDir(), tag+"*"))
	require.NoError(t, err)
	if len(l.files) == 0 {
		l.files = nil
	}
	return l
}

// child is the only child of a process.
func child(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	var all []string
	for _, path := range tasks {
		children, err := os.ReadFile(path)
		require.NoError(t, err)
		all = append(all, strings.Fields(string(children))...)
	}
	require.Len(t, all, 1)
	n, err := strconv.Atoi(all[0])
	require.NoError(t, err)
	return n
}
