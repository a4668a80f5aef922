//go:build unix

package reconnect

import (
	"errors"
	"os"
	"syscall"
)

// socketWriter writes to a socket once, without waiting. Only the goroutine that holds outbound.writing uses it.
type socketWriter struct {
	raw   syscall.RawConn
	write func(fd uintptr) bool // made once: a closure for each write would be an allocation

	p   []byte
	n   int
	err error
}

func newSocketWriter(nc syscall.Conn) tryWriter {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &socketWriter{raw: raw}
	w.write = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.p)
			if !errors.Is(w.err, syscall.EINTR) {
				return true
			}
		}
	}
	return w
}

// Write implements io.Writer, with errWouldBlock where the socket is full.
func (w *socketWriter) Write(p []byte) (int, error) {
	w.p = p
	err := w.raw.Write(w.write)
	w.p = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, errWouldBlock
	case w.err != nil:
		return max(w.n, 0), os.NewSyscallError("write", w.err)
	case w.n < len(p):
		return w.n, errWouldBlock
	}
	return w.n, nil
}
