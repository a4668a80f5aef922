//go:build linux || darwin || openbsd

package trywrite

import "golang.org/x/sys/unix"

// vectored says that writev writes several slices with one system call.
const vectored = true

func writev(fd int, vec [][]byte) (int, error) { return unix.Writev(fd, vec) }
