package unix_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/unix"
)

var _ transport.Dialer = unix.Dialer{}

// sock returns a path for a socket in a new directory. Test names are too long for one.
func sock(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tl") //nolint:usetesting // the names of tests are too long for socket paths
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// stale leaves a socket file behind at path, as a killed process does.
func stale(t testing.TB, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	require.FileExists(t, path)
}

func listen(t testing.TB, path string, cfg *unix.Config) net.Listener {
	t.Helper()
	ln, err := unix.Listen(t.Context(), path, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// reach sends a byte from a new connection to ln and back.
func reach(t testing.TB, ln net.Listener, path string) {
	t.Helper()
	c, err := unix.Dialer{Path: path}.DialContext(t.Context())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	s, err := ln.Accept()
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	_, err = c.Write([]byte{42})
	require.NoError(t, err)
	var b [1]byte
	_, err = io.ReadFull(s, b[:])
	require.NoError(t, err)
	require.EqualValues(t, 42, b[0])
}

func TestConformance(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		path := sock(t)
		ln, err := unix.Listen(context.Background(), path, nil)
		if err != nil {
			return nil, nil, nil, err
		}
		defer func() { _ = ln.Close() }()
		if c1, err = (unix.Dialer{Path: path}).DialContext(context.Background()); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = ln.Accept(); err != nil {
			_ = c1.Close()
			return nil, nil, nil, err
		}
		return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
	})
}

func TestAddresses(t *testing.T) {
	path := sock(t)
	ln := listen(t, path, nil)
	require.Equal(t, path, ln.Addr().String())
	c, err := unix.Dialer{Path: path}.DialContext(t.Context())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	s, err := ln.Accept()
	require.NoError(t, err)
	defer func() { _ = s.Close() }()

	require.IsType(t, (*net.UnixConn)(nil), c)
	require.IsType(t, (*net.UnixConn)(nil), s)
	require.Equal(t, path, c.RemoteAddr().String())
	require.Equal(t, path, s.LocalAddr().String())
	require.Equal(t, "unix", s.LocalAddr().Network())
}

func TestStaleFileIsReplaced(t *testing.T) {
	path := sock(t)
	stale(t, path)
	_, err := unix.Dialer{Path: path}.DialContext(t.Context())
	require.ErrorAs(t, err, new(*net.OpError))

	ln := listen(t, path, nil)
	reach(t, ln, path)
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)
	require.NoError(t, ln.Close(), "a second Close does no harm")
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	path := sock(t)
	first := listen(t, path, nil)
	_, err := unix.Listen(t.Context(), path, nil)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorAs(t, err, new(*net.OpError))
	require.ErrorContains(t, err, "another process listens there")

	c, err := first.Accept() // the second listener's question
	require.NoError(t, err)
	require.NoError(t, c.Close())
	reach(t, first, path)
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	dir := filepath.Dir(sock(t))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(file, link))

	for path, want := range map[string]string{file: "regular file", dir: "directory", link: "symbolic link"} {
		_, err := unix.Listen(t.Context(), path, nil)
		require.ErrorIs(t, err, syscall.ENOTSOCK)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, path)
	}
	got, err := os.ReadFile(link)
	require.NoError(t, err)
	require.Equal(t, "precious", string(got))
}

// A listener whose file was replaced under it leaves the new file to its owner.
func TestCloseLeavesAnothersFile(t *testing.T) {
	path := sock(t)
	first := listen(t, path, nil)
	require.NoError(t, os.Remove(path))
	second := listen(t, path, nil)

	require.NoError(t, first.Close())
	reach(t, second, path)
	require.NoError(t, second.Close())
	require.NoFileExists(t, path)
}

func TestCloseOfARelativePath(t *testing.T) {
	path := sock(t)
	t.Chdir(filepath.Dir(path))
	ln := listen(t, "s", nil)
	t.Chdir("/")
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)
}

func TestFileHandedOver(t *testing.T) {
	path := sock(t)
	ln := listen(t, path, nil)
	u := ln.(interface{ SetUnlinkOnClose(bool) })
	u.SetUnlinkOnClose(true)
	u.SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	require.FileExists(t, path)

	ln = listen(t, path, nil)
	u = ln.(interface{ SetUnlinkOnClose(bool) })
	u.SetUnlinkOnClose(false)
	u.SetUnlinkOnClose(true)
	require.NoError(t, ln.Close())
	require.NoFileExists(t, path)
}

// Of many that start at once over a dead process's file, one wins and is reached.
func TestRaceOfStarters(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("starters do not take turns here")
	}
	for range 20 {
		path := sock(t)
		stale(t, path)
		var wg sync.WaitGroup
		lns := make([]net.Listener, 8)
		errs := make([]error, len(lns))
		start := make(chan struct{})
		for i := range lns {
			wg.Go(func() {
				<-start
				lns[i], errs[i] = unix.Listen(context.Background(), path, nil)
			})
		}
		close(start)
		wg.Wait()
		var winner net.Listener
		for i, ln := range lns {
			if errs[i] != nil {
				require.ErrorIs(t, errs[i], syscall.EADDRINUSE)
				continue
			}
			require.Nil(t, winner, "two listeners on one path")
			winner = ln
		}
		require.NotNil(t, winner)
		require.FileExists(t, path)
		require.NoError(t, winner.Close())
		require.NoFileExists(t, path)
	}
}

func TestListenObeysContext(t *testing.T) {
	path := sock(t)
	stale(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := unix.Listen(ctx, path, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.FileExists(t, path)
}

func TestBadPath(t *testing.T) {
	long := "/tmp/" + strings.Repeat("x", 200)
	for path, want := range map[string]struct {
		text  string
		cause error
	}{
		"":      {`such as "/run/echo.sock"`, syscall.EINVAL},
		"@":     {`such as "/run/echo.sock"`, syscall.EINVAL},
		"a\x00": {"zero byte", syscall.EINVAL},
		long:    {"has 205 bytes, and this system allows", syscall.ENAMETOOLONG},
	} {
		_, err := unix.Listen(t.Context(), path, nil)
		require.ErrorContains(t, err, want.text)
		require.ErrorIs(t, err, want.cause)
		require.ErrorAs(t, err, new(*net.OpError))
		_, err = unix.Dialer{Path: path}.DialContext(t.Context())
		require.ErrorContains(t, err, want.text)
		require.ErrorIs(t, err, want.cause)
		require.ErrorAs(t, err, new(*net.OpError))
	}
}

// The longest path that we let through is one that the system takes.
func TestLongestPath(t *testing.T) {
	dir := filepath.Dir(sock(t))
	_, err := unix.Listen(t.Context(), filepath.Join(dir, strings.Repeat("x", 200)), nil)
	var limit int
	for n := 1; n < 200; n++ {
		path := filepath.Join(dir, strings.Repeat("x", n))
		ln, lerr := unix.Listen(t.Context(), path, nil)
		if errors.Is(lerr, syscall.ENAMETOOLONG) {
			break
		}
		require.NoError(t, lerr)
		require.NoError(t, ln.Close())
		limit = len(path)
	}
	require.Greater(t, limit, 90)
	require.ErrorIs(t, err, syscall.ENAMETOOLONG)
}

func TestDialErrorsKeepTheirCause(t *testing.T) {
	path := sock(t)
	_, err := unix.Dialer{Path: path}.DialContext(t.Context())
	require.ErrorAs(t, err, new(*net.OpError))
	require.ErrorAs(t, err, new(syscall.Errno))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = unix.Dialer{Path: path}.DialContext(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestListenerClose(t *testing.T) {
	ln := listen(t, sock(t), nil)
	failed := make(chan error)
	go func() {
		_, err := ln.Accept()
		failed <- err
	}()
	require.NoError(t, ln.Close())
	require.ErrorIs(t, <-failed, net.ErrClosed)
	c, err := ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	require.Nil(t, c)
}

func TestListenerDeadline(t *testing.T) {
	ln := listen(t, sock(t), nil)
	require.NoError(t, ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Unix(1, 0)))
	_, err := ln.Accept()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestHalfClose(t *testing.T) {
	path := sock(t)
	ln := listen(t, path, nil)
	c, err := unix.Dialer{Path: path}.DialContext(t.Context())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	s, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, c.(*net.UnixConn).CloseWrite())
	_, err = s.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = s.Write([]byte("still here"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "still here", string(got))
}
