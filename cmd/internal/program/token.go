package program

import (
	"bytes"
	"flag"
	"os"
)

// TokenFlags are --token and --token-file, of which one may be given.
type TokenFlags struct{ text, file string }

// Register defines the flags. Usage is that of --token.
func (f *TokenFlags) Register(fs *flag.FlagSet, usage string) {
	fs.StringVar(&f.text, "token", "", usage)
	fs.StringVar(&f.file, "token-file", "", "the same with the content of `FILE`, which other users of this machine cannot read off the command line")
}

// Token returns what was given, "" if nothing was. Of a file, a line break at the end is not part of it. The error is a
// *UsageError.
func (f *TokenFlags) Token(given map[string]bool) (string, error) {
	token, flag := f.text, "--token"
	switch {
	case given["token"] && given["token-file"]:
		return "", Usagef("--token and --token-file are two ways to give the same: leave one out")
	case given["token-file"]:
		b, err := os.ReadFile(f.file)
		if err != nil {
			return "", Usagef("--token-file: %s", OneLine(err.Error()))
		}
		b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
		token, flag = string(b), "--token-file"
	case !given["token"]:
		return "", nil
	}
	if token == "" || len(token) > MaxToken {
		return "", Usagef("%s is %d bytes long and must be 1 to %d", flag, len(token), MaxToken)
	}
	return token, nil
}
