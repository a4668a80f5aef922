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

// many is what became of many sessions between some servers and some clients, each a process of its own.
type many struct {
	Machine machine `json:"machine"`
	// Asked is how many sessions there should have been, Sessions how many there were, and Limit why, if those differ.
	Asked    int    `json:"asked"`
	Sessions int    `json:"sessions"`
	Limit    string `json:"limit,omitempty"`
	Servers  int    `json:"servers"`
	Clients  int    `json:"clients"`
	// Figures are by the names below.
	Figures figures `json:"figures"`
}

// manyRow names each figure of many, as the table has it.
var manyRows = []struct{ name, words, unit string }{
	{"sessions", "sessions at once", ""},
	{"accepted/s", "sessions begun in a second", ""},
	{"server RSS KiB", "servers: resident memory of a session", " KiB"},
	{"server heap KiB", "servers: heap and stacks of a session", " KiB"},
	{"client RSS KiB", "clients: resident memory of a session", " KiB"},
	{"client heap KiB", "clients: heap and stacks of a session", " KiB"},
	{"server goroutines", "servers: goroutines of a session", ""},
	{"server idle cpu %", "all servers together: processor time while idle, of one core", " %"},
	{"client idle cpu %", "all clients together: the same", " %"},
	{"resumed", "resumed within two minutes of a cut of all connections; the others are lost then", ""},
	{"resumed p50 s", "from the cut of all connections until resumed, p50", " s"},
	{"resumed p99 s", "the same, p99", " s"},
	{"resumed all s", "until all had resumed", " s"},
}

// manyOptions are the flags of the command many.
type manyOptions struct {
	sessions, servers, perClient int
	idle, limit                  time.Duration
	out                          string
}

// perAddress is how many sessions dial from one loopback address, which has some 28,000 ports.
const perAddress = 10_000

// runMany is the command many.
func runMany(ctx context.Context, args []string, stdout, progress io.Writer) error {
	var o manyOptions
	fs := flag.NewFlagSet("many", flag.ContinueOnError)
	fs.SetOutput(progress)
	fs.IntVar(&o.sessions, "sessions", 100_000, "how many sessions to hold at once")
	fs.IntVar(&o.servers, "servers", 0, "how many server processes share them; 0: as many as the limit of open files asks for")
	fs.IntVar(&o.perClient, "per-client", perAddress, "how many of them in one client process")
	fs.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch them do nothing")
	fs.DurationVar(&o.limit, "limit", 10*time.Minute, "how long all of it may take")
	fs.StringVar(&o.out, "out", "out", "the directory for many.json, which the tables of a later run without this command show too")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || o.sessions < 1 || o.servers < 0 || o.perClient < 1 || o.perClient > perAddress {
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
	m = &many{Machine: thisMachine(options{}), Asked: o.sessions, Figures: figures{}}
	most := descriptors(uint64(o.sessions+descriptorsKept)) - descriptorsKept
	if m.Servers, m.Sessions, err = o.fit(most); err != nil {
		return nil, err
	}
	switch files := thousands(int64(most + descriptorsKept)); {
	case m.Sessions < o.sessions:
		m.Limit = fmt.Sprintf("a process may open %s files here and cannot raise that: %s sessions instead of %s",
			files, thousands(int64(m.Sessions)), thousands(int64(o.sessions)))
	case o.servers == 0 && m.Servers > 1:
		m.Limit = fmt.Sprintf("a process may open %s files here and cannot raise that: %d servers instead of one", files, m.Servers)
	}
	if m.Limit != "" {
		fmt.Fprintln(progress, "many:", m.Limit)
	}
	var servers, clients []*child
	defer func() {
		for _, c := range append(clients, servers...) {
			c.end()
		}
	}()
	for n := range m.Servers {
		server, err := startChild(ctx, "many-server", "")
		if err != nil {
			return nil, err
		}
		servers = append(servers, server)
		server.sessions = m.Sessions*(n+1)/m.Servers - m.Sessions*n/m.Servers
		at, err := server.ask(childRequest{Do: "listen", Sessions: server.sessions})
		if err != nil {
			return nil, err
		}
		for left := server.sessions; left > 0; {
			c, err := startChild(ctx, "many-client", at.Addr)
			if err != nil {
				return nil, err
			}
			clients = append(clients, c)
			c.sessions, c.from = min(left, o.perClient, most), loopback(len(clients)-1)
			left -= c.sessions
		}
	}
	m.Clients = len(clients)

	serverBefore, clientsBefore, err := look(servers, clients)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "many: %d clients begin %d sessions with %d servers\n", len(clients), m.Sessions, len(servers))
	dialling := time.Now()
	err = each(clients, func(c *child) error {
		_, err := c.ask(childRequest{Do: "dial", Sessions: c.sessions, From: c.from})
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each(servers, func(c *child) error {
		_, err := c.ask(childRequest{Do: "wait", Sessions: c.sessions})
		return err
	})
	if err != nil {
		return nil, err
	}
	n := float64(m.Sessions)
	m.Figures["sessions"] = n
	m.Figures["accepted/s"] = n / time.Since(dialling).Seconds()

	serverIdle, clientsIdle, err := look(servers, clients)
	if err != nil {
		return nil, err
	}
	m.Figures["server RSS KiB"] = float64(serverIdle.RSS-serverBefore.RSS) / n / (1 << 10)
	m.Figures["server heap KiB"] = float64(serverIdle.Heap-serverBefore.Heap) / n / (1 << 10)
	m.Figures["client RSS KiB"] = float64(clientsIdle.RSS-clientsBefore.RSS) / n / (1 << 10)
	m.Figures["client heap KiB"] = float64(clientsIdle.Heap-clientsBefore.Heap) / n / (1 << 10)
	m.Figures["server goroutines"] = float64(serverIdle.Goroutines-serverBefore.Goroutines) / n
	fmt.Fprintf(progress, "many: %s sessions in a second; idle for %v\n", digits(m.Figures["accepted/s"]), o.idle)

	if err := o.watch(ctx, m, servers, clients); err != nil {
		return nil, err
	}
	fmt.Fprintln(progress, "many: cutting all connections")
	if err := cutAll(m, servers, clients); err != nil {
		return nil, err
	}
	m.Machine.Duration = time.Since(begin)
	return m, nil
}

// fit returns how many servers there are, and how many sessions together, if a process can have most.
func (o manyOptions) fit(most int) (servers, sessions int, err error) {
	if most < 1 {
		return 0, 0, errors.New("many: there are no descriptors for sessions: raise the limit of open files")
	}
	if servers = o.servers; servers == 0 {
		servers = (o.sessions + most - 1) / most
	}
	servers = min(servers, o.sessions)
	return servers, min(o.sessions, servers*most), nil
}

// watch measures processor time while nothing happens but heartbeats. The garbage was collected before.
func (o manyOptions) watch(ctx context.Context, m *many, servers, clients []*child) error {
	serverBefore, clientsBefore, err := used(servers, clients)
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
	serverAfter, clientsAfter, err := used(servers, clients)
	if err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	m.Figures["server idle cpu %"] = 100 * (serverAfter - serverBefore).Seconds() / took
	m.Figures["client idle cpu %"] = 100 * (clientsAfter - clientsBefore).Seconds() / took
	return nil
}

// cutAll resets all connections at once, and measures until their sessions have resumed.
func cutAll(m *many, servers, clients []*child) error {
	begin := time.Now()
	err := each(servers, func(c *child) error {
		_, err := c.ask(childRequest{Do: "cut"})
		return err
	})
	if err != nil {
		return err
	}
	took := make(chan []float64, len(clients))
	err = each(clients, func(c *child) error {
		r, err := c.ask(childRequest{Do: "resumed", Sessions: c.sessions, Since: begin})
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
	m.Figures["resumed"] = float64(len(all))
	for name, rank := range map[string]int{"resumed p50 s": m.Sessions / 2, "resumed p99 s": m.Sessions * 99 / 100, "resumed all s": m.Sessions - 1} {
		if rank < len(all) {
			m.Figures[name] = all[rank]
		}
	}
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

// look asks all for their memory, and sums it up. They collect their garbage for it.
func look(servers, clients []*child) (s, c childReply, err error) {
	s, err = sum(servers, "look")
	if err == nil {
		c, err = sum(clients, "look")
	}
	return s, c, err
}

// used asks all for the processor time that they have used, and sums it up.
func used(servers, clients []*child) (s, c time.Duration, err error) {
	ofServers, err := sum(servers, "used")
	if err != nil {
		return 0, 0, err
	}
	ofClients, err := sum(clients, "used")
	return ofServers.CPU, ofClients.CPU, err
}

// sum asks one after the other the same, and sums up what they answer.
func sum(cs []*child, do string) (all childReply, err error) {
	for _, c := range cs {
		r, err := c.ask(childRequest{Do: do})
		if err != nil {
			return all, err
		}
		all.RSS += r.RSS
		all.Heap += r.Heap
		all.Goroutines += r.Goroutines
		all.CPU += r.CPU
	}
	return all, nil
}

// loopback returns the nth address for clients.
func loopback(n int) string { return fmt.Sprintf("127.0.%d.%d", 1+n/250, 1+n%250) }

// table says it in Markdown.
func (m *many) table() string {
	t := newTable(fmt.Sprintf("servers: %d, clients: %d, each a process", max(m.Servers, 1), m.Clients), "measured")
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
