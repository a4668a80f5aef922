package reconnect

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/transport/tcp"
)

// echo answers everything on every session of l, until l is closed.
func echo(l *Listener) {
	for {
		c, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			for d, err := range c.Reader().All(context.Background()) {
				if err != nil {
					break
				}
				if c.Writer().Send(context.Background(), d) != nil {
					break
				}
			}
			_ = c.Close(context.Background())
		}()
	}
}

func listenTCP(t testing.TB, o *ListenOptions) (*Listener, string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := NewListener(ln, o)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l, ln.Addr().String()
}

func TestSessionEcho(t *testing.T) {
	l, addr := listenTCP(t, nil)
	go echo(l)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := Dial(ctx, tcp.Dialer{Addr: addr}, nil)
	require.NoError(t, err)
	const n = 1000
	go func() {
		for i := range n {
			if c.Writer().Send(ctx, datagram.Datagram{Recipient: 3, Payload: fmt.Append(nil, i)}) != nil {
				return
			}
		}
	}()
	for i := range n {
		d, err := c.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(d.Payload))
		if i%100 == 50 {
			c.NetConn().(*net.TCPConn).SetLinger(0)
			c.NetConn().Close()
		}
	}
	require.NoError(t, c.Writer().Flush(ctx))
	require.NoError(t, c.CloseSend(ctx))
	_, err = c.Reader().Receive(ctx)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, c.Close(ctx))
	t.Logf("%+v", c.Stats())
}
