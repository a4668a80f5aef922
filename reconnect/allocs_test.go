package reconnect_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// A message costs no memory to send, and to receive its share of a slab.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("a sync.Pool forgets at random under the race detector")
	}
	na, nb := tcpPair(t)
	a, b := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
	defer a.CloseNow()
	defer b.CloseNow()
	ctx := context.Background()
	d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
	alone := testing.AllocsPerRun(2000, func() {
		require.NoError(t, a.Writer().Send(ctx, d))
		_, err := b.Reader().Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, b.Writer().Send(ctx, d))
		_, err = a.Reader().Receive(ctx)
		require.NoError(t, err)
	})
	assert.Zero(t, alone, "to and fro")

	const n = 1000
	batch, got := make([]datagram.Datagram, n), make([]datagram.Datagram, n)
	for i := range batch {
		batch[i] = d
	}
	together := testing.AllocsPerRun(100, func() {
		_, err := a.Writer().SendBatch(ctx, batch)
		require.NoError(t, err)
		for left := n; left > 0; {
			k, err := b.Reader().ReceiveBatch(ctx, got[:left])
			require.NoError(t, err)
			left -= k
		}
	})
	assert.LessOrEqual(t, together, 10.0, "for %d messages: slabs, and a goroutine that writes", n)
}
