package endpoint_test

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/endpoint"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct{ in, scheme, addr, out string }{
		{"tcp://127.0.0.1:7000", "tcp", "127.0.0.1:7000", ""},
		{"TCP://Echo.Example:7000", "tcp", "Echo.Example:7000", "tcp://Echo.Example:7000"},
		{"tcp://:0", "tcp", ":0", ""},
		{"tcp://[::1]:7000", "tcp", "[::1]:7000", ""},
		{"tcp://[fe80::1%eth0]:7000", "tcp", "[fe80::1%eth0]:7000", ""},
		{"tcp://under_score.example.:65535", "tcp", "under_score.example.:65535", ""},
		{"tls://localhost:7000", "tls", "localhost:7000", ""},
		{"quic://bücher.example:1", "quic", "bücher.example:1", ""},
		{"unix:///run/echo.sock", "unix", "/run/echo.sock", ""},
		{"unix:/run/echo.sock", "unix", "/run/echo.sock", "unix:///run/echo.sock"},
		{"unix:////run/echo.sock", "unix", "/run/echo.sock", "unix:///run/echo.sock"},
		{"unix:echo.sock", "unix", "echo.sock", ""},
		{"unix:./@echo", "unix", "./@echo", ""},
		{"unix:@echo", "unix", "@echo", ""},
		{"unix://@echo", "unix", "@echo", "unix:@echo"},
		{"unix:///a b%20?c#d", "unix", "/a b%20?c#d", ""},
		{"mem://echo", "mem", "echo", ""},
		{"mem://:0", "mem", ":0", ""},
	} {
		t.Run(tc.in, func(t *testing.T) {
			u, err := endpoint.Parse(tc.in)
			require.NoError(t, err)
			assert.Equal(t, endpoint.URL{Scheme: tc.scheme, Addr: tc.addr}, u)
			if tc.out == "" {
				tc.out = tc.in
			}
			assert.Equal(t, tc.out, u.String())
		})
	}
}

func TestParseErrors(t *testing.T) {
	for _, tc := range []struct{ in, problem, example string }{
		{"", "it is empty", "tcp://127.0.0.1:7000"},
		{"127.0.0.1:7000", "the scheme is missing", "tcp://127.0.0.1:7000"},
		{"localhost:7000", "the scheme is missing", "tcp://localhost:7000"},
		{"/run/echo.sock", "the scheme is missing", "unix:///run/echo.sock"},
		{"@echo", "the scheme is missing", "unix:@echo"},
		{"@", "the scheme is missing", "tcp://127.0.0.1:7000"},
		{"echo", "the scheme is missing", "tcp://127.0.0.1:7000"},
		{"://x:1", "the scheme is missing", "tcp://127.0.0.1:7000"},
		{"http://x:80", `there is no scheme "http", only tcp, tls, quic, unix and mem`, "tcp://127.0.0.1:7000"},
		{"tcp:127.0.0.1:7000", "// is missing after tcp:", "tcp://127.0.0.1:7000"},
		{"tls://", "host and port are missing", "tls://127.0.0.1:7000"},
		{"tcp://localhost", "the port is missing", "tcp://localhost:7000"},
		{"tcp://localhost:", "the port is missing", "tcp://localhost:7000"},
		{"tcp://[::1]", "the port is missing", "tcp://[::1]:7000"},
		{"tcp://::1", "the port is missing", "tcp://[::1]:7000"},
		{"tcp://::1:7000", "an IPv6 address stands in brackets", "tcp://[::1]:7000"},
		{"tcp://fe80::1:70000", "host and port cannot be told apart", "tcp://127.0.0.1:7000"},
		{"tcp://1:2:3:4:5:6:7:8:7000", "an IPv6 address stands in brackets", "tcp://[1:2:3:4:5:6:7:8]:7000"},
		{"tcp://[localhost]:7000", "only an IPv6 address stands in brackets", "tcp://[::1]:7000"},
		{"tcp://[127.0.0.1]:7000", "only an IPv6 address stands in brackets", "tcp://[::1]:7000"},
		{"tcp://localhost:65536", `the port is "65536" and not a number from 0 to 65535`, "tcp://localhost:7000"},
		{"tcp://localhost:-1", `the port is "-1" and not a number from 0 to 65535`, "tcp://localhost:7000"},
		{"tcp://localhost:http", `the port is "http" and not a number from 0 to 65535`, "tcp://localhost:7000"},
		{"tcp://localhost:07000", `the port is "07000" and not a number from 0 to 65535`, "tcp://localhost:7000"},
		{"tcp://localhost:7000/", "a path has no meaning here", "tcp://localhost:7000"},
		{"tcp://localhost/x", "a path has no meaning here", "tcp://127.0.0.1:7000"},
		{"quic://localhost:7000?x=1", "a query has no meaning here", "quic://localhost:7000"},
		{"quic://localhost:7000#x", "a fragment has no meaning here", "quic://localhost:7000"},
		{"tcp://me:secret@localhost:7000", "user information has no meaning here", "tcp://localhost:7000"},
		{"tcp://me@", "user information has no meaning here", "tcp://127.0.0.1:7000"},
		{"tcp://*:7000", "all addresses are written as an empty host", "tcp://:7000"},
		{"tcp://a b:7000", `"a b" is not a host`, "tcp://127.0.0.1:7000"},
		{"unix:", "the path is missing", "unix:///run/echo.sock"},
		{"unix://", "the path is missing", "unix:///run/echo.sock"},
		{"unix:@", "the name after @ is missing", "unix:@echo"},
		{"unix://run/echo.sock", "what follows // begins with / or @", "unix:///run/echo.sock"},
		{"unix:///a\x00b", "a path contains no zero byte", "unix:///run/echo.sock"},
		{"mem:echo", "// is missing after mem:", "mem://echo"},
		{"mem://", "the name is missing", "mem://echo"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			u, err := endpoint.Parse(tc.in)
			assert.Zero(t, u)
			var bad *endpoint.Error
			require.ErrorAs(t, err, &bad)
			assert.Equal(t, endpoint.Error{URL: tc.in, Problem: tc.problem, Example: tc.example}, *bad)
			assert.NotContains(t, err.Error(), "\n")
			_, err = endpoint.Parse(bad.Example)
			assert.NoError(t, err, "the example must be good")
		})
	}
}

func TestText(t *testing.T) {
	var u endpoint.URL
	require.NoError(t, json.Unmarshal([]byte(`"TCP://localhost:7000"`), &u))
	out, err := json.Marshal(u)
	require.NoError(t, err)
	assert.Equal(t, `"tcp://localhost:7000"`, string(out))

	assert.Error(t, u.UnmarshalText([]byte("nonsense")))
	assert.Equal(t, "tcp://localhost:7000", u.String(), "an error leaves the value alone")

	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.TextVar(&u, "connect", u, "")
	require.NoError(t, fs.Parse([]string{"--connect", "unix:@echo"}))
	assert.Equal(t, endpoint.URL{Scheme: endpoint.Unix, Addr: "@echo"}, u)
}

func TestAt(t *testing.T) {
	u := endpoint.URL{Scheme: endpoint.TLS, Addr: "localhost:0"}
	assert.Equal(t, "tls://[::1]:7000", u.At(&net.TCPAddr{IP: net.IPv6loopback, Port: 7000}).String())
	u = endpoint.URL{Scheme: endpoint.Unix, Addr: "@echo"}
	assert.Equal(t, "unix:@echo", u.At(&net.UnixAddr{Name: "@echo"}).String())
	assert.Empty(t, endpoint.URL{}.String())
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "tcp://127.0.0.1:7000", "tcp://[::1]:0", "tcp://[fe80::1%eth0]:1", "tcp://a@b:1", "tcp://::1:2", "tls://x", "quic://x:1/", "unix:",
		"unix:@", "unix:///a", "unix:////", "unix:a", "unix://@x", "mem://", "mem://a:0", "http://x", "localhost:80", "/x", "@x", "UNIX:\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := endpoint.Parse(s)
		if err != nil {
			var bad *endpoint.Error
			if !errors.As(err, &bad) {
				t.Fatalf("%q: %T is not an *Error", s, err)
			}
			if _, err := endpoint.Parse(bad.Example); err != nil {
				t.Fatalf("%q: the example is bad itself: %v", s, err)
			}
			if u != (endpoint.URL{}) {
				t.Fatalf("%q: %v beside an error", s, u)
			}
			return
		}
		again, err := endpoint.Parse(u.String())
		if err != nil || again != u {
			t.Fatalf("%q is %#v, whose String %q is %#v, %v", s, u, u.String(), again, err)
		}
	})
}
