package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// isTerminal reports whether f is a terminal.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// drawsOver reports whether a bar would be in somebody's way: of one who types the input or reads the output on a
// terminal. In load mode there is neither.
func drawsOver(input, output any, load bool, isTerminal func(any) bool) bool {
	return !load && (isTerminal(input) || isTerminal(output))
}

// showProgress draws a bar on a terminal until the returned function is called. Its end is the count, or the length of a
// file; without either it is a spinner.
func (c *client) showProgress(terminal io.Writer) (stop func()) {
	end, bytes := int64(-1), false
	if cut, ok := c.src.(*cutter); ok {
		bytes = true
		if f, ok := cut.r.(*os.File); ok {
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
				end = info.Size()
			}
		}
	} else if c.o.duration == 0 {
		end = int64(min(c.o.count, 1<<62))
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(terminal),
		progressbar.OptionShowBytes(bytes),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetWidth(30),
	}
	if !bytes { // else the rate is shown in bytes
		options = append(options, progressbar.OptionShowIts(), progressbar.OptionSetItsString("messages"))
	}
	bar := progressbar.NewOptions64(end, options...)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				_ = bar.Finish() // drawing is a courtesy, here and below
				_ = bar.Clear()
				return
			case <-tick.C:
			}
			t, _ := c.tracker.counts()
			n := int64(t.received)
			if bytes {
				n = int64(t.bytes)
				if c.o.chunk == 0 {
					n += int64(t.received) // the newlines
				}
			}
			if end > 0 {
				n = min(n, end-1) // Finish says when it is over
			}
			_ = bar.Set64(n)
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
