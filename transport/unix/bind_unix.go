//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package unix

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bind makes the socket file and listens on it. Package net does both in one step, which leaves a moment in which a
// file with wider permissions than asked for takes connections; here the permissions come in between, while the system
// still refuses everyone. (Setting the umask instead would change it for the whole process.)
func bind(_ context.Context, path string, mode fs.FileMode) (*net.UnixListener, error) {
	// As package net does where SOCK_CLOEXEC is missing: no fork may come between the two calls.
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }() // FileListener below takes a copy

	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	made := false
	defer func() {
		if !made {
			_ = os.Remove(path)
		}
	}()
	if mode != 0 {
		if err := chmod(path, mode); err != nil {
			return nil, &fs.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	// The system cuts the length of the queue down to its own limit (on Linux, net.core.somaxconn).
	if err := unix.Listen(fd, 4096); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	made = true
	return ln.(*net.UnixListener), nil
}

// chmod is os.Chmod that follows no link: who may rename files in the directory could have put one there.
func chmod(path string, mode fs.FileMode) error {
	err := unix.Fchmodat(unix.AT_FDCWD, path, uint32(mode.Perm()), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return chmodSocket(path, mode) // Linux before 6.6
	}
	return err
}

const (
	lockWait    = time.Second
	lockSpacing = 5 * time.Millisecond
)

// lockDir keeps other Towline listeners from looking at, removing and making socket files in dir, until unlock is
// called. The lock lives in the system's memory, ends with the process, and is advisory: one that cannot be had,
// because the directory is not readable, or is locked by something else for long, is done without.
func lockDir(ctx context.Context, dir string) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for deadline := time.Now().Add(lockWait); ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK && err != unix.EINTR || time.Now().After(deadline) {
			return func() { _ = f.Close() } // which also unlocks
		}
		t := time.NewTimer(lockSpacing)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return func() { _ = f.Close() }
		}
	}
}
