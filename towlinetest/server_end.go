package towlinetest

import (
	"fmt"
	"time"
)

// partWell ends a session whose FIN is sent: the listener acknowledges that, ends its own stream, and says CLOSE.
func (d *dialer) partWell() {
	for {
		f := d.handle(d.k.next("R-126", "FIN and CLOSE"))
		if f == nil {
			continue
		}
		switch f.kind {
		case kFin:
			d.ack()
		case kClose:
			switch {
			case f.reason != 0:
				d.c.failf("R-126", "expected CLOSE with reason 0, came reason %d", f.reason)
			case d.acked.n != d.sent.n:
				d.c.failf("R-126", "CLOSE acknowledges %v, and FIN makes %v", d.acked, d.sent)
			case !d.finGot:
				d.c.failf("R-126", "CLOSE without FIN")
			}
			d.k.try(d.frame(kClose, nil))
			d.k.ends("R-126", false)
			return
		}
	}
}

// endCases are ends of sessions, in good order and not.
func endCases() []testCase {
	t := &table{group: "ends"}
	t.add("FIN, and all that follows", "R-124, R-126", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.write(d.endFrame())
		d.partWell()
		d.gone("R-127")
	})
	t.add("FIN behind data in one piece", "R-124, R-126", func(c *check) {
		d := c.begin(nil)
		d.k.write(append(d.data(1, []byte("one")), d.endFrame()...))
		d.expectEchoes(0, 1, []byte("one"))
		d.partWell()
	})
	t.add("FIN of a session that sent nothing", "R-124, R-126", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.endFrame())
		d.partWell()
	})
	t.add("the dialer says CLOSE first", "R-126", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.endFrame())
		for d.acked.n < d.sent.n || !d.finGot {
			d.handle(d.k.next("R-124", "FIN"))
		}
		d.k.try(d.frame(kClose, nil))
		for {
			f := d.handle(d.k.next("R-126", "CLOSE"))
			if f != nil && f.kind == kClose {
				break
			}
		}
		d.k.ends("R-126", false)
		d.gone("R-127")
	})
	t.add("FIN is replayed", "R-123, R-124", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.awaitAck("R-109")
		at := d.sent
		fin := d.endFrame()
		d.k.write(fin)
		for !d.finGot || d.acked.n < d.sent.n {
			d.handle(d.k.next("R-124", "FIN"))
		}
		d.k.cut()
		d.acked = at
		resumed := d.resume(func(f *frame) { f.status.received = position{1, d.gotEnds[1]} }, fin)
		if want := (position{2, at.b}); resumed.status.received != want {
			c.failf("R-124", "RESUMED says that %v arrived, expected %v", resumed.status.received, want)
		}
		d.finGot = false
		d.gotEnds = d.gotEnds[:2]
		d.partWell()
	})
	t.add("the last answer is lost", "R-126, R-127", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.write(d.endFrame())
		for !d.finGot || d.acked.n < d.sent.n {
			d.handle(d.k.next("R-124", "FIN"))
		}
		d.k.try(d.frame(kClose, nil))
		for {
			f := d.handle(d.k.next("R-126", "CLOSE"))
			if f != nil && f.kind == kClose {
				break
			}
		}
		d.k.cut()
		d.k = c.dial()
		d.k.write(d.resumeFrame(nil))
		if f := d.k.rejected("R-127", 9); f.flags&flagKnown == 0 || f.received != d.sent {
			c.failf("R-127", "REJECT says that %v was received (flags %d), expected %v", f.received, f.flags, d.sent)
		}
	})
	behind := func(name string, bytes func(d *dialer) []byte) {
		t.add(name+" behind FIN", "R-124", func(c *check) {
			d := c.newDialer()
			d.granted = 0 // so that the echo server does not end first
			d.start(nil)
			d.k.write(d.data(1, []byte("one")))
			d.k.write(append(d.endFrame(), bytes(d)...))
			d.fails("R-124")
		})
	}
	behind("data", func(d *dialer) []byte { return d.data(1, nil) })
	behind("SKIP", func(d *dialer) []byte { return d.frame(kSkip, nil) })
	behind("FIN", func(d *dialer) []byte { return d.frame(kFin, nil) })
	for reason := range uint16(5) {
		if reason == 0 {
			continue
		}
		t.add(fmt.Sprintf("CLOSE with reason %d", reason), "R-126", func(c *check) {
			d := c.begin(nil)
			d.echo(1, []byte("one"))
			d.k.write(d.frame(kClose, func(f *frame) { f.reason = reason }))
			d.ended("R-126")
			d.gone("R-127")
		})
	}
	for _, reason := range []uint16{5, 0x0100, 0xffff} {
		t.add(fmt.Sprintf("CLOSE with unknown reason %d", reason), "R-126", func(c *check) {
			d := c.begin(nil)
			d.k.write(d.frame(kClose, func(f *frame) { f.reason = reason }))
			d.fails("R-126")
		})
	}
	t.add("STOP", "R-125", func(c *check) {
		d := c.newDialer()
		d.granted = 0
		d.start(nil)
		d.k.write(append(d.data(1, []byte("one")), d.data(1, []byte("two"))...))
		d.awaitAck("R-109")
		d.k.write(d.frame(kStop, nil))
		d.granted = 1 << 20 // and nothing may come
		d.k.try(d.frame(kPing, nil))
		for {
			b, err := d.k.read()
			if err != nil {
				break
			}
			f := d.handle(b)
			if f == nil {
				c.failf("R-125", "data behind STOP")
			}
			if f.kind == kPong || f.kind == kClose {
				break
			}
		}
	})
	t.add("STOP and FIN end a session", "R-125, R-126", func(c *check) {
		d := c.begin(nil)
		d.echo(1, []byte("one"))
		d.k.write(append(d.frame(kStop, nil), d.endFrame()...))
		d.finGot = true // as good as
		for {
			b, err := d.k.read()
			if err != nil {
				c.failf("R-126", "expected CLOSE, came %s", why(err))
			}
			f, perr := parse(b)
			if perr != nil {
				c.failf("R-102", "%v", perr)
			}
			if f.kind == kClose {
				if f.reason != 0 {
					c.failf("R-126", "expected CLOSE with reason 0, came reason %d", f.reason)
				}
				return
			}
		}
	})
	return t.cases
}

// aliveCases are about time. Most of their time is waiting.
func aliveCases() []testCase {
	t := &table{group: "being alive"}
	for _, token := range []uint64{0, 1, 1 << 63, 1<<64 - 1} {
		t.add(fmt.Sprintf("PING with token %d", token), "R-134", func(c *check) {
			d := c.begin(nil)
			d.k.write(d.frame(kPing, func(f *frame) { f.token = token }))
			if f := d.until("R-134", kPong); f.token != token {
				c.failf("R-134", "expected token %d, came %d", token, f.token)
			}
		})
	}
	t.add("a hundred PINGs in one piece", "R-134", func(c *check) {
		d := c.begin(nil)
		var all []byte
		for i := range uint64(100) {
			all = append(all, d.frame(kPing, func(f *frame) { f.token = i })...)
		}
		d.k.write(all)
		for last := uint64(0); last != 99; {
			f := d.until("R-134", kPong)
			if f.token < last || f.token > 99 {
				c.failf("R-134", "token %d behind %d", f.token, last)
			}
			last = f.token
		}
	})
	t.add("PONG that was not asked for", "R-134", func(c *check) {
		d := c.begin(nil)
		d.k.write(d.frame(kPong, func(f *frame) { f.token = 4711 }))
		d.echo(1, []byte("one"))
	})
	slow := func(name, refs string, wait time.Duration, run func(c *check)) {
		t.add(name, refs, run)
		t.cases[len(t.cases)-1].wait = wait
	}
	within := func(c *check, ref, what string, begin time.Time, least, most time.Duration) {
		took := time.Since(begin)
		c.notef("%s after %v", what, took)
		if took < least || took > most {
			c.overtaken = took > most // a machine that is busy is late
			c.failf(ref, "%s after %v, expected after %v to %v", what, took, least, most)
		}
	}
	slow("an idle peer is asked", "R-132", 5*time.Second, func(c *check) {
		d := c.begin(nil)
		d.silent = true
		begin := time.Now()
		d.pong()
		f := d.until("R-132", kPing)
		within(c, "R-132", "PING", begin, 4*time.Second, 9*time.Second)
		d.k.write(d.frame(kPong, func(p *frame) { p.token = f.token }))
		d.echo(1, []byte("still here"))
	})
	slow("a peer that acknowledges nothing is asked sooner", "R-132", 5*time.Second/2, func(c *check) {
		d := c.begin(nil)
		d.silent = true
		begin := time.Now()
		d.there(1, []byte("one"))
		f := d.until("R-132", kPing)
		within(c, "R-132", "PING", begin, 2*time.Second, 4900*time.Millisecond)
		d.k.write(d.frame(kPong, func(p *frame) { p.token = f.token }))
		d.echo(1, []byte("still here"))
	})
	slow("a peer that acknowledges nothing is given up, the session not", "R-132", 5*time.Second, func(c *check) {
		d := c.begin(nil)
		d.silent = true
		begin := time.Now()
		d.there(1, []byte("one"))
		for {
			b, err := d.k.read()
			if err != nil {
				if isTimeout(err) {
					c.failf("R-132", "the connection is still open")
				}
				break
			}
			d.handle(b)
		}
		within(c, "R-132", "the end of the connection", begin, 4*time.Second, 9*time.Second)
		d.resume(nil)
		d.echo(1, []byte("two"))
	})
	slow("an idle peer that does not answer is given up, the session not", "R-132", 10*time.Second, func(c *check) {
		d := c.begin(nil)
		d.silent = true
		begin := time.Now()
		d.pong()
		for {
			b, err := d.k.read()
			if err != nil {
				if isTimeout(err) {
					c.failf("R-132", "the connection is still open")
				}
				break
			}
			d.handle(b)
		}
		within(c, "R-132", "the end of the connection", begin, 8*time.Second, 15*time.Second)
		d.resume(nil)
		d.echo(1, []byte("two"))
	})
	slow("part of a long frame is a sign of life, and gets one", "R-133", time.Second, func(c *check) {
		d := c.begin(nil)
		d.pong()
		b := datagramFrame(1, pattern(1000))
		before := d.statuses
		d.k.write(b[:500])
		begin := time.Now()
		for d.statuses == before {
			d.handle(d.k.next("R-133", "ACK"))
		}
		within(c, "R-133", "ACK", begin, 0, 4*time.Second)
		d.k.write(b[500:])
		d.count(uint64(len(b)))
		d.expectEchoes(0, 1, pattern(1000))
	})
	return t.cases
}
