package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/reconnect"
)

// TestMain is a child of the command many if that is what it was started as.
func TestMain(m *testing.M) {
	if os.Getenv(childRole) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m,
		// What rsocket-go is built on keeps goroutines for the whole process.
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*Pool).purgePeriodically"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"),
	)
}

// All that a whole run measures, once, and as little of it as possible; but for what takes seconds of real time.
func TestPlan(t *testing.T) {
	s, err := newSecrets()
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, b := range s.plan(false) {
		name := b.String()
		assert.False(t, seen[name], "%s is there twice", name)
		seen[name] = true
		if b.Kind == death || b.Kind == busyMany || b.Kind == replay {
			continue // below
		}
		begin := time.Now()
		f, err := runOne(t.Context(), b, time.Millisecond)
		require.NoError(t, err, name)
		t.Logf("%6.3f s  %s", time.Since(begin).Seconds(), name)
		for what, v := range f {
			assert.True(t, there(v), "%s: %s", name, what)
		}
		switch b.Kind {
		case oneWay:
			assert.Positive(t, f[rate], name)
			assert.Positive(t, f[cpu], name)
		case roundTrip, besideBulk, recovery, takeover:
			assert.Positive(t, f[p50], name)
		case wireBytes:
			assert.Positive(t, f[writesPer100])
			assert.Less(t, f[overhead], 100.0)
		case idleMemory:
			assert.Positive(t, f[attachedKiB])
			assert.Greater(t, f[attachedKiB], 0.0)
		}
	}
	for _, b := range s.plan(true) {
		assert.True(t, seen[b.String()], "%s is measured in a quick run alone", b)
	}
}

func TestReplay(t *testing.T) {
	f, err := measureReplay(64<<10)(t.Context(), time.Millisecond)
	require.NoError(t, err)
	assert.Positive(t, f["ms"])
	assert.InDelta(t, 16*f["ms"], f[perMiB], 1e-6)
}

func TestDeath(t *testing.T) {
	f, err := measureDeath(reconnect.SessionOptions{PingAfter: 40 * time.Millisecond})(t.Context(), 0)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, f[noticedIdle], 0.08)
	assert.GreaterOrEqual(t, f[noticedBusy], 0.04)
}

func TestBusy(t *testing.T) {
	f, err := measureBusy(20)(t.Context(), time.Millisecond)
	require.NoError(t, err)
	assert.InDelta(t, 20, f["sessions"], 0)
	assert.Positive(t, f[cpu])
}

// The command many, with its processes.
func TestMany(t *testing.T) {
	out := t.TempDir()
	var stdout, progress bytes.Buffer
	err := runMany(t.Context(), []string{"-sessions", "25", "-servers", "2", "-per-client", "10", "-idle", "1ms", "-out", out}, &stdout, &progress)
	require.NoError(t, err, progress.String())
	m, err := readMany(out)
	require.NoError(t, err)
	assert.Equal(t, 2, m.Servers)
	assert.Equal(t, 4, m.Clients)
	assert.Empty(t, m.Limit)
	for _, row := range manyRows {
		assert.Contains(t, m.Figures, row.name)
	}
	assert.InDelta(t, 25, m.Figures["sessions"], 0)
	assert.Positive(t, m.Figures["resumed p50 s"])
	assert.Equal(t, m.table(), stdout.String())

	for _, c := range []struct{ asked, servers, most, want, sessions int }{
		{100_000, 0, 200_000, 1, 100_000},
		{100_000, 0, 19_000, 6, 100_000},
		{100_000, 0, 20_000, 5, 100_000},
		{100_000, 5, 19_000, 5, 95_000},
		{100_000, 1, 19_000, 1, 19_000},
		{100_000, 8, 19_000, 8, 100_000},
		{3, 8, 19_000, 3, 3},
	} {
		servers, sessions, err := manyOptions{sessions: c.asked, servers: c.servers}.fit(c.most)
		require.NoError(t, err)
		assert.Equal(t, []int{c.want, c.sessions}, []int{servers, sessions}, "%+v", c)
	}
	_, _, err = manyOptions{sessions: 1}.fit(0)
	assert.Error(t, err)

	for _, args := range []string{"-servers -1", "-sessions 0", "-per-client 20000", "more", "-nonsense"} {
		assert.Error(t, runMany(t.Context(), strings.Fields(args), &stdout, &progress), args)
	}
	none, err := readMany(t.TempDir())
	require.NoError(t, err)
	assert.Nil(t, none)
}

// A whole run of a little, with everything that it writes.
func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new")
	var stdout, progress bytes.Buffer
	err := run(t.Context(), []string{"-only", "^(one-way/(floor|session)/unix/(single/)?64 B|round-trip/floor/unix)", "-rounds", "2", "-round-time", "1ms", "-out", out}, &stdout, &progress)
	require.NoError(t, err, progress.String())
	assert.Contains(t, progress.String(), "round 2/2  one-way/session/unix/single/64 B")
	written, err := os.ReadFile(filepath.Join(out, "tables.md"))
	require.NoError(t, err)
	assert.Equal(t, string(written), stdout.String())
	assert.Contains(t, stdout.String(), "| session, single |")
	var r struct {
		Machine machine
		Results []result
	}
	b, err := os.ReadFile(filepath.Join(out, "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	assert.Equal(t, 2, r.Machine.Rounds)
	require.Len(t, r.Results, 3)
	for _, res := range r.Results {
		assert.Len(t, res.Rounds, 2)
	}

	for _, args := range []string{"-only (", "-only nothing", "-rounds 0", "-round-time -1s", "-only . -doc x.md", "one"} {
		assert.Error(t, run(t.Context(), strings.Fields(args), &stdout, &progress), args)
	}
}

// A bench that fails is left out of further rounds, and the others go on.
func TestRunAll(t *testing.T) {
	calls := 0
	good := bench{key{Subject: "good"}, func(context.Context, time.Duration) (figures, error) { return figures{rate: 1}, nil }}
	bad := bench{key{Subject: "bad"}, func(context.Context, time.Duration) (figures, error) {
		if calls++; calls == 2 {
			return nil, errors.New("no more")
		}
		return figures{rate: 1}, nil
	}}
	var progress bytes.Buffer
	results, err := runAll(t.Context(), []bench{bad, good}, 3, time.Millisecond, &progress)
	require.NoError(t, err)
	assert.Equal(t, 2, calls)
	assert.Len(t, results[0].Rounds, 1)
	assert.Equal(t, "no more", results[0].Error)
	assert.Len(t, results[1].Rounds, 3)
	assert.Contains(t, progress.String(), "FAILED: no more")

	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := bench{key{}, func(ctx context.Context, _ time.Duration) (figures, error) {
		cancel(errors.New("that is enough"))
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	_, err = runAll(ctx, []bench{stopped}, 3, time.Millisecond, &progress)
	assert.EqualError(t, err, "that is enough")
}

func TestOnly(t *testing.T) {
	s, err := newSecrets()
	require.NoError(t, err)
	for _, b := range only(s.plan(false), regexp.MustCompile("^one-way/floor/tcp/64 B$")) {
		assert.Equal(t, key{oneWay, floor, "tcp", "", 64}, b.key)
	}
	assert.Equal(t, "one-way/session/tcp/16 senders/64 KiB", key{oneWay, session, "tcp", sixteen, 64 << 10}.String())
}

// A message of the wrong size, and an error on either side, are an error of the round.
func TestMoveFails(t *testing.T) {
	no := errors.New("no")
	closed := 0
	p := pipe{
		send:    func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() },
		receive: func(context.Context, int) error { return no },
		close:   func() { closed++ },
	}
	_, _, err := p.move(t.Context(), 1)
	require.ErrorIs(t, err, no)
	assert.Equal(t, 1, closed)
	p.send, p.receive = func(context.Context, int) error { return no }, p.send
	_, _, err = p.move(t.Context(), 1)
	require.ErrorIs(t, err, no)

	s, err := newSecrets()
	require.NoError(t, err)
	e, err := s.connect(t.Context(), session, "tcp")
	require.NoError(t, err)
	defer e.close()
	wrong, right := e.pipe(single, 10), e.pipe(single, 11)
	require.NoError(t, wrong.send(t.Context(), 1))
	assert.ErrorContains(t, right.receive(t.Context(), 1), "10 bytes")
}
