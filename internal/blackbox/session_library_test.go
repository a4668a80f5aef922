package blackbox

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// What processes cannot measure of sessions is measured here with the library, over real sockets.

// echoing starts a listener in this process that sends everything back, and returns its address.
func echoing(t testing.TB, addr string, o *reconnect.ListenOptions) (*reconnect.Listener, string) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	require.NoError(t, err)
	l := reconnect.NewListener(ln, o)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			wg.Go(func() { echoAll(c) })
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		wg.Wait()
	})
	return l, ln.Addr().String()
}

func echoAll(c *reconnect.Conn) {
	defer c.CloseNow()
	ctx := context.Background()
	batch := make([]datagram.Datagram, 64)
	for {
		n, err := c.Reader().ReceiveBatch(ctx, batch)
		if err != nil {
			_ = c.Close(ctx)
			return
		}
		if _, err := c.Writer().SendBatch(ctx, batch[:n]); err != nil {
			return
		}
	}
}

// between starts a proxy that ends with the test.
func between(t testing.TB, target string, seed uint64, f Faults) *Proxy {
	t.Helper()
	p, err := NewProxy(target, seed, f)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func limited(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// quantiles are the median, the 99th percentile and the highest of ds, which it sorts.
func quantiles(ds []time.Duration) (p50, p99, highest time.Duration) {
	slices.Sort(ds)
	at := func(q float64) time.Duration { return ds[min(int(q*float64(len(ds))), len(ds)-1)] }
	return at(0.5), at(0.99), ds[len(ds)-1]
}

// Who dials again while the old connection still looks alive to the listener has the session at once: nothing waits
// for a timeout of the old one, of which nothing is heard, not even its end.
func TestSessionTakeover(t *testing.T) {
	_, addr := echoing(t, "127.0.0.1:0", nil)
	p := between(t, addr, 1, Faults{})
	ctx := limited(t, patience)
	c, err := reconnect.Dial(ctx, tcp.Dialer{Addr: p.Addr()}, nil)
	require.NoError(t, err)
	defer c.CloseNow()

	seq := 0
	roundTrip := func() {
		seq++
		require.NoError(t, c.Writer().Send(ctx, datagram.Datagram{Payload: []byte(strconv.Itoa(seq))}))
		d, err := c.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(seq), string(d.Payload))
	}
	roundTrip()
	const takeovers = 50
	var took []time.Duration
	for range takeovers {
		p.HoleLinks(true, true)
		begin := time.Now()
		c.Redial(errors.New("the network has changed"))
		roundTrip()
		took = append(took, time.Since(begin))
	}
	p50, p99, highest := quantiles(took)
	t.Logf("%d takeovers, from Redial to the next echo: p50 %v, p99 %v, max %v", takeovers, p50, p99, highest)
	assert.Less(t, p50, time.Second)
	assert.Less(t, highest, 4*time.Second, "every timeout that could be waited for is longer")
	assert.Equal(t, takeovers+1, p.Counts().Links, "each takeover needs one dial")
	assert.EqualValues(t, takeovers, c.Stats().Resumes)
	require.NoError(t, c.Close(ctx))
}

// A stream of small messages one way costs little beside the frames themselves, both directions counted.
func TestSessionBytesOnTheWire(t *testing.T) {
	const size, frame = 64, 64 + 8
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := reconnect.NewListener(ln, nil)
	defer l.Close()
	p := between(t, ln.Addr().String(), 1, Faults{})
	ctx := limited(t, patience)
	c, err := reconnect.Dial(ctx, tcp.Dialer{Addr: p.Addr()}, nil)
	require.NoError(t, err)
	defer c.CloseNow()
	s, err := l.Accept(ctx)
	require.NoError(t, err)
	defer s.CloseNow()

	d := datagram.Datagram{Payload: make([]byte, size)}
	receive := func(n int) error {
		batch := make([]datagram.Datagram, 64)
		for n > 0 {
			got, err := s.Reader().ReceiveBatch(ctx, batch[:min(n, len(batch))])
			if err != nil {
				return err
			}
			n -= got
		}
		return nil
	}
	run := func(name string, n int, limit float64, send func() error) {
		before := p.Counts().Bytes
		done := make(chan error, 1)
		go func() { done <- receive(n) }()
		for range n {
			require.NoError(t, send())
		}
		require.NoError(t, <-done)
		require.NoError(t, c.Writer().Flush(ctx))
		after := p.Counts().Bytes
		up, down := after[Up]-before[Up], after[Down]-before[Down]
		over := 100 * (float64(up+down)/float64(n*frame) - 1)
		t.Logf("%s: %d messages of %d bytes: %.3f bytes up and %.3f down each; %.3f %% above 8 + payload",
			name, n, size, float64(up)/float64(n), float64(down)/float64(n), over)
		assert.GreaterOrEqual(t, int(up), n*frame, "the proxy sees it all")
		assert.Less(t, over, limit)
	}
	run("as fast as it goes", 200_000, 2, func() error { return c.Writer().Send(ctx, d) })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	run("one each millisecond", 1000, 10, func() error { <-tick.C; return c.Writer().Send(ctx, d) })
	require.Equal(t, 1, p.Counts().Links)
}
