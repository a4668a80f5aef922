package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// many is what became of many sessions between one server and several clients, each a process of its own.
type many struct {
	Machine machine `json:"machine"`
	// Asked is how many sessions there should have been, Sessions how many there were, and Limit why, if those differ.
	Asked    int    `json:"asked"`
	Sessions int    `json:"sessions"`
	Limit    string `json:"limit,omitempty"`
	Clients  int    `json:"clients"`
	// Figures are by the names below.
	Figures figures `json:"figures"`
}

// manyRow names each figure of many, as the table has it.
var manyRows = []struct{ name, words, unit string }{
	{"sessions", "sessions at once, in one server", ""},
	{"accepted/s", "sessions begun in a second", ""},
	{"server RSS KiB", "server: resident memory of a session", " KiB"},
	{"server heap KiB", "server: heap and stacks of a session", " KiB"},
	{"client RSS KiB", "clients: resident memory of a session", " KiB"},
	{"client heap KiB", "clients: heap and stacks of a session", " KiB"},
	{"server goroutines", "server: goroutines of a session", ""},
	{"server idle cpu %", "server: processor time while idle, of one core", " %"},
	{"client idle cpu %", "all clients together: the same", " %"},
	{"resumed p50 s", "from the cut of all connections until resumed, p50", " s"},
	{"resumed p99 s", "the same, p99", " s"},
	{"resumed all s", "until all had resumed", " s"},
}

// manyOptions are the flags of the command many.
type manyOptions struct {
	sessions, perClient int
	idle, limit         time.Duration
	out                 string
}

// perAddress is how many sessions dial from one loopback address, which has some 28,000 ports.
const perAddress = 10_000

// runMany is the command many.
func runMany(ctx context.Context, args []string, stdout, progress io.Writer) error {
	var o manyOptions
	fs := flag.NewFlagSet("many", flag.ContinueOnError)
	fs.SetOutput(progress)
	fs.IntVar(&o.sessions, "sessions", 100_000, "how many sessions to hold at once")
	fs.IntVar(&o.perClient, "per-client", perAddress, "how many of them in one client process")
	fs.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch them do nothing")
	fs.DurationVar(&o.limit, "limit", 10*time.Minute, "how long all of it may take")
	fs.StringVar(&o.out, "out", "out", "the directory for many.json, which the tables of a later run without this command show too")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || o.sessions < 1 || o.perClient < 1 || o.perClient > perAddress {
		return fmt.Errorf("many: one session at least, in clients of 1 to %d, and no arguments", perAddress)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done after %v", o.limit))
	defer cancel()
	m, err := o.run(ctx, progress)
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(o.out, "many.json"), m); err != nil {
		return err
	}
	fmt.Fprint(stdout, m.table())
	return nil
}

// run holds the sessions, lets them idle, cuts them all, and waits until all have resumed.
func (o manyOptions) run(ctx context.Context, progress io.Writer) (m *many, err error) {
	begin := time.Now()
	m = &many{Machine: thisMachine(options{}), Asked: o.sessions, Sessions: o.sessions, Figures: figures{}}
	if most := descriptors(uint64(o.sessions+descriptorsKept)) - descriptorsKept; most < o.sessions {
		m.Sessions = max(most, 0)
		m.Limit = fmt.Sprintf("a process may open %s files here and cannot raise that: %s sessions instead of %s",
			thousands(int64(most+descriptorsKept)), thousands(int64(m.Sessions)), thousands(int64(o.sessions)))
		fmt.Fprintln(progress, "many:", m.Limit)
	}
	server, err := startChild(ctx, "many-server", "")
	if err != nil {
		return nil, err
	}
	defer server.end()
	var at childReply
	if at, err = server.ask(childRequest{Do: "listen", Sessions: m.Sessions}); err != nil {
		return nil, err
	}
	var clients []*child
	defer func() {
		for _, c := range clients {
			c.end()
		}
	}()
	left := m.Sessions
	for n := 0; left > 0; n++ {
		c, err := startChild(ctx, "many-client", at.Addr)
		if err != nil {
			return nil, err
		}
		clients = append(clients, c)
		c.sessions, c.from = min(left, o.perClient), loopback(n)
		left -= c.sessions
	}
	m.Clients = len(clients)

	serverBefore, clientsBefore, err := look(server, clients)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "many: %d clients begin %d sessions\n", len(clients), m.Sessions)
	dialling := time.Now()
	err = each(clients, func(c *child) error {
		_, err := c.ask(childRequest{Do: "dial", Sessions: c.sessions, From: c.from})
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err = server.ask(childRequest{Do: "wait", Sessions: m.Sessions}); err != nil {
		return nil, err
	}
	n := float64(m.Sessions)
	m.Figures["sessions"] = n
	m.Figures["accepted/s"] = n / time.Since(dialling).Seconds()

	serverIdle, clientsIdle, err := look(server, clients)
	if err != nil {
		return nil, err
	}
	m.Figures["server RSS KiB"] = float64(serverIdle.RSS-serverBefore.RSS) / n / (1 << 10)
	m.Figures["server heap KiB"] = float64(serverIdle.Heap-serverBefore.Heap) / n / (1 << 10)
	m.Figures["client RSS KiB"] = float64(clientsIdle.RSS-clientsBefore.RSS) / n / (1 << 10)
	m.Figures["client heap KiB"] = float64(clientsIdle.Heap-clientsBefore.Heap) / n / (1 << 10)
	m.Figures["server goroutines"] = float64(serverIdle.Goroutines-serverBefore.Goroutines) / n
	fmt.Fprintf(progress, "many: %s sessions in a second; idle for %v\n", digits(m.Figures["accepted/s"]), o.idle)

	if err := o.watch(ctx, m, server, clients); err != nil {
		return nil, err
	}
	fmt.Fprintln(progress, "many: cutting all connections")
	if err := cutAll(m, server, clients); err != nil {
		return nil, err
	}
	m.Machine.Duration = time.Since(begin)
	return m, nil
}

// watch measures processor time while nothing happens but heartbeats. The garbage was collected before.
func (o manyOptions) watch(ctx context.Context, m *many, server *child, clients []*child) error {
	serverBefore, clientsBefore, err := used(server, clients)
	if err != nil {
		return err
	}
	begin := time.Now()
	wait := time.NewTimer(o.idle)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	serverAfter, clientsAfter, err := used(server, clients)
	if err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	m.Figures["server idle cpu %"] = 100 * (serverAfter - serverBefore).Seconds() / took
	m.Figures["client idle cpu %"] = 100 * (clientsAfter - clientsBefore).Seconds() / took
	return nil
}

// cutAll resets all connections at once, and measures until their sessions have resumed.
func cutAll(m *many, server *child, clients []*child) error {
	cut, err := server.ask(childRequest{Do: "cut"})
	if err != nil {
		return err
	}
	took := make(chan []float64, len(clients))
	err = each(clients, func(c *child) error {
		r, err := c.ask(childRequest{Do: "resumed", Sessions: c.sessions, Since: cut.Time})
		took <- r.Took
		return err
	})
	if err != nil {
		return err
	}
	var all []float64
	for range clients {
		all = append(all, <-took...)
	}
	slices.Sort(all)
	if len(all) != m.Sessions {
		return fmt.Errorf("%d of %d sessions resumed", len(all), m.Sessions)
	}
	m.Figures["resumed p50 s"] = all[len(all)/2]
	m.Figures["resumed p99 s"] = all[len(all)*99/100]
	m.Figures["resumed all s"] = all[len(all)-1]
	return nil
}

// each calls f for all children at once.
func each(cs []*child, f func(*child) error) error {
	errs := make(chan error, len(cs))
	for _, c := range cs {
		go func() { errs <- f(c) }()
	}
	var err error
	for range cs {
		err = errors.Join(err, <-errs)
	}
	return err
}

// look asks all for their memory, that of the clients in sum. They collect their garbage for it.
func look(server *child, clients []*child) (s, sum childReply, err error) {
	if s, err = server.ask(childRequest{Do: "look"}); err != nil {
		return s, sum, err
	}
	for _, c := range clients {
		r, err := c.ask(childRequest{Do: "look"})
		if err != nil {
			return s, sum, err
		}
		sum.RSS += r.RSS
		sum.Heap += r.Heap
		sum.Goroutines += r.Goroutines
	}
	return s, sum, nil
}

// used asks all for the processor time that they have used, that of the clients in sum.
func used(server *child, clients []*child) (s, sum time.Duration, err error) {
	r, err := server.ask(childRequest{Do: "used"})
	if err != nil {
		return 0, 0, err
	}
	for _, c := range clients {
		r, err := c.ask(childRequest{Do: "used"})
		if err != nil {
			return 0, 0, err
		}
		sum += r.CPU
	}
	return r.CPU, sum, nil
}

// loopback returns the nth address for clients.
func loopback(n int) string { return fmt.Sprintf("127.0.%d.%d", 1+n/250, 1+n%250) }

// table says it in Markdown.
func (m *many) table() string {
	t := newTable(fmt.Sprintf("one server, %d clients, each a process", m.Clients), "measured")
	for _, r := range manyRows {
		if v, ok := m.Figures[r.name]; ok {
			t.row(r.words, digits(v)+r.unit)
		}
	}
	text := t.String()
	if m.Limit != "" {
		text += "\n" + m.Limit + ".\n"
	}
	return text
}

// manyFigure returns one of them; NaN if many was not run.
func (s set) manyFigure(name string) float64 {
	if s.many != nil {
		if v, ok := s.many.Figures[name]; ok {
			return v
		}
	}
	return math.NaN()
}

func (s set) manyTable() string {
	if s.many == nil {
		return ""
	}
	return s.many.table()
}

// readMany reads what an earlier run of the command many left; nil if there was none.
func readMany(dir string) (*many, error) {
	b, err := os.ReadFile(filepath.Join(dir, "many.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var m many
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("many.json: %w", err)
	}
	return &m, nil
}

func writeJSON(path string, v any) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
