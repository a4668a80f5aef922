//go:build zmq && cgo

package main

import (
	"context"
	"errors"

	"github.com/pebbe/zmq4"
)

func zmqPeer() peer {
	return peer{
		name: "libzmq", module: "github.com/pebbe/zmq4",
		how:     "PUSH and PULL, REQ and REP, through cgo, with the default limit of 1,000 messages either side",
		missing: "what is under way when the connection breaks is lost without a word; nothing is acknowledged",
		pipe:    zmqPipe,
		echo:    zmqEcho,
	}
}

// zmqPair connects two sockets: the first listens.
func zmqPair(listens, dials zmq4.Type) (l, d *zmq4.Socket, closeAll func(), err error) {
	c, err := zmq4.NewContext()
	if err != nil {
		return nil, nil, nil, err
	}
	if l, err = c.NewSocket(listens); err == nil {
		d, err = c.NewSocket(dials)
	}
	closeAll = func() {
		for _, s := range []*zmq4.Socket{l, d} {
			if s != nil {
				_ = s.SetLinger(0)
				_ = s.Close()
			}
		}
		_ = c.Term()
	}
	if err == nil {
		err = l.Bind("tcp://127.0.0.1:*")
	}
	if err == nil {
		var at string
		if at, err = l.GetLastEndpoint(); err == nil {
			err = d.Connect(at)
		}
	}
	if err != nil {
		closeAll()
		return nil, nil, nil, err
	}
	return l, d, closeAll, nil
}

func zmqReceive(s *zmq4.Socket, size int) error {
	m, err := s.RecvBytes(0)
	if err == nil && len(m) != size {
		err = wrongSize(len(m), size)
	}
	return err
}

func zmqPipe(_ context.Context, size int) (*pipe, error) {
	to, from, closeAll, err := zmqPair(zmq4.PULL, zmq4.PUSH)
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &pipe{
		send: func(_ context.Context, n int) error {
			for range n {
				if _, err := from.SendBytes(out, 0); err != nil {
					return err
				}
			}
			return nil
		},
		receive: func(_ context.Context, n int) error {
			for range n {
				if err := zmqReceive(to, size); err != nil {
					return err
				}
			}
			return nil
		},
		close: closeAll,
	}, nil
}

func zmqEcho(_ context.Context, size int) (*echo, error) {
	answers, asks, closeAll, err := zmqPair(zmq4.REP, zmq4.REQ)
	if err != nil {
		return nil, err
	}
	// A socket is for one goroutine: this one has it until the end, which is an empty message.
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := answers.RecvBytes(0)
			if err == nil {
				_, err = answers.SendBytes(m, 0)
			}
			if err != nil || len(m) == 0 {
				ended <- err
				return
			}
		}
	}()
	out := payload(size)
	return &echo{
		ask: func(context.Context) error {
			if _, err := asks.SendBytes(out, 0); err != nil {
				return err
			}
			return zmqReceive(asks, size)
		},
		close: func() {
			if _, err := asks.SendBytes(nil, 0); err == nil {
				err = errors.Join(zmqReceive(asks, 0), <-ended)
				_ = err // it ends in any case
			}
			closeAll()
		},
	}, nil
}
