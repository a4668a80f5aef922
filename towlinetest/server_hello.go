package towlinetest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
)

// firstCases are connections that begin with what begins no session.
func firstCases() []testCase {
	t := &table{group: "first frame"}
	for _, kind := range []uint16{kWelcome, kResumed, kReject, kAck, kPing, kPong, kFin, kGoaway, kClose, kSkip, kStop} {
		t.add(kindName(kind), "R-111, section 13", func(c *check) {
			k := c.dial()
			k.write((&frame{kind: kind, version: 1, epoch: 1, reason: 1, length: 8}).bytes())
			k.refused("R-111")
		})
	}
	for _, kind := range []uint16{0, 14, 99, 0x0100, 0xffff} {
		t.add(fmt.Sprintf("unknown kind %d", kind), "R-104", func(c *check) {
			k := c.dial()
			k.write(control(kind, make([]byte, 114)))
			k.refused("R-104")
		})
	}
	for name, body := range map[string][]byte{"with no body": nil, "with a body of 2 bytes": {0, 1}, "of 1,025 bytes": make([]byte, 1017)} {
		for _, kind := range []uint16{kHello, kResume} {
			t.add(kindName(kind)+" "+name, "R-102", func(c *check) {
				body := bytes.Clone(body)
				if len(body) > 2 {
					body[1] = 1 // the version
				}
				k := c.dial()
				k.try(control(kind, body))
				k.refused("R-102")
			})
		}
	}
	for size := range uint32(4) {
		t.add(fmt.Sprintf("a control frame of size %d", size), "R-2", func(c *check) {
			k := c.dial()
			k.write(header(size, 2, kHello))
			k.refused("R-2")
		})
	}
	for _, cut := range []int{1, 4, 6, 7, 8, 9, 10, 60, 119, 121} {
		t.add(fmt.Sprintf("HELLO in two pieces, cut at byte %d", cut), "R-111", func(c *check) {
			d := c.newDialer()
			b := d.helloFrame(nil)
			d.k = c.dial()
			d.k.write(b[:cut])
			c.breath()
			d.k.write(b[cut:])
			d.takeWelcome()
			d.ack()
			d.echo(1, []byte("x"))
		})
	}
	return t.cases
}

// helloCases are beginnings of sessions.
func helloCases() []testCase {
	t := &table{group: "HELLO"}
	hello := func(name, refs string, change func(f *frame)) { // one that is taken
		t.add(name, refs, func(c *check) {
			d := c.begin(change)
			d.echo(1, []byte("one"), nil, []byte("three"))
		})
	}
	bad := func(name, refs string, change func(f *frame)) { // one that is not
		t.add(name, refs, func(c *check) {
			k := c.dial()
			k.write(c.newDialer().helloFrame(change))
			k.refused(refs)
		})
	}
	ext := func(more ...extension) func(f *frame) {
		return func(f *frame) { f.ext = append(f.ext, more...) }
	}

	hello("plain and simple", "R-111, R-113, R-114", nil)
	t.add("what WELCOME says", "R-113, R-117, R-129", func(c *check) {
		d := c.begin(nil)
		w := d.welcome
		switch {
		case w.maxPayload != uint32(c.server.MaxPayload):
			c.failf("R-117", "the largest payload is %d, expected %d", w.maxPayload, c.server.MaxPayload)
		case w.expiry == 0:
			c.failf("R-129", "an expiry of 0")
		case w.instance == [16]byte{}:
			c.failf("R-113", "an instance of zeros")
		case w.key == [32]byte{}:
			c.failf("R-113", "a public key of zeros")
		}
	})
	t.add("one instance, a key for each session", "R-113", func(c *check) {
		a, b := c.begin(nil).welcome, c.begin(nil).welcome
		if a.instance != b.instance {
			c.failf("R-113", "two sessions have two instances, %x and %x", a.instance, b.instance)
		}
		if a.key == b.key {
			c.failf("R-113", "two sessions have one public key, %x", a.key)
		}
	})
	hello("flag 1", "R-107", func(f *frame) { f.flags = 1 })
	hello("an extension to skip", "R-103", ext(extension{2, []byte("skip me")}))
	hello("an empty extension to skip", "R-103", ext(extension{0x7fff, nil}))
	hello("extension 0 to skip", "R-103", ext(extension{0, []byte{1}}))
	hello("many extensions to skip", "R-103", func(f *frame) {
		for i := range 20 {
			f.ext = append(f.ext, extension{uint16(100 + i), pattern(i)})
		}
	})
	hello("1,024 bytes in all", "R-102, R-103", func(f *frame) {
		f.ext = append(f.ext, extension{0x7000, nil})
		f.ext[len(f.ext)-1].value = pattern(maxControlSize - len(f.bytes()))
	})
	bad("an extension that is not known, 0x8000", "R-103", ext(extension{0x8000, nil}))
	bad("an extension that is not known, 0xffff", "R-103", ext(extension{0xffff, []byte("x")}))
	bad("one extension twice", "R-103", ext(extension{5, []byte("a")}, extension{5, []byte("b")}))
	for _, n := range []int{1, 768} {
		t.add(fmt.Sprintf("a token of %d bytes", n), "R-103", func(c *check) {
			if len(c.server.Token) > 0 {
				c.skipf("the server wants its own token")
			}
			c.begin(ext(extension{extToken, pattern(n)})).echo(1, []byte("x"))
		})
	}
	for _, n := range []int{0, 769} {
		bad(fmt.Sprintf("a token of %d bytes", n), "R-103", func(f *frame) { f.ext = []extension{{extToken, pattern(n)}} })
	}
	raw := func(name, refs string, change func(b []byte) []byte) {
		t.add(name, refs, func(c *check) {
			k := c.dial()
			d := c.newDialer()
			d.hello.ext = nil
			b := change(d.helloFrame(nil))
			copy(b, header(uint32(len(b)-4), 2, kHello))
			k.write(b)
			k.refused(refs)
		})
	}
	raw("one byte short", "R-102", func(b []byte) []byte { return b[:len(b)-1] })
	raw("without L", "R-102", func(b []byte) []byte { return b[:len(b)-2] })
	raw("a byte behind L", "R-102", func(b []byte) []byte { return append(b, 0) })
	raw("L one too many", "R-102", func(b []byte) []byte { b[len(b)-1]++; return b })
	raw("an extension that is cut in its head", "R-103", func(b []byte) []byte { b[len(b)-1] = 3; return append(b, 0, 9, 0) })
	raw("an extension that is cut in its value", "R-103", func(b []byte) []byte { b[len(b)-1] = 5; return append(b, 0, 9, 0, 2, 'x') })
	for _, v := range []uint16{0, 2, 0x0100, 0xffff} {
		t.add(fmt.Sprintf("version %d", v), "R-104, R-128", func(c *check) {
			k := c.dial()
			k.write(c.newDialer().helloFrame(func(f *frame) { f.version = v }))
			k.rejected("R-104", 7)
		})
	}
	t.add("version 2, and all else unknown", "R-104", func(c *check) {
		k := c.dial()
		k.write(c.newDialer().helloFrame(func(f *frame) { f.version, f.flags, f.epoch, f.ext = 2, 0xffff, 0, []extension{{0x9999, nil}} }))
		k.rejected("R-104", 7)
	})
	for _, flags := range []uint16{2, 3, 0x8000} {
		bad(fmt.Sprintf("flags %#x", flags), "R-104", func(f *frame) { f.flags = flags })
	}
	for _, e := range []uint64{0, 257, 1 << 32, 1<<64 - 1} {
		bad(fmt.Sprintf("epoch %d", e), "R-112", func(f *frame) { f.epoch = e })
	}
	for _, e := range []uint64{2, 255, 256} {
		t.add(fmt.Sprintf("first seen with epoch %d", e), "R-112", func(c *check) {
			d := c.newDialer()
			d.epoch = e
			d.start(nil)
			d.echo(1, []byte("x"))
		})
	}
	bad("a key of zeros", "R-113", func(f *frame) { f.key = [32]byte{} })
	bad("a key that is 1", "R-113", func(f *frame) { f.key = [32]byte{1} })
	hello("redelivered 3", "R-116", func(f *frame) { f.redelivered = 3 })
	hello("redelivered 2^64-1", "R-116", func(f *frame) { f.redelivered = 1<<64 - 1 })
	hello("a largest payload of 4,294,967,295", "R-117", func(f *frame) { f.maxPayload = 1<<32 - 1 })
	t.add("the dialer's largest payload", "R-117", func(c *check) {
		d := c.begin(func(f *frame) { f.maxPayload = 100 })
		d.maxIn = 100
		d.echo(1, pattern(100))
		d.k.write(d.data(1, pattern(101)))
		// Whatever an echo server does now, it does not send that; handle sees to it.
		d.k.try(d.frame(kPing, nil))
		for {
			b, err := d.k.read()
			if err != nil {
				return
			}
			if f := d.handle(b); f != nil && (f.kind == kPong || f.kind == kClose || f.kind == kFin || f.kind == kStop) {
				return
			}
		}
	})

	t.add("data behind it in one piece", "R-111", func(c *check) {
		d := c.newDialer()
		one, two := d.data(1, []byte("one")), d.data(1, []byte("two"))
		d.greet(nil, one, two)
		d.ack()
		d.expectEchoes(0, 1, []byte("one"), []byte("two"))
		d.awaitAck("R-109")
	})
	t.add("data behind it up to the first credit", "R-108, R-111", func(c *check) {
		d := c.newDialer()
		a, b := pattern(initialCredit-1-headerSize), pattern(5000) // the second begins a byte below the credit
		d.greet(nil, d.data(1, a), d.data(1, b))
		d.ack()
		d.expectEchoes(0, 1, a, b)
	})
	t.add("data and FIN behind it", "R-111, R-124", func(c *check) {
		d := c.newDialer()
		one := d.data(1, []byte("one"))
		d.greet(nil, one, d.endFrame())
		d.ack()
		d.expectEchoes(0, 1, []byte("one"))
		d.partWell()
	})
	t.add("SKIP and data behind it", "R-111, R-131", func(c *check) {
		d := c.newDialer()
		skip := d.skipFrame(20)
		d.greet(nil, skip, d.data(1, []byte("one")))
		d.ack()
		d.expectEchoes(0, 1, []byte("one"))
		d.awaitAck("R-131")
	})
	t.add("HELLO again on the same connection", "section 13", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.helloFrame(nil))
		d.fails("R-104")
		d.gone("R-127")
	})
	t.add("RESUME on the same connection", "section 13", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.resumeFrame(nil))
		d.fails("R-104")
		d.gone("R-127")
	})

	// WELCOME was lost.
	again := func(d *dialer, epochs uint64) {
		d.k.cut()
		d.epoch += epochs
		d.k = d.c.dial()
		d.sent = position{}
	}
	t.add("WELCOME lost, nothing sent", "R-112, R-115", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		key := d.welcome.key
		again(d, 1)
		d.k.write(d.helloFrame(nil))
		d.takeWelcome()
		if d.welcome.key != key {
			c.failf("R-115", "the second WELCOME has another key")
		}
		d.ack()
		d.echo(1, []byte("x"))
	})
	t.add("WELCOME lost, data delivered", "R-115, R-123", func(c *check) {
		d := c.newDialer()
		one := d.data(1, []byte("one"))
		d.greet(nil, one)
		d.awaitAck("R-109")
		d.awaitData(1)
		again(d, 1)
		d.k.write(d.helloFrame(nil))
		d.takeWelcome()
		if d.welcome.status.received != d.acked {
			c.failf("R-107", "a repeated WELCOME says that %v arrived, expected %v", d.welcome.status.received, d.acked)
		}
		d.arrived, d.gotEnds = nil, []uint64{0} // this dialer knows of nothing
		d.sent = position{1, d.ends[1]}
		d.k.write(append(bytes.Clone(one), d.frame(kAck, nil)...))
		d.expectEchoes(0, 1, []byte("one"))
		d.echo(1, []byte("two"))
		if len(d.arrived) != 2 {
			c.failf("R-123", "expected 2 echoes, came %d", len(d.arrived))
		}
	})
	t.add("WELCOME lost, epoch raised by 3", "R-112", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		again(d, 3)
		d.k.write(d.helloFrame(nil))
		d.takeWelcome()
		d.ack()
		d.echo(1, []byte("x"))
	})
	t.add("WELCOME lost nine times, with data each time", "R-112, R-115", func(c *check) {
		d := c.newDialer()
		one := d.data(1, []byte("one"))
		d.greet(nil, one)
		for range 9 {
			again(d, 1)
			d.k.write(append(bytes.Clone(d.helloFrame(nil)), one...))
			d.takeWelcome()
			d.sent = position{1, d.ends[1]}
		}
		d.ack()
		d.expectEchoes(0, 1, []byte("one"))
		d.echo(1, []byte("two"))
	})
	t.add("WELCOME lost while the old connection is open", "R-115, R-119", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		old := d.k
		d.epoch++
		d.k = c.dial()
		d.k.write(d.helloFrame(nil))
		d.takeWelcome()
		old.refused("R-119")
		d.ack()
		d.echo(1, []byte("x"))
	})
	refusedAgain := func(name, refs string, reason uint16, confirmed bool, change func(d *dialer, f *frame)) {
		t.add(name, refs, func(c *check) {
			d := c.newDialer()
			d.greet(nil)
			if confirmed {
				d.ack()
				d.pong()
			}
			live, hello := d.k, d.hello
			d.epoch++
			k := c.dial()
			k.write(d.helloFrame(func(f *frame) { change(d, f) }))
			k.rejected(refs, reason)
			d.hello = hello
			d.k = live
			d.ack()
			d.echo(1, []byte("unharmed"))
		})
	}
	refusedAgain("again, when it was confirmed", "R-115", 10, true, func(*dialer, *frame) {})
	refusedAgain("again, with the same epoch", "R-112", 6, false, func(d *dialer, f *frame) {
		f.epoch, f.link = 1, chain(d.secret, 1)
	})
	refusedAgain("again, with another chain", "R-112", 6, false, func(_ *dialer, f *frame) { f.link = [32]byte{1} })
	refusedAgain("again, with the link of before", "R-112", 6, false, func(d *dialer, f *frame) { f.link = chain(d.secret, 1) })
	refusedAgain("again, with the link of a later one", "R-112", 6, false, func(d *dialer, f *frame) { f.link = chain(d.secret, 3) })
	refusedAgain("again, with another key", "R-115", 6, false, func(_ *dialer, f *frame) {
		if k, err := ecdh.X25519().GenerateKey(rand.Reader); err == nil {
			f.key = [32]byte(k.PublicKey().Bytes())
		}
	})
	refusedAgain("again, with another largest payload", "R-115, R-117", 10, false, func(_ *dialer, f *frame) { f.maxPayload-- })
	refusedAgain("again, with other flags", "R-115, R-117", 10, false, func(_ *dialer, f *frame) { f.flags ^= 1 })
	t.add("again, with more redelivered, which is not taken", "R-116", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		again(d, 1)
		d.k.write(d.helloFrame(func(f *frame) { f.redelivered = 2 }))
		d.takeWelcome()
		d.ack()
		d.echo(1, []byte("x"))
	})
	t.add("again, with more redelivered, behind one that another may have taken", "R-116", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		again(d, 2)
		d.k.write(d.helloFrame(func(f *frame) { f.redelivered = 2 }))
		d.takeWelcome()
		d.ack()
		d.echo(1, []byte("x"))
	})
	t.add("again, with other extensions", "R-115", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		again(d, 1)
		d.k.write(d.helloFrame(ext(extension{77, []byte("new")})))
		d.takeWelcome()
		d.ack()
		d.echo(1, []byte("x"))
	})
	return t.cases
}
