package towlinetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/towline-mq/towline/transport"
)

// Result counts the cases of a run of the suite.
type Result struct {
	Passed, Skipped, Failed int
	Time                    time.Duration
}

// String gives the figures in one line.
func (r Result) String() string {
	return fmt.Sprintf("%d cases: %d passed, %d skipped, %d failed, %.1f s",
		r.Passed+r.Skipped+r.Failed, r.Passed, r.Skipped, r.Failed, r.Time.Seconds())
}

// testCase is a line of a table: a name, the requirements that it checks, and how.
type testCase struct {
	group, name, refs string
	wait              time.Duration // what it takes even if all is well; such cases are left out with -short
	run               func(c *check)
}

// tries is how often a case may find that the connection ended before the last word, which a reset may overtake and a
// busy server cut short, or that a busy machine is late.
const tries = 4

// atOnce is how many cases run beside each other, those that mostly wait not counted.
const atOnce = 8

// runCases runs each case as a subtest of its group. All of them are under way at the same time, whatever -parallel
// says, since most of their time is waiting.
func runCases(t *testing.T, cases []testCase, timeout time.Duration, prepare func(t *testing.T) func(c *check)) Result {
	begin := time.Now()
	var passed, skipped, failed atomic.Int64
	slots := make(chan struct{}, atOnce)
	t.Run("cases", func(t *testing.T) {
		for _, tc := range cases {
			t.Run(tc.group+"/"+tc.name, func(t *testing.T) {
				if tc.wait > 0 && testing.Short() {
					skipped.Add(1)
					t.Skipf("takes %v", tc.wait)
				}
				newCheck := prepare(t)
				var c *check
				done := make(chan struct{})
				go func() {
					defer close(done)
					if tc.wait == 0 {
						slots <- struct{}{}
						defer func() { <-slots }()
					}
					for range tries {
						c = &check{name: t.Name(), refs: tc.refs, timeout: timeout + tc.wait}
						newCheck(c)
						if c.do(tc.run); !c.overtaken {
							return
						}
					}
				}()
				t.Parallel()
				<-done
				switch {
				case c.failure != "":
					failed.Add(1)
					t.Error(c.report())
				case c.skipped != "":
					skipped.Add(1)
					t.Skip(c.skipped)
				default:
					passed.Add(1)
				}
			})
		}
	})
	return Result{int(passed.Load()), int(skipped.Load()), int(failed.Load()), time.Since(begin)}
}

// check is one case under way. Its methods belong to the goroutine that runs the case, which a failure ends.
type check struct {
	name, refs string
	timeout    time.Duration
	ctx        context.Context
	dialTo     func(ctx context.Context) (net.Conn, error)
	server     *ServerOptions
	listener   net.Listener                                   // of Transport and Client
	start      func(ctx context.Context, addr net.Addr) error // of Client
	dialer     transport.Dialer                               // of Transport
	strict     bool                                           // of Client
	impatient  bool                                           // of Client
	breathe    *conn
	conns      int

	mu       sync.Mutex
	trace    []func() string
	failure  string
	skipped  string
	cleanups []func()

	overtaken bool // perhaps it failed because of a reset
}

// do runs fn to its end, whichever that is.
func (c *check) do(fn func(c *check)) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	c.ctx = ctx
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(c)
	}()
	<-done
	for i := len(c.cleanups) - 1; i >= 0; i-- {
		c.cleanups[i]()
	}
	cancel()
	if c.listener != nil {
		_ = c.listener.Close()
	}
}

func (c *check) cleanup(fn func()) { c.cleanups = append(c.cleanups, fn) }

// failf ends the case: ref is the requirement that was broken.
func (c *check) failf(ref, format string, args ...any) {
	c.mu.Lock()
	if c.failure == "" {
		c.failure = fmt.Sprintf("[%s] %s", ref, fmt.Sprintf(format, args...))
	}
	c.mu.Unlock()
	runtime.Goexit()
}

// skipf ends the case, which has nothing to say here.
func (c *check) skipf(format string, args ...any) {
	c.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// traced is how many of the last frames a failure shows, and shownBytes how many bytes of each.
const (
	traced     = 24
	shownBytes = 200
)

// note remembers what went over the wire, for the report of a failure.
func (c *check) note(k int, arrow string, b []byte) {
	n, shown := len(b), append([]byte(nil), b[:min(len(b), shownBytes)]...)
	c.remember(func() string {
		more := ""
		if n > len(shown) {
			more = "…"
		}
		return fmt.Sprintf("connection %d %s %d bytes%s%x%s", k, arrow, n, describe(shown), shown, more)
	})
}

func (c *check) notef(format string, args ...any) {
	c.remember(func() string { return fmt.Sprintf(format, args...) })
}

// remember takes a line of the trace, which is written only if it is shown.
func (c *check) remember(line func() string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.trace) == traced {
		c.trace = append(c.trace[:0], c.trace[1:]...)
	}
	c.trace = append(c.trace, line)
}

// describe names the frame that b begins with, if it looks like one.
func describe(b []byte) string {
	if len(b) >= headerSize && binary.BigEndian.Uint32(b) >= 4 {
		switch binary.BigEndian.Uint16(b[4:]) {
		case 1:
			return ", data first: "
		case 2:
			return ", " + kindName(binary.BigEndian.Uint16(b[6:])) + " first: "
		}
	}
	return ": "
}

// what is describe for a sentence.
func what(b []byte) string { return fmt.Sprintf("%d bytes%s%s", len(b), describe(b), brief(b)) }

func (c *check) report() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var again []string
	for part := range strings.SplitSeq(c.name, "/") {
		again = append(again, "^"+regexp.QuoteMeta(part)+"$")
	}
	trace := ""
	if len(c.trace) > 0 {
		trace = "; what went over the wire last, in hex:"
		for _, line := range c.trace {
			trace += "\n  " + line()
		}
	}
	return fmt.Sprintf("%s\nthis case checks %s%s\nagain: go test -count=1 -run '%s'", c.failure, c.refs, trace, strings.Join(again, "/"))
}

// conn is one connection to the side under test.
type conn struct {
	c  *check
	nc net.Conn
	no int
}

// dial makes a connection to the listener under test.
func (c *check) dial() *conn {
	nc, err := c.dialTo(c.ctx)
	if err != nil {
		c.failf("R-1", "dialling: %v", err)
	}
	return c.take(nc)
}

func (c *check) take(nc net.Conn) *conn {
	c.conns++
	deadline, _ := c.ctx.Deadline()
	_ = nc.SetDeadline(deadline)
	c.cleanup(func() { closeNow(nc) })
	return &conn{c: c, nc: nc, no: c.conns}
}

// closeNow closes without a goodbye, if nc has such a way: some wait for the peer in Close.
func closeNow(nc net.Conn) {
	if q, ok := nc.(interface{ CloseNow() error }); ok {
		_ = q.CloseNow()
		return
	}
	_ = nc.Close()
}

// write sends b in one piece.
func (k *conn) write(b []byte) {
	k.c.note(k.no, "→", b)
	if _, err := k.nc.Write(b); err != nil {
		k.c.failf("R-8", "the connection broke while this was being sent: %v", err)
	}
}

// try sends b on a connection that the other side may have closed.
func (k *conn) try(b []byte) {
	k.c.note(k.no, "→", b)
	if _, err := k.nc.Write(b); err != nil {
		k.c.notef("connection %d: %v", k.no, err)
	}
}

// background sends b while the case goes on: for more than fits in buffers.
func (k *conn) background(b []byte) (done <-chan error) {
	k.c.note(k.no, "→", b)
	result := make(chan error, 1)
	go func() {
		_, err := k.nc.Write(b)
		result <- err
	}()
	k.c.cleanup(func() {
		closeNow(k.nc)
		if err := <-result; err != nil {
			return // the case has ended
		}
	})
	return result
}

// finish ends this side's direction.
func (k *conn) finish() {
	w, ok := k.nc.(interface{ CloseWrite() error })
	if !ok {
		k.c.skipf("%T cannot end one direction", k.nc)
	}
	k.c.notef("connection %d → the end of the stream", k.no)
	if err := w.CloseWrite(); err != nil {
		k.c.failf("R-8", "ending the stream: %v", err)
	}
}

// cut closes the connection.
func (k *conn) cut() {
	k.c.notef("connection %d → closed", k.no)
	closeNow(k.nc)
}

// maxFrame bounds what is read of a peer that announces nonsense.
const maxFrame = 1<<28 + headerSize

// read returns the next frame, whole; errors are the stream's.
func (k *conn) read() ([]byte, error) {
	b := make([]byte, headerSize)
	if n, err := io.ReadFull(k.nc, b); err != nil {
		if n > 0 {
			k.c.note(k.no, "←", b[:n])
		}
		return nil, err
	}
	size := binary.BigEndian.Uint32(b)
	if size < 4 || size > maxFrame-4 {
		k.c.note(k.no, "←", b)
		k.c.failf("R-2", "a frame of size %d came", size)
	}
	b = append(b, make([]byte, size-4)...)
	if n, err := io.ReadFull(k.nc, b[headerSize:]); err != nil {
		k.c.note(k.no, "←", b[:headerSize+n])
		return nil, fmt.Errorf("inside a frame: %w", err)
	}
	k.c.note(k.no, "←", b)
	return b, nil
}

// next is read where a frame must come.
func (k *conn) next(ref, expected string) []byte {
	b, err := k.read()
	if err != nil {
		k.c.failf(ref, "expected %s, came %s", expected, why(err))
	}
	return b
}

// why says how a stream ended.
func why(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "the end of the stream"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing, for as long as this case may take"
	}
	return fmt.Sprintf("an end of the connection (%v)", err)
}

// ends expects that nothing comes any more but the end of the stream. A reset is such an end, too, unless good is set.
func (k *conn) ends(ref string, good bool) {
	b, err := k.read()
	switch {
	case err == nil:
		k.c.failf(ref, "expected the end of the stream, came %s", what(b))
	case errors.Is(err, os.ErrDeadlineExceeded):
		k.c.failf(ref, "expected the end of the stream, and the connection is still open")
	case good && !errors.Is(err, io.EOF):
		k.c.failf(ref, "expected the end of the stream, came %s", why(err))
	}
}

// breath lets the other side run: it returns when an exchange on another connection is complete.
func (c *check) breath() {
	if c.server == nil {
		return
	}
	if c.server.NoPlain {
		if c.breathe == nil {
			c.breathe = c.begin(nil).k
		}
		c.breathe.write((&frame{kind: kPing}).bytes())
		for {
			if b := c.breathe.next("R-134", "PONG"); binary.BigEndian.Uint16(b[6:]) == kPong {
				return
			}
		}
	}
	if c.breathe == nil {
		c.breathe = c.dial()
	}
	b := datagramFrame(1, []byte("breath"))
	c.breathe.write(b)
	c.breathe.next("R-4", "an echo")
}
