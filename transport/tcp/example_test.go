package tcp_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/towline-mq/towline/transport/tcp"
)

func ExampleDialer() {
	ctx := context.Background()
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "welcome")
	}()

	conn, err := tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	// Output: welcome <nil>
}

func ExampleListen() {
	ctx := context.Background()
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil) // port 0: the system chooses one
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	fmt.Println(ln.Addr().(*net.TCPAddr).Port != 0)

	_, err = tcp.Listen(ctx, "127.0.0.1", nil)
	fmt.Println(err)
	// Output:
	// true
	// listen tcp: address 127.0.0.1: missing port in address (write host:port, such as "127.0.0.1:7000" or "[::1]:7000")
}

// A Control function sets options of the listening socket before it is bound. On Linux, ReusePort would be
//
//	func ReusePort(network, address string, c syscall.RawConn) error {
//		var err error
//		cerr := c.Control(func(fd uintptr) {
//			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
//		})
//		return errors.Join(cerr, err)
//	}
//
// and several processes could then listen on one port, among which the system shares the connections out.
func ExampleConfig_reusePort() {
	ReusePort := func(network, address string, c syscall.RawConn) error {
		fmt.Println("before bind:", network)
		return nil
	}
	ln, err := tcp.Listen(context.Background(), "127.0.0.1:0", &tcp.Config{
		ListenConfig: &net.ListenConfig{Control: ReusePort},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	// Output: before bind: tcp4
}
