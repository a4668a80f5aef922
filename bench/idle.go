package main

import (
	"context"
	"runtime"
	"time"
)

// The memory of sessions, of heap and stacks together.
const (
	attachedKiB   = "attached KiB/end"
	detachedKiB   = "detached KiB/end"
	afterBurst    = "attached after 16 MiB KiB/end"
	detachedBurst = "detached after 16 MiB KiB/end"
	goroutines    = "goroutines/end"
)

// memory is what objects on the heap and stacks take, once nothing is left to be collected.
func memory() float64 {
	for range 3 { // pools need two rounds
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// measureIdle measures what sessions cost that do nothing: new ones, with and without a connection, and such as have
// moved 16 MiB before.
func measureIdle(ctx context.Context, long time.Duration) (figures, error) {
	n := min(max(int(long/time.Millisecond), 5), 400)
	f := figures{}
	running := runtime.NumGoroutine()
	before, c, err := idleCrowd(ctx, n)
	if err != nil {
		return nil, err
	}
	f[attachedKiB] = (memory() - before) / float64(2*n) / (1 << 10)
	f[goroutines] = float64(runtime.NumGoroutine()-running) / float64(2*n)
	err = c.detach(ctx)
	f[detachedKiB] = (memory() - before) / float64(n) / (1 << 10)
	c.close()
	if err != nil {
		return nil, err
	}

	before, c, err = idleCrowd(ctx, n)
	if err != nil {
		return nil, err
	}
	defer c.close()
	for i := range n {
		e := ends{dialled: c.dialled[i], accepted: c.accepted[i]}
		if _, _, err := e.pipe(single, 64<<10).move(ctx, 16<<20/(64<<10)); err != nil {
			return nil, err
		}
	}
	f[afterBurst] = (memory() - before) / float64(2*n) / (1 << 10)
	if err := c.detach(ctx); err != nil {
		return nil, err
	}
	f[detachedBurst] = (memory() - before) / float64(n) / (1 << 10)
	return f, nil
}

// idleCrowd makes n sessions that have said one word each way, and says how much memory was in use before.
func idleCrowd(ctx context.Context, n int) (before float64, c *crowd, err error) {
	before = memory()
	if c, err = newCrowd(ctx, n); err != nil {
		return 0, nil, err
	}
	if err := c.greet(ctx); err != nil {
		c.close()
		return 0, nil, err
	}
	return before, c, nil
}
