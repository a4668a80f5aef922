package accept

import (
	"syscall"

	"golang.org/x/sys/windows"
)

var passingErrnos = []syscall.Errno{
	windows.WSAEMFILE, windows.WSAENOBUFS, windows.WSAECONNABORTED, windows.WSAECONNRESET, windows.WSAEINTR,
	windows.WSAENETDOWN, windows.WSAENETUNREACH, windows.WSAEHOSTDOWN, windows.WSAEHOSTUNREACH,
	windows.ERROR_NETNAME_DELETED, windows.ERROR_NOT_ENOUGH_MEMORY,
}
