// Echo-client sends datagrams to an echo server and checks that each comes back once, in order.
//
// It reads standard input or a file, as lines or in chunks, and writes what comes back to standard output; or it makes
// numbered datagrams of its own to put load on a server. Run it with --help for the flags, the exit codes and commands
// to try.
package main

import (
	"os"

	"github.com/towline-mq/towline/cmd/internal/program"
)

func main() {
	os.Exit(run(program.Interruptible("echo-client"), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
