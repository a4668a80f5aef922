package unix

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

var errRefused error = windows.WSAECONNREFUSED

// passing tells whether the cause of a failed accept may go away by itself.
func passing(err error) bool {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return false
	}
	switch errno {
	case windows.WSAEMFILE, windows.WSAENOBUFS, windows.WSAECONNABORTED, windows.WSAECONNRESET, windows.WSAEINTR:
		return true
	}
	return false
}
