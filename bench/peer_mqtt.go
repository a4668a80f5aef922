package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"

	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"
)

// mqttWindow is how many messages may be under way until their receiver has them. The broker drops what is beyond its own
// limit of unacknowledged messages, also at quality of service 1, without telling the sender.
const mqttWindow = 4096

func mqttPeer() peer {
	return peer{
		name: "MQTT 5, QoS 1", module: "github.com/eclipse/paho.golang",
		how:     "publish asynchronously, with the window that the broker grants; broker mochi-mqtt with a larger write buffer",
		missing: "at least once: duplicates after a cut, and new messages may overtake those sent again; acknowledged by the broker, which drops silently for a slow subscriber",
		pipe:    mqttPipe,
		echo:    mqttEcho,
	}
}

// mqttPair is a broker, and two clients of it.
type mqttPair struct {
	server  *mqtt.Server
	clients []*paho.Client
	addr    string
}

func newMQTT(ctx context.Context) (*mqttPair, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &mqttPair{addr: ln.Addr().String()}
	can := mqtt.NewDefaultServerCapabilities()
	can.MaximumInflight = 65535 // a message is under way for the broker until its acknowledgement is, too
	p.server = mqtt.New(&mqtt.Options{
		Capabilities:             can,
		Logger:                   slog.New(slog.NewTextHandler(io.Discard, nil)),
		ClientNetWriteBufferSize: 64 << 10, ClientNetReadBufferSize: 64 << 10,
	})
	err = errors.Join(p.server.AddHook(new(auth.AllowHook), nil), p.server.AddListener(listeners.NewNet("bench", ln)), p.server.Serve())
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// client connects one, which hands what it receives to received.
func (p *mqttPair) client(ctx context.Context, id string, received func(*paho.Client, *paho.Publish)) (*paho.Client, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, err
	}
	c := paho.NewClient(paho.ClientConfig{
		ClientID: id, Conn: nc,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			received(r.Client, r.Packet)
			return true, nil
		}},
	})
	// No receive maximum is named, though it would be the same 65,535: where a client names one, mochi 2.7 locks twice for
	// reading (Inflight.NextImmediate) and stands still as soon as somebody wants to write between the two.
	if _, err := c.Connect(ctx, &paho.Connect{ClientID: id, KeepAlive: 60, CleanStart: true}); err != nil {
		nc.Close()
		return nil, err
	}
	p.clients = append(p.clients, c)
	return c, nil
}

func (p *mqttPair) close() {
	for _, c := range p.clients {
		_ = c.Disconnect(&paho.Disconnect{})
	}
	_ = p.server.Close()
}

func subscribe(ctx context.Context, c *paho.Client, topic string) error {
	_, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}})
	return err
}

func mqttPipe(ctx context.Context, size int) (*pipe, error) {
	p, err := newMQTT(ctx)
	if err != nil {
		return nil, err
	}
	got := newCounter()
	underway := make(chan struct{}, mqttWindow)
	to, err := p.client(ctx, "to", func(*paho.Client, *paho.Publish) {
		<-underway
		got.add()
	})
	if err == nil {
		err = subscribe(ctx, to, subject)
	}
	var from *paho.Client
	if err == nil {
		from, err = p.client(ctx, "from", func(*paho.Client, *paho.Publish) {})
	}
	if err != nil {
		p.close()
		return nil, err
	}
	out := payload(size)
	return &pipe{
		send: func(ctx context.Context, n int) error {
			for range n {
				select {
				case underway <- struct{}{}:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				_, err := from.PublishWithOptions(ctx, &paho.Publish{QoS: 1, Topic: subject, Payload: out}, paho.PublishOptions{Method: paho.PublishMethod_AsyncSend})
				if err != nil {
					return err
				}
			}
			return nil
		},
		receive: got.wait,
		close:   p.close,
	}, nil
}

func mqttEcho(ctx context.Context, size int) (*echo, error) {
	p, err := newMQTT(ctx)
	if err != nil {
		return nil, err
	}
	answers := make(chan uint64, 1)
	async := paho.PublishOptions{Method: paho.PublishMethod_AsyncSend}
	to, err := p.client(ctx, "to", func(c *paho.Client, m *paho.Publish) {
		// A lost answer is noticed by who waits.
		_, _ = c.PublishWithOptions(context.Background(), &paho.Publish{QoS: 1, Topic: subject + "/answer", Payload: m.Payload}, async)
	})
	if err == nil {
		err = subscribe(ctx, to, subject)
	}
	var from *paho.Client
	if err == nil {
		from, err = p.client(ctx, "from", func(_ *paho.Client, m *paho.Publish) { answers <- binary.BigEndian.Uint64(m.Payload) })
	}
	if err == nil {
		err = subscribe(ctx, from, subject+"/answer")
	}
	if err != nil {
		p.close()
		return nil, err
	}
	n := uint64(0)
	return &echo{
		ask: func(ctx context.Context) error {
			n++
			out := payload(size)
			binary.BigEndian.PutUint64(out, n)
			if _, err := from.PublishWithOptions(ctx, &paho.Publish{QoS: 1, Topic: subject, Payload: out}, async); err != nil {
				return err
			}
			select {
			case got := <-answers:
				if got != n {
					return errors.New("the answer to another question")
				}
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		},
		close: p.close,
	}, nil
}
