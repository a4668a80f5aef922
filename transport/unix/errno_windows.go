package unix

import (
	"syscall"

	"golang.org/x/sys/windows"
)

var errRefused error = windows.WSAECONNREFUSED
