package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// notice makes a session over a connection that begins to lose everything, and returns how long the dialer takes to give
// the connection up. Busy: something is sent into it, too.
func notice(ctx context.Context, options reconnect.SessionOptions, busy bool) (time.Duration, error) {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return 0, err
	}
	l := reconnect.NewListener(ln, nil)
	defer l.Close() //nolint:errcheck // nothing is expected of it any more
	var hole atomic.Bool
	dialer := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		if hole.Load() {
			return nil, errors.New("a hole")
		}
		c, err := tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
		return holed{c, &hole}, err
	})
	gone := make(chan time.Time, 1)
	options.OnEvent = func(_ *reconnect.Conn, e reconnect.Event) {
		if e.Kind == reconnect.EventDisconnected {
			select {
			case gone <- e.Time:
			default:
			}
		}
	}
	c, err := reconnect.Dial(ctx, dialer, &reconnect.DialOptions{SessionOptions: options})
	if err != nil {
		return 0, err
	}
	defer c.CloseNow()
	d := datagram.Datagram{Recipient: 7, Payload: payload(tiny)}
	if err := c.Writer().Send(ctx, d); err != nil {
		return 0, err
	}
	if err := c.Writer().Flush(ctx); err != nil {
		return 0, err
	}
	begin := time.Now()
	hole.Store(true)
	if busy {
		if err := c.Writer().Send(ctx, d); err != nil {
			return 0, err
		}
	}
	select {
	case at := <-gone:
		return at.Sub(begin), nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
