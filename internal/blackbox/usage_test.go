package blackbox

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClientExitCodes(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:0"})
	dir := t.TempDir()
	notPEM := filepath.Join(dir, "not.pem")
	require.NoError(t, os.WriteFile(notPEM, []byte("nothing"), 0o600))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := "tcp://" + free.Addr().String()
	require.NoError(t, free.Close())
	other := "sha256:" + strings.Repeat("ab", 32)

	for name, tc := range map[string]struct {
		code    int
		message string
		args    []string
	}{
		"unknown flag":           {2, "there is no flag --bogus", []string{"--bogus"}},
		"bad number":             {2, "--chunk takes a whole number", []string{"--chunk", "x"}},
		"bad URL":                {2, "a good one is tcp://localhost:7000", []string{"--connect", "localhost:7000"}},
		"port 0":                 {2, "port 0", []string{"--connect", "tcp://127.0.0.1:0"}},
		"mem":                    {2, "inside one process", []string{"--connect", "mem://echo"}},
		"recipient":              {2, "0 to 65535", []string{"--recipient", "65536"}},
		"chunk 0":                {2, "--chunk is 0", []string{"--chunk", "0"}},
		"chunk too large":        {2, "at most 2147483639 bytes", []string{"--chunk", "2147483640"}},
		"size too large":         {2, "--size is 2147483640", []string{"--count", "1", "--size", "2147483640"}},
		"recipient below 0":      {2, "--recipient takes a number from 0 to 65535", []string{"--recipient", "-1"}},
		"no URL":                 {2, "--connect URL: the value is missing", []string{"--connect"}},
		"two files":              {2, "one FILE", []string{"a", "b"}},
		"an address for a file":  {2, `--connect "tcp://127.0.0.1:7000"`, []string{"tcp://127.0.0.1:7000"}},
		"no file":                {2, "no such file", []string{filepath.Join(dir, "none")}},
		"directory":              {2, "is a directory", []string{dir}},
		"load and file":          {2, "leave FILE", []string{"--count", "1", "a"}},
		"load and chunk":         {2, "leave FILE", []string{"--count", "1", "--chunk", "1"}},
		"size alone":             {2, "--count", []string{"--size", "1"}},
		"count 0":                {2, "1 or more", []string{"--count", "0"}},
		"duration 0":             {2, "more than 0", []string{"--duration", "0s"}},
		"inflight 0":             {2, "--inflight is 0", []string{"--inflight", "0"}},
		"rate":                   {2, "--rate is -1", []string{"--rate", "-1"}},
		"plain and strict":       {2, "--plain has none", []string{"--plain", "--strict"}},
		"plain and token":        {2, "--plain has none", []string{"--plain", "--token", "x"}},
		"plain and cut":          {2, "--plain has none", []string{"--plain", "--cut", "1s"}},
		"plain and fallback":     {2, "one --connect", []string{"--plain", "--connect", "tcp://a:1", "--connect", "tcp://b:1"}},
		"cut 0":                  {2, "--cut is 0s", []string{"--cut", "0s"}},
		"empty token":            {2, "--token TEXT: the value is empty", []string{"--token", ""}},
		"long token":             {2, "--token is 769 bytes long", []string{"--token", strings.Repeat("x", 769)}},
		"demo and connect":       {2, "leave --connect out", []string{"--demo", "--connect", "tcp://a:1"}},
		"demo and file":          {2, `leave "a" out`, []string{"--demo", "a"}},
		"all refused":            {3, "; " + refused + ": connection refused", []string{"--connect", refused, "--connect", refused}},
		"tls flag on tcp":        {2, "not for tcp://", []string{"--insecure"}},
		"fingerprint":            {2, "64 hexadecimal digits", []string{"--connect", "tls://localhost:1", "--tls-fingerprint", "sha256:12"}},
		"cert without key":       {2, "go together", []string{"--connect", "tls://localhost:1", "--tls-cert", notPEM}},
		"insecure and pinned":    {2, "--insecure", []string{"--connect", "tls://localhost:1", "--insecure", "--tls-fingerprint", other}},
		"CA that is none":        {2, "PEM", []string{"--connect", "tls://localhost:1", "--tls-ca", notPEM}},
		"refused":                {3, "connection refused; is echo-server running there?", []string{"--connect", refused}},
		"no socket":              {3, "is echo-server running there?", []string{"--connect", "unix://" + filepath.Join(dir, "none")}},
		"tls to tcp":             {3, "does not speak TLS", []string{"--connect", strings.Replace(s.urls[0], "tcp", "tls", 1)}},
		"untrusted":              {3, "--tls-fingerprint " + s.fingerprint, []string{"--connect", s.urls[1]}},
		"another certificate":    {3, "fingerprint", []string{"--connect", s.urls[1], "--tls-fingerprint", other}},
		"tcp to tls":             {3, "if it speaks TLS, connect to tls://", []string{"--connect", strings.Replace(s.urls[1], "tls", "tcp", 1)}},
		"plain tcp to tls":       {1, "if it speaks TLS, connect to tls://", []string{"--plain", "--connect", strings.Replace(s.urls[1], "tls", "tcp", 1)}},
		"line too long":          {1, "--chunk", s.to(0)},
		"payload over the limit": {1, "--max-size", with(s.to(0), "--count", "1", "--size", "16777217")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var in bytes.Buffer
			switch name {
			case "line too long":
				in.Write(make([]byte, 16<<20+1))
			case "tcp to tls", "plain tcp to tls":
				in.WriteString("hello\n")
			}
			r := client(t, &in, tc.args...)
			r.require(t, tc.code, tc.message)
			assert.True(t, strings.HasPrefix(r.err, "echo-client: "), r.err)
			if tc.code != 1 {
				assert.Equal(t, 1, strings.Count(r.err, "\n"), "one line: %s", r.err)
				assert.Empty(t, r.out)
			}
		})
	}
	client(t, strings.NewReader("x\n"), "--connect", s.urls[1], "--insecure").require(t, 0, "warning: --insecure")
}

func TestServerExitCodes(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	require.NoError(t, os.WriteFile(notPEM, []byte("nothing"), 0o600))
	for name, tc := range map[string]struct {
		code    int
		message string
		args    []string
	}{
		"unknown flag":       {2, "there is no flag --bogus", []string{"--bogus"}},
		"argument":           {2, `"tcp://:7000"`, []string{"tcp://:7000"}},
		"bad URL":            {2, "a good one is", []string{"--listen", "7000"}},
		"mem":                {2, "inside one process", []string{"--listen", "mem://echo"}},
		"key without cert":   {2, "go together", []string{"--tls-key", notPEM}},
		"tls flags for tcp":  {2, "no --listen", []string{"--tls-client-ca", notPEM}},
		"no certificate":     {2, "PEM", []string{"--listen", "tls://127.0.0.1:0", "--tls-cert", notPEM, "--tls-key", notPEM}},
		"no authority":       {2, "PEM", []string{"--listen", "tls://127.0.0.1:0", "--tls-client-ca", notPEM}},
		"max-size":           {2, "--max-size is 0", []string{"--max-size", "0"}},
		"drain":              {2, "--drain is -1s", []string{"--drain", "-1s"}},
		"expiry":             {2, "--expiry is 0s", []string{"--expiry", "0s"}},
		"max-sessions":       {2, "--max-sessions is 0", []string{"--max-sessions", "0"}},
		"empty token":        {2, "--token TEXT: the value is empty", []string{"--token", ""}},
		"token and plain":    {2, "--token implies --no-plain", []string{"--token", "x", "--no-plain=false"}},
		"drain without unit": {2, "--drain takes a time such as 5s", []string{"--drain", "5"}},
		"no such address":    {3, "cannot listen on tcp://192.0.2.1:0", []string{"--listen", "tcp://192.0.2.1:0"}},
		"no such directory":  {3, "no such file or directory", []string{"--listen", "unix:///nonexistent/towline/s"}},
		"file in the way":    {3, "cannot listen on", []string{"--listen", "unix://" + notPEM}},
		"a name unresolved":  {3, "cannot listen on", []string{"--listen", "quic://nowhere.invalid:0"}},
		"the second of both": {3, "192.0.2.1", []string{"--listen", "tcp://127.0.0.1:0", "--listen", "quic://192.0.2.1:0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(program("echo-server"), tc.args...).Output()
			exit := new(exec.ExitError)
			require.ErrorAs(t, err, &exit)
			assert.Equal(t, tc.code, exit.ExitCode())
			assert.Empty(t, out)
			assert.Contains(t, string(exit.Stderr), tc.message)
			assert.True(t, strings.HasPrefix(string(exit.Stderr), "echo-server: "))
			assert.Equal(t, 1, strings.Count(string(exit.Stderr), "\n"), "one line: %s", exit.Stderr)
		})
	}
}

// Who is served, by token and by whether it has a session.
func TestWhoIsServed(t *testing.T) {
	in := func() *strings.Reader { return strings.NewReader("x\n") }

	s := startServer(t, []string{"tcp://127.0.0.1:0"}, "--token", "secret")
	client(t, in(), with(s.to(0), "--token", "secret")...).require(t, 0, "each once")
	client(t, in(), s.to(0)...).require(t, 3, "not authorised; see --token")
	s.err.wait(t, "it shows no token", 1)
	client(t, in(), with(s.to(0), "--token", "wrong")...).require(t, 3, "not authorised; see --token")
	s.err.wait(t, "it shows another token", 1)
	client(t, in(), with(s.to(0), "--plain")...).require(t, 1, "leave --plain out")
	assert.NotContains(t, s.err.text(), "secret")
	s.stop()

	s = startServer(t, []string{"tcp://127.0.0.1:0"}, "--no-plain")
	client(t, in(), s.to(0)...).require(t, 0, "each once")
	client(t, in(), with(s.to(0), "--plain")...).require(t, 1, "leave --plain out")
	s.err.wait(t, "plain connections are not served", 1)
	s.stop()

	s = startServer(t, []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:0"})
	client(t, in(), with(s.to(0), "--token", "unasked")...).require(t, 0, "each once")
	client(t, in(), with(s.to(0), "--plain")...).require(t, 0, "each once")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	dead := []string{"--connect", "tcp://" + free.Addr().String()}
	client(t, in(), with(dead, s.to(1)...)...).require(t, 0, "each once")
	s.stop()
}

func TestHelpAndVersion(t *testing.T) {
	for _, name := range []string{"echo-server", "echo-client"} {
		for _, flag := range []string{"--help", "-h", "--version"} {
			out, err := exec.Command(program(name), flag).Output()
			require.NoError(t, err)
			assert.Contains(t, string(out), name)
			if flag == "--version" {
				assert.Equal(t, 1, strings.Count(string(out), "\n"))
			} else {
				assert.Contains(t, string(out), "Exit status")
			}
		}
	}
}

// Output that cannot be written is an error, and not only for data.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	for _, tc := range [][]string{
		{"echo-server", "--help"},
		{"echo-client", "--help"},
		{"echo-server", "--version"},
		{"echo-client", "--version"},
		{"echo-server", "--listen", "tcp://127.0.0.1:0"},
	} {
		var stderr bytes.Buffer
		cmd := exec.Command(program(tc[0]), tc[1:]...)
		cmd.Stdout, cmd.Stderr = full, &stderr
		_ = cmd.Run()
		assert.Equal(t, 1, cmd.ProcessState.ExitCode(), tc)
		assert.Equal(t, tc[0]+": cannot write the output: no space left on device\n", stderr.String())
	}
}

func TestLogJSON(t *testing.T) {
	s := startServer(t, []string{"tls://127.0.0.1:0"}, "--log-json", "--verbose")
	s.err.wait(t, `"client_command":"echo-client --connect tls://127.0.0.1:`, 1)
	client(t, strings.NewReader("x"), s.to(0)...).require(t, 0, "")
	s.err.wait(t, `"msg":"connected"`, 1)
	s.stop()
	got, _, _ := s.err.snapshot()
	for _, line := range got {
		assert.True(t, strings.HasPrefix(line, "{"), line)
	}
}
