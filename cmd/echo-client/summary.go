package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// summary is the result of a run. Its JSON keys, and their order, are fixed.
type summary struct {
	Sent        uint64  `json:"sent"`
	Received    uint64  `json:"received"`
	Lost        uint64  `json:"lost"`
	Duplicated  uint64  `json:"duplicated"`
	OutOfOrder  uint64  `json:"out_of_order"`
	Redelivered uint64  `json:"redelivered"` // sent again to another session, after one was lost
	Reconnects  uint64  `json:"reconnects"`  // 0 on plain connections, as the two beside
	Replayed    uint64  `json:"replayed"`    // sent again by sessions, after a connection was lost
	Seconds     float64 `json:"seconds"`
	MsgsPerS    float64 `json:"msgs_per_s"`
	MBPerS      float64 `json:"mb_per_s"`
	RTT         rtt     `json:"rtt_us"`

	strange uint64 // came back and was never sent
	cuts    uint64 // of --cut
}

// rtt are percentiles of the round trip, in microseconds.
type rtt struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// summary is called when all is over. The time runs until something last came back.
func (c *client) summary() *summary {
	t, awaited := c.tracker.counts()
	s := &summary{
		Sent: t.sent, Received: t.received, Lost: awaited, Duplicated: t.duplicated, OutOfOrder: t.outOfOrder, strange: t.strange,
		Seconds: round(t.last.Seconds(), 6), Redelivered: c.redelivered.Load(), cuts: c.cuts.Load(),
	}
	if c.session != nil {
		all := c.totals()
		s.Reconnects, s.Replayed = all.reconnects, all.replayed
	}
	if sec := t.last.Seconds(); sec > 0 {
		s.MsgsPerS = round(float64(t.received)/sec, 1)
		s.MBPerS = round(float64(t.bytes)/1e6/sec, 3)
	}
	if t.received > 0 {
		us := func(percentile float64) float64 { return float64(c.rtt.ValueAtQuantile(percentile)) / 1e3 }
		s.RTT = rtt{P50: us(50), P90: us(90), P99: us(99), P999: us(99.9), Max: us(100)}
	}
	return s
}

func round(f float64, digits int) float64 {
	shift := math.Pow10(digits)
	return math.Round(f*shift) / shift
}

// clean reports whether every datagram came back once, in order, and nothing else did.
func (s *summary) clean() bool {
	return s.Lost == 0 && s.Duplicated == 0 && s.OutOfOrder == 0 && s.strange == 0
}

// String is the summary for people, in one line.
func (s *summary) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sent, %d back", s.Sent, s.Received)
	if s.clean() && s.Sent == 0 {
		return b.String()
	}
	if s.clean() {
		b.WriteString(", each once and in order")
	} else {
		fmt.Fprintf(&b, ", %d lost, %d duplicated, %d out of order", s.Lost, s.Duplicated, s.OutOfOrder)
		if s.strange > 0 {
			fmt.Fprintf(&b, ", %d never sent", s.strange)
		}
	}
	fmt.Fprintf(&b, "; %.3f s, %.0f messages/s, %.1f MB/s", s.Seconds, s.MsgsPerS, s.MBPerS)
	if s.Received > 0 {
		us := func(f float64) time.Duration {
			d := time.Duration(f * 1e3)
			switch {
			case d > time.Second:
				return d.Round(time.Millisecond)
			case d > time.Millisecond:
				return d.Round(time.Microsecond)
			}
			return d.Round(100 * time.Nanosecond)
		}
		fmt.Fprintf(&b, "; round trip p50 %v, p99 %v, max %v", us(s.RTT.P50), us(s.RTT.P99), us(s.RTT.Max))
	}
	if s.Reconnects+s.Replayed+s.Redelivered > 0 {
		fmt.Fprintf(&b, "; %s, %d replayed, %d redelivered", count(s.Reconnects, "reconnect"), s.Replayed, s.Redelivered)
	}
	if s.cuts > 0 {
		fmt.Fprintf(&b, "; %s", count(s.cuts, "cut"))
	}
	return b.String()
}

// writeJSON writes the summary as a line of its own, behind output that ended with the byte last.
func (s *summary) writeJSON(w io.Writer, last byte) error {
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if last != '\n' {
		line = append([]byte{'\n'}, line...)
	}
	_, err = w.Write(line)
	return err
}
