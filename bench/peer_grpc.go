package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

func grpcPeer() peer {
	return peer{
		name: "gRPC stream", module: "google.golang.org/grpc",
		how:     "one stream each way for all messages, bytes as they are instead of protocol buffers",
		missing: "what is under way when the connection breaks is lost, and the caller cannot say which; no acknowledgement, no resumption",
		pipe:    grpcPipe,
		echo:    grpcEcho,
	}
}

// bytesCodec puts a *[]byte on the wire as it is. It is a little faster than a message with one field of bytes.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	p, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("a %T is no *[]byte", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*p)}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T is no *[]byte", v)
	}
	*p = data.Materialize()
	return nil
}

func (bytesCodec) Name() string { return "bytes" }

var _ encoding.CodecV2 = bytesCodec{}

// grpcStream starts a server that does handle with each stream, and opens one.
func grpcStream(ctx context.Context, handle func(grpc.ServerStream) error) (s grpc.ClientStream, closeAll func(), err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(bytesCodec{}), grpc.MaxRecvMsgSize(64<<20),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error { return handle(s) }))
	served := make(chan struct{})
	go func() {
		_ = server.Serve(ln) // until Stop
		close(served)
	}()
	client, err := grpc.NewClient("passthrough:///"+ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	closeAll = func() {
		cancel()
		if client != nil {
			_ = client.Close()
		}
		server.Stop()
		<-served
	}
	if err == nil {
		s, err = client.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/bench/bench")
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return s, closeAll, nil
}

func grpcPipe(ctx context.Context, size int) (*pipe, error) {
	got := newCounter()
	wrong := make(chan error, 1)
	s, closeAll, err := grpcStream(ctx, func(s grpc.ServerStream) error {
		var p []byte
		for {
			if err := s.RecvMsg(&p); err != nil {
				return err
			}
			if len(p) != size {
				wrong <- wrongSize(len(p), size)
				return errors.New("wrong size")
			}
			got.add()
		}
	})
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &pipe{
		send: func(_ context.Context, n int) error {
			for range n {
				if err := s.SendMsg(&out); err != nil {
					select {
					case err = <-wrong:
					default:
					}
					return err
				}
			}
			return nil
		},
		receive: got.wait,
		close:   closeAll,
	}, nil
}

func grpcEcho(ctx context.Context, size int) (*echo, error) {
	s, closeAll, err := grpcStream(ctx, func(s grpc.ServerStream) error {
		var p []byte
		for {
			if err := s.RecvMsg(&p); err != nil {
				return err
			}
			if err := s.SendMsg(&p); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &echo{
		ask: func(context.Context) error {
			if err := s.SendMsg(&out); err != nil {
				return err
			}
			var in []byte
			return s.RecvMsg(&in)
		},
		close: closeAll,
	}, nil
}
