//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package unix

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

func chmodSocket(string, fs.FileMode) error { return unix.EOPNOTSUPP }
