package reconnect_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/reconnect"
)

// An Authenticate that runs out of time, as when what it asks is down, refuses nobody for good: the session dials again.
func TestSessionAuthenticateOutOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := memSession(t, &reconnect.ListenOptions{
			HandshakeTimeout: time.Second,
			Authenticate: func(ctx context.Context, _ *reconnect.Peer) (string, error) {
				if down.Load() {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return "somebody", nil
			},
		}, nil)
		defer s.end()
		down.Store(true)
		s.line.cut()
		<-time.After(20 * time.Second)
		require.NoError(t, s.a.Err())
		require.Equal(t, reconnect.Disconnected, s.a.State())
		down.Store(false)
		require.NoError(t, s.a.Writer().Send(bounded(t), text(1, "x")))
		d, err := s.b.Reader().Receive(bounded(t))
		require.NoError(t, err)
		require.Equal(t, text(1, "x"), d)
	})
}
