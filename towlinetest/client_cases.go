package towlinetest

import (
	"bytes"
	"fmt"
	"runtime"
	"time"
)

func clientCases() []testCase {
	t := &table{group: "dialer"}
	t.add("a session from beginning to end", "R-101 to R-126", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.serve()
	})
	t.add("what HELLO says", "R-111, R-112, R-113", func(c *check) {
		l := c.client()
		h := l.accept("R-111", kHello)
		switch {
		case h.epoch != 1:
			c.failf("R-112", "the first epoch is %d", h.epoch)
		case h.id == [16]byte{}, h.key == [32]byte{}, h.link == [32]byte{}:
			c.failf("R-111", "a session id, key or link of zeros")
		case h.maxPayload == 0:
			c.failf("R-117", "a largest payload of 0")
		case h.redelivered != 0:
			c.failf("R-116", "%d redelivered in a first session", h.redelivered)
		}
		l.k.write(l.welcomeFrame(nil))
		l.confirmed()
		l.serve()
	})
	for name, change := range map[string]func(f *frame){
		"with extensions to skip":      func(f *frame) { f.ext = []extension{{1, []byte("x")}, {0x7fff, pattern(200)}} },
		"with flag 1":                  func(f *frame) { f.flags = 1 },
		"with an expiry of 0":          func(f *frame) { f.expiry = 0 },
		"with all the credit there is": func(f *frame) { f.status.credit = 1<<64 - 1 },
	} {
		t.add("WELCOME "+name, "R-103, R-107, R-113", func(c *check) {
			l := c.client()
			l.greet(change)
			l.granted = max(l.granted, 1<<20)
			l.serve()
		})
	}
	// again expects that the client gives up the connection alone, and dials again with the same session.
	again := func(l *listener, ref string, write func()) {
		h := *l.hello
		write()
		l.ended(ref)
		if l.c.impatient && ref == "section 7" {
			l.discontent(ref)
			runtime.Goexit() // all is well
		}
		l.reset() // what came there came to nobody
		next := l.accept(ref, kHello)
		switch {
		case next.id != h.id || next.key != h.key || next.maxPayload != h.maxPayload || next.flags != h.flags:
			l.c.failf("R-115", "the second HELLO has another id, key, largest payload or flags")
		case !follows(h.link, h.epoch, next.link, next.epoch):
			l.c.failf("R-112", "the link of epoch %d does not lead to that of epoch %d", next.epoch, h.epoch)
		}
	}
	for name, change := range map[string]func(f *frame){
		"of another version":                       func(f *frame) { f.version = 2 },
		"with unknown flags":                       func(f *frame) { f.flags = 0x10 },
		"for another epoch":                        func(f *frame) { f.epoch++ },
		"with an extension that is not known":      func(f *frame) { f.ext = []extension{{0x8000, nil}} },
		"with a key that is not the one it proved": nil,
	} {
		t.add("WELCOME "+name, "R-104, R-114, section 7", func(c *check) {
			l := c.client()
			l.accept("R-111", kHello)
			again(l, "section 7", func() {
				b := l.welcomeFrame(change)
				if change == nil {
					b[len(b)-10] ^= 1 // in the proof
				}
				l.k.write(b)
			})
			l.k.write(l.welcomeFrame(nil))
			l.confirmed()
			l.serve()
		})
	}
	t.add("no answer to HELLO, and the connection is gone", "R-111, R-115", func(c *check) {
		l := c.client()
		l.accept("R-111", kHello)
		again(l, "R-115", func() { l.k.cut() })
		l.k.write(l.welcomeFrame(nil))
		l.confirmed()
		l.serve()
	})
	t.add("garbage in place of WELCOME", "section 7", func(c *check) {
		l := c.client()
		l.accept("R-111", kHello)
		again(l, "section 7", func() { l.k.write(control(99, make([]byte, 50))) })
		l.k.write(l.welcomeFrame(nil))
		l.confirmed()
		l.serve()
	})

	for cut := range 10 {
		t.add(fmt.Sprintf("cut when %d echoes were sent", cut), "R-118, R-119, R-122, R-123", func(c *check) {
			l := c.client()
			l.greet(nil)
			l.awaitData(cut)
			l.back(cut)
			l.k.cut()
			l.resume()
			l.serve()
		})
	}
	t.add("cut inside an echo", "R-8, R-118", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.awaitData(3)
		l.back(2)
		l.k.write(l.arrived[2][:9])
		l.k.cut()
		if r := l.resume(); r.status.received.n > 2 {
			c.failf("R-106", "RESUME has received %v, and 2 were sent", r.status.received)
		}
		l.serve()
	})
	t.add("RESUMED is lost", "R-118, R-119", func(c *check) {
		l := c.client()
		l.greet(nil)
		for range 2 {
			l.k.cut()
			l.accept("R-118", kResume)
		}
		l.k.cut()
		l.resume()
		l.serve()
	})
	t.add("RESUMED with a wrong proof", "R-114, section 7", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.k.cut()
		r := l.accept("R-118", kResume)
		b := l.proved(&frame{kind: kResumed, epoch: r.epoch, status: status{r.status.received, l.have(), l.granted}}, r.bytes())
		b[headerSize+60] ^= 1
		l.k.write(b)
		l.ended("R-114")
		l.resume()
		l.serve()
	})
	t.add("what was acknowledged is not sent again", "R-106, R-118", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.awaitData(5)
		l.k.write(l.frame(kPing, func(f *frame) { f.token = 1 }))
		l.until("R-134", kPong) // it has read the acknowledgement
		acked := l.got
		l.k.cut()
		if r := l.resume(); r.status.sent.n < 5 {
			c.failf("R-118", "the replay begins at %v, and %v was acknowledged", r.status.sent, acked)
		}
		l.serve()
	})

	for _, reason := range []uint16{1, 2, 3, 10} {
		t.add(fmt.Sprintf("RESUME rejected with reason %d", reason), "R-116, R-128", func(c *check) {
			l := c.client()
			l.greet(nil)
			l.awaitData(1)
			id := l.hello.id
			l.k.cut()
			l.accept("R-118", kResume)
			l.k.write((&frame{kind: kReject, reason: reason, instance: l.instance}).bytes())
			l.ended("R-128")
			l.reset()
			l.credit, l.granted, l.jump = 0, initialCredit, false
			if h := l.accept("R-128", kHello); h.id == id || h.epoch != 1 {
				c.failf("R-128", "expected a new session, came HELLO with epoch %d of id %x", h.epoch, h.id)
			} else if h.redelivered == 0 && !c.strict {
				c.failf("R-116", "nothing is redelivered, and 1 was sent at least")
			}
		})
	}
	for _, reason := range []uint16{4, 6, 7, 9} {
		t.add(fmt.Sprintf("RESUME rejected with reason %d", reason), "R-121, R-128", func(c *check) {
			l := c.client()
			l.greet(nil)
			l.k.cut()
			l.accept("R-118", kResume)
			l.k.write((&frame{kind: kReject, reason: reason}).bytes())
			l.discontent("R-128")
		})
	}
	for _, reason := range []uint16{6, 7} {
		t.add(fmt.Sprintf("HELLO rejected with reason %d", reason), "R-128", func(c *check) {
			l := c.client()
			l.accept("R-111", kHello)
			l.k.write((&frame{kind: kReject, reason: reason}).bytes())
			l.discontent("R-128")
		})
	}
	for _, reason := range []uint16{5, 8} {
		t.add(fmt.Sprintf("RESUME rejected with reason %d, for 300 ms", reason), "R-128", func(c *check) {
			l := c.client()
			l.greet(nil)
			l.k.cut()
			l.accept("R-118", kResume)
			begin := time.Now()
			l.k.write((&frame{kind: kReject, reason: reason, delay: 300, spread: 100}).bytes())
			l.resume()
			if took := time.Since(begin); took < 290*time.Millisecond {
				c.failf("R-128", "it dialled again after %v", took)
			}
			l.serve()
		})
	}
	t.add("GOAWAY with a delay of 300 ms", "R-130", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.awaitData(1)
		l.k.write(l.frame(kGoaway, func(f *frame) { f.delay = 300 }))
		begin := time.Now()
		l.k.write(l.frame(kPing, nil))
		l.until("R-134", kPong)
		l.k.cut()
		l.resume()
		if took := time.Since(begin); took < 290*time.Millisecond {
			c.failf("R-130", "it dialled again after %v", took)
		}
		l.serve()
	})

	t.add("PING", "R-134", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.k.write(l.frame(kPing, func(f *frame) { f.token = 1<<64 - 1 }))
		if f := l.until("R-134", kPong); f.token != 1<<64-1 {
			c.failf("R-134", "expected the token, came %d", f.token)
		}
		l.k.write(l.frame(kPong, func(f *frame) { f.token = 4711 }))
		l.serve()
	})
	t.add("a credit of nothing, and more later", "R-108", func(c *check) {
		l := c.client()
		l.accept("R-111", kHello)
		b := l.welcomeFrame(func(f *frame) { f.status.credit = 0 })
		l.granted = initialCredit // what it has from the beginning
		l.k.write(b)
		l.confirmed()
		l.k.write(l.frame(kPing, func(f *frame) { f.status.credit = 0 }))
		l.until("R-134", kPong)
		l.granted = 1 << 20
		l.k.write(l.frame(kAck, nil))
		l.serve()
	})
	t.add("SKIP in place of a datagram", "R-131", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.awaitData(1)
		skip := l.skipFrame(20)
		l.replay = append(l.replay, skip)
		l.k.write(skip)
		l.serve()
	})
	wrong := func(name, refs string, bytes func(l *listener) []byte) {
		t.add(name, refs, func(c *check) {
			l := c.client()
			l.greet(nil)
			l.awaitData(1)
			l.back(1)
			l.k.write(bytes(l))
			l.fails(refs)
			l.discontent(refs)
		})
	}
	wrong("an acknowledgement of the future", "R-106", func(l *listener) []byte {
		return l.frame(kAck, func(f *frame) { f.status.received.n += 1000 })
	})
	wrong("a wrong sent", "R-105", func(l *listener) []byte {
		return l.frame(kAck, func(f *frame) { f.status.sent.b++ })
	})
	wrong("an unknown kind", "R-104", func(l *listener) []byte { return control(14, l.frame(kAck, nil)[headerSize:]) })
	wrong("an extension that is not known", "R-103", func(l *listener) []byte {
		return l.frame(kAck, func(f *frame) { f.ext = []extension{{0xffff, nil}} })
	})
	wrong("a control frame of 1,025 bytes", "R-102", func(*listener) []byte { return header(1021, 2, kAck) })
	wrong("version 3", "R-3", func(*listener) []byte { return header(8, 3, 0) })
	wrong("size 3", "R-2", func(*listener) []byte { return header(3, 1, 0) })
	wrong("WELCOME again", "section 13", func(l *listener) []byte { return l.welcomeFrame(nil) })
	wrong("HELLO from a listener", "section 13", func(l *listener) []byte { return bytes.Clone(l.helloRaw) })
	wrong("SKIP of 7 bytes", "R-131", func(l *listener) []byte {
		return l.frame(kSkip, func(f *frame) { f.length = 7 })
	})
	wrong("data behind FIN", "R-124", func(l *listener) []byte { return append(l.endFrame(), datagramFrame(0, nil)...) })
	wrong("CLOSE with an unknown reason", "R-126", func(l *listener) []byte {
		return l.frame(kClose, func(f *frame) { f.reason = 99 })
	})
	t.add("CLOSE with reason 2", "R-126", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.k.write(l.frame(kClose, func(f *frame) { f.reason = 2 }))
		l.discontent("R-126")
	})
	t.add("the last CLOSE is lost", "R-126, R-127", func(c *check) {
		l := c.client()
		l.greet(nil)
		l.finish()
		l.k.cut()
		l.accept("R-126", kResume)
		l.k.write((&frame{kind: kReject, reason: 9, flags: flagKnown, received: l.have()}).bytes())
		l.content()
	})
	return t.cases
}

// finish serves until the client has said CLOSE, and does not answer that.
func (l *listener) finish() {
	fin := false
	for {
		b, err := l.k.read()
		if err != nil {
			l.c.failf("R-126", "expected CLOSE, came %s", why(err))
		}
		f := l.handle(b)
		l.back(1 << 20)
		if l.finGot && !fin {
			fin = true
			l.k.try(l.endFrame())
		}
		if f != nil && f.kind == kClose {
			return
		}
	}
}
