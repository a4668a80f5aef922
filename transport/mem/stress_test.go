package mem_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

// Whoever ends a connection, from however many sides at once, everybody who waits on it is let go.
func TestManyCloseWhileManyWait(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a, b := mem.Pipe(&mem.Config{Buffer: 16})
		f := a.Faults()
		var wg sync.WaitGroup
		for _, c := range []*mem.Conn{a, b} {
			for range 4 {
				wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
				wg.Go(func() {
					for {
						if _, err := c.Write(make([]byte, 40)); err != nil {
							return
						}
					}
				})
			}
		}
		enders := []func(){
			func() { _ = a.Close() },
			func() { _ = b.Close() },
			func() { f.Cut(nil) },
			func() { f.Cut(io.EOF) },
			func() { f.CutAfter(mem.Both, 1000, nil) },
			func() { _ = a.SetDeadline(time.Now()) },
			func() { f.Freeze(mem.Both); f.Thaw(mem.Both) },
			func() { f.SetShape(mem.Up, mem.Shape{Latency: time.Microsecond, MaxRead: 3}) },
			func() { _ = a.SetLinger(0) },
			func() { f.Stats() },
		}
		rng.Shuffle(len(enders), func(i, j int) { enders[i], enders[j] = enders[j], enders[i] })
		for _, end := range enders {
			wg.Go(end)
		}
		wg.Wait()
		require.Zero(t, f.Stats().Live)
	}
}

// The bytes of each Write stay together however many write.
func TestWritesDoNotMix(t *testing.T) {
	const writers, rounds, size = 8, 100, 100
	a, b := pipe(t, &mem.Config{Buffer: 33})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			p := make([]byte, size)
			for i := range p {
				p[i] = byte(w)
			}
			for range rounds {
				if _, err := a.Write(p); err != nil {
					return
				}
			}
		})
	}
	go func() { wg.Wait(); _ = a.CloseWrite() }()
	all, err := io.ReadAll(b)
	require.NoError(t, err)
	require.Len(t, all, writers*rounds*size)
	for i := range all {
		require.Equal(t, all[i/size*size], all[i])
	}
}

// Dials, accepts, cuts and the close of the listener race; every dial ends, every connection can be closed.
func TestDialsRaceTheClose(t *testing.T) {
	for range 100 {
		var n mem.Network
		l, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &n, Backlog: 2})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				c, err := mem.Dialer{Network: &n, Addr: "x"}.DialContext(ctx)
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			})
		}
		var served sync.WaitGroup
		served.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				_ = c.Close()
			}
		})
		_, err = n.Faults().WaitConn(t.Context(), 3)
		require.NoError(t, err)
		wg.Go(func() { n.Faults().Cut(nil) })
		wg.Go(cancel)
		wg.Go(func() { _ = l.Close() })
		wg.Wait()
		served.Wait()
		require.Zero(t, n.Faults().Stats().Live)
	}
}
