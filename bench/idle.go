package main

import (
	"context"
	"runtime"
	"time"
)

// The memory of sessions, of heap and stacks together.
const (
	attachedKiB = "attached KiB/end"
	afterBurst  = "after 16 MiB KiB/end"
	detachedKiB = "detached KiB/end"
	goroutines  = "goroutines/end"
)

// memory is what heap and stacks take, once nothing is left to be collected.
func memory() float64 {
	for range 3 { // pools need two rounds
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// measureIdle measures what sessions cost that do nothing.
func measureIdle(ctx context.Context, long time.Duration) (figures, error) {
	n := min(max(int(long/(2*time.Millisecond)), 5), 400)
	running, before := runtime.NumGoroutine(), memory()
	c, err := newCrowd(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := c.greet(ctx); err != nil {
		return nil, err
	}
	perEnd := func(ends int) float64 { return (memory() - before) / float64(ends) / (1 << 10) }
	f := figures{attachedKiB: perEnd(2 * n)}
	f[goroutines] = float64(runtime.NumGoroutine()-running) / float64(2*n)
	for i := range n {
		e := ends{dialled: c.dialled[i], accepted: c.accepted[i]}
		if _, _, err := e.pipe(single, 64<<10).move(ctx, 16<<20/(64<<10)); err != nil {
			return nil, err
		}
	}
	f[afterBurst] = perEnd(2 * n)
	if err := c.detach(ctx); err != nil {
		return nil, err
	}
	f[detachedKiB] = perEnd(n)
	return f, nil
}
