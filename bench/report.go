package main

import (
	"cmp"
	"fmt"
	"math"
	"strings"
)

// table is a Markdown table.
type table struct {
	b       strings.Builder
	columns int
}

// newTable begins a table. Its first column is words, the others are figures.
func newTable(columns ...string) *table {
	t := &table{columns: len(columns)}
	t.row(columns...)
	t.b.WriteString("|---|" + strings.Repeat("---:|", len(columns)-1) + "\n")
	return t
}

// row adds a row; cells that are missing are empty.
func (t *table) row(cells ...string) {
	for len(cells) < t.columns {
		cells = append(cells, "")
	}
	t.b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func (t *table) String() string { return t.b.String() }

// section is a part of the report, with the name that docs/performance.md knows it by.
type section struct {
	name, title, text string
}

// sectionNames are those that report may make.
var sectionNames = []string{"one-way", "best-peer", "round-trip", "beside-bulk", "recovery", "sessions", "many", "peers", "failures", "targets"}

// report makes all sections that there are figures for.
func (s set) report() []section {
	all := []section{
		{"one-way", "One way", s.oneWayTables()},
		{"best-peer", "Beside the best peer", s.bestPeerTable()},
		{"round-trip", "Round trips", s.roundTripTable(roundTrip)},
		{"beside-bulk", "Round trips beside a bulk transfer on the same connection", s.roundTripTable(besideBulk)},
		{"recovery", "Recovery", s.recoveryTable()},
		{"sessions", "What sessions cost", s.sessionTable()},
		{"many", "Many sessions", s.manyTable()},
		{"peers", "The peers", s.peerTable()},
		{"failures", "What could not be measured", cmp.Or(s.failures(), "Nothing.\n")},
		{"targets", "Targets", s.targetTable()},
	}
	var some []section
	for _, sec := range all {
		if sec.text != "" {
			some = append(some, sec)
		}
	}
	return some
}

// who names a row.
func who(k key) string {
	name := k.Subject
	if k.Mode != "" {
		name += ", " + k.Mode
	}
	return name
}

// rows returns the keys of one kind, on one transport unless that is "", in the order of the plan, without their sizes.
func (s set) rows(kind, on string) []key {
	var keys []key
	seen := map[key]bool{}
	for _, k := range s.order {
		if k.Kind != kind || on != "" && k.Transport != on {
			continue
		}
		if k.Size = 0; !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	return keys
}

// oneWayTables has a table for each transport: rates in thousand messages a second, the part of the floor's, and
// processor time.
func (s set) oneWayTables() string {
	var all []string
	for _, on := range transports {
		rows := s.rows(oneWay, on)
		if len(rows) == 0 {
			continue
		}
		head := []string{on}
		for _, size := range sizes {
			head = append(head, sizeName(size)+": k/s", "of floor", "cpu ns", "allocs")
		}
		t := newTable(head...)
		for _, k := range rows {
			cells := []string{who(k)}
			for _, size := range sizes {
				k.Size = size
				base := key{oneWay, floor, on, "", size}
				cells = append(cells, digits(s.of(k, rate)/1000), digits(s.ratio(k, base, rate)), digits(s.of(k, cpu)), digits(s.of(k, allocs)))
			}
			t.row(cells...)
		}
		all = append(all, t.String())
	}
	return strings.Join(all, "\n")
}

// bestPeerTable has the ratios of sessions to whichever peer is fastest with messages of a size.
func (s set) bestPeerTable() string {
	t := newTable("tcp", "best peer", "k/s", "session: single", "batch of 64", "16 senders", "Each")
	any := false
	for _, size := range sizes {
		best, ok := s.bestPeer(size)
		if !ok {
			continue
		}
		any = true
		cells := []string{sizeName(size), best.Subject, digits(s.of(best, rate) / 1000)}
		for _, mode := range []string{single, batch, sixteen, lent} {
			cells = append(cells, digits(s.ratio(key{oneWay, session, "tcp", mode, size}, best, rate))+" ×")
		}
		t.row(cells...)
	}
	if !any {
		return ""
	}
	return t.String()
}

// roundTripTable has the percentiles of one kind, and the ratios to the floor's.
func (s set) roundTripTable(kind string) string {
	rows := s.rows(kind, "")
	if len(rows) == 0 {
		return ""
	}
	t := newTable("64 B", "p50 µs", "p99 µs", "p99.9 µs", "p50 of floor", "p99 of floor", "cpu ns")
	for _, k := range rows {
		k.Size = tiny
		base := key{kind, floor, k.Transport, "", tiny}
		t.row(who(k)+", "+k.Transport, digits(s.of(k, p50)), digits(s.of(k, p99)), digits(s.of(k, p999)),
			digits(s.ratio(k, base, p50)), digits(s.ratio(k, base, p99)), digits(s.of(k, cpu)))
	}
	return t.String()
}

// recoveryTable has the times after which messages flow again.
func (s set) recoveryTable() string {
	names := []struct {
		kind, subject, words string
	}{
		{recovery, floor, "RST, dial, one message: bare TCP"},
		{recovery, session, "RST to the next message: session"},
		{takeover, session, "takeover of a connection into a hole: session"},
	}
	t := newTable("tcp", "p50 µs", "p90 µs", "p99 µs", "max µs", "in a round")
	any := false
	for _, n := range names {
		k := key{n.kind, n.subject, "tcp", "", tiny}
		if v := s.of(k, p50); there(v) {
			any = true
			t.row(n.words, digits(v), digits(s.of(k, p90)), digits(s.of(k, p99)), digits(s.of(k, most)), digits(s.of(k, samples)))
		}
	}
	if !any {
		return ""
	}
	text := t.String()
	for _, n := range []int{1 << 20, 7 << 20} {
		k := key{replay, session, "tcp", sizeName(n), 0}
		if v := s.of(k, perMiB); there(v) {
			text += fmt.Sprintf("\nReplay of %s in messages of 1 KiB: %s ms, %s ms for a MiB.", sizeName(n), digits(s.of(k, "ms")), digits(v))
		}
	}
	dead := key{death, session, "tcp", "", 0}
	if v := s.of(dead, noticedIdle); there(v) {
		text += fmt.Sprintf("\nA peer that is gone without a word is noticed after %s s of idleness, or %s s if something is unconfirmed.", digits(v), digits(s.of(dead, noticedBusy)))
	}
	return strings.TrimRight(text, "\n") + "\n"
}

// sessionTable has memory, bytes on the wire, and what the number of sessions does to the cost of a message.
func (s set) sessionTable() string {
	t := newTable("", "measured")
	rows := 0
	add := func(words string, k key, name, unit string) {
		if v := s.of(k, name); there(v) {
			t.row(words, digits(v)+unit)
			rows++
		}
	}
	wire := key{wireBytes, session, "tcp", "", tiny}
	add("bytes above 8 + payload, 64 B one way, both directions", wire, overhead, " %")
	add("writes for 100 messages of 64 B", wire, writesPer100, "")
	idle := key{idleMemory, session, "tcp", "", 0}
	add("idle session, one end", idle, attachedKiB, " KiB")
	add("the same after 16 MiB", idle, afterBurst, " KiB")
	add("goroutines of one end", idle, goroutines, "")
	add("without a connection, the listener's end", idle, detachedKiB, " KiB")
	add("the same after 16 MiB", idle, detachedBurst, " KiB")
	for _, k := range s.rows(busyMany, "") {
		k.Size = tiny
		words := k.Mode
		if n := s.of(k, "sessions"); there(n) && crowdName(int(n)) != k.Mode {
			words = fmt.Sprintf("%s (for want of descriptors)", crowdName(int(n)))
		}
		add(words+", 64 B: rate in all", k, rate, " /s")
		add(words+", 64 B: processor time a message", k, cpu, " ns")
	}
	if rows == 0 {
		return ""
	}
	return t.String()
}

// peerTable says of all peers what they are, and what they do not promise.
func (s set) peerTable() string {
	measured := false
	for _, k := range s.order {
		measured = measured || isPeer(k.Subject)
	}
	if !measured {
		return ""
	}
	t := newTable("peer", "version", "set up", "what it does not promise")
	for _, p := range peers() {
		if p.skip != "" {
			t.row(p.name, "–", "left out: "+p.skip)
			continue
		}
		t.row(p.name, moduleVersion(p.module), p.how, p.missing)
	}
	return strings.ReplaceAll(t.String(), "---:", "---")
}

// failures lists the benches that have too few rounds, and why.
func (s set) failures() string {
	var b strings.Builder
	for _, k := range s.order {
		if r := s.by[k]; r.Error != "" {
			fmt.Fprintf(&b, "- %s: %s\n", k, strings.ReplaceAll(r.Error, "\n", "; "))
		}
	}
	return b.String()
}

// there says whether v was measured.
func there(v float64) bool { return !math.IsNaN(v) }
