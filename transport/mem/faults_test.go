package mem_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

func TestCutNow(t *testing.T) {
	for _, err := range []error{nil, syscall.ETIMEDOUT, errors.New("the dog ate it")} {
		a, b := pipe(t, nil)
		send(t, a, "unread")
		send(t, b, "unread")
		a.Faults().Cut(err)
		a.Faults().Cut(io.ErrUnexpectedEOF) // too late
		want := err
		if want == nil {
			want = syscall.ECONNRESET
		}
		for _, c := range []*mem.Conn{a, b} {
			expectError(t, c, want)
			writeError(t, c, want)
			expectError(t, c, want)
		}
		require.Equal(t, mem.Stats{Conns: 1, Live: 1, Cuts: 1, UpWritten: 6, DownWritten: 6}, b.Faults().Stats())
	}
}

func TestCutClean(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "up")
	send(t, b, "down")
	a.Faults().Cut(io.EOF)
	writeError(t, a, syscall.EPIPE)
	writeError(t, b, syscall.EPIPE)
	expect(t, b, "up")
	expect(t, a, "down")
	expectError(t, a, io.EOF)
	expectError(t, b, io.EOF)
}

// At every offset of a message, and its edges, exactly the bytes before the cut arrive.
func TestCutAfter(t *testing.T) {
	const msg = "12345678"
	for n := range len(msg) + 1 {
		for _, end := range []error{syscall.ECONNRESET, io.EOF} {
			for _, dir := range []mem.Direction{mem.Up, mem.Down} {
				t.Run(fmt.Sprint(n, end, dir), func(t *testing.T) {
					a, b := pipe(t, nil)
					if dir == mem.Down {
						a, b = b, a
					}
					send(t, a, "before ")
					send(t, b, "other way")
					a.Faults().CutAfter(dir, int64(n), end)
					if n > 0 {
						send(t, a, msg) // the Write that is cut does not notice
						expect(t, b, "before "+msg[:n])
					} else {
						expect(t, b, "before ")
					}
					expectError(t, b, end)
					refused := end
					if end == io.EOF {
						refused = syscall.EPIPE
						expect(t, a, "other way")
					}
					expectError(t, a, end)
					writeError(t, a, refused)
					writeError(t, b, refused)
					require.Equal(t, 1, a.Faults().Stats().Cuts)
				})
			}
		}
	}
}

func TestCutAfterSpansWritesAndIsTakenBack(t *testing.T) {
	a, b := pipe(t, nil)
	a.Faults().CutAfter(mem.Both, 5, nil)
	send(t, a, "123")
	send(t, b, "1234")
	a.Faults().CutAfter(mem.Up, -1, nil)
	send(t, a, "456")
	expect(t, b, "123456")
	send(t, b, "5")
	expectError(t, b, syscall.ECONNRESET)
	expect(t, a, "12345")
	expectError(t, a, syscall.ECONNRESET)
}

// A Write that waits for room when its connection is cut says how far it came.
func TestCutAfterBeyondTheBuffer(t *testing.T) {
	a, b := pipe(t, &mem.Config{Buffer: 4})
	a.Faults().CutAfter(mem.Up, 6, nil)
	go func() { _, _ = io.CopyN(io.Discard, b, 4) }()
	n, err := a.Write([]byte("1234567890"))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.GreaterOrEqual(t, n, 6)
	require.Less(t, n, 10)
}

func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, &mem.Config{Buffer: 8})
		send(t, a, "old")
		a.Faults().Freeze(mem.Up)
		start := time.Now()
		require.NoError(t, b.SetReadDeadline(start.Add(time.Hour)))
		_, err := b.Read(make([]byte, 1))
		require.True(t, isTimeout(err))
		require.Equal(t, time.Hour, time.Since(start))
		require.NoError(t, b.SetReadDeadline(time.Time{}))

		send(t, b, "open")
		expect(t, a, "open")
		send(t, a, "12345")
		n, err := a.TryWrite([]byte("6"))
		require.NoError(t, err)
		require.Zero(t, n, "full")
		written := make(chan error)
		go func() { _, err := a.Write([]byte("67")); written <- err }()
		synctest.Wait()
		require.Zero(t, b.Faults().Stats().UpRead)

		a.Faults().Thaw(mem.Up)
		expect(t, b, "old1234567")
		require.NoError(t, <-written)
	})
}

func TestFreezeHidesTheEnd(t *testing.T) {
	for name, end := range map[string]func(a *mem.Conn){
		"close":       func(a *mem.Conn) { _ = a.Close() },
		"close write": func(a *mem.Conn) { _ = a.CloseWrite() },
		"abort":       func(a *mem.Conn) { _, _ = a.SetLinger(0), a.Close() },
		"clean cut":   func(a *mem.Conn) { a.Faults().Cut(io.EOF) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pipe(t, nil)
				send(t, a, "x")
				a.Faults().Freeze(mem.Both)
				end(a)
				read := make(chan error, 1)
				go func() { _, err := io.ReadAll(b); read <- err }()
				synctest.Wait()
				require.Empty(t, read)
				if name != "clean cut" {
					send(t, b, "into the black hole")
				}
				a.Faults().Thaw(mem.Both)
				if name == "abort" {
					require.ErrorIs(t, <-read, syscall.ECONNRESET)
				} else {
					require.NoError(t, <-read)
				}
			})
		})
	}
}

func TestFreezeThenCutLosesAll(t *testing.T) {
	a, b := pipe(t, nil)
	a.Faults().Freeze(mem.Both)
	send(t, a, "lost")
	a.Faults().Cut(nil)
	expectError(t, b, syscall.ECONNRESET)
	a.Faults().Thaw(mem.Both)
	expectError(t, b, syscall.ECONNRESET)
	a.Faults().Freeze(mem.Both)
	expectError(t, b, syscall.ECONNRESET)
}

func TestFreezeAfterCleanCutChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipe(t, nil)
		a.Faults().Freeze(mem.Up)
		send(t, a, "held")
		send(t, b, "free")
		a.Faults().Cut(io.EOF)
		a.Faults().Freeze(mem.Both)
		expect(t, a, "free")
		expectError(t, a, io.EOF)
		require.NoError(t, b.SetReadDeadline(time.Now().Add(time.Second)))
		expectError(t, b, os.ErrDeadlineExceeded)
		require.NoError(t, b.SetReadDeadline(time.Time{}))
		a.Faults().Thaw(mem.Up)
		expect(t, b, "held")
		expectError(t, b, io.EOF)
	})
}

// A writer hears of the close of its peer only if its bytes get there and the answer gets back.
func TestFreezeHidesThatThePeerClosed(t *testing.T) {
	for _, dir := range []mem.Direction{mem.Up, mem.Down} {
		a, b := pipe(t, &mem.Config{Buffer: 4})
		a.Faults().Freeze(dir)
		require.NoError(t, b.Close())
		send(t, a, "1234")
		n, err := a.TryWrite([]byte("5"))
		require.NoError(t, err)
		require.Zero(t, n)
		a.Faults().Thaw(dir)
		writeError(t, a, syscall.EPIPE)
	}
}

func TestCutOfAnEndedConnectionDoesNotCount(t *testing.T) {
	a, b := pipe(t, nil)
	_, _ = a.Close(), b.Close()
	a.Faults().Cut(nil)
	a.Faults().CutAfter(mem.Both, 0, nil)
	require.Equal(t, mem.Stats{Conns: 1}, a.Faults().Stats())
}

func TestFailWrite(t *testing.T) {
	boom := errors.New("boom")
	a, b := pipe(t, nil)
	a.Faults().FailWrite(mem.Up, 3, 2, boom)
	send(t, a, "one ")
	_, err := a.Write(nil)
	require.NoError(t, err, "does not count")
	n, err := a.TryWrite([]byte("two "))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	n, err = a.Write([]byte("three "))
	require.ErrorIs(t, err, boom)
	require.Equal(t, 2, n)
	send(t, a, "four ")
	expect(t, b, "one two thfour ")

	a.Faults().FailWrite(mem.Up, 1, 100, nil)
	n, err = a.TryWrite([]byte("five"))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Equal(t, 4, n)
	a.Faults().FailWrite(mem.Up, 1, 0, nil)
	writeError(t, a, syscall.ECONNRESET)
	a.Faults().FailWrite(mem.Up, 1, 0, nil)
	a.Faults().FailWrite(mem.Up, 0, 0, nil)
	send(t, a, "six")
	expect(t, b, "fivesix")
}

func TestCorrupt(t *testing.T) {
	a, b := pipe(t, nil)
	send(t, a, "\x00")
	a.Faults().Corrupt(mem.Up, 3)
	send(t, a, "\x00\x00")
	send(t, a, "\x00\x01\x00")
	expect(t, b, "\x00\x00\x00\x00\xfe\x00")
	a.Faults().Corrupt(mem.Up, 0)
	a.Faults().Corrupt(mem.Up, -1)
	send(t, a, "\x00")
	expect(t, b, "\x00")
}

// The old connection of a client goes on delivering while its new one is at work.
func TestOneConnectionAmongOthers(t *testing.T) {
	var n mem.Network
	old, oldPeer := dialed(t, &n, mem.Config{})
	control, err := n.Faults().WaitConn(t.Context(), 1)
	require.NoError(t, err)
	require.Same(t, old.Faults(), control)
	require.Same(t, old.Faults(), oldPeer.Faults())
	control.Freeze(mem.Both)
	send(t, old, "late")
	fresh, freshPeer := dialed(t, &n, mem.Config{})
	send(t, fresh, "new")
	expect(t, freshPeer, "new")
	control.Thaw(mem.Both)
	expect(t, oldPeer, "late")
	control.Cut(nil)
	send(t, freshPeer, "unharmed")
	expect(t, fresh, "unharmed")
}

func TestStandingFaultsMeetLaterConnections(t *testing.T) {
	var n mem.Network
	var listening mem.Faults
	n.Faults().SetShape(mem.Both, mem.Shape{MaxRead: 1})
	n.Faults().CutAfter(mem.Up, 1, nil)
	listening.CutAfter(mem.Up, 3, io.EOF) // overrides
	var numbers []int
	listening.OnConn(func(k int, c *mem.Faults) {
		numbers = append(numbers, k)
		if k == 2 {
			c.CutAfter(mem.Up, -1, nil)
		}
	})
	for k, want := range []string{"abc", "abcdef", "abc"} {
		c, s := dialed(t, &n, mem.Config{Faults: &listening})
		send(t, c, "abcdef")
		require.NoError(t, c.CloseWrite())
		buf := make([]byte, 10)
		got, err := s.Read(buf)
		require.NoError(t, err)
		require.Equal(t, 1, got)
		rest, err := io.ReadAll(s)
		require.NoError(t, err)
		require.Equal(t, want[1:], string(rest), "connection %d", k+1)
	}
	require.Equal(t, []int{1, 2, 3}, numbers)
	require.Equal(t, 2, n.Faults().Stats().Cuts)
}

func TestWideCutEndsAllAndSparesLater(t *testing.T) {
	var n mem.Network
	var ends []*mem.Conn
	for range 5 {
		c, s := dialed(t, &n, mem.Config{})
		ends = append(ends, c, s)
	}
	n.Faults().Cut(nil)
	for _, c := range ends {
		expectError(t, c, syscall.ECONNRESET)
		require.NoError(t, c.Close())
	}
	require.Equal(t, mem.Stats{Dials: 5, Conns: 5, Cuts: 5}, n.Faults().Stats())
	c, s := dialed(t, &n, mem.Config{})
	send(t, c, "x")
	expect(t, s, "x")
}

func TestWaitConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n mem.Network
		got := make(chan *mem.Faults)
		go func() {
			f, err := n.Faults().WaitConn(t.Context(), 2)
			assert.NoError(t, err)
			got <- f
		}()
		dialed(t, &n, mem.Config{})
		synctest.Wait()
		require.Empty(t, got)
		c, _ := dialed(t, &n, mem.Config{})
		require.Same(t, c.Faults(), <-got)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := n.Faults().WaitConn(ctx, 3)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = n.Faults().WaitConn(t.Context(), 0)
		require.ErrorContains(t, err, "the first is 1")
	})
}

// A control forgets old connections, not their counts and numbers.
func TestLongRunsAreForgotten(t *testing.T) {
	var all mem.Faults
	const runs = 3000
	last := 0
	all.OnConn(func(k int, _ *mem.Faults) { last = k })
	first, other := mem.Pipe(&mem.Config{Faults: &all}) // outlives the others
	defer other.Close()
	for range runs - 1 {
		a, b := mem.Pipe(&mem.Config{Faults: &all})
		send(t, a, "x")
		expect(t, b, "x")
		_, _ = a.Close(), b.Close()
	}
	require.Equal(t, runs, last)
	require.Equal(t, mem.Stats{Conns: runs, Live: 1, UpWritten: runs - 1, UpRead: runs - 1}, all.Stats())
	_, err := all.WaitConn(t.Context(), 2)
	require.ErrorContains(t, err, "forgotten")
	for _, k := range []int{1, runs - 1000, runs} {
		f, err := all.WaitConn(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, 1, f.Stats().Conns)
	}
	require.Zero(t, all.Stats().Cuts)
	f, err := all.WaitConn(t.Context(), 1)
	require.NoError(t, err)
	require.Same(t, first.Faults(), f)
	all.Cut(nil)
	require.Equal(t, 1, all.Stats().Cuts, "the oldest is under the control still")
}
