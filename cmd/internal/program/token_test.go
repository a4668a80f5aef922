package program

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTokenFlags(t *testing.T) {
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "token")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	longest := strings.Repeat("x", MaxToken)
	for _, tc := range []struct {
		args        []string
		want, wrong string
	}{
		{args: nil},
		{args: []string{"--token", "secret"}, want: "secret"},
		{args: []string{"--token-file", file("secret")}, want: "secret"},
		{args: []string{"--token-file", file("secret\n")}, want: "secret"},
		{args: []string{"--token-file", file("secret\r\n")}, want: "secret"},
		{args: []string{"--token-file", file(" two\nlines \n\n")}, want: " two\nlines \n"},
		{args: []string{"--token-file", file(longest + "\n")}, want: longest},
		{args: []string{"--token-file", file(longest + "x")}, wrong: "--token-file is 769 bytes long and must be 1 to 768"},
		{args: []string{"--token-file", file("\n")}, wrong: "--token-file is 0 bytes long"},
		{args: []string{"--token", ""}, wrong: "--token TEXT: the value is empty"},
		{args: []string{"--token-file", filepath.Join(t.TempDir(), "none")}, wrong: "no such file"},
		{args: []string{"--token-file", ""}, wrong: "--token-file FILE: the value is empty"},
		{args: []string{"--token", "a", "--token-file", file("a")}, wrong: "leave one out"},
	} {
		var f TokenFlags
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		f.Register(fs, "show this `TEXT`")
		_, err := Parse(fs, tc.args)
		got := ""
		if err == nil {
			got, err = f.Token(Given(fs))
		}
		assert.Equal(t, tc.want, got, tc.args)
		if tc.wrong == "" {
			assert.NoError(t, err, tc.args)
			continue
		}
		assert.ErrorAs(t, err, new(*UsageError), tc.args)
		assert.ErrorContains(t, err, tc.wrong)
	}
}
