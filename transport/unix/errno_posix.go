//go:build !windows

package unix

import (
	"syscall"
)

var errRefused error = syscall.ECONNREFUSED
