package main

import (
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

// report makes all sections that there are figures for.
func (s set) report() []section {
	all := []section{
		{"one-way", "One way", s.oneWayTables()},
		{"round-trip", "Round trips", s.roundTripTable(roundTrip)},
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

// subjects returns the keys of one kind on one transport, in the order of the plan, without their sizes.
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
	var b strings.Builder
	for _, on := range transports {
		rows := s.rows(oneWay, on)
		if len(rows) == 0 {
			continue
		}
		head := []string{on}
		for _, size := range sizes {
			head = append(head, sizeName(size)+": k/s", "of floor", "cpu ns")
		}
		t := newTable(head...)
		for _, k := range rows {
			cells := []string{who(k)}
			for _, size := range sizes {
				k.Size = size
				base := key{oneWay, floor, on, "", size}
				cells = append(cells, digits(s.of(k, rate)/1000), digits(s.ratio(k, base, rate)), digits(s.of(k, cpu)))
			}
			t.row(cells...)
		}
		fmt.Fprintf(&b, "%s\n", t)
	}
	return b.String()
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

// there says whether v was measured.
func there(v float64) bool { return !math.IsNaN(v) }
