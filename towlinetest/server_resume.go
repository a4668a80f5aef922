package towlinetest

import (
	"bytes"
	"fmt"
)

// resumeCases are sessions that go on with another connection.
func resumeCases() []testCase {
	t := &table{group: "RESUME"}

	t.add("nothing on its way", "R-118, R-119, R-122", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		d.k.cut()
		f := d.resume(nil)
		if f.status.received != d.sent {
			c.failf("R-107", "RESUMED says that %v arrived, expected %v", f.status.received, d.sent)
		}
		if f.expiry == 0 {
			c.failf("R-129", "an expiry of 0")
		}
		d.echo(1, []byte("two"))
	})
	t.add("before anything was sent", "R-118", func(c *check) {
		d := c.begin(nil)
		d.pong()
		d.k.cut()
		d.resume(nil)
		d.echo(1, []byte("one"))
	})
	t.add("before the first ACK, which it replaces", "R-115", func(c *check) {
		d := c.newDialer()
		d.greet(nil)
		d.k.cut()
		d.resume(nil)
		d.echo(1, []byte("one"))
		d.k.cut()
		d.epoch++
		k := c.dial()
		k.write(d.helloFrame(nil))
		k.rejected("R-115", 10)
	})
	t.add("echoes were lost", "R-119, R-122", func(c *check) {
		d := c.begin(nil)
		d.k.write(append(d.data(1, []byte("one")), d.data(1, []byte("two"))...))
		d.awaitAck("R-109")
		d.k.cut()
		d.arrived, d.gotEnds = nil, []uint64{0} // had they come, nobody had taken them
		d.got = position{}
		d.resume(nil)
		d.expectEchoes(0, 1, []byte("one"), []byte("two"))
		d.echo(1, []byte("three"))
	})
	t.add("what was acknowledged is not sent again", "R-106, R-122", func(c *check) {
		d := c.begin(nil)
		d.there(1, []byte("one"), []byte("two"), []byte("three"))
		d.awaitAck("R-109")
		d.k.write(d.frame(kAck, func(f *frame) { f.status.received = position{1, d.gotEnds[1]} }))
		d.k.cut()
		d.gotEnds, d.arrived = d.gotEnds[:2], d.arrived[:1] // two and three did not come
		d.resume(nil)
		d.expectEchoes(1, 1, []byte("two"), []byte("three"))
	})
	t.add("data was lost", "R-118, R-119", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		before := d.sent
		two := d.data(1, []byte("two")) // never sent
		d.sent = before
		d.k.cut()
		d.resume(nil, two)
		d.sent = position{2, d.ends[2]}
		d.expectEchoes(1, 1, []byte("two"))
		d.awaitAck("R-109")
	})
	t.add("the replay brings what is there", "R-118, R-123", func(c *check) {
		d := c.begin(nil)
		one, two := d.data(1, []byte("one")), d.data(1, []byte("two"))
		d.k.write(append(bytes.Clone(one), two...))
		d.expectEchoes(0, 1, []byte("one"), []byte("two"))
		d.awaitAck("R-109")
		all := d.sent
		d.k.cut()
		three := d.data(1, []byte("three"))
		d.acked = position{} // as if no status had come
		d.resume(nil, one, two, three)
		d.sent = position{3, all.b + uint64(len(three))}
		d.expectEchoes(2, 1, []byte("three"))
		d.pong()
		if len(d.arrived) != 3 {
			c.failf("R-123", "expected 3 echoes, came %d", len(d.arrived))
		}
	})
	t.add("the replay ends in the middle, by a status", "R-123", func(c *check) {
		d := c.begin(nil)
		one, two := d.data(1, []byte("one")), d.data(1, []byte("two"))
		d.k.write(append(bytes.Clone(one), two...))
		d.expectEchoes(0, 1, []byte("one"), []byte("two"))
		d.awaitAck("R-109")
		d.k.cut()
		d.acked = position{}
		d.resume(nil, one)
		d.ack() // its sent is (2, …), and the listener has counted 1
		d.echo(1, []byte("three"))
		d.pong()
	})
	t.add("a status that jumps beyond what arrived", "R-105, R-123", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		d.k.cut()
		d.acked = position{}
		d.resume(nil)
		d.data(1, []byte("two")) // is not sent
		d.ack()
		d.fails("R-105")
	})
	t.add("a replay whose datagrams have other lengths", "R-105, R-123", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"), []byte("two"))
		d.awaitAck("R-109")
		d.k.cut()
		d.acked = position{}
		d.k = c.dial()
		d.sendResume(nil, datagramFrame(1, []byte("longer than it was")), datagramFrame(1, []byte("two")))
		d.fails("R-123") // behind RESUMED
	})
	t.add("takes a live connection over", "R-119", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		old := d.k
		d.resume(nil)
		old.refused("R-119")
		d.echo(1, []byte("two"))
	})
	t.add("late bytes of the old connection", "R-119, R-120", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		old := d.k
		d.resume(nil)
		old.try(datagramFrame(1, []byte("late")))
		d.echo(1, []byte("two"))
		old.try(datagramFrame(1, []byte("later")))
		d.pong()
		if len(d.arrived) != 2 {
			c.failf("R-120", "expected 2 echoes, came %d", len(d.arrived))
		}
	})
	t.add("half a frame on the old connection", "R-119, R-120", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		old := d.k
		before := d.sent
		two := d.data(1, []byte("two"))
		old.write(two[:9])
		c.breath()
		d.sent = before
		d.resume(nil)
		old.try(two[9:])
		d.sent = position{2, d.ends[2]}
		d.k.write(two)
		d.expectEchoes(1, 1, []byte("two"))
		d.pong()
	})
	t.add("the stream ended inside a frame", "R-8, R-118", func(c *check) {
		d := c.begin(nil)
		d.k.write(datagramFrame(1, []byte("cut off"))[:10])
		d.k.finish()
		d.k.refused("R-8")
		d.resume(nil)
		d.echo(1, []byte("one"))
	})
	t.add("the stream ended between frames", "R-118", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.finish()
		for {
			b, err := d.k.read()
			if err != nil {
				break
			}
			d.handle(b)
		}
		d.resume(nil)
		d.echo(1, []byte("two"))
	})
	t.add("again and again, each time with something on its way", "R-119, R-123", func(c *check) {
		d := c.begin(nil)
		for i := range 20 {
			payload := fmt.Appendf(nil, "number %d", i)
			b := d.data(1, payload)
			if i%2 == 0 {
				d.k.write(b)
			}
			if i%4 == 0 {
				d.expectEchoes(i, 1, payload)
			}
			d.k.cut()
			d.sent = d.acked
			f := d.resume(nil)
			d.sent = f.status.received
			d.ack() // jumps there, R-123
			if d.sent.n == uint64(i) {
				d.k.write(b)
				d.sent = position{uint64(i + 1), d.ends[i+1]}
			}
			d.expectEchoes(i, 1, payload)
		}
		d.pong()
	})
	t.add("RESUMED lost", "R-119, R-121", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		for range 5 {
			d.k.cut()
			d.k = c.dial()
			d.k.write(d.resumeFrame(nil))
		}
		d.k.cut()
		d.resume(nil)
		d.echo(1, []byte("two"))
	})
	for _, e := range []uint64{1 << 20, 1<<64 - 3} {
		t.add(fmt.Sprintf("epoch %d", e+2), "R-119", func(c *check) {
			d := c.begin(nil)
			d.k.cut()
			d.epoch = e
			d.resume(nil)
			d.echo(1, []byte("x"))
			d.k.cut()
			d.resume(nil)
			d.echo(1, []byte("y"))
		})
	}
	t.add("with flag 1", "R-107, R-117", func(c *check) {
		d := c.begin(func(f *frame) { f.flags = 1 })
		d.echo(1, []byte("one"))
		d.k.cut()
		d.resume(func(f *frame) { f.flags = 1 })
		d.echo(1, []byte("two"))
	})
	t.add("with an extension to skip", "R-103", func(c *check) {
		d := c.begin(nil)
		d.k.cut()
		d.resume(func(f *frame) { f.ext = append(f.ext, extension{0x1234, []byte("skip")}) })
		d.echo(1, []byte("x"))
	})
	t.add("lower credit than before", "R-108", func(c *check) {
		d := c.begin(nil)
		d.k.cut()
		d.resume(func(f *frame) { f.status.credit = 0 })
		d.echo(1, []byte("x"))
	})

	// refuse is a RESUME that is rejected, and changes nothing.
	refuse := func(name, refs string, reason uint16, resumed bool, change func(f *frame), bytes ...func(c *check, b []byte)) {
		t.add(name, refs, func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			if resumed {
				d.resume(nil)
			}
			live := d.k
			d.k = c.dial()
			b := d.resumeFrame(change)
			for _, fn := range bytes {
				fn(c, b)
			}
			d.k.write(b)
			d.k.rejected(refs, reason)
			d.k = live
			d.echo(1, []byte("unharmed"))
		})
	}
	flip := func(at int) func(*check, []byte) {
		return func(_ *check, b []byte) { b[headerSize+at] ^= 1 }
	}
	for name, at := range map[string]int{"the proof": 103, "the position": 47, "the credit": 71, "the largest payload": 7} {
		refuse("forged in "+name+", before any other RESUME", "R-114, R-119", 1, false, nil, flip(at))
		refuse("forged in "+name+", after another RESUME", "R-114, R-119", 6, true, nil, flip(at))
	}
	refuse("with no proof", "R-114", 6, true, nil, func(_ *check, b []byte) { clear(b[headerSize+72 : headerSize+104]) })
	refuse("forged in an extension", "R-114", 6, true, func(f *frame) { f.ext = append(f.ext, extension{9, []byte("abc")}) },
		func(_ *check, b []byte) { b[len(b)-1] ^= 1 })
	refuse("of an unknown session", "R-119, R-127, R-128", 1, false, nil, flip(8))
	refuse("with the epoch of now", "R-119, R-121", 4, true, func(f *frame) { f.epoch-- })
	refuse("with an old epoch", "R-119, R-121", 4, true, func(f *frame) { f.epoch = 1 })
	refuse("with epoch 0", "R-119, R-121", 4, true, func(f *frame) { f.epoch = 0 })
	refuse("with another largest payload", "R-117, R-119", 10, true, func(f *frame) { f.maxPayload++ })
	refuse("with other flags", "R-117, R-119", 10, true, func(f *frame) { f.flags ^= 1 })
	refuse("with another largest payload and an old epoch", "R-119", 10, true, func(f *frame) { f.maxPayload++; f.epoch = 1 })
	refuse("forged, with an old epoch", "R-119", 6, true, func(f *frame) { f.epoch = 1 }, flip(103))
	for _, v := range []uint16{0, 2, 0xffff} {
		refuse(fmt.Sprintf("of version %d", v), "R-104", 7, false, func(f *frame) { f.version = v })
	}
	t.add("with the key of the listener", "R-114", func(c *check) {
		d := c.begin(nil)
		live := d.k
		d.k = c.dial()
		right := d.keys
		d.keys.dialer = d.keys.listener
		d.k.write(d.resumeFrame(nil))
		d.k.rejected("R-114", 1)
		d.keys, d.k = right, live
		d.echo(1, []byte("unharmed"))
	})
	t.add("the same bytes again", "R-114, R-121", func(c *check) {
		d := c.begin(nil)
		d.k.cut()
		d.k = c.dial()
		b := d.sendResume(nil)
		d.takeResumed(b)
		k := c.dial()
		k.write(b)
		if len(d.exporter()) > 0 {
			k.rejected("R-114", 6) // the proof is bound to the channel
		} else {
			k.rejected("R-121", 4)
		}
		d.echo(1, []byte("unharmed"))
	})
	t.add("a proof without the channel", "R-114", func(c *check) {
		d := c.begin(nil)
		live := d.k
		d.k = c.dial()
		b := d.resumeFrame(nil)
		other := []byte(nil)
		if len(d.exporter()) == 0 {
			other = make([]byte, 32)
		}
		proof := prove(d.keys.dialer, b, nil, other)
		copy(b[headerSize+72:], proof[:])
		d.k.write(b)
		d.k.rejected("R-114", 1)
		d.k = live
		d.echo(1, []byte("unharmed"))
	})
	wrong := func(name, refs string, change func(f *frame)) { // not answered at all
		t.add(name, refs, func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			live := d.k
			d.k = c.dial()
			d.k.write(d.resumeFrame(change))
			d.k.refused(refs)
			d.k = live
			d.echo(1, []byte("unharmed"))
		})
	}
	wrong("with unknown flags", "R-104", func(f *frame) { f.flags = 4 })
	wrong("with an extension that is not known", "R-103", func(f *frame) { f.ext = append(f.ext, extension{0x8001, nil}) })
	wrong("with an extension twice", "R-103", func(f *frame) { f.ext = append(f.ext, extension{7, nil}, extension{7, nil}) })

	lost := func(name, refs string, change func(f *frame)) { // the session cannot be made good
		t.add(name, refs, func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.ack()
			d.awaitAck("R-109")
			d.pong()
			d.k.cut()
			d.k = c.dial()
			d.k.write(d.resumeFrame(change))
			d.k.rejected(refs, 10)
			d.gone(refs)
		})
	}
	lost("a replay that begins above what arrived", "R-122", func(f *frame) { f.status.sent = position{2, 22} })
	lost("less received than was acknowledged", "R-122", func(f *frame) { f.status.received = position{} })

	t.add("of a session that was aborted", "R-127, R-128", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.write(d.frame(kClose, func(f *frame) { f.reason = 2 }))
		d.ended("R-126")
		d.k = c.dial()
		d.k.write(d.resumeFrame(nil))
		f := d.k.rejected("R-127", 9)
		if f.flags&flagKnown == 0 || f.received != d.sent {
			c.failf("R-127", "REJECT says that %v was received (flags %d), expected %v", f.received, f.flags, d.sent)
		}
		d.epoch++
		k := c.dial()
		k.write(d.helloFrame(nil))
		k.rejected("R-127", 9)
	})
	t.add("two at once, the later epoch first", "R-119, R-121", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.cut()
		slow := c.dial()
		d.k = slow
		early := d.resumeFrame(nil)
		d.resume(nil)
		slow.write(early)
		slow.rejected("R-121", 4)
		d.echo(1, []byte("two"))
	})
	for _, cut := range []int{1, 8, 9, 60, 113} {
		t.add(fmt.Sprintf("in two pieces, cut at byte %d", cut), "R-111", func(c *check) {
			d := c.begin(nil)
			d.k.cut()
			d.k = c.dial()
			b := d.resumeFrame(nil)
			d.k.write(b[:cut])
			c.breath()
			d.k.write(b[cut:])
			d.takeResumed(b)
			d.echo(1, []byte("x"))
		})
	}
	return t.cases
}
