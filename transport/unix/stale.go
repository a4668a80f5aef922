package unix

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	probes       = 3
	probeSpacing = 10 * time.Millisecond
	probeTimeout = time.Second
)

// removeStale makes room at path: it removes a socket file on which nobody listens any more, and nothing else.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("there is a %s at this path, and it was left alone; choose another path or move it away: %w", kind(info.Mode()), syscall.ENOTSOCK)
	}
	dead, err := nobodyListens(ctx, path)
	if err != nil {
		return err
	}
	if !dead {
		return fmt.Errorf("another process listens there: %w", syscall.EADDRINUSE)
	}
	// The lock on the directory holds off others like us. For those unlike us, look once more that it is the same file.
	now, err := os.Lstat(path)
	if err == nil && os.SameFile(now, info) {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err // if the file has changed meanwhile, bind will find it in use
}

// nobodyListens connects to path. Only a refusal shows that there is no listener, and not even a single one does: there
// is none yet between bind and listen of one that starts, and BSD systems refuse while a listener's queue is full.
func nobodyListens(ctx context.Context, path string) (bool, error) {
	d := net.Dialer{Timeout: probeTimeout}
	for i := range probes {
		if i > 0 {
			t := time.NewTimer(probeSpacing)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return false, ctx.Err()
			}
		}
		c, err := d.DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			_ = c.Close()
			return false, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, fs.ErrNotExist):
			return true, nil
		case !errors.Is(err, errRefused):
			return false, nil // no permission, queue full, a datagram socket: somebody's, in any case
		}
	}
	return true, nil
}

// kind names what is at a path, for people.
func kind(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "regular file"
	case m.IsDir():
		return "directory"
	case m&fs.ModeSymlink != 0:
		return "symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "device"
}
