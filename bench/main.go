package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"time"
)

// options are the flags.
type options struct {
	quick  bool
	long   time.Duration
	rounds int
	only   string
	out    string
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "short rounds, and only what matters most: two minutes")
	flag.DurationVar(&o.long, "round-time", 0, "how long to measure each figure in each round (0: 800ms, quick: 150ms)")
	flag.IntVar(&o.rounds, "rounds", 3, "how many rounds; figures are medians")
	flag.StringVar(&o.only, "only", "", "a regular expression: measure only what matches, such as '^one-way/(floor|session)/tcp'")
	flag.StringVar(&o.out, "out", "out", "the directory for the tables, the results in JSON and the plots")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func (o *options) run(ctx context.Context) error {
	if o.long == 0 {
		if o.long = 800 * time.Millisecond; o.quick {
			o.long = 150 * time.Millisecond
		}
	}
	re, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	s, err := newSecrets()
	if err != nil {
		return err
	}
	results, err := runAll(ctx, only(s.plan(o.quick), re), o.rounds, o.long, os.Stderr)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	all, err := json.MarshalIndent(results, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "results.json"), append(all, '\n'), 0o644); err != nil {
		return err
	}
	for _, sec := range newSet(results).report() {
		fmt.Printf("## %s\n\n%s\n", sec.title, sec.text)
	}
	return nil
}
