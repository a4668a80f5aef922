package unix

import "golang.org/x/sys/windows"

var errRefused error = windows.WSAECONNREFUSED
