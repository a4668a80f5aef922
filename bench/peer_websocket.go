package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

func websocketPeer() peer {
	return peer{
		name: "coder/websocket", module: "github.com/coder/websocket",
		how:     "no compression; each message read into the same buffer",
		missing: "what is under way when the connection breaks is lost; no acknowledgement, no resumption",
		pipe:    websocketPipe,
		echo:    websocketEcho,
	}
}

// websocketPair is two ends of a WebSocket.
func websocketPair(ctx context.Context) (dialled, accepted *websocket.Conn, closeAll func(), err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, err
	}
	ended := make(chan struct{})
	conns := make(chan *websocket.Conn, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := websocket.Accept(w, r, nil); err == nil {
			conns <- c
			<-ended
		}
	})}
	served := make(chan struct{})
	go func() {
		_ = server.Serve(ln) // until Close
		close(served)
	}()
	closeAll = func() {
		for _, c := range []*websocket.Conn{dialled, accepted} {
			if c != nil {
				_ = c.CloseNow()
			}
		}
		close(ended)
		_ = server.Close()
		<-served
	}
	dialled, _, err = websocket.Dial(ctx, "ws://"+ln.Addr().String(), nil) //nolint:bodyclose // there is none to close, says its documentation
	if err == nil {
		select {
		case accepted = <-conns:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		closeAll()
		return nil, nil, nil, err
	}
	dialled.SetReadLimit(-1)
	accepted.SetReadLimit(-1)
	return dialled, accepted, closeAll, nil
}

// take reads one message into buf, which is as long as it has to be.
func take(ctx context.Context, c *websocket.Conn, buf []byte) error {
	_, r, err := c.Reader(ctx)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, buf); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return errors.Join(wrongSize(len(buf)+n, len(buf)), err)
	}
	return nil
}

func websocketPipe(ctx context.Context, size int) (*pipe, error) {
	d, a, closeAll, err := websocketPair(ctx)
	if err != nil {
		return nil, err
	}
	out, in := payload(size), make([]byte, size)
	return &pipe{
		send: func(ctx context.Context, n int) error {
			for range n {
				if err := d.Write(ctx, websocket.MessageBinary, out); err != nil {
					return err
				}
			}
			return nil
		},
		receive: func(ctx context.Context, n int) error {
			for range n {
				if err := take(ctx, a, in); err != nil {
					return err
				}
			}
			return nil
		},
		close: closeAll,
	}, nil
}

func websocketEcho(ctx context.Context, size int) (*echo, error) {
	d, a, closeAll, err := websocketPair(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, size)
		for take(context.Background(), a, buf) == nil && a.Write(context.Background(), websocket.MessageBinary, buf) == nil {
		}
	}()
	out, in := payload(size), make([]byte, size)
	return &echo{
		ask: func(ctx context.Context) error {
			if err := d.Write(ctx, websocket.MessageBinary, out); err != nil {
				return err
			}
			return take(ctx, d, in)
		},
		close: closeAll,
	}, nil
}
