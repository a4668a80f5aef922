package datagram_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

func noAllocs(t *testing.T, runs int, f func()) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	require.Zero(t, testing.AllocsPerRun(runs, f))
}

func TestAppendAllocatesNothing(t *testing.T) {
	d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
	buf := make([]byte, 0, 100)
	noAllocs(t, 1000, func() { _, _ = datagram.Append(buf, d) })
}

func TestParseAllocatesNothing(t *testing.T) {
	frame := encode(t, datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)})
	noAllocs(t, 1000, func() { _, _, _ = datagram.Parse(frame) })
}

func TestWriteAllocatesNothing(t *testing.T) {
	for _, size := range []int{0, 64, 1024, 64 << 10, 64<<10 + 1, 1 << 20} {
		d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
		w := datagram.NewWriter(io.Discard, nil)
		noAllocs(t, 2000, func() { _ = w.Write(d) })
	}
	d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
	w := datagram.NewWriter(io.Discard, &datagram.Options{Framing: datagram.Lines{Recipient: 7}})
	noAllocs(t, 20_000, func() { _ = w.Write(d) })
}

func TestBufferAllocatesNothing(t *testing.T) {
	d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}
	b := datagram.NewBuffer(nil)
	noAllocs(t, 100, func() {
		for range 2000 {
			_ = b.Append(d)
		}
		_, _ = b.WriteTo(io.Discard)
	})
}

// Frames of 64 bytes share buffers of 64 KiB: about 900 each.
func TestReadAllocatesOncePerSlab(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := datagram.NewReader(newRepeat(64), nil)
	read := func(n int) func() {
		return func() {
			for range n {
				_, _ = r.Read()
			}
		}
	}
	read(10_000)()
	require.LessOrEqual(t, testing.AllocsPerRun(20, read(80_000)), 100.0)

	r = datagram.NewReader(newRepeat(64), nil)
	take := func(n int) func() {
		return func() {
			for i := 0; i < n; {
				run, _ := r.Frames()
				if run.N == 0 {
					_ = r.Fill()
				}
				for _, ok := run.Next(); ok; _, ok = run.Next() {
					i++
				}
			}
		}
	}
	take(10_000)()
	require.LessOrEqual(t, testing.AllocsPerRun(20, take(80_000)), 200.0, "the slab, and who holds it")

	released := datagram.NewReader(newRepeat(64), nil)
	giveBack := func() {
		for i := 0; i < 80_000; {
			run, _ := released.Frames()
			if i += run.N; run.N == 0 {
				_ = released.Fill()
			}
			run.Release()
		}
	}
	giveBack()
	require.LessOrEqual(t, testing.AllocsPerRun(20, giveBack), 2.0, "slabs are used again")

	large := datagram.NewReader(newRepeat(64<<10), nil)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = large.Read() }), 1.0)
}
