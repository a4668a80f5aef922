package tcp

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout sets TCP_USER_TIMEOUT. A socket without that option, such as one of Multipath TCP, is left as it is.
func setUserTimeout(c syscall.RawConn, d time.Duration) error {
	ms, set := userTimeoutMillis(d)
	if !set {
		return nil
	}
	var serr error
	err := c.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	})
	if err != nil {
		return err
	}
	if errors.Is(serr, unix.EOPNOTSUPP) || errors.Is(serr, unix.ENOPROTOOPT) {
		return nil
	}
	return os.NewSyscallError("setsockopt", serr)
}
