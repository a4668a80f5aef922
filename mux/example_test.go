package mux_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// Greeting and Question are messages of an application's own.
type (
	Greeting struct{ Name string }
	Question struct{ A, B int }
	Answer   struct{ Product int }
)

// greetings is the set of tags that both sides share. What a side only sends has no handler there.
func greetings(
	greeted func(context.Context, *mux.Conn, Greeting) error,
	multiply func(context.Context, *mux.Conn, Question) (Answer, error),
) *mux.Mux {
	m := mux.New(nil)
	mux.Handle(m, 1, "greeting", mux.Msgpack{}, greeted)
	mux.HandleCall(m, 2, "multiply", mux.Msgpack{}, multiply)
	return m
}

// exampleServer serves m in memory.
func exampleServer(ctx context.Context, m *mux.Mux) (*mux.Server, mem.Dialer) {
	network := new(mem.Network)
	ln, err := mem.Listen(ctx, "example", &mem.Config{Network: network})
	if err != nil {
		panic(err)
	}
	s := mux.NewServer(m)
	go s.Serve(reconnect.NewListener(ln, nil)) // until Shutdown or Close
	return s, mem.Dialer{Network: network, Addr: "example"}
}

// A server that greets back, and its client.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, d := exampleServer(ctx, greetings(func(ctx context.Context, c *mux.Conn, g Greeting) error {
		return mux.Send(ctx, c, Greeting{"you too, " + g.Name})
	}, nil))

	answers := make(chan Greeting)
	c, err := greetings(func(_ context.Context, _ *mux.Conn, g Greeting) error {
		answers <- g
		return nil
	}, nil).Dial(ctx, d, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mux.Send(ctx, c, Greeting{"Ada"}))
	fmt.Println((<-answers).Name)
	fmt.Println(c.Close(ctx), s.Shutdown(ctx))
	// Output:
	// <nil>
	// you too, Ada
	// <nil> <nil>
}

// A call has one answer, or an error, in the time that its context has.
func ExampleCall() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, d := exampleServer(ctx, greetings(nil, func(_ context.Context, _ *mux.Conn, q Question) (Answer, error) {
		if q.A == 0 {
			return Answer{}, errors.New("that is too easy")
		}
		return Answer{q.A * q.B}, nil
	}))
	c, err := greetings(nil, nil).Open(d, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mux.Call[Question, Answer](ctx, c, Question{6, 7}))
	_, err = mux.Call[Question, Answer](ctx, c, Question{0, 7})
	var refused *mux.CallError
	fmt.Println(errors.As(err, &refused), err)
	fmt.Println(c.Close(ctx), s.Shutdown(ctx))
	// Output:
	// {42} <nil>
	// true mux: the peer says: that is too easy
	// <nil> <nil>
}

// The table of tags is what two programs have to agree on.
func ExampleMux_Table() {
	m := greetings(nil, nil)
	m.HandleRaw(65535, "log lines", nil)
	fmt.Print(m.Table())
	// Output:
	// | recipient | name | type | reply | codec |
	// |---:|---|---|---|---|
	// | 1 | greeting | `Greeting{Name string}` | – | msgpack |
	// | 2 | multiply | `Question{A int; B int}` | `Answer{Product int}` | msgpack |
	// | 65535 | log lines | – | – |  |
}

// What is wrong with a set of tags is said before anything is served.
func ExampleMux_Err() {
	m := greetings(nil, nil)
	mux.Handle[Answer](m, 2, "answer", mux.Msgpack{}, nil)
	mux.Handle[chan int](m, 3, "channel", mux.JSON{}, nil)
	fmt.Println(m.Err())
	// Output:
	// mux: answer (recipient 2): bound to multiply already
	// mux: channel (recipient 3): json: cannot carry chan int, which is in chan int
}

// Middleware is a function around a handler.
func ExampleMux_Use() {
	m := greetings(func(context.Context, *mux.Conn, Greeting) error { return nil }, nil)
	m.Use(func(next mux.Handler) mux.Handler {
		return func(ctx context.Context, c *mux.Conn, d datagram.Datagram) error {
			fmt.Println("before", d)
			defer fmt.Println("after")
			return next(ctx, c, d)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, d := exampleServer(ctx, m)
	c, err := greetings(nil, nil).Dial(ctx, d, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mux.Send(ctx, c, Greeting{"Ada"}), c.Close(ctx), s.Shutdown(ctx))
	// Unordered output:
	// before recipient 1, 10 bytes
	// after
	// <nil> <nil> <nil>
}

// A broadcast is encoded once, and stopped by nobody.
func ExampleBroadcast() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, d := exampleServer(ctx, greetings(nil, func(context.Context, *mux.Conn, Question) (Answer, error) { return Answer{}, nil }))
	greeted := make(chan string)
	for range 3 {
		c, err := greetings(func(_ context.Context, _ *mux.Conn, g Greeting) error { greeted <- g.Name; return nil }, nil).Dial(ctx, d, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer func() { <-c.Done() }()
		defer c.CloseNow()
		_, _ = mux.Call[Question, Answer](ctx, c, Question{}) // it is served now
	}
	fmt.Println(mux.Broadcast(ctx, s, Greeting{"all"}, mux.Skip))
	fmt.Println(<-greeted, <-greeted, <-greeted)
	_ = s.Close()
	// Output:
	// 3 <nil>
	// all all all
}
