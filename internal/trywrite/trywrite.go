// Package trywrite writes to a stream as much as it takes at once: for whoever wants to write by itself rather than hand
// over to a goroutine that may wait.
package trywrite

import (
	"errors"
	"io"
	"net"
)

// Writer is a stream that takes what it can without waiting.
type Writer interface {
	// Write returns ErrWouldBlock when what it took is not all.
	io.Writer
	// WriteVec is Write of all of vec, with as few system calls as can be. It changes vec, and returns what is left of it.
	WriteVec(vec [][]byte) (rest [][]byte, err error)
}

// ErrWouldBlock is the error of a write that took less than it was given.
var ErrWouldBlock = errors.New("write would block")

// New returns a Writer to nc: a TCP or Unix socket, or what has a method TryWrite, which says with n < len(p) and no
// error that it took no more. It is nil if nc has no write that does not wait. A Writer is for one goroutine at a time.
func New(nc net.Conn) Writer {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return newSocket(nc)
	case *net.UnixConn:
		return newSocket(nc)
	case interface{ TryWrite([]byte) (int, error) }:
		return method{nc}
	}
	return nil
}

// method is for streams that offer it themselves, such as those of transport/mem.
type method struct {
	nc interface{ TryWrite([]byte) (int, error) }
}

func (w method) Write(p []byte) (int, error) {
	n, err := w.nc.TryWrite(p)
	if err == nil && n < len(p) {
		err = ErrWouldBlock
	}
	return n, err
}

func (w method) WriteVec(vec [][]byte) (rest [][]byte, err error) { return writeEach(w, vec) }

// writeEach writes one slice after the other.
func writeEach(w io.Writer, vec [][]byte) (rest [][]byte, err error) {
	for len(vec) > 0 {
		n, err := w.Write(vec[0])
		if err != nil {
			return skip(vec, n), err
		}
		vec = vec[1:]
	}
	return nil, nil
}

// skip drops the first n bytes of vec, which it changes.
func skip(vec [][]byte, n int) [][]byte {
	for len(vec) > 0 && n >= len(vec[0]) {
		n -= len(vec[0])
		vec = vec[1:]
	}
	if n > 0 {
		vec[0] = vec[0][n:]
	}
	return vec
}
