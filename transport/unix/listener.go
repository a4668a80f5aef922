package unix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/towline-mq/towline/internal/accept"
)

// Config holds a listener's settings. Nil, like the zero value, is a working default.
type Config struct {
	// Mode is the permissions of the socket file, such as 0o600 (this user alone) or 0o660 (the file's group too).
	// To connect, a process needs the permission to write. 0: all that the process's umask leaves. Only the lowest
	// nine bits may be set. Mode is exact, whatever the umask, and holds before the first connection can be made.
	//
	// Abstract names and Windows know no such permissions: Listen refuses a Mode there, rather than ignore it.
	Mode fs.FileMode

	// AcceptError, if not nil, is told of each failure that Accept waits for, such as a want of descriptors, and which its
	// caller does not see. Accept waits for it, too. Nil: silent.
	AcceptError func(err error)
}

// Listen listens on a socket file at path, or, on Linux, under an abstract name such as "@echo". Cfg may be nil.
// Errors are *[net.OpError].
//
// If there is a socket file at path already, Listen connects to it. Where something answers, or where this process may
// not ask, the error is EADDRINUSE (a listening Towline program sees a connection that comes and goes). Where nothing
// answers several times in a row, the file is a dead process's and is replaced. Anything that is not a socket is left
// alone, and the error matches ENOTSOCK. Of several processes that start at once, exactly one gets the path, even over
// a dead process's file: they take turns by a lock on the directory, which leaves no file behind. That holds where the
// system has such locks (not on Windows) and for Towline programs among themselves.
//
// Listen blocks for some 20 ms to look at an old file, and for at most a second where the directory is locked; ending
// ctx ends both. Ending it later changes nothing.
//
// Accept returns *[net.UnixConn]. It does not fail for what passes, such as a want of file descriptors: it tries again,
// after a wait that doubles from 5 ms to 1 s. Close ends all waits and removes the socket file, unless it has been
// replaced or [net.UnixListener.SetUnlinkOnClose] was called with false; a second Close does no harm. The listener has
// also the methods SetDeadline, SyscallConn and File of [net.UnixListener].
func Listen(ctx context.Context, path string, cfg *Config) (net.Listener, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	ln, err := listen(ctx, path, cfg)
	if err == nil {
		ln.acceptError = cfg.AcceptError
		return ln, nil
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return nil, err
	}
	return nil, &net.OpError{Op: "listen", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: err}
}

func listen(ctx context.Context, path string, cfg *Config) (*listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if cfg.Mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("mode %v has more than permissions, such as 0o660, in it: %w", cfg.Mode, syscall.EINVAL)
	}
	if isAbstract(path) {
		if cfg.Mode != 0 {
			return nil, fmt.Errorf("an abstract socket has no permissions, any local process may connect to it; write a path to set mode %#o: %w", cfg.Mode, errors.ErrUnsupported)
		}
		return listenAbstract(ctx, path)
	}

	// A relative path must still name the same file at Close, wherever the process has moved by then.
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	unlock := lockDir(ctx, filepath.Dir(file))
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	ul, err := bind(ctx, path, cfg.Mode)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(file)
	if err != nil {
		_ = ul.Close()
		return nil, err
	}
	os.SameFile(info, info) // Windows reads a file's identity when first asked for it: ask while the file is ours
	return newListener(ul, file, info), nil
}

func listenAbstract(ctx context.Context, name string) (*listener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "unix", name)
	if err != nil {
		return nil, err
	}
	return newListener(ln.(*net.UnixListener), "", nil), nil
}

// listener keeps what net.UnixListener would do about its file for itself: that one removes whatever has the name.
type listener struct {
	*net.UnixListener

	mu     sync.Mutex
	file   string      // absolute path, or "" for an abstract name
	info   fs.FileInfo // of the file as we made it
	unlink bool        // whether Close removes the file
	closed bool
	err    error         // of the first Close
	done   chan struct{} // closed by Close: ends a wait between two tries of Accept

	acceptError func(error)
}

func newListener(ul *net.UnixListener, file string, info fs.FileInfo) *listener {
	ul.SetUnlinkOnClose(false)
	return &listener{UnixListener: ul, file: file, info: info, unlink: true, done: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err // not c: a nil *net.UnixConn in an interface is not nil
	}
	return c, nil
}

// AcceptUnix is here so that a caller who asks the listener for it gets the same patience as from Accept.
func (l *listener) AcceptUnix() (*net.UnixConn, error) {
	return accept.Retry(l.done, l.acceptError, l.UnixListener.AcceptUnix)
}

// SetUnlinkOnClose is as in [net.UnixListener]: false leaves the file to another process that took the socket over.
func (l *listener) SetUnlinkOnClose(unlink bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink = unlink
}

func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.err
	}
	l.closed = true
	close(l.done)
	// The file goes first. While the socket is open the system keeps the file's inode for it, even with the name gone,
	// so a file with this inode can only be ours; and a name without a listener behind it is never seen.
	if l.unlink && l.file != "" {
		if now, err := os.Lstat(l.file); err == nil && os.SameFile(now, l.info) {
			l.err = os.Remove(l.file)
		}
	}
	if err := l.UnixListener.Close(); err != nil {
		l.err = err
	}
	return l.err
}
