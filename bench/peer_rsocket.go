package main

import (
	"context"
	"encoding/binary"
	"net"

	rsocket "github.com/rsocket/rsocket-go"
	rtransport "github.com/rsocket/rsocket-go/core/transport"
	rpayload "github.com/rsocket/rsocket-go/payload"
	"github.com/rsocket/rsocket-go/rx"
	"github.com/rsocket/rsocket-go/rx/flux"
	"github.com/rsocket/rsocket-go/rx/mono"
)

func rsocketPeer() peer {
	return peer{
		name: "rsocket-go", module: "github.com/rsocket/rsocket-go",
		how:     "one request for a stream of all messages, without limit on what may be under way; without resumption, which costs time",
		missing: "what is under way when the connection breaks is lost; nothing is acknowledged",
		pipe:    rsocketPipe,
		echo:    rsocketEcho,
	}
}

// rsocketClient starts a server that answers with what responder has, and connects to it.
func rsocketClient(ctx context.Context, responder rsocket.RSocket) (rsocket.Client, func(), error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	started := make(chan struct{})
	go func() {
		defer close(served)
		_ = rsocket.Receive(). // until cancel
					OnStart(func() { close(started) }).
					Acceptor(func(context.Context, rpayload.SetupPayload, rsocket.CloseableRSocket) (rsocket.RSocket, error) {
				return responder, nil
			}).
			Transport(func(context.Context) (rtransport.ServerTransport, error) {
				return rtransport.NewTCPServerTransport(func(context.Context) (net.Listener, error) { return ln, nil }), nil
			}).
			Serve(ctx)
	}()
	<-started
	client, err := rsocket.Connect().Transport(rsocket.TCPClient().SetAddr(ln.Addr().String()).Build()).Start(ctx)
	closeAll := func() {
		if client != nil {
			_ = client.Close()
		}
		cancel()
		<-served
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return client, closeAll, nil
}

func rsocketPipe(ctx context.Context, size int) (*pipe, error) {
	out := payload(size)
	client, closeAll, err := rsocketClient(ctx, rsocket.NewAbstractSocket(rsocket.RequestStream(func(request rpayload.Payload) flux.Flux {
		n := binary.BigEndian.Uint64(request.Data())
		return flux.Create(func(_ context.Context, s flux.Sink) {
			for range n {
				s.Next(rpayload.New(out, nil))
			}
			s.Complete()
		})
	})))
	if err != nil {
		return nil, err
	}
	return &pipe{
		send: func(context.Context, int) error { return nil }, // the server sends what is asked for
		receive: func(ctx context.Context, n int) error {
			done := make(chan error, 1)
			got := 0
			client.RequestStream(rpayload.New(binary.BigEndian.AppendUint64(nil, uint64(n)), nil)).Subscribe(ctx,
				rx.OnNext(func(m rpayload.Payload) error {
					if got++; len(m.Data()) != size {
						return wrongSize(len(m.Data()), size)
					}
					return nil
				}),
				rx.OnComplete(func() { done <- nil }),
				rx.OnError(func(err error) { done <- err }),
			)
			select {
			case err := <-done:
				if err == nil && got != n {
					err = wrongCount(got, n)
				}
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		close: closeAll,
	}, nil
}

func rsocketEcho(ctx context.Context, size int) (*echo, error) {
	client, closeAll, err := rsocketClient(ctx, rsocket.NewAbstractSocket(rsocket.RequestResponse(func(request rpayload.Payload) mono.Mono {
		return mono.Just(rpayload.Clone(request))
	})))
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &echo{
		ask: func(ctx context.Context) error {
			m, release, err := client.RequestResponse(rpayload.New(out, nil)).BlockUnsafe(ctx)
			if err != nil {
				return err
			}
			defer release()
			if len(m.Data()) != size {
				return wrongSize(len(m.Data()), size)
			}
			return nil
		},
		close: closeAll,
	}, nil
}
