package chaos

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

// sessionsMain is echo-client for many sessions at once. Its arguments are the URL and the number of sessions. Line i of
// its input goes to session i modulo that number, and what comes back to its output, each line when it is there. At the
// end of the input it waits until everything is back, and prints how often it had to connect again, in JSON.
func sessionsMain(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: URL SESSIONS")
	}
	dialer, err := endpoint.Dialer(args[0], &endpoint.Config{
		TLS: &tls.Config{InsecureSkipVerify: true}, UserTimeout: 15 * time.Second,
	})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	conns := make([]*reconnect.Conn, n)
	var (
		mu  sync.Mutex
		out = bufio.NewWriter(os.Stdout)

		receiving  sync.WaitGroup
		reconnects atomic.Uint64
	)
	for i := range conns {
		c := reconnect.Open(dialer, &reconnect.DialOptions{Strict: true})
		conns[i] = c
		receiving.Go(func() {
			batch := make([]datagram.Datagram, 64)
			for {
				n, err := c.Reader().ReceiveBatch(context.Background(), batch)
				if err == io.EOF {
					break
				}
				if err != nil {
					cancel(fmt.Errorf("session %d: %w", i, err))
					return
				}
				mu.Lock()
				for _, d := range batch[:n] {
					_, _ = out.Write(d.Payload) // Flush tells
					_ = out.WriteByte('\n')
				}
				err = out.Flush()
				mu.Unlock()
				if err != nil {
					cancel(err)
					return
				}
			}
			_ = c.Close(ctx) // everything is back
			reconnects.Add(c.Stats().Resumes)
		})
	}
	// Standard input has to be left when a session fails.
	sent := make(chan error, 1)
	go func() { sent <- deal(ctx, os.Stdin, conns) }()
	select {
	case err = <-sent:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	received := make(chan struct{})
	go func() { receiving.Wait(); close(received) }()
	select {
	case <-received:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures{Reconnects: reconnects.Load()})
}

// deal sends each line of the input to its session, and ends their sending.
func deal(ctx context.Context, input io.Reader, conns []*reconnect.Conn) error {
	in := bufio.NewReaderSize(input, 64<<10)
	for i := 0; ; i = (i + 1) % len(conns) {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		d := datagram.Datagram{Payload: bytes.TrimSuffix(line, []byte("\n"))}
		if err := conns[i].Writer().Send(ctx, d); err != nil {
			return fmt.Errorf("session %d: %w", i, err)
		}
	}
	var ending sync.WaitGroup
	for _, c := range conns {
		ending.Go(func() { _ = c.CloseSend(ctx) }) // the receiver tells
	}
	ending.Wait()
	return nil
}

// figures are what a client says at its end, those of echo-client's JSON that are looked at.
type figures struct {
	Sent        uint64 `json:"sent"`
	Received    uint64 `json:"received"`
	Lost        uint64 `json:"lost"`
	Duplicated  uint64 `json:"duplicated"`
	OutOfOrder  uint64 `json:"out_of_order"`
	Redelivered uint64 `json:"redelivered"`
	Reconnects  uint64 `json:"reconnects"`
}
