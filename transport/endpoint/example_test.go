package endpoint_test

import (
	"context"
	"fmt"
	"io"

	"github.com/towline-mq/towline/transport/endpoint"
	"github.com/towline-mq/towline/transport/mem"
)

func ExampleParse() {
	u, err := endpoint.Parse("tcp://[::1]:7000")
	fmt.Println(u.Scheme, u.Addr, err)

	_, err = endpoint.Parse("localhost:7000")
	fmt.Println(err)
	// Output:
	// tcp [::1]:7000 <nil>
	// bad address "localhost:7000": the scheme is missing; a good one is tcp://localhost:7000
}

func ExampleURL_Listen() {
	ctx := context.Background()
	var network mem.Network
	cfg := &endpoint.Config{Mem: &network}

	u, err := endpoint.Parse("mem://echo")
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := u.Listen(ctx, cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	fmt.Println("listening", u.At(ln.Addr()))

	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.WriteString(conn, "welcome")
	}()

	dialer, err := u.Dialer(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn, err := dialer.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	// Output:
	// listening mem://echo
	// welcome <nil>
}

func ExampleDialer() {
	dialer, err := endpoint.Dialer("tcp://127.0.0.1:7000", nil)
	fmt.Printf("%T %v\n", dialer, err)
	// Output: tcp.Dialer <nil>
}

func ExampleListen() {
	ln, err := endpoint.Listen(context.Background(), "tcp://127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr().Network(), ln.Close())
	// Output: tcp <nil>
}
