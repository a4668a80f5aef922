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
	assert.Equal(t, "there is no flag -no", usage.Problem)
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
