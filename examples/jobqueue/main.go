// Jobqueue hands jobs to workers over TLS: a queue, any number of workers, and whoever submits. It shows package mux in
// three types of messages. Connections may break at any time; nothing is lost or done twice for that.
//
//	openssl req -x509 -newkey ed25519 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout key.pem -out server.pem
//	jobqueue serve  -addr 127.0.0.1:7000 -cert server.pem -key key.pem
//	jobqueue work   -addr 127.0.0.1:7000 -ca server.pem
//	jobqueue submit -addr 127.0.0.1:7000 -ca server.pem one two three
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// Job is work to do: from who submits to the queue, and from there to a worker.
type Job struct {
	ID   uint64
	Text string
}

// Result is what came of it, on the way back.
type Result struct {
	ID   uint64
	Text string
}

// Want says how many jobs more a worker takes.
type Want struct{ N int }

// protocol is the table that all programs share; each gives the handlers that it has.
func protocol(o *mux.Options, job handler[Job], result handler[Result], want handler[Want]) *mux.Mux {
	m := mux.New(o)
	mux.Handle(m, 1, "job", mux.Msgpack{}, job)
	mux.Handle(m, 2, "result", mux.Msgpack{}, result)
	mux.Handle(m, 3, "want", mux.Msgpack{}, want)
	return m
}

type handler[T any] func(context.Context, *mux.Conn, T) error

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "jobqueue:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("say serve, work or submit")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	addr := f.String("addr", "127.0.0.1:7000", "address of the queue")
	cert, key := f.String("cert", "", "the queue's certificate"), f.String("key", "", "and its key")
	ca := f.String("ca", "", "certificate to trust")
	if err := f.Parse(args[1:]); err == flag.ErrHelp {
		return nil // it has been shown
	} else if err != nil {
		return err
	}
	if args[0] == "serve" {
		return serve(ctx, *addr, *cert, *key, out)
	}
	trust, err := (&towtls.Files{CA: *ca}).Client()
	if err != nil {
		return err
	}
	d := towtls.Dialer{Addr: *addr, Config: trust}
	switch args[0] {
	case "work":
		return work(ctx, d)
	case "submit":
		return submit(ctx, d, f.Args(), out)
	}
	return fmt.Errorf("%q is not serve, work or submit", args[0])
}

// atOnce is how many jobs a worker has at a time.
const atOnce = 4

// work does jobs until ctx ends: it writes their texts in capitals. A queue that was started again knows nothing of what
// the worker wanted of the one before, and hears it anew.
func work(ctx context.Context, d towtls.Dialer) error {
	m := protocol(nil, func(ctx context.Context, c *mux.Conn, j Job) error {
		if err := mux.Send(ctx, c, Result{j.ID, strings.ToUpper(j.Text)}); err != nil {
			return err
		}
		return mux.Send(ctx, c, Want{1})
	}, nil, nil)
	anew := make(chan struct{}, 1)
	anew <- struct{}{}
	c, err := m.Open(d, &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: func(_ *reconnect.Conn, e reconnect.Event) {
		if e.Kind == reconnect.EventLost {
			select {
			case anew <- struct{}{}:
			default:
			}
		}
	}}}) // waits for a queue that is not there yet
	if err != nil {
		return err
	}
	defer c.CloseNow()
	for {
		select {
		case <-anew:
			if err := mux.Send(ctx, c, Want{atOnce}); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-c.Done():
			return c.Err()
		}
	}
}

// submit prints what comes of the texts, in the order in which it comes.
func submit(ctx context.Context, d towtls.Dialer, texts []string, out io.Writer) error {
	results := make(chan Result, len(texts))
	m := protocol(nil, nil, func(_ context.Context, _ *mux.Conn, r Result) error {
		results <- r
		return nil
	}, nil)
	c, err := m.Dial(ctx, d, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }() // all has come back
	for i, text := range texts {
		if err := mux.Send(ctx, c, Job{uint64(i), text}); err != nil {
			return err
		}
	}
	for range texts {
		select {
		case r := <-results:
			fmt.Fprintln(out, r.ID, r.Text)
		case <-c.Done():
			return c.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
