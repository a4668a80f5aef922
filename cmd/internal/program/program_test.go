package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		args, others []string
		n            int
	}{
		{nil, nil, 0},
		{[]string{"-n", "1", "a"}, []string{"a"}, 1},
		{[]string{"a", "--n", "1", "b"}, []string{"a", "b"}, 1},
		{[]string{"--n=1", "--", "--n", "2"}, []string{"--n", "2"}, 1},
		{[]string{"a", "--", "--n"}, []string{"a", "--n"}, 0},
		{[]string{"-"}, []string{"-"}, 0},
	} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		n := fs.Int("n", 0, "")
		others, err := Parse(fs, tc.args)
		require.NoError(t, err)
		assert.Equal(t, tc.others, others, tc.args)
		assert.Equal(t, tc.n, *n)
		assert.Equal(t, tc.n > 0, Given(fs)["n"])
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	_, err := Parse(fs, []string{"--help"})
	assert.Equal(t, flag.ErrHelp, err)
	_, err = Parse(fs, []string{"a", "--no"})
	var usage *UsageError
	require.ErrorAs(t, err, &usage)
	assert.Equal(t, "there is no flag --no", usage.Problem)
}

func TestParseProblems(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--int=x", `--int takes a whole number such as 64, not "x"`},
		{"--int=99999999999999999999", `--int takes a whole number such as 64, not "99999999999999999999"`},
		{"--uint64=-1", `--uint64 takes a whole number such as 64, and none below 0, not "-1"`},
		{"--uint16=-1", `--uint16 takes a number from 0 to 65535, not "-1"`},
		{"--uint16=65536", `--uint16 takes a number from 0 to 65535, not "65536"`},
		{"--float=", `--float takes a number such as 1.5, not ""`},
		{"--duration=5", `--duration takes a time such as 5s, not "5"`},
		{"--bool=may\" for flag -x: be", `--bool takes true or false, not "may\" for flag -x: be"`},
		{"--func=x", `--func: it is no good`},
		{"--duration", `--duration time: the value is missing`},
		{"---int", `bad flag syntax: ---int`},
	} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.Int("int", 0, "")
		fs.Uint64("uint64", 0, "")
		Uint16(fs, "uint16", 0, "")
		fs.Float64("float", 0, "")
		fs.Duration("duration", 0, "how much `time`")
		fs.Bool("bool", false, "")
		fs.Func("func", "", func(string) error { return errors.New("it is no good") })
		_, err := Parse(fs, []string{tc.arg})
		var usage *UsageError
		require.ErrorAs(t, err, &usage, tc.arg)
		assert.Equal(t, tc.want, usage.Problem)
	}
}

func TestUint16(t *testing.T) {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	n := Uint16(fs, "n", 7, "the tag `N`")
	assert.Equal(t, "  --n N\n    \tthe tag N (default 7)\n", Flags(fs))
	for _, good := range []string{"0", "65535"} {
		_, err := Parse(fs, []string{"--n", good})
		require.NoError(t, err)
		assert.Equal(t, good, fmt.Sprint(*n))
	}
}

func TestReason(t *testing.T) {
	for want, err := range map[string]error{
		"connection refused":      &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"there is no host nobody": fmt.Errorf("dial: %w", &net.DNSError{Err: "no such host", Name: "nobody", IsNotFound: true}),
		"no answer in time":       context.DeadlineExceeded,
		"two lines":               errors.New("two\nlines\n"),
		"about files":             errors.New("tls: about files"),
	} {
		assert.Equal(t, want, Reason(err))
	}
}

func TestVersion(t *testing.T) {
	assert.Regexp(t, `^x \S+( \S+)? go\S+ \w+/\w+$`, Version("x"))
}
