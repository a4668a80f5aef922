package redial_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// lines is a server on a port of its own that prints the first line of each connection and closes it, for a number of
// connections.
func lines(connections int) (addr string, done <-chan struct{}) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range connections {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			fmt.Print(line)
			_ = conn.Close()
		}
		_ = ln.Close()
	}()
	return ln.Addr().String(), over
}

// A loop that writes, as it stands beside net.Dial, goes on through the ends of three connections, until the server is
// gone for good and the program has had enough.
func ExampleDial() {
	addr, done := lines(3)

	conn, err := redial.Dial("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	conn.(*redial.Conn).SetPolicy(&redial.Policy{MaxAttempts: 5, Backoff: func() redial.Backoff {
		return &redial.Jitter{First: time.Millisecond}
	}})
	for {
		if _, err = conn.Write([]byte("Hello, World!\n")); errors.Is(err, redial.ErrGaveUp) {
			break
		}
	}
	<-done
	fmt.Println("gave up")
	// Output:
	// Hello, World!
	// Hello, World!
	// Hello, World!
	// gave up
}

// Each connection is logged in on before anything else goes over it.
func ExampleDialer_Dial() {
	addr, done := lines(2)

	d := redial.Dialer{
		Endpoints: []transport.Dialer{transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		})},
		Policy: &redial.Policy{
			MaxAttempts: 2,
			OnConnected: func(_ context.Context, c redial.Connection) error {
				_, err := fmt.Fprintf(c.Conn, "login, first time: %v\n", c.First)
				return err
			},
		},
	}
	conn, err := d.Dial(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	_, err = io.Copy(io.Discard, conn) // until it gives up
	<-done
	fmt.Println(errors.Is(err, redial.ErrGaveUp), conn.State())
	// Output:
	// login, first time: true
	// login, first time: false
	// true ended
}

// A program decides for itself what the end of a connection means, here by going elsewhere.
func ExampleDialer_onDisconnected() {
	var network mem.Network
	defer greeter(&network, "one").Close()
	defer greeter(&network, "two").Close()
	d := redial.Dialer{
		Endpoints: []transport.Dialer{mem.Dialer{Network: &network, Addr: "one"}},
		OnDisconnected: func(_ context.Context, d redial.Disconnect) redial.Decision {
			if d.Total > 1 {
				return redial.Decision{Do: redial.Stop}
			}
			return redial.Decision{Endpoint: mem.Dialer{Network: &network, Addr: "two"}}
		},
	}
	conn, err := d.Dial(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	var got strings.Builder
	_, err = io.Copy(&got, conn)
	fmt.Println(strings.ReplaceAll(got.String(), "hello", " hello"))
	fmt.Println(err)
	// Output:
	// hello from one hello from two
	// redial: gave up: a hook said stop: EOF
}

// A connection that exists gets a successor when it breaks, and can be taken out again.
func ExampleDialer_Wrap() {
	var network mem.Network
	defer greeter(&network, "greeter").Close()
	d := redial.Dialer{Endpoints: []transport.Dialer{mem.Dialer{Network: &network, Addr: "greeter"}}}
	existing, peer := net.Pipe()
	conn := d.Wrap(existing)
	go func() {
		_, _ = io.WriteString(peer, "hello from before, ")
		_ = peer.Close()
	}()
	p := make([]byte, len("hello from before, hello from greeter"))
	_, err := io.ReadFull(conn, p)
	fmt.Println(string(p), err)
	plain, err := conn.Detach()
	if err == nil {
		fmt.Println(plain.RemoteAddr(), conn.State())
		_ = plain.Close()
	}
	// Output:
	// hello from before, hello from greeter <nil>
	// greeter ended
}

// A session of its own on each connection.
func ExampleRun() {
	var network mem.Network
	defer greeter(&network, "greeter").Close()
	n := 0
	err := redial.Run(context.Background(), mem.Dialer{Network: &network, Addr: "greeter"}, nil,
		func(_ context.Context, conn net.Conn) error {
			greeting, err := io.ReadAll(conn)
			if err != nil {
				return err // what can pass is tried again
			}
			n++
			fmt.Println(n, string(greeting))
			switch n {
			case 3:
				return redial.Fatal(errors.New("enough"))
			default:
				return redial.Again
			}
		})
	fmt.Println(err)
	// Output:
	// 1 hello from greeter
	// 2 hello from greeter
	// 3 hello from greeter
	// enough
}
