package reconnect_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// What was read of a stream before comes first, wherever it was cut, and the stream itself does all the rest.
func TestPlainAfterHead(t *testing.T) {
	sent := []datagram.Datagram{text(1, "first"), {Recipient: 2, Payload: []byte{}}, text(3, "third")}
	var raw []byte
	for _, d := range sent {
		var err error
		raw, err = datagram.Append(raw, d)
		require.NoError(t, err)
	}
	for name, n := range map[string]int{
		"nothing":             0,
		"part of a header":    3,
		"header":              8,
		"part of a payload":   10,
		"frame":               13,
		"frame and part":      16,
		"two frames and part": 24,
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range pairs() {
				t.Run(p.name, func(t *testing.T) {
					ctx := bounded(t)
					nc, ns := p.make(t)
					defer nc.Close()
					_, err := nc.Write(raw)
					require.NoError(t, err)
					head := make([]byte, n)
					_, err = io.ReadFull(ns, head)
					require.NoError(t, err)

					s := reconnect.NewPlainAfter(ns, head, nil)
					defer s.CloseNow()
					assert.Same(t, ns, s.NetConn())
					for _, want := range sent {
						d, err := s.Reader().Receive(ctx)
						require.NoError(t, err)
						require.Equal(t, want, d)
						require.NoError(t, s.Writer().Send(ctx, d))
					}
					require.NoError(t, s.CloseSend(ctx))
					echoed := make([]byte, len(raw))
					_, err = io.ReadFull(nc, echoed)
					require.NoError(t, err)
					assert.Equal(t, raw, echoed)

					c := reconnect.NewPlain(nc, nil)
					defer c.CloseNow()
					_, err = c.Reader().Receive(ctx)
					require.Equal(t, io.EOF, err)
					require.NoError(t, c.Close(ctx))
					_, err = s.Reader().Receive(ctx)
					require.Equal(t, io.EOF, err)
					require.NoError(t, s.Close(ctx))
				})
			}
		})
	}
}

// A context that ends in the middle of a frame loses neither what was read before nor what comes later.
func TestContextEndsBehindAHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, err := datagram.Append(nil, text(1, "cut twice"))
		require.NoError(t, err)
		peer, nc := mem.Pipe(nil)
		defer peer.Close()
		c := reconnect.NewPlainAfter(nc, raw[:3], nil)
		defer c.CloseNow()
		for _, part := range [][]byte{nil, raw[3:12]} {
			_, err := peer.Write(part)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err = c.Reader().Receive(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
		}
		_, err = peer.Write(raw[12:])
		require.NoError(t, err)
		d, err := c.Reader().Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, text(1, "cut twice"), d)
	})
}

func TestStreamEndsBehindAHead(t *testing.T) {
	peer, nc := mem.Pipe(nil)
	c := reconnect.NewPlainAfter(nc, []byte{0, 0, 0}, nil)
	defer c.CloseNow()
	require.NoError(t, peer.Close())
	_, err := c.Reader().Receive(bounded(t))
	require.Equal(t, io.ErrUnexpectedEOF, err)
}
