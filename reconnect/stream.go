package reconnect

import (
	"errors"
	"io"
	"net"
	"time"
)

// closeWriter is a stream that can be ended in one direction.
type closeWriter interface{ CloseWrite() error }

// closeNow closes a stream without waiting for its peer: TLS would say goodbye to one that may not read, and QUIC wait
// until its machine has everything. Nothing can be done about an error.
func closeNow(nc net.Conn) {
	switch nc := nc.(type) {
	case interface{ CloseNow() error }:
		_ = nc.CloseNow()
	case interface{ NetConn() net.Conn }:
		_ = nc.NetConn().Close()
	}
	_ = nc.Close()
}

// longAgo is the deadline that interrupts.
var longAgo = time.Unix(1, 0)

// isEOF tells a stream's end in good order from everything else.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// onlyReader hides a connection's other methods from io.Copy.
type onlyReader struct{ io.Reader }

// headed is a stream of which head was read before, and comes first.
type headed struct {
	head []byte
	io.Reader
}

func (h *headed) Read(p []byte) (int, error) {
	if len(h.head) == 0 {
		return h.Reader.Read(p)
	}
	n := copy(p, h.head)
	h.head = h.head[n:]
	return n, nil
}
