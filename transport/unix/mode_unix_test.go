//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package unix_test

import (
	"context"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	sys "golang.org/x/sys/unix"

	"github.com/towline-mq/towline/transport/unix"
)

func umask(t *testing.T, mask int) {
	t.Helper()
	was := sys.Umask(mask)
	t.Cleanup(func() { sys.Umask(was) })
}

func TestMode(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777} {
			path := sock(t)
			umask(t, mask)
			ln := listen(t, path, &unix.Config{Mode: mode})
			info, err := os.Lstat(path)
			require.NoError(t, err)
			require.Equal(t, mode|fs.ModeSocket, info.Mode())
			require.NoError(t, ln.Close())
		}
	}
}

func TestModeZeroIsTheUmasks(t *testing.T) {
	umask(t, 0o027)
	path := sock(t)
	listen(t, path, nil)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	require.Equal(t, 0o750|fs.ModeSocket, info.Mode())
}

func TestModeMustBePermissions(t *testing.T) {
	path := sock(t)
	_, err := unix.Listen(t.Context(), path, &unix.Config{Mode: fs.ModeSetuid | 0o600})
	require.ErrorIs(t, err, syscall.EINVAL)
	require.NoFileExists(t, path)
}

// Whoever is let in finds the final permissions on the file: they are there before the first connection.
func TestModeHoldsFromTheFirstConnection(t *testing.T) {
	umask(t, 0)
	for range 100 {
		path := sock(t)
		seen := make(chan fs.FileMode)
		go func() {
			for {
				c, err := net.Dial("unix", path)
				if err != nil {
					continue
				}
				info, err := os.Lstat(path)
				_ = c.Close()
				if err != nil {
					seen <- 0
					return
				}
				seen <- info.Mode().Perm()
				return
			}
		}()
		ln, err := unix.Listen(context.Background(), path, &unix.Config{Mode: 0o600})
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), <-seen)
		require.NoError(t, ln.Close())
	}
}

// A directory that something else keeps locked delays a listener, but for no longer than its context.
func TestForeignLockOnDirectory(t *testing.T) {
	path := sock(t)
	dir, err := os.Open(path[:len(path)-2])
	require.NoError(t, err)
	defer func() { _ = dir.Close() }()
	require.NoError(t, sys.Flock(int(dir.Fd()), sys.LOCK_EX))
	listen(t, path, nil)
}
