package main

import (
	"context"
	"errors"
	"io"
	"log"

	"github.com/go-zeromq/zmq4"
)

func goZeromqPeer() peer {
	return peer{
		name: "go-zeromq", module: "github.com/go-zeromq/zmq4",
		how:     "PUSH and PULL, REQ and REP; it has no settings for speed",
		missing: "what is under way when the connection breaks is lost without a word; nothing is acknowledged",
		pipe:    goZeromqPipe,
		echo:    goZeromqEcho,
	}
}

// zeromqPair connects two sockets: listens listens, dials dials.
func zeromqPair(ctx context.Context, listens, dials func(context.Context, ...zmq4.Option) zmq4.Socket) (l, d zmq4.Socket, closeAll func(), err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	quiet := zmq4.WithLogger(log.New(io.Discard, "", 0)) //nolint:forbidigo // it takes no other logger
	l, d = listens(ctx, quiet), dials(ctx, quiet)
	closeAll = func() {
		_ = d.Close()
		_ = l.Close()
		cancel()
	}
	if err = l.Listen("tcp://127.0.0.1:0"); err == nil {
		err = d.Dial("tcp://" + l.Addr().String())
	}
	if err != nil {
		closeAll()
		return nil, nil, nil, err
	}
	return l, d, closeAll, nil
}

func goZeromqPipe(ctx context.Context, size int) (*pipe, error) {
	pull, push, closeAll, err := zeromqPair(ctx, zmq4.NewPull, zmq4.NewPush)
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &pipe{
		send: func(_ context.Context, n int) error {
			for range n {
				if err := push.Send(zmq4.NewMsg(out)); err != nil {
					return err
				}
			}
			return nil
		},
		receive: func(_ context.Context, n int) error {
			for range n {
				m, err := pull.Recv()
				if err != nil {
					return err
				}
				if len(m.Bytes()) != size {
					return wrongSize(len(m.Bytes()), size)
				}
			}
			return nil
		},
		close: closeAll,
	}, nil
}

func goZeromqEcho(ctx context.Context, size int) (*echo, error) {
	rep, req, closeAll, err := zeromqPair(ctx, zmq4.NewRep, zmq4.NewReq)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			m, err := rep.Recv()
			if err = errors.Join(err, rep.Send(m)); err != nil {
				return
			}
		}
	}()
	out := payload(size)
	return &echo{
		ask: func(context.Context) error {
			if err := req.Send(zmq4.NewMsg(out)); err != nil {
				return err
			}
			_, err := req.Recv()
			return err
		},
		close: closeAll,
	}, nil
}
