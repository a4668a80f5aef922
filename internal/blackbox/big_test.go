package blackbox

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the README promises of large input, at full size, and of the memory of both programs.
func TestBig(t *testing.T) {
	if os.Getenv("TOWLINE_BIG") == "" {
		t.Skip("moves gigabytes; set TOWLINE_BIG=1")
	}
	const limit = 300 << 20
	dir := t.TempDir()
	seq, big := filepath.Join(dir, "seq"), filepath.Join(dir, "big")
	f, err := os.Create(seq)
	require.NoError(t, err)
	for i := range 1_000_000 {
		fmt.Fprintln(f, i+1)
	}
	require.NoError(t, f.Close())
	block := random(1 << 20)
	f, err = os.Create(big)
	require.NoError(t, err)
	for i := range 256 {
		block[0] = byte(i)
		_, err = f.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())

	for _, url := range everywhere(t)[:4] {
		for _, tc := range []struct {
			name, file string
			flags      []string
		}{
			{"a million lines", seq, nil},
			{"256 MiB in chunks of 65536", big, []string{"--chunk", "65536"}},
			{"256 MiB in chunks of 10000000", big, []string{"--chunk", "10000000"}},
		} {
			t.Run(url[:4]+" "+tc.name, func(t *testing.T) {
				s := startServer(t, []string{url})
				cmd := exec.Command(program("echo-client"), with(s.to(0), with(tc.flags, "--json", tc.file)...)...)
				cmd.Stderr = os.Stderr
				out, err := cmd.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, cmd.Start())

				in, err := os.Open(tc.file)
				require.NoError(t, err)
				defer in.Close()
				want, got := sha256.New(), sha256.New()
				n, err := io.Copy(want, in)
				require.NoError(t, err)
				_, err = io.CopyN(got, out, n)
				require.NoError(t, err)
				last, err := io.ReadAll(out) // the JSON
				require.NoError(t, err)
				require.NoError(t, cmd.Wait())
				assert.Equal(t, want.Sum(nil), got.Sum(nil), "what came back differs")
				var result map[string]any
				require.NoError(t, json.Unmarshal(last, &result), "%s", last)

				_, serverPeak := rss(t, s.cmd.Process.Pid)
				clientPeak := maxRSS(cmd.ProcessState)
				t.Logf("%.2f s, peak memory of client %d MiB, of server %d MiB", result["seconds"], clientPeak>>20, serverPeak>>20)
				if !race {
					assert.Less(t, clientPeak, limit)
					assert.Less(t, serverPeak, limit)
				}
				s.stop()
			})
		}
	}
}
