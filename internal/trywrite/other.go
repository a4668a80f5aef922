//go:build !unix

package trywrite

import "syscall"

// newSocket returns nil: a write without waiting needs a non-blocking descriptor.
func newSocket(syscall.Conn) Writer { return nil }
