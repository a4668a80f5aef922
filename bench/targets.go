package main

import (
	"fmt"
	"math"
)

// check is one figure beside what was aimed at.
type check struct {
	what  string
	value float64
	// atLeast and atMost are the bound: one of them is not zero.
	atLeast, atMost float64
	unit            string
}

// verdict says whether the bound is kept.
func (c check) verdict() string {
	switch {
	case !there(c.value):
		return "not measured"
	case c.atLeast != 0 && c.value >= c.atLeast, c.atMost != 0 && c.value <= c.atMost:
		return "met"
	}
	return "**missed**"
}

func (c check) bound() string {
	if c.atLeast != 0 {
		return "≥ " + digits(c.atLeast) + c.unit
	}
	return "≤ " + digits(c.atMost) + c.unit
}

// bestPeer returns the peer that is fastest one way with messages of a size; ok is false if none was measured.
func (s set) bestPeer(size int) (best key, ok bool) {
	fastest := 0.0
	for _, k := range s.order {
		if k.Kind != oneWay || k.Size != size || !isPeer(k.Subject) {
			continue
		}
		if v := s.of(k, rate); there(v) && v > fastest {
			best, fastest, ok = k, v, true
		}
	}
	return best, ok
}

func isPeer(subject string) bool { return subject != floor && subject != plain && subject != session }

// slack is what a time may be over its bound that a timer decides: timers fire late.
const slack = 0.1

// checks are all targets, with what was measured.
func (s set) checks() []check {
	one := func(subject, on, mode string, size int) key { return key{oneWay, subject, on, mode, size} }
	ofFloor := func(on, mode string, size int) float64 {
		return s.ratio(one(session, on, mode, size), one(floor, on, "", size), rate)
	}
	ofKept := func(on, mode string, size int) float64 {
		return s.ratio(one(session, on, mode, size), one(floor, on, kept, size), rate)
	}
	ofPeer := func(mode string, size int) (string, float64) {
		best, ok := s.bestPeer(size)
		if !ok {
			return "the best peer", math.NaN()
		}
		return "the best peer, " + best.Subject, s.ratio(one(session, "tcp", mode, size), best, rate)
	}
	var all []check
	add := func(c check) { all = append(all, c) }
	least := []struct {
		size        int
		floor, peer float64
	}{{64, 0.40, 5}, {1 << 10, 0.75, 2}, {64 << 10, 0.80, 1.3}}
	for _, l := range least {
		add(check{what: sizeName(l.size) + " one way, tcp, beside the floor", value: ofFloor("tcp", single, l.size), atLeast: l.floor, unit: " ×"})
		add(check{what: "the same, received by Each", value: ofFloor("tcp", lent, l.size), atLeast: l.floor, unit: " ×"})
		add(check{what: "by Receive, beside a floor whose payloads are kept, too", value: ofKept("tcp", single, l.size), atLeast: l.floor, unit: " ×"})
		name, v := ofPeer(single, l.size)
		add(check{what: sizeName(l.size) + " one way, tcp, beside " + name, value: v, atLeast: l.peer, unit: " ×"})
		_, v = ofPeer(lent, l.size)
		add(check{what: "the same, received by Each", value: v, atLeast: l.peer, unit: " ×"})
	}
	add(check{what: "64 B in batches of 64, tcp, beside the floor", value: ofFloor("tcp", batch, 64), atLeast: 0.60, unit: " ×"})
	add(check{what: "the same, received by Each", value: ofFloor("tcp", lentMany, 64), atLeast: 0.60, unit: " ×"})
	add(check{what: "by ReceiveBatch, beside a floor whose payloads are kept, too", value: ofKept("tcp", batch, 64), atLeast: 0.60, unit: " ×"})
	add(check{what: "64 B from 16 goroutines, tcp, beside one", value: s.ratio(one(session, "tcp", sixteen, 64), one(session, "tcp", single, 64), rate), atLeast: 0.9, unit: " ×"})
	for _, on := range []string{"tls", "quic"} {
		for _, size := range sizes {
			least := 0.8
			if size == 64 {
				least = 0.4
			}
			add(check{what: fmt.Sprintf("%s one way, %s, beside its floor", sizeName(size), on), value: ofFloor(on, single, size), atLeast: least, unit: " ×"})
			add(check{what: "the same, received by Each", value: ofFloor(on, lent, size), atLeast: least, unit: " ×"})
			add(check{what: "by Receive, beside a floor whose payloads are kept, too", value: ofKept(on, single, size), atLeast: least, unit: " ×"})
		}
	}
	rt := func(subject string) key { return key{roundTrip, subject, "tcp", "", tiny} }
	add(check{what: "64 B round trip, tcp, p50 beside the floor", value: s.ratio(rt(session), rt(floor), p50), atMost: 1.25, unit: " ×"})
	add(check{what: "64 B round trip, tcp, p99 beside the floor", value: s.ratio(rt(session), rt(floor), p99), atMost: 2, unit: " ×"})
	for _, size := range sizes {
		add(check{what: sizeName(size) + " one way, tcp, session beside plain", value: s.ratio(one(session, "tcp", single, size), one(plain, "tcp", single, size), rate), atLeast: 0.95, unit: " ×"})
	}
	add(check{what: "allocations for a message of 64 B, both ends", value: s.of(one(session, "tcp", single, 64), allocs), atMost: 0.02})
	add(check{what: "bytes on the wire above 8 + payload, 64 B, both ways", value: s.of(key{wireBytes, session, "tcp", "", tiny}, overhead), atMost: 0.5, unit: " %"})
	idle := key{idleMemory, session, "tcp", "", 0}
	add(check{what: "an idle session, one end", value: s.of(idle, attachedKiB), atMost: 12, unit: " KiB"})
	add(check{what: "the same after a burst of 16 MiB", value: s.of(idle, afterBurst), atMost: 12, unit: " KiB"})
	add(check{what: "a session without a connection, the listener's end", value: s.of(idle, detachedKiB), atMost: 1, unit: " KiB"})
	add(check{what: "the same after a burst of 16 MiB", value: s.of(idle, detachedBurst), atMost: 1, unit: " KiB"})
	add(check{what: "sessions at once", value: s.manyFigure("sessions"), atLeast: 100_000})
	add(check{what: "the servers' processor time while they are idle, of one core", value: s.manyFigure("server idle cpu %"), atMost: 5, unit: " %"})
	cut := key{recovery, session, "tcp", "", tiny}
	add(check{what: "from an RST to the next message, p50", value: s.of(cut, p50), atMost: 400, unit: " µs"})
	// Where the target was set, bare TCP took 200 µs.
	add(check{what: "the same, beside bare TCP", value: s.ratio(cut, key{recovery, floor, "tcp", "", tiny}, p50), atMost: 2, unit: " ×"})
	add(check{what: "from an RST to the next message, p99", value: s.of(cut, p99), atMost: 1200, unit: " µs"})
	add(check{what: "takeover of a connection into a hole, p99", value: s.of(key{takeover, session, "tcp", "", tiny}, p99), atMost: 5000, unit: " µs"})
	dead := key{death, session, "tcp", "", 0}
	add(check{what: "a dead peer noticed, idle", value: s.of(dead, noticedIdle), atMost: 10 + slack, unit: " s"})
	add(check{what: "a dead peer noticed, something unconfirmed", value: s.of(dead, noticedBusy), atMost: 5 + slack, unit: " s"})
	busy := func(n int) key { return key{busyMany, session, "tcp", crowdName(n), tiny} }
	add(check{what: "processor time a message, 1,000 busy sessions beside 10", value: s.ratio(busy(1000), busy(10), cpu), atMost: 1.25, unit: " ×"})
	add(check{what: "processor time a message, 10,000 busy sessions beside 10", value: s.ratio(busy(10_000), busy(10), cpu), atMost: 1.25, unit: " ×"})
	again := func(n int) key { return key{replay, session, "tcp", sizeName(n), 0} }
	add(check{what: "time to replay a MiB, of 7 MiB beside 1 MiB", value: s.ratio(again(7<<20), again(1<<20), perMiB), atMost: 1.25, unit: " ×"})
	return all
}

// targetTable has a line for each target.
func (s set) targetTable() string {
	t := newTable("target", "aimed at", "measured", "")
	for _, c := range s.checks() {
		measured := digits(c.value)
		if there(c.value) {
			measured += c.unit
		}
		t.row(c.what, c.bound(), measured, c.verdict())
	}
	return t.String()
}
