// Package unix dials and listens on Unix domain sockets, for peers on one machine.
//
//	ln, err := unix.Listen(ctx, "/run/echo.sock", &unix.Config{Mode: 0o660})
//	conn, err := unix.Dialer{Path: "/run/echo.sock"}.DialContext(ctx)
//
// A path is that of a socket file, or, on Linux, an abstract name such as "@echo", which has no file and goes away with
// its listener. (A file whose name begins with @ is "./@echo".) Connections are plain *[net.UnixConn] with nothing
// around them, so that descriptors and credentials of the peer can be had through them.
//
// Addresses: the listening side's LocalAddr and the dialling side's RemoteAddr are the path. The dialling side has no
// name, so its LocalAddr, and the RemoteAddr that the listening side sees, are empty.
//
// A listener promises four things about its socket file. It has its final permissions before anyone can connect. A file
// that a dead process left behind is replaced. What is alive, and what is no socket, is never touched. And Close
// removes the file only as long as it is still this listener's own.
//
// Errors are the *[net.OpError] of package net with their causes: syscall.ENOENT where no listener has been,
// syscall.ECONNREFUSED where one was, syscall.EADDRINUSE where one is.
package unix
