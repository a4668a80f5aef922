//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package unix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"runtime"
)

// bind leaves all to package net, and refuses a mode that it could not set before others may connect.
func bind(ctx context.Context, path string, mode fs.FileMode) (*net.UnixListener, error) {
	if mode != 0 {
		return nil, fmt.Errorf("socket files have no mode on %s; protect their directory instead: %w", runtime.GOOS, errors.ErrUnsupported)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// lockDir does nothing: directories cannot be locked here. Whoever binds first has the path.
func lockDir(context.Context, string) (unlock func()) { return func() {} }
