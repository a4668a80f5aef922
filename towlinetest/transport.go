package towlinetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/towline-mq/towline/transport"
)

// transportTime bounds each case, of which some move megabytes, side by side: on a busy machine, with the race detector and
// encryption, that has taken 20 s.
const transportTime = 2 * time.Minute

// Transport checks that a transport does what sessions need of it: that its connections are ordered and reliable, that
// deadlines and Close wake who waits, that a full line holds the writer up, that nothing is lost in front of an end, and
// that errors are those of package net. Then sessions run over it, and are cut. A case that hangs fails after two minutes.
//
// make is called for each case, and makes a listener and what dials it; the listener is closed by the case. Half-close
// (CloseWrite) and TryWrite are checked where connections have them.
func Transport(t *testing.T, make func(tb testing.TB) (net.Listener, transport.Dialer)) Result {
	t.Helper()
	return runCases(t, transportCases(), transportTime, func(t *testing.T) func(c *check) {
		ln, d := make(t)
		return func(c *check) { c.listener, c.dialer = ln, d }
	})
}

// pair is two ends of one connection: a dialled. Both are closed when the case ends.
func (c *check) pair() (a, b net.Conn) {
	accepted := c.background(func() (err error) {
		b, err = c.listener.Accept()
		return err
	})
	a, err := c.dialer.DialContext(c.ctx)
	if err != nil {
		c.failf("dial", "%v", err)
	}
	c.cleanup(func() { closeNow(a) })
	c.wait("Accept", accepted)
	c.cleanup(func() { closeNow(b) })
	return a, b
}

// background runs fn beside the case.
func (c *check) background(fn func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- fn() }()
	return result
}

// outcome waits for what runs in the background. That it never ends is a failure.
func (c *check) outcome(what string, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-c.ctx.Done():
		c.failf("hangs", "%s does not return", what)
		return nil
	}
}

func (c *check) wait(what string, result <-chan error) {
	if err := c.outcome(what, result); err != nil {
		c.failf("net.Conn", "%s: %v", what, err)
	}
}

func (c *check) must(what string, err error) {
	if err != nil {
		c.failf("net.Conn", "%s: %v", what, err)
	}
}

// is expects an error.
func (c *check) is(what string, err, want error) {
	if !errors.Is(err, want) {
		c.failf("net.Conn", "%s: expected an error that matches %q, came %v", what, want, err)
	}
}

// reads expects bytes.
func (c *check) reads(nc net.Conn, want []byte) {
	got := make([]byte, len(want))
	result := c.background(func() error { _, err := io.ReadFull(nc, got); return err })
	c.wait(fmt.Sprintf("reading %d bytes", len(want)), result)
	if !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		c.failf("net.Conn", "byte %d of %d is %#02x, expected %#02x", at, len(want), got[at], want[at])
	}
}

// writes writes, in the background.
func (c *check) writes(nc net.Conn, b []byte) <-chan error {
	return c.background(func() error {
		n, err := nc.Write(b)
		if err == nil && n != len(b) {
			return fmt.Errorf("Write returned %d for %d bytes, and no error", n, len(b))
		}
		return err
	})
}

// passes sends bytes from one end to the other.
func (c *check) passes(from, to net.Conn, b []byte) {
	sent := c.writes(from, b)
	c.reads(to, b)
	c.wait("Write", sent)
}

// soon is a deadline that passes while something waits for it.
const soon = 30 * time.Millisecond

// fullAfter is how much a line may take that nobody reads from.
const fullAfter = 64 << 20

// fill writes until the deadline passes.
func (c *check) fill(nc net.Conn) {
	piece, n := pattern(1<<16), 0
	c.must("SetWriteDeadline", nc.SetWriteDeadline(time.Now().Add(10*soon)))
	result := c.background(func() error {
		for n < fullAfter {
			k, err := nc.Write(piece[n%len(piece):])
			n += k
			if err != nil {
				return err
			}
		}
		return nil
	})
	err := c.outcome("a Write whose deadline has passed", result)
	if err == nil {
		c.failf("net.Conn", "%d bytes were taken that nobody reads: memory is not bounded", n)
	}
	c.is("a Write that waits, when its deadline passes", err, os.ErrDeadlineExceeded)
}

// breathHere lets goroutines that have just begun come to where they wait. Nothing depends on it but how sharp a case is.
func (c *check) breathHere() {
	timer := time.NewTimer(soon)
	defer timer.Stop()
	<-timer.C
}

func transportCases() []testCase {
	t := &table{group: "connections"}
	t.add("bytes, both ways", "net.Conn", func(c *check) {
		a, b := c.pair()
		for _, n := range []int{1, 2, 1000, 65536, 1 << 20} {
			c.passes(a, b, pattern(n))
			c.passes(b, a, pattern(n))
		}
	})
	t.add("both ways at once", "net.Conn", func(c *check) {
		a, b := c.pair()
		up, down := c.writes(a, pattern(1<<20)), c.writes(b, pattern(1<<20))
		read := c.background(func() error { _, err := io.ReadFull(a, make([]byte, 1<<20)); return err })
		c.reads(b, pattern(1<<20))
		c.wait("Read", read)
		c.wait("Write", up)
		c.wait("Write", down)
	})
	t.add("the peer speaks first", "net.Conn", func(c *check) {
		a, b := c.pair()
		c.passes(b, a, []byte("hello"))
	})
	t.add("Write does not keep the bytes", "io.Writer", func(c *check) {
		a, b := c.pair()
		p := make([]byte, 100)
		sent := c.background(func() error {
			for i := range 200 {
				for j := range p {
					p[j] = byte(i)
				}
				if _, err := a.Write(p); err != nil {
					return err
				}
				clear(p)
			}
			return nil
		})
		var want []byte
		for i := range 200 {
			want = append(want, bytes.Repeat([]byte{byte(i)}, 100)...)
		}
		c.reads(b, want)
		c.wait("Write", sent)
	})
	t.add("addresses", "net.Conn", func(c *check) {
		a, b := c.pair()
		for _, addr := range []net.Addr{a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr(), c.listener.Addr()} {
			if addr == nil {
				c.failf("net.Conn", "an address is nil")
			}
		}
	})
	t.add("a read deadline", "net.Conn", func(c *check) {
		a, b := c.pair()
		c.must("SetReadDeadline", a.SetReadDeadline(time.Now().Add(soon)))
		_, err := a.Read(make([]byte, 1))
		c.is("Read, when its deadline has passed", err, os.ErrDeadlineExceeded)
		if !isTimeout(err) {
			c.failf("net.Error", "Timeout() of %v is false", err)
		}
		_, err = a.Read(make([]byte, 1))
		c.is("a second Read", err, os.ErrDeadlineExceeded)
		c.must("SetReadDeadline", a.SetReadDeadline(time.Time{}))
		c.passes(b, a, []byte("still there"))
	})
	t.add("a read deadline that is set while Read waits", "net.Conn", func(c *check) {
		a, b := c.pair()
		read := c.background(func() error { _, err := a.Read(make([]byte, 1)); return err })
		sent := c.writes(a, []byte("x")) // the other direction goes on
		c.reads(b, []byte("x"))
		c.wait("Write", sent)
		c.must("SetReadDeadline", a.SetReadDeadline(time.Unix(1, 0)))
		c.is("Read", c.outcome("Read", read), os.ErrDeadlineExceeded)
		c.must("SetReadDeadline", a.SetReadDeadline(time.Time{}))
		c.passes(b, a, []byte("y"))
	})
	t.add("a full line holds the writer up", "net.Conn", func(c *check) {
		a, _ := c.pair()
		c.fill(a)
	})
	t.add("a full line loses nothing", "net.Conn", func(c *check) {
		a, b := c.pair()
		all := bytes.Repeat(pattern(1<<16), 128) // 8 MiB
		sent := c.writes(a, all)
		c.breathHere()
		c.reads(b, all)
		c.wait("Write", sent)
		c.passes(b, a, []byte("and back"))
	})
	t.add("one full direction does not hold up the other", "net.Conn", func(c *check) {
		a, b := c.pair()
		c.fill(a)
		c.passes(b, a, pattern(1000))
	})
	t.add("Close wakes who reads", "net.Conn", func(c *check) {
		a, _ := c.pair()
		read := c.background(func() error { _, err := a.Read(make([]byte, 1)); return err })
		c.breathHere()
		closed := c.background(a.Close)
		c.is("Read", c.outcome("Read, when Close is called,", read), net.ErrClosed)
		_ = c.outcome("Close", closed)
		_, err := a.Write([]byte("x"))
		c.is("Write, after Close", err, net.ErrClosed)
	})
	t.add("Close wakes who writes", "net.Conn", func(c *check) {
		a, _ := c.pair()
		c.fill(a)
		c.must("SetWriteDeadline", a.SetWriteDeadline(time.Time{}))
		write := c.background(func() error {
			for piece := pattern(1 << 16); ; { // buffers that were full may grow
				if _, err := a.Write(piece); err != nil {
					return err
				}
			}
		})
		c.breathHere()
		closed := c.background(func() error { closeNow(a); return nil })
		c.is("Write", c.outcome("Write, when Close is called,", write), net.ErrClosed)
		c.wait("Close", closed)
	})
	t.add("nothing is lost in front of Close", "net.Conn", func(c *check) {
		a, b := c.pair()
		sent := c.background(func() error {
			if _, err := a.Write(pattern(300_000)); err != nil {
				return err
			}
			return a.Close()
		})
		c.reads(b, pattern(300_000))
		read := c.background(func() error { _, err := b.Read(make([]byte, 1)); return err })
		if err := c.outcome("Read, at the end,", read); err != io.EOF {
			c.failf("io.Reader", "expected io.EOF behind the last byte, came %v", err)
		}
		closeNow(b)
		_ = c.outcome("Close", sent)
	})
	t.add("half-close", "CloseWrite", func(c *check) {
		a, b := c.pair()
		w, ok := a.(interface{ CloseWrite() error })
		if !ok {
			c.skipf("%T has no CloseWrite", a)
		}
		sent := c.background(func() error {
			if _, err := a.Write(pattern(100_000)); err != nil {
				return err
			}
			return w.CloseWrite()
		})
		c.reads(b, pattern(100_000))
		c.wait("CloseWrite", sent)
		read := c.background(func() error { _, err := b.Read(make([]byte, 1)); return err })
		if err := c.outcome("Read, at the end,", read); err != io.EOF {
			c.failf("CloseWrite", "expected io.EOF behind the last byte, came %v", err)
		}
		sent = c.writes(b, pattern(100_000))
		c.reads(a, pattern(100_000))
		c.wait("Write, the other way,", sent)
		if _, err := a.Write([]byte("x")); err == nil {
			c.failf("CloseWrite", "Write goes on after it")
		}
	})
	t.add("TryWrite takes what fits", "TryWrite", func(c *check) {
		a, b := c.pair()
		w, ok := a.(interface{ TryWrite(p []byte) (int, error) })
		if !ok {
			c.skipf("%T has no TryWrite", a)
		}
		piece, total := pattern(1<<16), 0
		for total < fullAfter {
			n, err := w.TryWrite(piece)
			c.must("TryWrite", err)
			total += n
			if n < len(piece) {
				break
			}
		}
		read := c.background(func() error { _, err := io.ReadFull(b, make([]byte, total)); return err })
		c.wait("reading what TryWrite has taken", read)
	})
	t.add("a dial whose context has ended", "transport.Dialer", func(c *check) {
		ctx, cancel := context.WithCancel(c.ctx)
		cancel()
		nc, err := c.dialer.DialContext(ctx)
		if err == nil {
			closeNow(nc)
		}
		c.is("DialContext", err, context.Canceled)
	})
	t.add("the end of a context after the dial changes nothing", "transport.Dialer", func(c *check) {
		ctx, cancel := context.WithCancel(c.ctx)
		var b net.Conn
		accepted := c.background(func() (err error) { b, err = c.listener.Accept(); return err })
		a, err := c.dialer.DialContext(ctx)
		cancel()
		c.must("DialContext", err)
		c.cleanup(func() { closeNow(a) })
		c.wait("Accept", accepted)
		c.cleanup(func() { closeNow(b) })
		c.passes(a, b, []byte("x"))
	})
	t.add("closing the listener wakes Accept", "net.Listener", func(c *check) {
		accept := c.background(func() error { _, err := c.listener.Accept(); return err })
		c.breathHere()
		c.must("Close", c.listener.Close())
		c.is("Accept", c.outcome("Accept", accept), net.ErrClosed)
	})
	t.add("several connections", "net.Conn", func(c *check) {
		type ends struct{ a, b net.Conn }
		var all []ends
		for range 8 {
			a, b := c.pair()
			all = append(all, ends{a, b})
		}
		var sent []<-chan error
		for i, e := range all {
			sent = append(sent, c.writes(e.a, bytes.Repeat([]byte{byte(i)}, 5000)))
		}
		for i := range all {
			e := all[len(all)-1-i]
			c.reads(e.b, bytes.Repeat([]byte{byte(len(all) - 1 - i)}, 5000))
		}
		for _, s := range sent {
			c.wait("Write", s)
		}
	})
	t.cases = append(t.cases, sessionCases()...)
	return t.cases
}
