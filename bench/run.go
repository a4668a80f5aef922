package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

// result is what all rounds of one bench brought.
type result struct {
	key
	Rounds []figures `json:"rounds"`
	// Error is why there are fewer rounds than there should be.
	Error string `json:"error,omitempty"`
}

// patience is how long one round of one bench may take at most, beyond twenty times what it was asked to take.
const patience = time.Minute

// runAll runs all benches in turn, rounds times, and reports each on progress. A bench that fails, or does not end, is left out from then
// on; an error says that the rest could not be run.
func runAll(ctx context.Context, all []bench, rounds int, long time.Duration, progress io.Writer) ([]result, error) {
	results := make([]result, len(all))
	for i, b := range all {
		results[i].key = b.key
	}
	for n := range rounds {
		for i, b := range all {
			r := &results[i]
			if r.Error != "" {
				continue
			}
			f, err := runOne(ctx, b, long)
			if ctx.Err() != nil {
				return results, context.Cause(ctx)
			}
			if err != nil {
				r.Error = err.Error()
				fmt.Fprintf(progress, "round %d/%d  %-44s FAILED: %v\n", n+1, rounds, b, err)
				continue
			}
			r.Rounds = append(r.Rounds, f)
			fmt.Fprintf(progress, "round %d/%d  %-44s %s\n", n+1, rounds, b, f)
		}
	}
	return results, nil
}

var errStuck = errors.New("does not end")

// runOne runs one round of one bench, within bounds, also if it heeds no context.
func runOne(ctx context.Context, b bench, long time.Duration) (figures, error) {
	runtime.GC() // what the one before left
	limit := patience + 20*long
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	type outcome struct {
		figures
		error
	}
	done := make(chan outcome, 1)
	go func() {
		f, err := b.run(ctx, long)
		done <- outcome{f, err}
	}()
	select {
	case o := <-done:
		return o.figures, o.error
	case <-ctx.Done():
	}
	grace := time.NewTimer(10 * time.Second)
	defer grace.Stop()
	select {
	case o := <-done:
		if o.error == nil {
			return o.figures, nil
		}
		return nil, errors.Join(context.Cause(ctx), o.error)
	case <-grace.C:
		return nil, errors.Join(errStuck, context.Cause(ctx))
	}
}
