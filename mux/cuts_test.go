package mux_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/mux"
)

// Numbered messages of three types, one of them of varying size.
type (
	small  struct{ N int }
	medium struct {
		N    int
		Text string
	}
	large struct {
		N    int
		Data []byte
	}
)

// 100,000 messages of three types, each type from a goroutine of its own, cross ten cuts: each comes once, and in order
// for its tag.
func TestTypedMessagesAcrossCuts(t *testing.T) {
	const each, cuts = 33_334, 10
	for _, sideBySide := range []bool{false, true} {
		t.Run(fmt.Sprintf("side by side %v", sideBySide), func(t *testing.T) {
			ctx := bounded(t)
			var next [3]int
			var mu sync.Mutex
			total, wrong := 0, 0
			over := make(chan struct{})
			cut := make(chan struct{}, cuts)
			got := func(tag, n int) {
				mu.Lock()
				defer mu.Unlock()
				if next[tag] != n {
					wrong++
				}
				next[tag] = n + 1
				total++
				if total%(3*each/(cuts+1)) == 0 {
					select {
					case cut <- struct{}{}:
					default: // all cuts are made
					}
				}
				if total == 3*each {
					close(over)
				}
			}
			protocol := func(o *mux.Options) *mux.Mux {
				m := mux.New(o)
				mux.Handle(m, 1, "small", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v small) error { got(0, v.N); return nil })
				mux.Handle(m, 2, "medium", mux.JSON{}, func(_ context.Context, _ *mux.Conn, v medium) error { got(1, v.N); return nil })
				mux.Handle(m, 3, "large", mux.Msgpack{}, func(_ context.Context, _ *mux.Conn, v large) error { got(2, v.N); return nil })
				return m
			}
			w := serve(t, protocol(&mux.Options{SideBySide: sideBySide}), nil)
			c := w.dial(protocol(nil), nil)
			var sending sync.WaitGroup
			sending.Go(func() {
				for i := range each {
					if !assert.NoError(t, mux.Send(ctx, c, small{i})) {
						return
					}
				}
			})
			sending.Go(func() {
				for i := range each {
					if !assert.NoError(t, mux.Send(ctx, c, medium{i, "some text"})) {
						return
					}
				}
			})
			sending.Go(func() {
				data := make([]byte, 3000)
				for i := range each {
					if !assert.NoError(t, mux.Send(ctx, c, large{i, data[:i%len(data)]})) {
						return
					}
				}
			})
			made := 0
			for made < cuts {
				await(t, cut)
				// In the middle of whatever is on its way.
				if made%2 == 0 {
					w.net.Faults().Cut(nil) // a reset
				} else {
					w.net.Faults().Cut(io.EOF) // a clean end
				}
				made++
			}
			sending.Wait()
			await(t, over)
			require.NoError(t, c.Writer().Flush(ctx))
			assert.Equal(t, [3]int{each, each, each}, next)
			assert.Zero(t, wrong)
			assert.GreaterOrEqual(t, c.Stats().Resumes, uint64(cuts/2))
			t.Logf("%d messages, %d resumes, %d replayed, %d duplicates dropped", total, c.Stats().Resumes, c.Stats().Replayed, w.one().Stats().Duplicates)
		})
	}
}
