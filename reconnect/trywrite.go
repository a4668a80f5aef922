package reconnect

import (
	"errors"
	"io"
	"net"
)

// tryWriter is a stream that takes what it can without waiting.
type tryWriter interface {
	// Write returns errWouldBlock when what it took is not all.
	io.Writer
	// writeVec is Write of all of vec, with as few system calls as can be. It changes vec, and returns what is left of it.
	writeVec(vec [][]byte) (rest [][]byte, err error)
}

var errWouldBlock = errors.New("reconnect: write would block")

// newTryWriter returns nil if nc has no write that does not wait.
func newTryWriter(nc net.Conn) tryWriter {
	switch nc := nc.(type) {
	case *net.TCPConn:
		return newSocketWriter(nc)
	case *net.UnixConn:
		return newSocketWriter(nc)
	case interface{ TryWrite([]byte) (int, error) }:
		return methodWriter{nc}
	}
	return nil
}

// methodWriter is for streams that offer it themselves, such as those of transport/mem.
type methodWriter struct {
	nc interface{ TryWrite([]byte) (int, error) }
}

func (w methodWriter) Write(p []byte) (int, error) {
	n, err := w.nc.TryWrite(p)
	if err == nil && n < len(p) {
		err = errWouldBlock
	}
	return n, err
}

func (w methodWriter) writeVec(vec [][]byte) (rest [][]byte, err error) { return writeEach(w, vec) }

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
