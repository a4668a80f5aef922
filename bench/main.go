package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	quick  bool
	long   time.Duration
	rounds int
	only   string
	out    string
	doc    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, progress io.Writer) error {
	switch os.Getenv(childRole) {
	case "many-server":
		return runChild(&manyServer{}, os.Stdin, stdout)
	case "many-client":
		return runChild(&manyClient{addr: args[1]}, os.Stdin, stdout)
	}
	if len(args) > 0 && args[0] == "many" {
		return runMany(ctx, args[1:], stdout, progress)
	}
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(progress)
	fs.BoolVar(&o.quick, "quick", false, "short rounds, and only what matters most: two minutes")
	fs.DurationVar(&o.long, "round-time", 0, "how long to measure each figure in each round (default 600ms, quick: 120ms)")
	fs.IntVar(&o.rounds, "rounds", 3, "how many rounds; figures are medians")
	fs.StringVar(&o.only, "only", "", "a regular expression: measure only what matches, such as '^one-way/(floor|session)/tcp'")
	fs.StringVar(&o.out, "out", "out", "the directory for the tables, the results in JSON and the plots")
	fs.StringVar(&o.doc, "doc", "", "a Markdown document, such as ../docs/performance.md, whose tables to replace")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("what is %q? The one command is many", fs.Arg(0))
	}
	if o.long == 0 {
		if o.long = 600 * time.Millisecond; o.quick {
			o.long = 120 * time.Millisecond
		}
	}
	return o.run(ctx, stdout, progress)
}

// run measures, and writes what came of it. That a bench failed is an error too, once all is written.
func (o options) run(ctx context.Context, stdout, progress io.Writer) error {
	re, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	if o.rounds < 1 || o.long <= 0 {
		return errors.New("there must be one round at least, and it must take some time")
	}
	if o.doc != "" && o.only != "" {
		return errors.New("a document's tables are of one whole run: -doc and -only exclude each other")
	}
	s, err := newSecrets()
	if err != nil {
		return err
	}
	plan := only(s.plan(o.quick), re)
	if len(plan) == 0 {
		return fmt.Errorf("nothing matches %q", o.only)
	}
	for _, p := range peers() {
		if p.skip != "" {
			fmt.Fprintf(progress, "left out: %s: %s\n", p.name, p.skip)
		}
	}
	m, begin := thisMachine(o), time.Now()
	results, err := runAll(ctx, plan, o.rounds, o.long, progress)
	if err != nil {
		return err
	}
	m.Duration = time.Since(begin)
	return o.write(m, results, stdout)
}

// write writes the results, the tables and the plots, and prints the tables.
func (o options) write(m machine, results []result, stdout io.Writer) error {
	all := newSet(results)
	var err error
	if all.many, err = readMany(o.out); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(o.out, "results.json"), struct {
		Machine machine  `json:"machine"`
		Results []result `json:"results"`
	}{m, results}); err != nil {
		return err
	}
	sections := append([]section{{"machine", "The run", m.table(all)}}, all.report()...)
	var b strings.Builder
	for _, sec := range sections {
		fmt.Fprintf(&b, "## %s\n\n%s\n", sec.title, sec.text)
	}
	if _, err := all.plots(o.out); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "tables.md"), []byte(b.String()), 0o644); err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, b.String()); err != nil {
		return err
	}
	if o.doc != "" {
		doc, err := os.ReadFile(o.doc)
		if err != nil {
			return err
		}
		filled, err := fill(string(doc), sections)
		if err != nil {
			return fmt.Errorf("%s: %w", o.doc, err)
		}
		if err := os.WriteFile(o.doc, []byte(filled), 0o644); err != nil {
			return err
		}
	}
	if failed := all.failures(); failed != "" {
		return errors.New("could not be measured:\n" + failed)
	}
	return nil
}
