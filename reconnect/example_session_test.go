package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
)

// echoSessions sends back what comes in, on every session of l, until l is closed.
func echoSessions(ctx context.Context, l *reconnect.Listener) {
	for {
		conn, err := l.Accept(ctx)
		if err != nil {
			return
		}
		go func() {
			defer conn.Close(ctx)
			for d, err := range conn.Reader().All(ctx) {
				if err != nil || conn.Writer().Send(ctx, d) != nil {
					return
				}
			}
		}()
	}
}

// listen makes a Listener in this process, for examples that need no network.
func listen(ctx context.Context, network *mem.Network, name string) *reconnect.Listener {
	ln, err := mem.Listen(ctx, name, &mem.Config{Network: network})
	if err != nil {
		panic(err)
	}
	return reconnect.NewListener(ln, nil)
}

// A client. It goes on when its connection breaks: the session dials again, and sends what the server does not have.
func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	l := reconnect.NewListener(ln, nil)
	defer l.Close()
	go echoSessions(ctx, l) // the server: see the example of NewListener

	conn, err := reconnect.Dial(ctx, tcp.Dialer{Addr: ln.Addr().String()}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = conn.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte("hello")})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := conn.Reader().Receive(ctx)
	fmt.Println(d.Recipient, string(d.Payload), err)
	fmt.Println(conn.Close(ctx)) // nil: the server has everything
	// Output:
	// 7 hello <nil>
	// <nil>
}

// A server that sends back what it gets. Accept returns each session once, however many connections it has.
func ExampleNewListener() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	l := reconnect.NewListener(ln, nil)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			go func() {
				defer conn.Close(ctx)
				for d, err := range conn.Reader().All(ctx) {
					if err != nil || conn.Writer().Send(ctx, d) != nil {
						return
					}
				}
			}()
		}
	}()

	// Sessions and plain connections come to the same port.
	session, err := reconnect.Dial(ctx, tcp.Dialer{Addr: l.Addr().String()}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	plain, err := reconnect.DialPlain(ctx, tcp.Dialer{Addr: l.Addr().String()}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, conn := range []*reconnect.Conn{session, plain} {
		_ = conn.Writer().Send(ctx, datagram.Datagram{Payload: []byte("hello")})
		d, err := conn.Reader().Receive(ctx)
		fmt.Println(conn.IsSession(), string(d.Payload), err)
		_ = conn.Close(ctx)
	}
	// Output:
	// true hello <nil>
	// false hello <nil>
}

// A connection is given up in the middle of things. Who sends and who receives does not notice.
func ExampleConn_Redial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var network mem.Network
	l := listen(ctx, &network, "echo")
	defer l.Close()
	go echoSessions(ctx, l)

	conn, err := reconnect.Dial(ctx, mem.Dialer{Network: &network, Addr: "echo"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	for i := range 6 {
		_ = conn.Writer().Send(ctx, datagram.Datagram{Payload: fmt.Append(nil, i)})
		if i == 3 {
			conn.Redial(errors.New("the network has changed"))
		}
	}
	for range 6 {
		d, err := conn.Reader().Receive(ctx)
		fmt.Println(string(d.Payload), err)
	}
	fmt.Println("resumed:", conn.Stats().Resumes)
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
	// 4 <nil>
	// 5 <nil>
	// resumed: 1
}

// A server that is killed takes with it what it had acknowledged and not dealt with. Where that matters, the program
// keeps each request until it is answered, and Strict tells it when the session was lost: then it sends again what is
// not answered. A request may be done twice that way, so it has a number, by which the server can tell.
func ExampleSessionLostError() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var network mem.Network
	go serveThenDie(ctx, &network)

	open := []string{"#1 one", "#2 two", "#3 three"} // requests without an answer, in order
	for len(open) > 0 {
		conn := reconnect.Open(mem.Dialer{Network: &network, Addr: "echo"}, &reconnect.DialOptions{Strict: true})
		var err error
		for i := 0; i < len(open) && err == nil; i++ {
			err = conn.Writer().Send(ctx, datagram.Datagram{Payload: []byte(open[i])})
		}
		for len(open) > 0 {
			if _, err = conn.Reader().Receive(ctx); err != nil {
				break
			}
			fmt.Println("answered:", open[0])
			open = open[1:] // answers come in the order of the requests
		}
		var lost *reconnect.SessionLostError
		switch {
		case errors.As(err, &lost):
			fmt.Println("the session is lost, requests to send again:", len(open))
		case err != nil:
			fmt.Println(err)
			_ = conn.CloseNow()
			return
		default:
			fmt.Println(conn.Close(ctx))
		}
	}
	// Output:
	// answered: #1 one
	// the session is lost, requests to send again: 2
	// answered: #2 two
	// answered: #3 three
	// <nil>
}

// serveThenDie answers one request, acknowledges two more, and makes room for another server.
func serveThenDie(ctx context.Context, network *mem.Network) {
	l := listen(ctx, network, "echo")
	conn, err := l.Accept(ctx)
	if err != nil {
		return
	}
	batch := make([]datagram.Datagram, 3)
	for have := 0; have < 3; {
		n, err := conn.Reader().ReceiveBatch(ctx, batch[have:])
		if err != nil {
			return
		}
		have += n
	}
	_ = conn.Writer().Send(ctx, batch[0])
	_ = conn.Writer().Flush(ctx) // the client has it
	_ = l.Close()

	l = listen(ctx, network, "echo")
	defer l.Close()
	echoSessions(ctx, l)
}

// Two ways to the same server, in order of preference. The session falls back from one to the other and stays the same.
func ExampleDialOptions_fallbacks() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var network mem.Network // in earnest, say, QUIC and TLS
	first, err := mem.Listen(ctx, "first", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	second, err := mem.Listen(ctx, "second", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	l := reconnect.NewListener(first, nil)
	defer l.Close()
	l.Add(second)
	go echoSessions(ctx, l)

	conn, err := reconnect.Dial(ctx, mem.Dialer{Network: &network, Addr: "first"}, &reconnect.DialOptions{
		Fallbacks: []transport.Dialer{mem.Dialer{Network: &network, Addr: "second"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close(ctx)
	for range 2 {
		_ = conn.Writer().Send(ctx, datagram.Datagram{Payload: []byte("hello")})
		d, err := conn.Reader().Receive(ctx)
		fmt.Println(string(d.Payload), err, "over", conn.RemoteAddr())

		_ = first.Close() // nobody can dial it any more
		conn.Redial(errors.New("try another way"))
	}
	// Output:
	// hello <nil> over first
	// hello <nil> over second
}

// A server that goes away in good order: it asks the clients to leave, and waits until they have.
func ExampleListener_Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var network mem.Network
	l := listen(ctx, &network, "echo")
	go echoSessions(ctx, l)

	closed := make(chan error, 1)
	var o reconnect.DialOptions
	o.OnEvent = func(conn *reconnect.Conn, e reconnect.Event) {
		if e.Kind == reconnect.EventGoAway {
			closed <- conn.Close(ctx)
		}
	}
	if _, err := reconnect.Dial(ctx, mem.Dialer{Network: &network, Addr: "echo"}, &o); err != nil {
		fmt.Println(err)
		return
	}
	// Clients that are still there when ctx ends are cut off, and come back 1 to 3 s from now.
	err := l.Shutdown(ctx, time.Second, 2*time.Second)
	fmt.Println("the server is done:", err)
	fmt.Println("the client closed:", <-closed)
	// Output:
	// the server is done: <nil>
	// the client closed: <nil>
}

// A price that is of no use when it is late. It is not sent after its time, and the order of the others stays.
func ExampleWriter_SendExpiring() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var network mem.Network
	conn := reconnect.Open(mem.Dialer{Network: &network, Addr: "echo"}, nil) // there is no server yet
	defer conn.CloseNow()
	w := conn.Writer()
	_ = w.Send(ctx, datagram.Datagram{Payload: []byte("an order")})
	_ = w.SendExpiring(ctx, datagram.Datagram{Payload: []byte("a price")}, time.Millisecond)
	_ = w.Send(ctx, datagram.Datagram{Payload: []byte("another order")})
	<-time.After(10 * time.Millisecond)

	l := listen(ctx, &network, "echo")
	defer l.Close()
	go echoSessions(ctx, l)
	for range 2 {
		d, err := conn.Reader().Receive(ctx)
		fmt.Println(string(d.Payload), err)
	}
	fmt.Println("expired:", conn.Stats().Expired)
	// Output:
	// an order <nil>
	// another order <nil>
	// expired: 1
}
