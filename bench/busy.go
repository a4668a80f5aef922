package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

// descriptorsKept are left for everything that is no session.
const descriptorsKept = 1000

// crowdNames name the sizes of crowds: a machine may have descriptors for fewer than that.
func crowdName(n int) string { return thousands(int64(n)) + " sessions" }

// measureBusy moves the same total of messages on n sessions at once, or on as many as there are descriptors for.
func measureBusy(n int) func(context.Context, time.Duration) (figures, error) {
	return func(ctx context.Context, long time.Duration) (figures, error) {
		total := max(int(long/time.Millisecond)*2500, 10*n)
		most := (descriptors(uint64(2*n+descriptorsKept)) - descriptorsKept) / 2
		if most < 1 {
			return nil, fmt.Errorf("there are no descriptors for sessions: raise the limit of open files")
		}
		n := min(n, most)
		c, err := newCrowd(ctx, n)
		if err != nil {
			return nil, err
		}
		defer c.close()
		if err := c.greet(ctx); err != nil {
			return nil, err
		}
		if _, _, err := c.move(ctx, max(1, total/n/8)); err != nil { // windows open, pools fill
			return nil, err
		}
		runtime.GC()
		each := total / n
		wall, used, err := c.move(ctx, each)
		if err != nil {
			return nil, err
		}
		return figures{
			"sessions": float64(n),
			rate:       float64(n*each) / wall.Seconds(),
			cpu:        float64(used.Nanoseconds()) / float64(n*each),
		}, nil
	}
}
