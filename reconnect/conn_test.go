package reconnect_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// A Conn's context ends when it does, with the reason as its cause, whether it was asked for before or after that.
func TestConnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		for i, dial := range []func() (*reconnect.Conn, error){
			func() (*reconnect.Conn, error) {
				return reconnect.Dial(t.Context(), mem.Dialer{Network: n, Addr: "s"}, nil)
			},
			func() (*reconnect.Conn, error) {
				return reconnect.DialPlain(t.Context(), mem.Dialer{Network: n, Addr: "s"}, nil)
			},
		} {
			a, err := dial()
			require.NoError(t, err)
			ctx := a.Context()
			require.NoError(t, ctx.Err())
			assert.Equal(t, ctx, a.Context())
			ended := make(chan error, 1)
			context.AfterFunc(ctx, func() { ended <- context.Cause(ctx) })
			require.NoError(t, a.Writer().Flush(t.Context()))
			if i == 1 { // the listener takes it for a plain one by its first frame
				require.NoError(t, a.Writer().Send(t.Context(), text(1, "x")))
			}
			b, err := l.Accept(t.Context())
			require.NoError(t, err)
			_ = a.CloseNow()
			require.ErrorIs(t, <-ended, reconnect.ErrClosed)
			require.ErrorIs(t, ctx.Err(), context.Canceled)

			if i == 1 {
				_, _ = b.Reader().Receive(t.Context())
				_, err = b.Reader().Receive(t.Context())
				require.Error(t, err)
				_ = b.CloseNow()
			}
			<-b.Done()
			late := b.Context()
			require.Error(t, late.Err())
			assert.Equal(t, b.Err(), context.Cause(late))
		}
	})
}
