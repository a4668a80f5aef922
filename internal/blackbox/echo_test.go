package blackbox

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func random(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(p) // never fails
	return p
}

func numbers(n int) []byte {
	var b []byte
	for i := range n {
		b = append(strconv.AppendInt(b, int64(i), 10), '\n')
	}
	return b
}

func TestRoundTrips(t *testing.T) {
	s := startServer(t, everywhere(t))
	file := filepath.Join(t.TempDir(), "input")
	require.NoError(t, os.WriteFile(file, random(300_000), 0o600))
	for i, url := range s.urls {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			for name, tc := range map[string]struct {
				in    []byte
				flags []string
			}{
				"plain":            {numbers(10_000), []string{"--plain"}},
				"plain chunks":     {random(1 << 20), []string{"--plain", "--chunk", "1000"}},
				"lines":            {numbers(10_000), nil},
				"no last newline":  {[]byte("one\n\nthree"), nil},
				"only a newline":   {[]byte("\n"), nil},
				"nothing":          {nil, nil},
				"recipient":        {[]byte("one\n"), []string{"--recipient", "65535"}},
				"one at a time":    {numbers(100), []string{"--inflight", "1"}},
				"binary lines":     {random(100_000), nil},
				"chunks":           {random(1 << 20), []string{"--chunk", "1000"}},
				"one large chunk":  {random(3 << 20), []string{"--chunk", "16000000"}},
				"bytes":            {random(5000), []string{"--chunk", "1"}},
				"chunks of a file": {nil, []string{"--chunk", "65536", file}},
				"nothing, chunks":  {nil, []string{"--chunk", "10"}},
				"flags after file": {nil, []string{file, "--chunk", "7000"}},
			} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					r := client(t, bytes.NewReader(tc.in), with(s.to(i), tc.flags...)...)
					r.require(t, 0, " back")
					want := tc.in
					if strings.Contains(strings.Join(tc.flags, " "), file) {
						want, _ = os.ReadFile(file)
					}
					assert.True(t, bytes.Equal(want, r.out), "%d bytes in, %d out", len(want), len(r.out))
				})
			}
		})
	}
}

func TestLoadAndJSON(t *testing.T) {
	s := startServer(t, everywhere(t))
	for i, url := range s.urls {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			for _, size := range []string{"0", "1", "8", "64", "100000"} {
				r := client(t, nil, with(s.to(i), "--count", "300", "--size", size, "--json")...)
				r.require(t, 0, "300 sent, 300 back, each once and in order")
				var got struct {
					Sent, Received, Lost uint64
					Seconds              float64
					RTT                  map[string]float64 `json:"rtt_us"`
				}
				require.NoError(t, json.Unmarshal(r.out, &got))
				assert.EqualValues(t, 300, got.Sent)
				assert.EqualValues(t, 300, got.Received)
				assert.Positive(t, got.Seconds)
				assert.Positive(t, got.RTT["p50"])
				assert.GreaterOrEqual(t, got.RTT["max"], got.RTT["p99"])
			}
		})
	}
}

func TestJSONKeys(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	for name, tc := range map[string]struct {
		in    string
		flags []string
		data  string // in front of the JSON
	}{
		"lines":           {"a\nb\n", nil, "a\nb\n"},
		"no last newline": {"a\nb", nil, "a\nb\n"},
		"nothing":         {"", nil, ""},
		"chunks":          {"abc", []string{"--chunk", "2"}, "abc\n"},
		"load":            {"", []string{"--count", "2"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := client(t, strings.NewReader(tc.in), with(s.to(0), with(tc.flags, "--json")...)...)
			r.require(t, 0, " back")
			line, ok := strings.CutPrefix(string(r.out), tc.data)
			require.True(t, ok, "%q", r.out)
			require.Equal(t, 1, strings.Count(line, "\n"))
			require.True(t, strings.HasSuffix(line, "}\n"))

			var keys []string
			dec := json.NewDecoder(strings.NewReader(line))
			for {
				token, err := dec.Token()
				if err == io.EOF {
					break
				}
				require.NoError(t, err)
				if key, ok := token.(string); ok {
					keys = append(keys, key)
				}
			}
			assert.Equal(t, strings.Fields(`sent received lost duplicated out_of_order redelivered reconnects replayed seconds msgs_per_s mb_per_s
				rtt_us p50 p90 p99 p999 max`), keys)
		})
	}
}

func TestRateAndDuration(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0"})
	var got struct {
		Sent    uint64
		Seconds float64
	}
	r := client(t, nil, with(s.to(0), "--count", "51", "--rate", "200", "--json")...)
	r.require(t, 0, "51 back")
	require.NoError(t, json.Unmarshal(r.out, &got))
	assert.GreaterOrEqual(t, got.Seconds, 0.25)

	r = client(t, nil, with(s.to(0), "--duration", "300ms", "--rate", "100", "--json")...)
	r.require(t, 0, " back")
	require.NoError(t, json.Unmarshal(r.out, &got))
	assert.LessOrEqual(t, got.Sent, uint64(31))
	assert.Positive(t, got.Sent)

	r = client(t, bytes.NewReader(numbers(21)), with(s.to(0), "--rate", "200", "--json")...)
	r.require(t, 0, "21 back")
	_, last, _ := strings.Cut(string(r.out), "20\n")
	require.NoError(t, json.Unmarshal([]byte(last), &got))
	assert.GreaterOrEqual(t, got.Seconds, 0.1, "lines are paced too")
}

// Who types sees each echo before the next line is typed.
func TestInteractive(t *testing.T) {
	s := startServer(t, everywhere(t))
	for i := range s.urls {
		cmd := exec.Command(program("echo-client"), s.to(i)...)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		r := bufio.NewReader(out)
		for _, line := range []string{"hello\n", "\n", "is anybody there?\n"} {
			_, err := io.WriteString(in, line)
			require.NoError(t, err)
			echo, err := r.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, line, echo)
		}
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	}
}

func TestClientInterrupted(t *testing.T) {
	s := startServer(t, everywhere(t), "--verbose")
	// A line first, whose echo says that the client is at work. Load has no output, and is tried again if it was too
	// early.
	for i := range s.urls {
		cmd := exec.Command(program("echo-client"), s.to(i)...)
		in, err := cmd.StdinPipe() // stays open
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		require.NoError(t, cmd.Start())
		_, err = io.WriteString(in, "hello\n")
		require.NoError(t, err)
		_, err = bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		assert.Equal(t, 1, cmd.ProcessState.ExitCode(), stderr.String())
		assert.Contains(t, stderr.String(), "interrupted before the end of the input")
		assert.Contains(t, stderr.String(), "1 sent, 1 back")

		// A run without --count is over when its user says so; one with it was cut short.
		code, last, errs := interruptLoad(t, s, i, "--duration", "1h")
		assert.Equal(t, 0, code, errs)
		assert.Contains(t, last, `"lost":0`)
		code, last, errs = interruptLoad(t, s, i, "--count", "1000000000")
		assert.Equal(t, 1, code, errs)
		assert.Contains(t, errs, "interrupted before all 1000000000 were sent")
		assert.Contains(t, last, `"lost":0`)
	}
}

// interruptLoad runs echo-client in load mode and interrupts it when the server has it.
func interruptLoad(t testing.TB, s *server, i int, flags ...string) (code int, out, errs string) {
	t.Helper()
	for {
		var out, stderr bytes.Buffer
		connected := strings.Count(s.err.text(), "msg=connected")
		cmd := exec.Command(program("echo-client"), with(s.to(i), with(flags, "--rate", "1000", "--json")...)...)
		cmd.Stdout, cmd.Stderr = &out, &stderr
		require.NoError(t, cmd.Start())
		s.err.wait(t, "msg=connected", connected+1)
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if strings.Contains(stderr.String(), "answered") { // it was too early
			require.Equal(t, 3, code)
			continue
		}
		return code, out.String(), stderr.String()
	}
}

// end runs clients with endless load, ends each one's server when the client is at work, and checks how the client tells
// that. With flags the server is to end in good order.
func end(t *testing.T, do func(*server), flags ...string) {
	for message, kind := range map[string][]string{
		" the connection ":            {"--plain"},
		"nothing came back for 500ms": {"--wait", "500ms"}, // it has dialled again in vain
	} {
		for i, url := range everywhere(t) {
			t.Run(url+" "+kind[0], func(t *testing.T) {
				t.Parallel()
				plain := kind[0] == "--plain"
				if plain && strings.HasPrefix(url, "quic:") && len(flags) == 0 {
					t.Skip("over UDP nothing tells the peer of a killed server before the idle timeout")
				}
				s := startServer(t, everywhere(t)[i:i+1], with(flags, "--verbose")...)
				go func() {
					text := "msg=connected"
					if !plain {
						text = `msg="session connected"` // the client has the answer
					}
					if s.err.await(text, 1) == nil {
						do(s)
					}
				}()
				r := client(t, nil, with(with(s.to(0), kind...), "--duration", "1h", "--size", "1000", "--json")...)
				r.require(t, 1, message)
				assert.Contains(t, r.err, " back")
				assert.Contains(t, string(r.out), `"lost":`)
				assert.Equal(t, 2, strings.Count(r.err, "\n"), "an error and a summary: %s", r.err)
				if len(flags) > 0 {
					assert.Equal(t, 0, s.exit())
				}
			})
		}
	}
}

func TestServerKilled(t *testing.T) {
	end(t, func(s *server) { _ = s.cmd.Process.Kill() })
}

// A server that is drained under load says goodbye to its clients, and ends in time.
func TestDrainUnderLoad(t *testing.T) {
	end(t, func(s *server) { _ = s.cmd.Process.Signal(syscall.SIGTERM) }, "--drain", "2s")
}
