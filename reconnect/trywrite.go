package reconnect

import (
	"errors"
	"io"
	"net"
)

// tryWriter is a stream that takes what it can without waiting: Write returns errWouldBlock when that is not all.
type tryWriter io.Writer

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
