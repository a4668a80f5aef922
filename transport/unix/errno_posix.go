//go:build !windows

package unix

import (
	"errors"
	"syscall"
)

var errRefused error = syscall.ECONNREFUSED

// passing tells whether the cause of a failed accept may go away by itself.
func passing(err error) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return false
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR:
		return true
	}
	return false
}
