//go:build !unix

package reconnect

import "syscall"

// newSocketWriter returns nil: a write without waiting needs a non-blocking descriptor.
func newSocketWriter(syscall.Conn) tryWriter { return nil }
