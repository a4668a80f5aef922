package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func natsPeer() peer {
	return peer{
		name: "NATS core", module: "github.com/nats-io/nats.go",
		how:     "publish and a callback; the subscription's limits taken off, so that nothing is dropped",
		missing: "at most once: what is under way at a cut is lost, a slow subscriber is dropped, nothing is acknowledged",
		pipe:    natsPipe,
		echo:    natsEcho,
	}
}

func jetStreamPeer() peer {
	return peer{
		name: "JetStream, memory", module: "github.com/nats-io/nats-server/v2",
		how:     "publish asynchronously, 4,000 unacknowledged at most; an ordered consumer",
		missing: "acknowledged by the broker alone, here in memory: not by who receives",
		pipe:    jetStreamPipe,
	}
}

// natsPair is a broker, and two clients of it.
type natsPair struct {
	server    *server.Server
	from, to  *nats.Conn
	directory string
}

func newNATS(withStreams bool) (*natsPair, error) {
	var p natsPair
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxPending: 1 << 30}
	var err error
	if withStreams {
		if p.directory, err = os.MkdirTemp("", "towline-bench"); err != nil {
			return nil, err
		}
		o.JetStream, o.StoreDir, o.JetStreamMaxMemory = true, p.directory, 16<<30
	}
	if p.server, err = server.NewServer(o); err != nil {
		p.close()
		return nil, err
	}
	p.server.Start()
	if !p.server.ReadyForConnections(10 * time.Second) {
		p.close()
		return nil, errors.New("the broker does not start")
	}
	if p.from, err = nats.Connect(p.server.ClientURL(), nats.NoReconnect()); err == nil {
		p.to, err = nats.Connect(p.server.ClientURL(), nats.NoReconnect())
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return &p, nil
}

func (p *natsPair) close() {
	for _, c := range []*nats.Conn{p.from, p.to} {
		if c != nil {
			c.Close()
		}
	}
	if p.server != nil {
		p.server.Shutdown()
		p.server.WaitForShutdown()
	}
	if p.directory != "" {
		_ = os.RemoveAll(p.directory)
	}
}

const subject = "bench"

func natsPipe(ctx context.Context, size int) (*pipe, error) {
	p, err := newNATS(false)
	if err != nil {
		return nil, err
	}
	got := newCounter()
	sub, err := p.to.Subscribe(subject, func(*nats.Msg) { got.add() })
	if err == nil {
		err = errors.Join(sub.SetPendingLimits(-1, -1), p.to.FlushWithContext(ctx))
	}
	if err != nil {
		p.close()
		return nil, err
	}
	data := payload(size)
	return &pipe{
		send: func(ctx context.Context, n int) error {
			for range n {
				if err := p.from.Publish(subject, data); err != nil {
					return err
				}
			}
			return p.from.FlushWithContext(ctx)
		},
		receive: got.wait,
		close:   p.close,
	}, nil
}

func natsEcho(ctx context.Context, size int) (*echo, error) {
	p, err := newNATS(false)
	if err != nil {
		return nil, err
	}
	_, err = p.to.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(m.Data) }) // a lost answer is noticed by who waits
	if err == nil {
		err = p.to.FlushWithContext(ctx)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	data := payload(size)
	return &echo{
		ask: func(ctx context.Context) error {
			_, err := p.from.RequestWithContext(ctx, subject, data)
			return err
		},
		close: p.close,
	}, nil
}

func jetStreamPipe(ctx context.Context, size int) (*pipe, error) {
	p, err := newNATS(true)
	if err != nil {
		return nil, err
	}
	got := newCounter()
	js, err := jetstream.New(p.from, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		p.close()
		return nil, err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: subject, Subjects: []string{subject}, Storage: jetstream.MemoryStorage})
	if err != nil {
		p.close()
		return nil, err
	}
	stop, err := consume(ctx, p.to, got)
	if err != nil {
		p.close()
		return nil, err
	}
	data := payload(size)
	return &pipe{
		send: func(ctx context.Context, n int) error {
			if err := stream.Purge(ctx); err != nil { // what was sent before has been received
				return err
			}
			for range n {
				if _, err := js.PublishAsync(subject, data); err != nil {
					return err
				}
			}
			select {
			case <-js.PublishAsyncComplete():
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		receive: got.wait,
		close: func() {
			stop()
			p.close()
		},
	}, nil
}

// consume tells got of all messages of the stream.
func consume(ctx context.Context, c *nats.Conn, got *counter) (stop func(), err error) {
	js, err := jetstream.New(c)
	if err != nil {
		return nil, err
	}
	consumer, err := js.OrderedConsumer(ctx, subject, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	cc, err := consumer.Consume(func(jetstream.Msg) { got.add() }, jetstream.PullMaxMessages(10_000))
	if err != nil {
		return nil, err
	}
	return cc.Stop, nil
}
