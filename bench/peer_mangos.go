package main

import (
	"context"
	"errors"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/pull"
	"go.nanomsg.org/mangos/v3/protocol/push"
	"go.nanomsg.org/mangos/v3/protocol/rep"
	"go.nanomsg.org/mangos/v3/protocol/req"
	_ "go.nanomsg.org/mangos/v3/transport/tcp" // tcp:// for its sockets
)

func mangosPeer() peer {
	return peer{
		name: "mangos", module: "go.nanomsg.org/mangos/v3",
		how:     "PUSH and PULL with queues of 1,024 messages, REQ and REP; messages taken from its pool and given back",
		missing: "what is under way when the connection breaks is lost without a word; nothing is acknowledged",
		pipe:    mangosPipe,
		echo:    mangosEcho,
	}
}

// mangosPair connects two sockets: listens listens, dials dials.
func mangosPair(listens, dials func() (mangos.Socket, error)) (l, d mangos.Socket, closeAll func(), err error) {
	if l, err = listens(); err != nil {
		return nil, nil, nil, err
	}
	if d, err = dials(); err != nil {
		return nil, nil, nil, errors.Join(err, l.Close())
	}
	closeAll = func() {
		_ = d.Close()
		_ = l.Close()
	}
	for _, s := range []mangos.Socket{l, d} {
		for _, o := range []string{mangos.OptionWriteQLen, mangos.OptionReadQLen} {
			if err := s.SetOption(o, 1024); err != nil && !errors.Is(err, mangos.ErrBadOption) { // not each has both
				closeAll()
				return nil, nil, nil, err
			}
		}
	}
	attached := make(chan struct{}, 1)
	l.SetPipeEventHook(func(e mangos.PipeEvent, _ mangos.Pipe) {
		if e == mangos.PipeEventAttached {
			attached <- struct{}{}
		}
	})
	ln, err := l.NewListener("tcp://127.0.0.1:0", nil)
	if err == nil {
		err = ln.Listen()
	}
	if err == nil {
		err = d.Dial(ln.Address())
	}
	if err == nil {
		wait := time.NewTimer(10 * time.Second)
		defer wait.Stop()
		select {
		case <-attached:
		case <-wait.C:
			err = errors.New("the sockets do not connect")
		}
	}
	if err != nil {
		closeAll()
		return nil, nil, nil, err
	}
	return l, d, closeAll, nil
}

func mangosSend(s mangos.Socket, out []byte) error {
	m := mangos.NewMessage(len(out))
	m.Body = append(m.Body, out...)
	if err := s.SendMsg(m); err != nil {
		m.Free()
		return err
	}
	return nil
}

func mangosReceive(s mangos.Socket, size int) error {
	m, err := s.RecvMsg()
	if err != nil {
		return err
	}
	defer m.Free()
	if len(m.Body) != size {
		return wrongSize(len(m.Body), size)
	}
	return nil
}

func mangosPipe(_ context.Context, size int) (*pipe, error) {
	to, from, closeAll, err := mangosPair(pull.NewSocket, push.NewSocket)
	if err != nil {
		return nil, err
	}
	out := payload(size)
	return &pipe{
		send: func(_ context.Context, n int) error {
			for range n {
				if err := mangosSend(from, out); err != nil {
					return err
				}
			}
			return nil
		},
		receive: func(_ context.Context, n int) error {
			for range n {
				if err := mangosReceive(to, size); err != nil {
					return err
				}
			}
			return nil
		},
		close: closeAll,
	}, nil
}

func mangosEcho(_ context.Context, size int) (*echo, error) {
	answers, asks, closeAll, err := mangosPair(rep.NewSocket, req.NewSocket)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			m, err := answers.RecvMsg()
			if err != nil || answers.SendMsg(m) != nil {
				return
			}
		}
	}()
	out := payload(size)
	return &echo{
		ask: func(context.Context) error {
			if err := mangosSend(asks, out); err != nil {
				return err
			}
			return mangosReceive(asks, size)
		},
		close: closeAll,
	}, nil
}
