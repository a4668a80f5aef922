package reconnect_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// A message costs no memory to send, and to receive its share of a slab.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("a sync.Pool forgets at random under the race detector")
	}
	t.Run("plain", func(t *testing.T) {
		na, nb := tcpPair(t)
		a, b := reconnect.NewPlain(na, nil), reconnect.NewPlain(nb, nil)
		defer a.CloseNow()
		defer b.CloseNow()
		allocations(t, a, b)
	})
	t.Run("session", func(t *testing.T) {
		s := newSession(t, worlds()[0], nil, nil)
		defer s.end()
		allocations(t, s.a, s.b)
	})
}

func allocations(t *testing.T, a, b *reconnect.Conn) {
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

	const many = 100_000
	lent := testing.AllocsPerRun(5, func() {
		sent := make(chan error, 1)
		go func() {
			for range many {
				if err := a.Writer().Send(ctx, d); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		left := many
		assert.Equal(t, errEnough, b.Reader().Each(ctx, func(datagram.Datagram) error {
			if left--; left == 0 {
				return errEnough
			}
			return nil
		}))
		assert.NoError(t, <-sent)
	})
	assert.Less(t, lent, many/100.0, "lent payloads: %d messages", many)
}

// counted counts the writes to a stream.
type counted struct {
	*mem.Conn
	writes *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func (c *counted) TryWrite(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.TryWrite(p)
}

// Messages that follow each other closely share their writes, and a lone one has one of its own.
func TestWrites(t *testing.T) {
	var writes atomic.Int64
	s := wrappedSession(t, func(nc *mem.Conn) net.Conn { return &counted{nc, &writes} })
	defer s.end()
	const many = 200_000
	ctx := bounded(t)
	before := writes.Load()
	sent := make(chan error, 1)
	go func() {
		d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
		for range many {
			if err := s.a.Writer().Send(ctx, d); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	left := many
	require.Equal(t, errEnough, s.b.Reader().Each(ctx, func(datagram.Datagram) error {
		if left--; left == 0 {
			return errEnough
		}
		return nil
	}))
	require.NoError(t, <-sent)
	together := writes.Load() - before
	t.Logf("%d messages of 64 bytes, %d writes", many, together)
	if !raceEnabled {
		assert.LessOrEqual(t, together, int64(many/100))
	}
}
