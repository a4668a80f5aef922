//go:build unix

package trywrite

import (
	"errors"
	"os"
	"syscall"
)

// socket writes to a socket once, without waiting.
type socket struct {
	raw   syscall.RawConn
	write func(fd uintptr) bool // made once: a closure for each write would be an allocation

	p   []byte
	vec [][]byte // instead of p, where it is not nil
	n   int
	err error
}

func newSocket(nc syscall.Conn) Writer {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &socket{raw: raw}
	w.write = func(fd uintptr) bool {
		for {
			if w.vec != nil {
				w.n, w.err = writev(int(fd), w.vec)
			} else {
				w.n, w.err = syscall.Write(int(fd), w.p)
			}
			if !errors.Is(w.err, syscall.EINTR) {
				return true
			}
		}
	}
	return w
}

// Write implements io.Writer, with ErrWouldBlock where the socket is full.
func (w *socket) Write(p []byte) (int, error) {
	w.p = p
	return w.do(len(p))
}

func (w *socket) WriteVec(vec [][]byte) ([][]byte, error) {
	if !vectored || len(vec) == 1 {
		return writeEach(w, vec)
	}
	size := 0
	for _, p := range vec {
		size += len(p)
	}
	w.vec = vec
	n, err := w.do(size)
	return skip(vec, n), err
}

// do makes the call, for size bytes.
func (w *socket) do(size int) (int, error) {
	err := w.raw.Write(w.write)
	w.p, w.vec = nil, nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, ErrWouldBlock
	case w.err != nil:
		return max(w.n, 0), os.NewSyscallError("write", w.err)
	case w.n < size:
		return w.n, ErrWouldBlock
	}
	return w.n, nil
}
