//go:build !linux

package tcp

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: TCP_USER_TIMEOUT is an option of Linux alone.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
