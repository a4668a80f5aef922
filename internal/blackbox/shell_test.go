package blackbox

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// shell is a command of sh that finds the programs by name.
func shell(t testing.TB, command string) *exec.Cmd {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs sh")
	}
	cmd := exec.Command("sh", "-c", command)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return cmd
}

// The commands that --help of the client shows work when they are pasted, but for the address.
func TestHelpCommands(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	r := client(t, nil, "--help")
	r.require(t, 0, "")
	commands := regexp.MustCompile(`(?m)^  (\S.*echo-client.*|echo-client.*)$`).FindAllString(string(r.out), -1)
	require.Len(t, commands, 4)
	for _, command := range commands {
		flags := " --connect " + s.urls[0]
		if strings.Contains(command, "--demo") {
			flags = " --duration 2s" // it needs no server
		}
		cmd := shell(t, strings.ReplaceAll(command, "echo-client", "echo-client"+flags))
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", command, out)
		assert.Contains(t, string(out), "each once and in order", command)
	}
}

// What the server shows for pasting works.
func TestCertificateCommand(t *testing.T) {
	for _, url := range []string{"tls://127.0.0.1:0", "tls://:0", "quic://localhost:0"} {
		s := startServer(t, []string{url})
		command := strings.TrimSpace(s.err.wait(t, "echo-client --connect", 1))
		cmd := shell(t, "seq 1 10 | "+command)
		out, err := cmd.Output()
		assert.NoError(t, err, command)
		assert.Equal(t, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", string(out))
		s.stop()
	}
}

// nc, where there is one, is the foreign client.
func TestNetcat(t *testing.T) {
	if _, err := exec.LookPath("nc"); err != nil {
		t.Skip("there is no nc")
	}
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	host, port, _ := strings.Cut(s.addr(0), ":")
	cmd := shell(t, "nc -N "+host+" "+port)
	in := frame(0xffff, []byte("Hello world!"))
	cmd.Stdin = strings.NewReader(string(in))
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "invalid option") {
		t.Skip("this nc has no -N")
	}
	require.NoError(t, err, "%s", out)
	assert.Equal(t, in, out)
}

func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		s := startServer(t, everywhere(t))
		s.signal(sig)
		assert.Equal(t, 0, s.exit(), sig)
	}

	t.Run("second", func(t *testing.T) {
		s := startServer(t, []string{"tcp://127.0.0.1:0"}, "--verbose", "--drain", "1h")
		c := dial(t, s.addr(0))
		defer c.Close()
		// A peer that goes on sending, and reads nothing, takes the whole time.
		go func() {
			for f := frame(1, make([]byte, 100_000)); ; {
				if _, err := c.Write(f); err != nil {
					return
				}
			}
		}()
		s.err.wait(t, "msg=connected", 1)
		s.signal(syscall.SIGTERM)
		s.err.wait(t, "msg=draining", 1)
		s.signal(syscall.SIGTERM)
		assert.Equal(t, 1, s.exit())
		s.err.wait(t, "a second signal: ended at once", 1)
	})

	t.Run("idle peer", func(t *testing.T) {
		s := startServer(t, []string{"tcp://127.0.0.1:0"}, "--drain", "1h")
		c := dial(t, s.addr(0))
		defer c.Close()
		f := frame(1, []byte("hello"))
		_, err := c.Write(f)
		require.NoError(t, err)
		s.signal(syscall.SIGTERM)
		got := make([]byte, len(f))
		n, _ := c.Read(got) // the echo, as it was on its way; unless the connection was not accepted yet
		if n > 0 {
			assert.Equal(t, f, got[:n])
			n, err = c.Read(got)
			assert.Zero(t, n)
			assert.ErrorContains(t, err, "EOF")
		}
		require.NoError(t, c.Close())
		assert.Equal(t, 0, s.exit(), "it does not wait for its hour")
	})
}

func TestTwoServersOnOnePort(t *testing.T) {
	for _, url := range everywhere(t) {
		s := startServer(t, []string{url})
		scheme, _, _ := strings.Cut(url, "://")
		other := exec.Command(program("echo-server"), "--listen", "tcp://127.0.0.1:0", "--listen", s.urls[0])
		out, err := other.Output()
		exit := new(exec.ExitError)
		require.ErrorAs(t, err, &exit, scheme)
		assert.Equal(t, 3, exit.ExitCode(), scheme)
		assert.Empty(t, out, "nothing listens until all do")
		assert.Contains(t, string(exit.Stderr), "address already in use")
		assert.Equal(t, 1, strings.Count(string(exit.Stderr), "\n"))
		s.stop()
	}
}
