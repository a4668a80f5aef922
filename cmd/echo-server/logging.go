package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
)

func newLogger(w io.Writer, json, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	// Addresses and times as texts, in JSON too.
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if addr, ok := a.Value.Any().(net.Addr); ok {
			a.Value = slog.StringValue(addr.String())
		} else if a.Value.Kind() == slog.KindDuration {
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if json {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

const (
	complaintBurst = 100
	complaintRate  = 10 // a second
)

// complaints logs what peers do wrong, so seldom that peers who do little else cannot fill a disk. What was left out is
// counted on the next line.
type complaints struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	tokens  float64
	last    time.Time
	skipped int
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, now: time.Now, tokens: complaintBurst}
}

func (c *complaints) warn(msg string, args ...any) {
	c.mu.Lock()
	now := c.now()
	if !c.last.IsZero() {
		c.tokens = min(complaintBurst, c.tokens+now.Sub(c.last).Seconds()*complaintRate)
	}
	c.last = now
	if c.tokens < 1 {
		c.skipped++
		c.mu.Unlock()
		return
	}
	c.tokens--
	if c.skipped > 0 {
		args = append(args, "lines_left_out", c.skipped)
		c.skipped = 0
	}
	c.mu.Unlock()
	c.log.Warn(msg, args...)
}

// library is where package reconnect logs to. What it says of the fate of sessions is for --verbose; its warnings are
// complaints.
type library struct {
	*complaints
	attrs []any
}

func (l library) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || l.log.Enabled(ctx, slog.LevelDebug)
}

func (l library) Handle(ctx context.Context, r slog.Record) error {
	args := append([]any(nil), l.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(program.OneLine(err.Error()))
		}
		args = append(args, a)
		return true
	})
	if r.Level >= slog.LevelWarn {
		l.warn(r.Message, args...)
	} else {
		l.log.DebugContext(ctx, "session "+r.Message, args...)
	}
	return nil
}

func (l library) WithAttrs(attrs []slog.Attr) slog.Handler {
	all := append([]any(nil), l.attrs...)
	for _, a := range attrs {
		all = append(all, a)
	}
	return library{l.complaints, all}
}

// WithGroup ignores the group: there are too few attributes for that.
func (l library) WithGroup(string) slog.Handler { return l }
