package reconnect_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/internal/blackbox"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// How long a stream of one message each millisecond stands still when its connection is reset: from the reset to the
// arrival of the first message that was sent after it, which is a millisecond later at most. Every message arrives
// once, and in order.
func TestSessionRecovery(t *testing.T) {
	const cuts, every = 200, 10 // milliseconds
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := reconnect.NewListener(ln, nil)
	defer l.Close()
	p, err := blackbox.NewProxy(ln.Addr().String(), 1, blackbox.Faults{})
	require.NoError(t, err)
	defer p.Close()
	ctx := bounded(t)
	c, err := reconnect.Dial(ctx, tcp.Dialer{Addr: p.Addr()}, nil)
	require.NoError(t, err)
	defer c.CloseNow()
	s, err := l.Accept(ctx)
	require.NoError(t, err)
	defer s.CloseNow()

	sending, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
			case <-sending.Done():
				return
			}
			if !assert.NoError(t, c.Writer().Send(ctx, text(1, "%d", n))) {
				return
			}
		}
	})
	next := 0
	receive := func() {
		d, err := s.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(next), string(d.Payload))
		next++
	}
	var took []time.Duration
	for len(took) < cuts {
		// The dialer knows that it was let in, and nothing is in arrears.
		for n := 0; n < every || c.Stats().Resumes < uint64(len(took)); n++ {
			receive()
		}
		begin := time.Now()
		require.Equal(t, 1, p.Cut(false))
		for sent := int(c.Stats().Sent); next <= sent; {
			receive()
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	st := c.Stats()
	t.Logf("%d resets, to the next message after it: p50 %v, p99 %v, max %v; %d messages, %d written again",
		cuts, took[cuts/2], took[cuts*99/100], took[cuts-1], next, st.Replayed)
	assert.GreaterOrEqual(t, st.Resumes, uint64(cuts-1)) // the dialer need not have read the last answer yet
	assert.Equal(t, cuts, p.Counts().Resets)
	assert.Less(t, took[cuts/2], time.Second, "no timeout is waited for, which would be of seconds") // in fake time: TestSessionRedialAtOnce
	assert.Less(t, took[cuts-1], patience/2)
}
