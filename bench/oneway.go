package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// pipe moves messages of one size from one end to another.
type pipe struct {
	// send sends n messages and returns when nothing more has to be done for them to arrive; with acknowledgements,
	// when they are acknowledged.
	send func(ctx context.Context, n int) error
	// receive returns when n messages have arrived.
	receive func(ctx context.Context, n int) error
	close   func()
}

// move moves n messages and returns how long it took until all had arrived, and the processor time until send had
// returned too.
func (p *pipe) move(ctx context.Context, n int) (wall, used time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sent := make(chan error, 1)
	usedBefore, begin := cpuTime(), time.Now()
	go func() {
		err := p.send(ctx, n)
		if err != nil {
			cancel()
		}
		sent <- err
	}()
	err = p.receive(ctx, n)
	wall = time.Since(begin)
	if err != nil {
		cancel()
		p.close() // not every peer's send heeds a context
	}
	err = errors.Join(<-sent, err)
	return wall, cpuTime() - usedBefore, err
}

// count finds out how many messages take long, by moving more and more until the time can be told.
func (p *pipe) count(ctx context.Context, long time.Duration) (int, error) {
	for n := 16; ; n *= 4 {
		wall, _, err := p.move(ctx, n)
		if err != nil {
			return 0, err
		}
		if wall >= long/8 {
			return max(16, int(float64(n)*float64(long)/float64(wall))), nil
		}
	}
}

// measureOneWay returns a run of what open makes: as many messages as take about as long as asked. How many is found
// out once, in the first round, so that all rounds do the same work.
func measureOneWay(open func(ctx context.Context) (*pipe, error)) func(context.Context, time.Duration) (figures, error) {
	n := 0
	return func(ctx context.Context, long time.Duration) (figures, error) {
		p, err := open(ctx)
		if err != nil {
			return nil, err
		}
		p.close = sync.OnceFunc(p.close)
		defer p.close()
		if n == 0 {
			if n, err = p.count(ctx, long); err != nil {
				return nil, err
			}
		} else if _, _, err := p.move(ctx, max(1, n/8)); err != nil { // windows open, pools fill
			return nil, err
		}
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		wall, used, err := p.move(ctx, n)
		runtime.ReadMemStats(&after)
		if err != nil {
			return nil, err
		}
		return figures{
			rate:      float64(n) / wall.Seconds(),
			cpu:       float64(used.Nanoseconds()) / float64(n),
			allocs:    float64(after.Mallocs-before.Mallocs) / float64(n),
			allocated: float64(after.TotalAlloc-before.TotalAlloc) / float64(n),
		}, nil
	}
}

// share calls f on k goroutines at once, which share n among them.
func share(n, k int, f func(n int) error) error {
	errs := make([]error, k)
	var wg sync.WaitGroup
	for i := range k {
		part := n / k
		if i < n%k {
			part++
		}
		wg.Go(func() { errs[i] = f(part) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// wrongSize is the error of a message that is not as long as those that were sent.
func wrongSize(got, want int) error {
	return fmt.Errorf("a message of %d bytes arrived where only such of %d were sent", got, want)
}

// wrongCount is the error of a stream that ended too early, or too late.
func wrongCount(got, want int) error {
	return fmt.Errorf("%d messages arrived where %d were sent", got, want)
}
