package towlinetest

import (
	"bytes"
	"fmt"
)

// ackCases are positions, acknowledgements and credit.
func ackCases() []testCase {
	t := &table{group: "ACK and credit"}
	for _, n := range []int{0, 1, 8, 255, 1024, 16384, 65535, 65536, 200_000, 1 << 20} {
		t.add(fmt.Sprintf("payload of %d bytes", n), "R-101, R-105, R-108", func(c *check) {
			if n > c.server.MaxPayload {
				c.skipf("more than the server takes")
			}
			d := c.newDialer()
			d.granted = 4 << 20
			d.start(nil)
			sent := d.k.background(d.data(1, pattern(n)))
			d.awaitData(1)
			if err := <-sent; err != nil {
				c.failf("R-8", "sending: %v", err)
			}
			c.cleanups = c.cleanups[:len(c.cleanups)-1]
			for d.credit <= d.sent.b {
				d.pong()
			}
			d.k.write(d.data(2, []byte("next")))
			d.awaitData(2)
			if !bytes.Equal(d.arrived[0], datagramFrame(1, pattern(n))) || !bytes.Equal(d.arrived[1], datagramFrame(2, []byte("next"))) {
				c.failf("R-4", "it is not what was sent")
			}
			d.awaitAck("R-109")
			d.pong()
		})
	}
	for _, r := range []uint16{0, 1, 2, 6, 11, 13, 14, 0xffff} {
		t.add(fmt.Sprintf("recipient %d", r), "R-4", func(c *check) {
			d := c.begin(nil)
			d.echo(r, []byte("to you"))
			d.pong()
		})
	}
	t.add("500 datagrams in one piece", "R-101, R-105", func(c *check) {
		d := c.begin(nil)
		var payloads [][]byte
		for i := range 500 {
			payloads = append(payloads, fmt.Appendf(nil, "number %d", i))
		}
		d.echo(9, payloads...)
		d.awaitAck("R-109")
		d.pong()
	})
	t.add("an ACK comes by itself", "R-109", func(c *check) {
		d := c.begin(nil)
		d.pong()
		d.k.write(d.data(1, []byte("one")))
		d.awaitAck("R-109")
	})
	t.add("a repeated ACK", "R-106", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.write(bytes.Repeat(d.frame(kAck, nil), 1000))
		d.pong()
	})
	t.add("an ACK of less than before", "R-106", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"), []byte("two"))
		d.ack()
		d.k.write(d.frame(kAck, func(f *frame) { f.status.received = position{1, d.gotEnds[1]} }))
		d.k.write(d.frame(kAck, func(f *frame) { f.status.received = position{} }))
		d.echo(1, []byte("three"))
		d.pong()
	})
	t.add("less credit than before", "R-108", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.frame(kAck, func(f *frame) { f.status.credit = 0 }))
		d.echo(1, []byte("one"), []byte("two"))
		d.pong()
	})
	wrong := func(name, refs string, change func(s *status)) {
		t.add(name, refs, func(c *check) {
			d := c.begin(nil)
			d.there(1, []byte("one"), []byte("two"))
			d.awaitAck("R-109")
			d.k.write(d.frame(kAck, func(f *frame) { change(&f.status) }))
			d.fails(refs)
			d.gone("R-127")
		})
	}
	wrong("an ACK of what was never sent", "R-106", func(s *status) { s.received.n++; s.received.b += 11 })
	wrong("an ACK of 2^64-1", "R-106", func(s *status) { s.received = position{1<<64 - 1, 1<<64 - 1} })
	wrong("an ACK with more bytes than there were", "R-106", func(s *status) { s.received.b++ })
	wrong("an ACK with fewer bytes than there were", "R-106", func(s *status) { s.received.b-- })
	wrong("an ACK of one with the bytes of two", "R-106", func(s *status) { s.received.n-- })
	wrong("one more sent than there was", "R-105", func(s *status) { s.sent.n++ })
	wrong("one less sent than there was", "R-105", func(s *status) { s.sent.n-- })
	wrong("a byte more sent than there was", "R-105", func(s *status) { s.sent.b++ })
	wrong("a byte less sent than there was", "R-105", func(s *status) { s.sent.b-- })
	wrong("nothing sent", "R-105", func(s *status) { s.sent = position{} })
	for _, kind := range []uint16{kPing, kPong, kFin, kClose, kSkip, kStop} {
		t.add("a wrong sent in "+kindName(kind), "R-105", func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.k.write(d.frame(kind, func(f *frame) { f.status.sent.b++ }))
			d.fails("R-105")
		})
		t.add("an acknowledgement of the future in "+kindName(kind), "R-106", func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.k.write(d.frame(kind, func(f *frame) { f.status.received.n += 5; f.status.received.b += 100 }))
			d.fails("R-106")
		})
	}
	// held sends three datagrams of 100 bytes with the credit given, and returns how many echoes come.
	held := func(c *check, credit uint64) *dialer {
		d := c.newDialer()
		d.granted = credit
		d.start(nil)
		for i := range 3 {
			d.k.write(d.data(uint16(i), pattern(92)))
		}
		d.awaitAck("R-109")
		d.pong() // and again, so that what the program had in hand is out
		d.pong()
		return d
	}
	for credit, want := range map[uint64]int{0: 0, 1: 1, 100: 1, 101: 2, 200: 2} {
		t.add(fmt.Sprintf("a credit of %d", credit), "R-108, R-109", func(c *check) {
			d := held(c, credit)
			if len(d.arrived) > want {
				c.failf("R-108", "expected %d datagrams, came %d", want, len(d.arrived))
			}
			d.awaitData(want)
			d.granted = 1 << 20
			d.ack()
			d.awaitData(3)
			for i, b := range d.arrived {
				if !bytes.Equal(b, datagramFrame(uint16(i), pattern(92))) {
					c.failf("R-101", "datagram %d is %s", i+1, brief(b))
				}
			}
		})
	}
	t.add("a datagram larger than the credit", "R-108", func(c *check) {
		d := c.newDialer()
		d.granted = 1
		d.start(nil)
		n := min(100_000, c.server.MaxPayload)
		d.k.background(d.data(1, pattern(n)))
		d.awaitData(1)
		if !bytes.Equal(d.arrived[0], datagramFrame(1, pattern(n))) {
			c.failf("R-4", "it is not what was sent")
		}
	})
	t.add("data beyond the server's credit", "R-108", func(c *check) {
		d := c.newDialer()
		d.granted = 0 // so that echoes, and the echo server with them, get stuck
		d.start(nil)
		d.pong()
		payload := pattern(min(1<<19, c.server.MaxPayload))
		for range 1000 {
			if d.credit > d.sent.b { // a frame that ends at or above the credit is in order
				d.k.write(d.data(1, payload))
				continue
			}
			at := d.sent.b
			d.k.try(append(d.data(1, nil), d.frame(kPing, nil)...))
			for {
				b, err := d.k.read()
				if err != nil {
					c.overtaken = !isTimeout(err)
					c.failf("R-108", "expected CLOSE, came %s", why(err))
				}
				f := d.handle(b)
				if f != nil && f.kind == kClose {
					if f.reason != 1 {
						c.failf("R-108", "expected CLOSE with reason 1, came reason %d", f.reason)
					}
					return
				}
				if f != nil && f.kind == kPong {
					break
				}
			}
			if d.credit <= at {
				c.failf("R-108", "a frame that begins at %d was taken, and the credit is %d", at, d.credit)
			}
		}
		c.skipf("the server grants more and more")
	})
	return t.cases
}

// controlCases are control frames of every kind, whole and broken, in a session.
func controlCases() []testCase {
	t := &table{group: "control frames"}
	fails := func(name, refs string, bytes func(d *dialer) []byte) {
		t.add(name, refs, func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.k.write(bytes(d))
			d.fails(refs)
			d.gone("R-127")
		})
	}
	inSession := []uint16{kAck, kPing, kPong, kFin, kClose, kSkip, kStop}
	for _, kind := range inSession {
		name := kindName(kind)
		fails(name+" that is a byte short", "R-102", func(d *dialer) []byte {
			b := d.frame(kind, nil)
			return append(header(uint32(len(b)-5), 2, kind), b[headerSize:len(b)-1]...)
		})
		fails(name+" with a byte behind L", "R-102", func(d *dialer) []byte {
			return control(kind, append(d.frame(kind, nil)[headerSize:], 0))
		})
		fails(name+" with an extension that is not known", "R-103", func(d *dialer) []byte {
			return d.frame(kind, func(f *frame) { f.ext = []extension{{0x8000, nil}} })
		})
		t.add(name+" with extensions to skip", "R-103", func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			b := d.frame(kind, func(f *frame) {
				f.ext = []extension{{0, nil}, {1, []byte("no token here")}, {0x7fff, pattern(100)}}
				f.reason = 2
			})
			d.k.write(b)
			switch kind {
			case kFin:
				d.fin = true
				d.sent.n++
				d.ends = append(d.ends, d.sent.b)
				d.awaitAck("R-124")
				return
			case kClose:
				d.ended("R-126")
				return
			case kStop:
				return
			case kSkip:
				d.count(8)
			case kPing:
				d.until("R-134", kPong)
			}
			d.echo(1, []byte("two"))
			d.pong()
		})
	}
	fails("an extension twice", "R-103", func(d *dialer) []byte {
		return d.frame(kAck, func(f *frame) { f.ext = []extension{{3, nil}, {3, nil}} })
	})
	fails("an extension that does not end within the area", "R-103", func(d *dialer) []byte {
		b := d.frame(kAck, func(f *frame) { f.ext = []extension{{3, []byte("abc")}} })
		b[len(b)-4]++ // its length
		return b
	})
	t.add("1,024 bytes", "R-102", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.frame(kAck, func(f *frame) { f.ext = []extension{{3, pattern(maxControlSize - headerSize - 40 - 2 - 4)}} }))
		d.echo(1, []byte("one"))
	})
	fails("1,025 bytes", "R-102", func(d *dialer) []byte {
		return d.frame(kAck, func(f *frame) { f.ext = []extension{{3, pattern(maxControlSize - headerSize - 40 - 2 - 4 + 1)}} })
	})
	fails("1,025 bytes, of which the header comes", "R-102", func(*dialer) []byte { return header(1021, 2, kAck) })
	for _, kind := range []uint16{0, 14, 15, 255, 256, 0xffff} {
		fails(fmt.Sprintf("unknown kind %d", kind), "R-104", func(d *dialer) []byte {
			return control(kind, d.frame(kAck, nil)[headerSize:])
		})
	}
	for _, kind := range []uint16{kWelcome, kResumed, kReject, kGoaway} {
		fails(kindName(kind)+" from a dialer", "section 13", func(d *dialer) []byte {
			return d.frame(kind, func(f *frame) { f.version, f.epoch, f.reason = 1, 1, 1 })
		})
	}
	fails("version 0", "R-3", func(*dialer) []byte { return header(8, 0, 1) })
	fails("version 3", "R-3", func(*dialer) []byte { return header(8, 3, 1) })
	for size := range uint32(4) {
		fails(fmt.Sprintf("size %d of data", size), "R-2", func(*dialer) []byte { return header(size, 1, 1) })
		fails(fmt.Sprintf("size %d of a control frame", size), "R-2", func(*dialer) []byte { return header(size, 2, kAck) })
	}
	t.add("data above the limit", "R-6", func(c *check) {
		d := c.begin(nil)
		d.k.write(header(uint32(c.server.MaxPayload)+5, 1, 1))
		d.fails("R-6")
	})
	fails("zeros", "R-2", func(*dialer) []byte { return make([]byte, 64) })
	fails("another protocol", "R-3", func(*dialer) []byte { return []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") })
	for cut := 1; cut < 58; cut += 4 {
		t.add(fmt.Sprintf("PING in two pieces, cut at byte %d", cut), "R-1, R-102", func(c *check) {
			d := c.begin(nil)
			b := d.frame(kPing, func(f *frame) { f.token = 5 })
			d.k.write(b[:cut])
			c.breath()
			d.k.write(b[cut:])
			if f := d.until("R-134", kPong); f.token != 5 {
				c.failf("R-134", "expected token 5, came %d", f.token)
			}
		})
	}
	t.add("data and control frames in one piece", "R-101, R-105", func(c *check) {
		d := c.begin(nil)
		var all []byte
		for i := range 50 {
			all = append(all, d.data(uint16(i), []byte("x"))...)
			all = append(all, d.frame(kPing, func(f *frame) { f.token = uint64(i) })...)
		}
		d.k.write(all)
		for f := d.until("R-134", kPong); f.token != 49; f = d.until("R-134", kPong) {
			if f.token > 49 {
				c.failf("R-134", "token %d was not asked for", f.token)
			}
		}
		d.awaitData(50)
	})
	t.add("byte by byte", "R-1", func(c *check) {
		d := c.begin(nil)
		var all []byte
		all = append(append(all, d.data(1, []byte("one"))...), d.frame(kAck, nil)...)
		all = append(append(all, d.skipFrame(9)...), d.data(1, []byte("two"))...)
		for i := range all {
			d.k.write(all[i : i+1])
		}
		d.expectEchoes(0, 1, []byte("one"), []byte("two"))
		d.awaitAck("R-109")
		d.pong()
	})
	for _, n := range []uint32{8, 9, 1000, 1<<32 - 1} {
		t.add(fmt.Sprintf("SKIP of %d bytes", n), "R-131", func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.k.write(d.skipFrame(n))
			d.awaitAck("R-131")
			d.pong() // grants credit behind it
			for d.credit <= d.sent.b {
				d.pong()
			}
			d.echo(1, []byte("three"))
			d.pong()
		})
	}
	for _, n := range []uint32{0, 4, 7} {
		fails(fmt.Sprintf("SKIP of %d bytes", n), "R-131", func(d *dialer) []byte {
			return d.frame(kSkip, func(f *frame) { f.length = n })
		})
	}
	t.add("SKIP is replayed", "R-131, R-123", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		skip := d.skipFrame(30)
		three := d.data(1, []byte("three"))
		d.k.write(append(bytes.Clone(skip), three...))
		d.expectEchoes(1, 1, []byte("three"))
		d.awaitAck("R-131")
		d.k.cut()
		d.acked = position{1, d.ends[1]}
		d.resume(nil, skip, three)
		d.echo(1, []byte("four"))
		d.pong()
		if len(d.arrived) != 3 {
			c.failf("R-123", "expected 3 echoes, came %d", len(d.arrived))
		}
	})
	return t.cases
}
