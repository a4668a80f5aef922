package main

import (
	"context"
	"runtime"
	"slices"
	"time"
)

// echo is one end of something whose other end sends everything back.
type echo struct {
	// ask sends one message and waits for the answer.
	ask   func(ctx context.Context) error
	close func()
}

// measureRoundTrip returns a run of what open makes: one question after the other, for as long as asked.
func measureRoundTrip(open func(ctx context.Context) (*echo, error)) func(context.Context, time.Duration) (figures, error) {
	return func(ctx context.Context, long time.Duration) (figures, error) {
		e, err := open(ctx)
		if err != nil {
			return nil, err
		}
		defer e.close()
		for begin := time.Now(); time.Since(begin) < long/8; {
			if err := e.ask(ctx); err != nil {
				return nil, err
			}
		}
		runtime.GC()
		took := make([]time.Duration, 0, 1<<16)
		least := min(max(int(long/time.Millisecond), 5), 200) // slow ones too have a p99 then
		usedBefore, begin := cpuTime(), time.Now()
		for last := begin; last.Sub(begin) < long || len(took) < least; {
			if err := e.ask(ctx); err != nil {
				return nil, err
			}
			now := time.Now()
			took = append(took, now.Sub(last))
			last = now
		}
		used := cpuTime() - usedBefore
		f := percentiles(took)
		f[rate] = float64(len(took)) / time.Since(begin).Seconds()
		f[cpu] = float64(used.Nanoseconds()) / float64(len(took))
		return f, nil
	}
}

const (
	p50     = "p50 µs"
	p90     = "p90 µs"
	p99     = "p99 µs"
	p999    = "p99.9 µs"
	p9999   = "p99.99 µs"
	most    = "max µs"
	samples = "samples"
)

// shares are the percentiles that are kept, by the name of their figure, in microseconds.
var shares = []struct {
	name string
	of   float64
}{{p50, 0.50}, {p90, 0.90}, {p99, 0.99}, {p999, 0.999}, {p9999, 0.9999}}

// percentiles returns those of took, which it sorts, and the greatest. A percentile is only there if at least one time
// lies beyond it.
func percentiles(took []time.Duration) figures {
	slices.Sort(took)
	f := figures{samples: float64(len(took))}
	if len(took) == 0 {
		return f
	}
	for _, s := range shares {
		if i := int(s.of * float64(len(took))); i < len(took)-1 {
			f[s.name] = microseconds(took[i])
		}
	}
	f[most] = microseconds(took[len(took)-1])
	return f
}

func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
