package redial_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// greeter listens on name and greets each caller.
func greeter(network *mem.Network, name string) net.Listener {
	ln, err := mem.Listen(context.Background(), name, &mem.Config{Network: network})
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello from "+name)
			_ = conn.Close()
		}
	}()
	return ln
}

// A client that is cut off, or comes before its server is up, gets there in the end.
func Example() {
	ctx := context.Background()
	var network mem.Network
	defer greeter(&network, "greeter").Close()
	network.Faults().RefuseDials(2, nil) // as if the server were not up yet

	r := redial.New([]transport.Dialer{mem.Dialer{Network: &network, Addr: "greeter"}}, nil)
	defer r.Close()
	for range 2 {
		link, err := r.Dial(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		greeting, err := io.ReadAll(link.Conn)
		if err == nil {
			link.Progress() // the next Dial is at once
		}
		_ = link.Conn.Close()
		fmt.Printf("%s, attempts: %d, in all: %d\n", greeting, link.Attempts, link.Total)
	}
	// Output:
	// hello from greeter, attempts: 3, in all: 3
	// hello from greeter, attempts: 1, in all: 4
}

// A client falls back where the preferred way is barred, and returns to it.
func ExampleRedialer_DialPreferred() {
	ctx := context.Background()
	var network mem.Network
	defer greeter(&network, "fallback").Close()

	r := redial.New([]transport.Dialer{
		mem.Dialer{Network: &network, Addr: "preferred"},
		mem.Dialer{Network: &network, Addr: "fallback"},
	}, &redial.Policy{ReturnAfter: 10 * time.Millisecond})
	defer r.Close()
	link, err := r.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("connected to", link.Conn.RemoteAddr())

	defer greeter(&network, "preferred").Close() // it works again
	for link.ReturnAfter > 0 {
		<-time.After(link.ReturnAfter) // and meanwhile link.Conn is used
		better, err := r.DialPreferred(ctx, link)
		if err != nil {
			continue
		}
		_ = link.Conn.Close()
		link = better
	}
	fmt.Println("connected to", link.Conn.RemoteAddr())
	_ = link.Conn.Close()
	// Output:
	// connected to fallback
	// connected to preferred
}

// A server that drains asks its clients to come back later, and not all at once.
func ExampleLink_Delay() {
	ctx := context.Background()
	var network mem.Network
	defer greeter(&network, "greeter").Close()

	r := redial.New([]transport.Dialer{mem.Dialer{Network: &network, Addr: "greeter"}}, nil)
	defer r.Close()
	link, err := r.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = link.Conn.Close()
	link.Delay(20*time.Millisecond, 10*time.Millisecond)
	start := time.Now()
	link, err = r.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = link.Conn.Close()
	fmt.Println(time.Since(start) >= 20*time.Millisecond)
	// Output: true
}

func ExampleNew() {
	var network mem.Network
	primary := mem.Dialer{Network: &network, Addr: "primary"}
	backup := mem.Dialer{Network: &network, Addr: "backup"}
	r := redial.New([]transport.Dialer{primary, backup}, &redial.Policy{
		MaxAttempts: 4,
		Backoff:     func() redial.Backoff { return &redial.Jitter{First: time.Millisecond, Max: time.Second} },
		OnFailure: func(_ context.Context, f redial.Failure) redial.Decision {
			fmt.Printf("attempt %d, endpoint %d: %v\n", f.Attempts, f.Endpoint, f.Err)
			return redial.Decision{}
		},
	})
	defer r.Close()
	_, err := r.Dial(context.Background())
	fmt.Println(errors.Is(err, redial.ErrGaveUp), errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// attempt 1, endpoint 0: dial mem primary: connection refused
	// attempt 2, endpoint 1: dial mem backup: connection refused
	// attempt 3, endpoint 0: dial mem primary: connection refused
	// attempt 4, endpoint 1: dial mem backup: connection refused
	// true true
}

// A dialer that logs in says that a wrong password stays wrong.
func ExampleFatal() {
	errPassword := errors.New("wrong password")
	r := redial.New([]transport.Dialer{transport.DialerFunc(func(context.Context) (net.Conn, error) {
		return nil, redial.Fatal(errPassword)
	})}, nil)
	defer r.Close()
	_, err := r.Dial(context.Background())
	fmt.Println(errors.Is(err, errPassword), redial.IsFatal(err))
	// Output: true true
}

// One kind of error is judged otherwise, the rest as ever.
func ExampleIsFatal() {
	policy := redial.Policy{IsFatal: func(err error) bool {
		return errors.Is(err, syscall.EHOSTUNREACH) || redial.IsFatal(err)
	}}
	fmt.Println(redial.IsFatal(syscall.EHOSTUNREACH), policy.IsFatal(syscall.EHOSTUNREACH))
	// Output: false true
}

func ExampleJitter() {
	j := redial.Jitter{First: 100 * time.Millisecond, Max: time.Second, Source: rand.NewPCG(1, 2)}
	limit := 100 * time.Millisecond
	for range 5 {
		fmt.Println("within", limit, j.NextBackOff() <= limit)
		limit = min(2*limit, time.Second)
	}
	// Output:
	// within 100ms true
	// within 200ms true
	// within 400ms true
	// within 800ms true
	// within 1s true
}
