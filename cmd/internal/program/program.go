// Package program holds what Towline's programs have in common on the command line: exit codes, flags, version, and
// errors in one line.
package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// Exit codes.
const (
	OK           = 0
	Failed       = 1 // it ran, and not all went well
	Usage        = 2 // wrong flags or arguments
	NoConnection = 3 // nothing to talk to: no connection, or no address to listen on
)

// MaxToken is the longest --token in bytes.
const MaxToken = 768

// UserTimeout is how long bytes of sessions may wait for the peer's system to take them. It is longer than a session takes
// to find that its peer is silent, and is there for peers whose program has stopped and whose system has not.
const UserTimeout = 15 * time.Second

// UsageError is a mistake on the command line.
type UsageError struct{ Problem string }

func (e *UsageError) Error() string { return e.Problem }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

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

// Interruptible returns a context that the first SIGINT or SIGTERM ends. A second one ends the process at once, with a line
// that says so.
func Interruptible(name string) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		fmt.Fprintf(os.Stderr, "%s: a second signal: ended at once\n", name)
		os.Exit(Failed)
	}()
	return ctx
}
