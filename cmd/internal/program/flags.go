package program

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Parse reads flags, which may stand before and behind other arguments, and returns those others. "--" ends the flags.
// The error is flag.ErrHelp or a *UsageError; nothing is printed.
func Parse(fs *flag.FlagSet, args []string) (others []string, err error) {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	for {
		switch err := fs.Parse(args); {
		case err == flag.ErrHelp:
			return nil, err
		case err != nil:
			return nil, &UsageError{problem(fs, err.Error())}
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return others, empty(fs)
		}
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			return append(others, rest...), empty(fs)
		}
		others = append(others, rest[0])
		args = rest[1:]
	}
}

// empty is the error for a flag that was given and says nothing, as by a variable of the shell that is not set: it is not
// the same as no flag.
func empty(fs *flag.FlagSet) (err error) {
	fs.Visit(func(f *flag.Flag) {
		getter, ok := f.Value.(flag.Getter)
		if !ok || err != nil {
			return
		}
		if text, ok := getter.Get().(string); ok && text == "" {
			value, _ := flag.UnquoteUsage(f)
			err = Usagef("--%s %s: the value is empty", f.Name, value)
		}
	})
	return err
}

// Given returns the names of the flags that the command line set.
func Given(fs *flag.FlagSet) map[string]bool {
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return given
}

// Flags describes the flags for --help, spelled as in the texts around them.
func Flags(fs *flag.FlagSet) string {
	var b strings.Builder
	fs.SetOutput(&b)
	fs.PrintDefaults()
	fs.SetOutput(io.Discard)
	return regexp.MustCompile(`(?m)^  -`).ReplaceAllString(b.String(), "  --")
}

// Uint16 defines a flag that takes 0 to 65535.
func Uint16(fs *flag.FlagSet, name string, value uint16, usage string) *uint16 {
	fs.Var((*uint16Value)(&value), name, usage)
	return &value
}

type uint16Value uint16

func (v *uint16Value) String() string { return strconv.Itoa(int(*v)) }
func (v *uint16Value) Get() any       { return uint16(*v) }

func (v *uint16Value) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 16)
	*v = uint16Value(n)
	if err != nil {
		err = errParse
	}
	return err
}

// errParse has the text of the error that package flag keeps for itself.
var errParse = errors.New("parse error")

// problem puts an error of package flag, which has only a text, in our words: what a good value is rather than that
// this one is bad.
func problem(fs *flag.FlagSet, text string) string {
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		return "there is no flag --" + name
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		value := "value"
		if f := fs.Lookup(name); f != nil {
			value, _ = flag.UnquoteUsage(f)
		}
		return fmt.Sprintf("--%s %s: the value is missing", name, value)
	}
	for _, start := range []string{"invalid value ", "invalid boolean value "} {
		rest, ok := strings.CutPrefix(text, start)
		value, err := strconv.QuotedPrefix(rest)
		if !ok || err != nil {
			continue
		}
		rest = strings.TrimPrefix(strings.TrimPrefix(rest[len(value):], " for"), " flag")
		name, cause, ok := strings.Cut(strings.TrimPrefix(rest, " -"), ": ")
		f := fs.Lookup(name)
		if !ok || f == nil {
			continue
		}
		if good := takes(f.Value); good != "" {
			return fmt.Sprintf("--%s takes %s, not %s", name, good, value)
		}
		return fmt.Sprintf("--%s: %s", name, cause)
	}
	return text
}

// takes says what is good for a flag, or "" if its own errors do.
func takes(v flag.Value) string {
	getter, ok := v.(flag.Getter)
	if !ok {
		return ""
	}
	switch getter.Get().(type) {
	case bool:
		return "true or false"
	case uint16:
		return "a number from 0 to 65535"
	case int, int64:
		return "a whole number such as 64"
	case uint, uint64:
		return "a whole number such as 64, and none below 0"
	case float64:
		return "a number such as 1.5"
	case time.Duration:
		return "a time such as 5s"
	}
	return ""
}
