// Package program holds what Towline's programs have in common on the command line: exit codes, flags, version, and
// errors in one line.
package program

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// Exit codes.
const (
	OK           = 0
	Failed       = 1 // it ran, and not all went well
	Usage        = 2 // wrong flags or arguments
	NoConnection = 3 // nothing to talk to: no connection, or no address to listen on
)

// UsageError is a mistake on the command line.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

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
			return nil, &UsageError{strings.ReplaceAll(err.Error(), "flag provided but not defined: ", "there is no flag ")}
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return others, nil
		}
		if read := len(args) - len(rest); read > 0 && args[read-1] == "--" {
			return append(others, rest...), nil
		}
		others = append(others, rest[0])
		args = rest[1:]
	}
}

// Given returns the names of the flags that the command line set.
func Given(fs *flag.FlagSet) map[string]bool {
	given := make(map[string]bool)
	fs.Visit(func(f *flag.Flag) { given[f.Name] = true })
	return given
}

// Version describes the running binary in one line, from what the build left in it.
func Version(name string) string {
	version, detail := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && !strings.Contains(version, s.Value[:min(12, len(s.Value))]) {
				detail = " " + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return fmt.Sprintf("%s %s%s %s %s/%s", name, version, detail, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Interruptible returns a context that the first SIGINT or SIGTERM ends. From then on these signals do what they do
// by default, so that a second one ends the process at once.
func Interruptible() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		// Before the context ends: whoever sees it ended may send the second signal.
		signal.Stop(signals)
		if len(signals) > 0 {
			os.Exit(Failed)
		}
		cancel()
	}()
	return ctx
}
