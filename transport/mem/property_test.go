package mem_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/transport/mem"
)

var errShort = errors.New("short write")

// One drawn step of a schedule: what happens to the line, then a write.
type step struct {
	shape    mem.Shape
	reshape  bool
	freeze   bool
	short    int // -1: no short write
	try      bool
	write    int
	pause    time.Duration
	cutAfter int64 // -1: no cut
	readSize int
}

func drawStep(t *rapid.T) step {
	s := step{short: -1, cutAfter: -1}
	if s.reshape = rapid.Bool().Draw(t, "reshape"); s.reshape {
		s.shape = mem.Shape{
			Latency: time.Duration(rapid.IntRange(0, 50).Draw(t, "latency")) * time.Millisecond,
			Jitter:  time.Duration(rapid.IntRange(0, 50).Draw(t, "jitter")) * time.Millisecond,
			Seed:    rapid.Uint64().Draw(t, "seed"),
			Rate:    rapid.SampledFrom([]int{0, 0, 50, 1000, 1e6}).Draw(t, "rate"),
			MaxRead: rapid.SampledFrom([]int{0, 1, 2, 7}).Draw(t, "max read"),
		}
	}
	s.freeze = rapid.IntRange(0, 4).Draw(t, "freeze") == 0
	if rapid.IntRange(0, 3).Draw(t, "short") == 0 {
		s.short = rapid.IntRange(0, 40).Draw(t, "short after")
	}
	if rapid.IntRange(0, 30).Draw(t, "cut") == 0 {
		s.cutAfter = int64(rapid.IntRange(0, 100).Draw(t, "cut after"))
	}
	s.try = rapid.Bool().Draw(t, "try")
	s.write = rapid.IntRange(0, 60).Draw(t, "write")
	s.pause = time.Duration(rapid.IntRange(0, 20).Draw(t, "pause")) * time.Millisecond
	s.readSize = rapid.IntRange(1, 50).Draw(t, "read size")
	return s
}

// What one run of a schedule came to.
type outcome struct {
	taken    []byte // what the writer's counts say was taken
	writeErr error  // other than errShort
	cutAt    int64  // where the line was to be cut; -1: nowhere
	got      []byte
	readErr  error
	stats    mem.Stats
}

// runSchedule plays the steps in a bubble of its own.
func runSchedule(t *testing.T, buffer int, steps []step) (out outcome) {
	synctest.Test(t, func(*testing.T) {
		a, b := mem.Pipe(&mem.Config{Buffer: buffer})
		defer func() { _, _ = a.Close(), b.Close() }()
		f := a.Faults()

		read := make(chan struct{})
		go func() {
			defer close(read)
			for i := 0; out.readErr == nil; i++ {
				buf := make([]byte, steps[i%len(steps)].readSize)
				var n int
				n, out.readErr = b.Read(buf)
				out.got = append(out.got, buf[:n]...)
			}
		}()

		out.cutAt = -1
		next := byte(0)
		for _, s := range steps {
			if s.reshape {
				f.SetShape(mem.Up, s.shape)
			}
			if s.freeze {
				f.Freeze(mem.Up)
				time.AfterFunc(s.pause+time.Millisecond, func() { f.Thaw(mem.Up) })
			}
			if s.short >= 0 {
				f.FailWrite(mem.Up, 1, s.short, errShort)
			}
			if s.cutAfter >= 0 && out.cutAt < 0 {
				out.cutAt = int64(len(out.taken)) + s.cutAfter
				f.CutAfter(mem.Up, s.cutAfter, nil)
			}
			p := make([]byte, s.write)
			for i := range p {
				p[i], next = next, next+1
			}
			write := a.Write
			if s.try {
				write = a.TryWrite
			}
			n, err := write(p)
			out.taken = append(out.taken, p[:n]...)
			next -= byte(len(p) - n)
			if err != nil && !errors.Is(err, errShort) {
				out.writeErr = err
				break
			}
			pass(s.pause)
		}
		_ = a.CloseWrite()
		<-read
		out.stats = f.Stats()
	})
	return out
}

// What arrives is what the writer's counts say was taken, in order; a prefix of it if the line was cut.
func TestAnyScheduleDeliversAPrefix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		buffer := rapid.IntRange(1, 100).Draw(rt, "buffer")
		steps := rapid.SliceOfN(rapid.Custom(drawStep), 1, 30).Draw(rt, "steps")
		out := runSchedule(t, buffer, steps)

		want := out.taken
		if out.cutAt >= 0 && out.cutAt <= int64(len(out.taken)) {
			want = out.taken[:out.cutAt]
			require.ErrorIs(rt, out.readErr, syscall.ECONNRESET)
		} else {
			require.ErrorIs(rt, out.readErr, io.EOF)
			require.NoError(rt, out.writeErr, "only a cut fails")
		}
		require.True(rt, bytes.Equal(want, out.got), "want %d bytes, got %d", len(want), len(out.got))
		require.EqualValues(rt, len(out.taken), out.stats.UpWritten)
		require.EqualValues(rt, len(want), out.stats.UpRead)
	})
}
