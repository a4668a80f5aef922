package main

import (
	"context"
	"net"
	"time"

	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// measureWire counts what goes over the connection, both ways, while messages of 64 bytes stream one way.
func measureWire(ctx context.Context, long time.Duration) (figures, error) {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return nil, err
	}
	var c counts
	dialer := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		nc, err := tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
		return counted{nc, &c}, err
	})
	e, err := join(ctx, session, ln, dialer)
	if err != nil {
		return nil, err
	}
	defer e.close()
	p := e.pipe(single, tiny)
	n, err := p.count(ctx, long)
	if err != nil {
		return nil, err
	}
	bytes, writes := c.bytes.Load(), c.writes.Load()
	if _, _, err := p.move(ctx, n); err != nil {
		return nil, err
	}
	bytes, writes = c.bytes.Load()-bytes, c.writes.Load()-writes
	bare := float64(n) * (headerSize + tiny)
	return figures{
		overhead:     100 * (float64(bytes) - bare) / bare,
		writesPer100: 100 * float64(writes) / float64(n),
		"messages":   float64(n),
	}, nil
}

const writesPer100 = "writes/100 messages"
