// Echo-server sends each datagram that it receives back to its sender, over all of Towline's transports.
//
// Run it with --help for the flags, the exit codes and commands to try.
package main

import (
	"os"

	"github.com/towline-mq/towline/cmd/internal/program"
)

func main() {
	os.Exit(run(program.Interruptible("echo-server"), os.Args[1:], os.Stdout, os.Stderr))
}
