//go:build unix

package redial

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// errEnded is the reason of a disconnect that a Write noticed before it wrote.
var errEnded = fmt.Errorf("the peer has ended the stream: %w", io.EOF)

// ended returns the end of a connection's stream, or its failure, if the system knows of one already, without waiting and
// without taking anything from it; nil if all is well as far as is known, or if conn is no socket. A Write that succeeds
// into the buffer of a socket whose peer has gone is lost.
func ended(conn net.Conn) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil // the Write will say
	}
	var p [1]byte
	n := -1
	var rerr error
	// Control, since it does not wait for a Read that is under way, as raw.Read would.
	if raw.Control(func(fd uintptr) { n, _, rerr = syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK) }) != nil {
		return nil
	}
	switch {
	case n == 0 && rerr == nil:
		return errEnded
	case rerr == syscall.EAGAIN, rerr == syscall.EWOULDBLOCK, rerr == syscall.EINTR, rerr == nil:
		return nil
	}
	return &net.OpError{Op: "write", Net: conn.RemoteAddr().Network(), Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: rerr}
}
