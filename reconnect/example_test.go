package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
)

// serveEcho sends back what comes in, on each connection that ln accepts, until ln is closed.
func serveEcho(ctx context.Context, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			conn := reconnect.NewPlain(nc, nil)
			defer conn.Close(ctx)
			for d, err := range conn.Reader().All(ctx) {
				if err != nil || conn.Writer().Send(ctx, d) != nil {
					return
				}
			}
		}()
	}
}

// A client, and above it the server that it talks to.
func ExampleDialPlain() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go serveEcho(ctx, ln)

	conn, err := reconnect.DialPlain(ctx, tcp.Dialer{Addr: ln.Addr().String()}, nil)
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
	fmt.Println(conn.Close(ctx))
	// Output:
	// 7 hello <nil>
	// <nil>
}

// Lines of text instead of the 8-byte header, so that nc can be the peer.
func ExampleNewPlain_lines() {
	nc, peer := mem.Pipe(nil)
	conn := reconnect.NewPlain(nc, &reconnect.PlainOptions{Framing: datagram.Lines{Recipient: 1}})
	defer conn.CloseNow()
	fmt.Fprint(peer, "one\ntwo\n")
	peer.CloseWrite()
	for d, err := range conn.Reader().All(context.Background()) {
		fmt.Println(string(d.Payload), err)
	}
	// Output:
	// one <nil>
	// two <nil>
}

// Many at a time cost less than as many calls. The receiver takes what has arrived.
func ExampleWriter_SendBatch() {
	ctx := context.Background()
	na, nb := mem.Pipe(nil)
	a, b := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
	defer a.CloseNow()
	defer b.CloseNow()

	n, err := a.Writer().SendBatch(ctx, []datagram.Datagram{
		{Recipient: 1, Payload: []byte("a")},
		{Recipient: 2, Payload: []byte("b")},
		{Recipient: 3, Payload: []byte("c")},
	})
	fmt.Println(n, err)
	batch := make([]datagram.Datagram, 64)
	for left := 3; left > 0; {
		n, err := b.Reader().ReceiveBatch(ctx, batch)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, d := range batch[:n] {
			fmt.Println(d.Recipient, string(d.Payload))
		}
		left -= n
	}
	// Output:
	// 3 <nil>
	// 1 a
	// 2 b
	// 3 c
}

// A select over several things that can happen: the channels are Send and Receive by other means.
func ExampleReader_C() {
	na, nb := mem.Pipe(nil)
	conn, peer := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
	defer conn.CloseNow()
	defer peer.CloseNow()
	go func() {
		out := peer.Writer().C()
		out <- datagram.Datagram{Recipient: 1, Payload: []byte("first")}
		out <- datagram.Datagram{Recipient: 1, Payload: []byte("second")}
		close(out) // the same as CloseSend
	}()
	for {
		select {
		case d, ok := <-conn.Reader().C():
			if !ok {
				fmt.Println("ended:", conn.Err())
				return
			}
			fmt.Println(string(d.Payload))
		case <-time.After(10 * time.Second):
			fmt.Println("nothing came")
			return
		}
	}
	// Output:
	// first
	// second
	// ended: EOF
}

// A full queue: TrySend says so, and Send waits for as long as its context allows. Either way the datagram was not
// sent.
func ExampleWriter_TrySend() {
	nc, peer := mem.Pipe(&mem.Config{Buffer: 1})
	defer peer.Close()
	conn := reconnect.NewPlain(nc, &reconnect.PlainOptions{SendBuffer: 1000})
	defer conn.CloseNow()
	d := datagram.Datagram{Payload: make([]byte, 600)}
	var err error
	for err == nil {
		err = conn.Writer().TrySend(d) // the peer does not read
	}
	fmt.Println(errors.Is(err, reconnect.ErrWouldBlock))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(conn.Writer().Send(ctx, d))
	// Output:
	// true
	// context deadline exceeded
}

// Close sends what was accepted, and says how much it could not.
func ExampleConn_Close() {
	nc, peer := mem.Pipe(&mem.Config{Buffer: 1})
	defer peer.Close()
	conn := reconnect.NewPlain(nc, nil)
	for range 3 {
		_ = conn.Writer().Send(context.Background(), datagram.Datagram{Payload: []byte("never read")})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := conn.Close(ctx)
	var unsent *reconnect.CloseError
	fmt.Println(errors.As(err, &unsent), unsent.Unsent, unsent.Err)
	// Output: true 3 context deadline exceeded
}

// CloseSend ends one direction: the peer reads to the end, and can still answer.
func ExampleConn_CloseSend() {
	ctx := context.Background()
	na, nb := mem.Pipe(nil)
	client, server := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
	defer client.CloseNow()
	defer server.CloseNow()
	_ = client.Writer().Send(ctx, datagram.Datagram{Payload: []byte("a question")})
	fmt.Println(client.CloseSend(ctx))

	_, _ = server.Reader().Receive(ctx)
	_, err := server.Reader().Receive(ctx)
	fmt.Println(err == io.EOF)
	_ = server.Writer().Send(ctx, datagram.Datagram{Payload: []byte("the answer")})

	d, err := client.Reader().Receive(ctx)
	fmt.Println(string(d.Payload), err)
	// Output:
	// <nil>
	// true
	// the answer <nil>
}
