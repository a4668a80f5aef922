package main

import (
	"io"
	"log/slog"
	"sync"
	"time"
)

func newLogger(w io.Writer, json, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level}
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
