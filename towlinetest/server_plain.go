package towlinetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// table makes cases of one group.
type table struct {
	group string
	cases []testCase
}

func (t *table) add(name, refs string, run func(c *check)) {
	t.cases = append(t.cases, testCase{group: t.group, name: name, refs: refs, run: run})
}

// pattern is a payload of n bytes that differ from their neighbours.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// echoed expects frames back, in order.
func (k *conn) echoed(frames ...[]byte) {
	for _, want := range frames {
		if got := k.next("R-4", "an echo"); !bytes.Equal(got, want) {
			k.c.failf("R-4", "expected %s, came %s", brief(want), brief(got))
		}
	}
}

// plainCases are part one of the protocol, on connections without a session.
func plainCases() []testCase {
	t := &table{group: "plain"}
	good := datagramFrame(7, []byte("good"))

	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 255, 256, 1016, 1017, 1024, 4096, 65527, 65528, 65535, 65536, 65537, 200_000, 1 << 20} {
		t.add(fmt.Sprintf("payload of %d bytes", n), "R-1, R-5", func(c *check) {
			if n > c.server.MaxPayload {
				c.skipf("more than the server takes")
			}
			k := c.dial()
			b := datagramFrame(uint16(n), pattern(n))
			sent := k.background(append(bytes.Clone(b), good...))
			k.echoed(b, good)
			if err := <-sent; err != nil {
				c.failf("R-8", "sending: %v", err)
			}
			c.cleanups = c.cleanups[:len(c.cleanups)-1] // the sending has ended
		})
	}
	t.add("the largest payload", "R-6", func(c *check) {
		if c.server.MaxPayload > 64<<20 {
			c.skipf("too large to try")
		}
		k := c.dial()
		b := datagramFrame(1, pattern(c.server.MaxPayload))
		k.background(b)
		k.echoed(b)
	})
	for _, r := range []uint16{0, 1, 2, 0x00ff, 0xff00, 0x1234, 0x7fff, 0x8000, 0xffff} {
		t.add(fmt.Sprintf("recipient %#04x", r), "R-4", func(c *check) {
			k := c.dial()
			b := datagramFrame(r, []byte("to you"))
			k.write(b)
			k.echoed(b)
		})
	}
	t.add("every recipient", "R-4", func(c *check) {
		k := c.dial()
		var all [][]byte
		for r := range 1 << 16 {
			all = append(all, datagramFrame(uint16(r), nil))
		}
		want := bytes.Join(all, nil)
		k.background(want)
		got := make([]byte, len(want))
		if n, err := io.ReadFull(k.nc, got); err != nil {
			c.failf("R-4", "expected %d bytes, came %d and %s", len(want), n, why(err))
		}
		if !bytes.Equal(got, want) {
			c.failf("R-4", "not all came back as it was")
		}
	})
	t.add("a payload that looks like frames", "R-1", func(c *check) {
		k := c.dial()
		b := datagramFrame(3, append(datagramFrame(1, []byte("inner")), (&frame{kind: kClose}).bytes()...))
		k.write(b)
		k.echoed(b)
	})
	for cut := 1; cut < len(good); cut++ {
		t.add(fmt.Sprintf("two pieces, cut at byte %d", cut), "R-1", func(c *check) {
			k := c.dial()
			k.write(good[:cut])
			c.breath()
			k.write(good[cut:])
			k.echoed(good)
		})
	}
	t.add("byte by byte", "R-1", func(c *check) {
		k := c.dial()
		two := append(bytes.Clone(good), datagramFrame(8, nil)...)
		for i := range two {
			k.write(two[i : i+1])
		}
		k.echoed(good, datagramFrame(8, nil))
	})
	t.add("many frames in one piece", "R-1", func(c *check) {
		k := c.dial()
		var all [][]byte
		for i := range 1000 {
			all = append(all, datagramFrame(uint16(i), fmt.Appendf(nil, "number %d", i)))
		}
		k.background(bytes.Join(all, nil))
		k.echoed(all...)
	})
	t.add("a frame and half of the next", "R-1", func(c *check) {
		k := c.dial()
		next := datagramFrame(9, []byte("next"))
		k.write(append(bytes.Clone(good), next[:6]...))
		k.echoed(good)
		k.write(next[6:])
		k.echoed(next)
	})
	t.add("two connections at once", "R-1", func(c *check) {
		a, b := c.dial(), c.dial()
		for i := range 20 {
			x, y := datagramFrame(uint16(i), []byte("a")), datagramFrame(uint16(i), []byte("b"))
			a.write(x[:5])
			b.write(y[:7])
			a.write(x[5:])
			b.write(y[7:])
			b.echoed(y)
			a.echoed(x)
		}
	})
	t.add("ends between frames", "R-8, R-11", func(c *check) {
		k := c.dial()
		k.write(append(bytes.Clone(good), good...))
		k.finish()
		k.echoed(good, good)
		k.ends("R-11", true)
	})
	t.add("ends behind 64 KiB that were not read", "R-8, R-11", func(c *check) {
		k := c.dial()
		var all [][]byte
		for i := range 64 {
			all = append(all, datagramFrame(uint16(i), pattern(1016)))
		}
		k.write(bytes.Join(all, nil))
		k.finish()
		k.echoed(all...)
		k.ends("R-11", true)
	})
	t.add("ends at once", "R-8", func(c *check) {
		k := c.dial()
		k.finish()
		k.ends("R-8", true)
	})
	for cut := 1; cut < len(good); cut++ {
		t.add(fmt.Sprintf("ends inside a frame, at byte %d", cut), "R-8", func(c *check) {
			k := c.dial()
			k.write(append(bytes.Clone(good), good[:cut]...))
			k.finish()
			k.echoed(good)
			k.ends("R-8", false)
		})
	}
	large := func(c *check) uint32 { return uint32(c.server.MaxPayload) + 5 }
	for _, bad := range []struct {
		name, refs string
		bytes      func(c *check) []byte
	}{
		{"size 0", "R-2, R-9, R-14", func(*check) []byte { return header(0, 1, 7)[:4] }},
		{"size 1", "R-2, R-9, R-14", func(*check) []byte { return header(1, 1, 7)[:4] }},
		{"size 2", "R-2, R-9, R-14", func(*check) []byte { return header(2, 1, 7)[:4] }},
		{"size 3", "R-2, R-9, R-14", func(*check) []byte { return header(3, 1, 7)[:4] }},
		{"version 0", "R-3, R-9, R-14", func(*check) []byte { return header(8, 0, 7)[:6] }},
		{"version 2, which is for sessions", "R-3, R-9, R-14", func(*check) []byte { return header(8, 2, 7)[:6] }},
		{"version 3", "R-3, R-9, R-14", func(*check) []byte { return header(8, 3, 7)[:6] }},
		{"version 256", "R-3, R-9, R-14", func(*check) []byte { return header(8, 256, 7)[:6] }},
		{"version 65535", "R-3, R-9, R-14", func(*check) []byte { return header(8, 0xffff, 7)[:6] }},
		{"size 0 and a whole frame behind it", "R-2, R-9", func(*check) []byte { return append(header(0, 1, 7), good...) }},
		{"version 9 and a whole frame behind it", "R-3, R-9", func(*check) []byte { return append(datagramFrameOf(9, []byte("x")), good...) }},
		{"one byte above the limit", "R-6, R-9, R-14", func(c *check) []byte { return header(large(c), 1, 7)[:6] }},
		{"the greatest size", "R-6, R-9, R-14", func(*check) []byte { return header(0xffffffff, 1, 7)[:6] }},
		{"above the limit, with bytes behind it", "R-6, R-9", func(c *check) []byte { return append(header(large(c), 1, 7), good...) }},
		{"HELLO", "R-3, R-9", func(c *check) []byte { return c.newDialer().helloFrame(nil) }},
	} {
		t.add("behind a frame: "+bad.name, bad.refs, func(c *check) {
			k := c.dial()
			k.write(append(bytes.Clone(good), bad.bytes(c)...))
			k.echoed(good)
			k.ends("R-9", false)
		})
		if bad.name == "HELLO" || binary.BigEndian.Uint16(append(bad.bytes(&check{server: &ServerOptions{}}), make([]byte, 8)...)[4:]) == 2 {
			continue // these may begin a connection
		}
		t.add("first: "+bad.name, bad.refs, func(c *check) {
			k := c.dial()
			b := bad.bytes(c)
			k.write(append(b, make([]byte, max(0, headerSize-len(b)))...))
			k.ends("R-9", false)
		})
	}
	return t.cases
}

// datagramFrameOf is a frame of another version.
func datagramFrameOf(version uint16, payload []byte) []byte {
	return append(header(uint32(4+len(payload)), version, 7), payload...)
}
