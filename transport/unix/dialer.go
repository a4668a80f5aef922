package unix

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
)

// Dialer dials one Unix domain socket. It is a value: copy it freely; several goroutines may dial with it at once.
type Dialer struct {
	// Path is the socket's: "/run/echo.sock", or on Linux an abstract name, "@echo". A file's path is at most 107
	// bytes long on Linux and Windows and 103 on most other systems; a relative one helps where that is too few.
	Path string
}

// DialContext connects to Path and returns a *[net.UnixConn]. It blocks while the listener's queue is full, on systems
// other than Linux, and until ctx ends; Linux fails at once with EAGAIN. All errors are *[net.OpError].
func (d Dialer) DialContext(ctx context.Context) (net.Conn, error) {
	if err := checkPath(d.Path); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
	}
	var nd net.Dialer
	return nd.DialContext(ctx, "unix", d.Path)
}

// maxPath is how many bytes a path may have: the system's array for it, less the zero byte that ends it.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// checkPath finds what is wrong with a path before the system does, which would only say "invalid argument".
func checkPath(path string) error {
	const good = `(write a path such as "/run/echo.sock", or on Linux an abstract name such as "@echo")`
	limit, what := maxPath, "path"
	if isAbstract(path) {
		limit, what = maxPath+1, "abstract name" // it needs no zero byte at its end
	}
	switch {
	case path == "" || path == "@":
		return fmt.Errorf("no socket path given %s: %w", good, syscall.EINVAL)
	case strings.ContainsRune(path, 0):
		return fmt.Errorf("zero byte in the socket path %q: %w", path, syscall.EINVAL)
	case isAbstract(path) && runtime.GOOS != "linux" && runtime.GOOS != "android":
		return fmt.Errorf("abstract socket names such as %q exist on Linux alone; write a path such as \"/run/echo.sock\": %w", path, errors.ErrUnsupported)
	case len(path) > limit:
		return fmt.Errorf("the %s %q has %d bytes, and this system allows %d: %w", what, path, len(path), limit, syscall.ENAMETOOLONG)
	}
	return nil
}

// isAbstract tells a Linux abstract name from the path of a file, the way package net does.
func isAbstract(path string) bool { return strings.HasPrefix(path, "@") }
