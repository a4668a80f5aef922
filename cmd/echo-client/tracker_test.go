package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

func noClock() time.Duration { return 0 }

func newTestTracker(window int, number func([]byte) (uint64, bool)) *tracker {
	return newTracker(7, window, number, func(time.Duration) {})
}

func (t *tracker) mustAdmit(tb testing.TB, payloads ...string) {
	tb.Helper()
	var ps [][]byte
	for _, p := range payloads {
		ps = append(ps, []byte(p))
	}
	require.Equal(tb, len(ps), t.admit(ps, false, noClock))
}

func (t *tracker) back(payloads ...string) {
	for _, p := range payloads {
		t.check([]datagram.Datagram{{Recipient: 7, Payload: []byte(p)}}, 0)
	}
}

// result is counts in a form that is easy to compare.
func (t *tracker) result() string {
	c, awaited := t.counts()
	return fmt.Sprintf("sent %d received %d lost %d duplicated %d out of order %d strange %d",
		c.sent, c.received, awaited, c.duplicated, c.outOfOrder, c.strange)
}

func TestTracker(t *testing.T) {
	abc := []string{"a", "b", "c"}
	for name, tc := range map[string]struct {
		send, back []string
		want       string
	}{
		"nothing":          {nil, nil, "sent 0 received 0 lost 0 duplicated 0 out of order 0 strange 0"},
		"all":              {abc, abc, "sent 3 received 3 lost 0 duplicated 0 out of order 0 strange 0"},
		"first lost":       {abc, []string{"b", "c"}, "sent 3 received 2 lost 1 duplicated 0 out of order 0 strange 0"},
		"middle lost":      {abc, []string{"a", "c"}, "sent 3 received 2 lost 1 duplicated 0 out of order 0 strange 0"},
		"last lost":        {abc, []string{"a", "b"}, "sent 3 received 2 lost 1 duplicated 0 out of order 0 strange 0"},
		"all lost":         {abc, nil, "sent 3 received 0 lost 3 duplicated 0 out of order 0 strange 0"},
		"swapped":          {abc, []string{"b", "a", "c"}, "sent 3 received 3 lost 0 duplicated 0 out of order 1 strange 0"},
		"reversed":         {abc, []string{"c", "b", "a"}, "sent 3 received 3 lost 0 duplicated 0 out of order 2 strange 0"},
		"twice at once":    {abc, []string{"a", "a", "b", "c"}, "sent 3 received 3 lost 0 duplicated 1 out of order 0 strange 0"},
		"twice later":      {abc, []string{"a", "b", "c", "a"}, "sent 3 received 3 lost 0 duplicated 1 out of order 0 strange 0"},
		"late twice":       {abc, []string{"b", "a", "a", "c"}, "sent 3 received 3 lost 0 duplicated 1 out of order 1 strange 0"},
		"strange":          {abc, []string{"a", "x", "b", "c"}, "sent 3 received 3 lost 0 duplicated 0 out of order 0 strange 1"},
		"cut short":        {[]string{"aaa"}, []string{"aa"}, "sent 1 received 0 lost 1 duplicated 0 out of order 0 strange 1"},
		"empty":            {[]string{"", ""}, []string{"", ""}, "sent 2 received 2 lost 0 duplicated 0 out of order 0 strange 0"},
		"equal, one lost":  {[]string{"", "b", ""}, []string{"b", ""}, "sent 3 received 2 lost 1 duplicated 0 out of order 0 strange 0"},
		"equal, one twice": {[]string{"", "b", ""}, []string{"", "b", "", ""}, "sent 3 received 3 lost 0 duplicated 1 out of order 0 strange 0"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTestTracker(100, nil)
			if len(tc.send) > 0 {
				tr.mustAdmit(t, tc.send...)
			}
			tr.back(tc.back...)
			assert.Equal(t, tc.want, tr.result())
		})
	}
}

func TestTrackerRecipient(t *testing.T) {
	tr := newTestTracker(1, nil)
	tr.mustAdmit(t, "a")
	tr.check([]datagram.Datagram{{Recipient: 8, Payload: []byte("a")}}, 0)
	assert.Equal(t, "sent 1 received 0 lost 1 duplicated 0 out of order 0 strange 1", tr.result())
}

func TestTrackerWindow(t *testing.T) {
	tr := newTestTracker(2, nil)
	ps := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	assert.Equal(t, 2, tr.admit(ps, false, noClock))
	tr.retract(1)
	assert.Equal(t, 1, tr.admit(ps[1:], false, noClock))

	admitted := make(chan int)
	admit := func(ps [][]byte) {
		if !tr.await(len(ps[0])) {
			admitted <- -1
			return
		}
		admitted <- tr.admit(ps, false, noClock)
	}
	assert.Zero(t, tr.admit(ps[2:], false, noClock), "there is no room")
	go admit(ps[2:])
	tr.back("b") // a was overtaken, and holds up nobody any more
	assert.Equal(t, 1, <-admitted)
	tr.mustAdmit(t, "d")
	go admit(ps[:1])
	tr.stop()
	assert.Equal(t, -1, <-admitted)
	tr.back("c", "d")
	assert.Zero(t, tr.admit(ps, false, noClock), "stopped, with room")
}

func TestTrackerBytes(t *testing.T) {
	tr := newTestTracker(1000, nil)
	big := make([]byte, inflightBytes+1)
	small := make([]byte, inflightBytes/2)
	assert.Equal(t, 1, tr.admit([][]byte{big, small}, false, noClock), "one too large goes alone")
	tr.check([]datagram.Datagram{{Recipient: 7, Payload: big}}, 0)
	assert.Equal(t, 2, tr.admit([][]byte{small, small, small}, false, noClock))
}

// What has not come back is there to be sent again, in order, and what has is not held.
func TestTrackerAgain(t *testing.T) {
	l := newLoader(16, 0)
	for _, keep := range []bool{true, false} {
		tr := newTestTracker(1<<20, l.number)
		tr.keep, tr.remake = keep, l.make
		const n = 3 * batchCount
		want := make([]string, n)
		p := make([]byte, 16)
		for i := range want {
			l.fill(p, uint64(i))
			want[i] = string(p)
			tr.mustAdmit(t, want[i])
		}
		again := func() (all []string) {
			for next := uint64(0); ; {
				var ps [][]byte
				if ps, next = tr.again(nil, next); len(ps) == 0 {
					return all
				}
				assert.LessOrEqual(t, len(ps), batchCount)
				for _, p := range ps {
					all = append(all, string(p))
				}
			}
		}
		assert.Equal(t, want, again())
		tr.back(want[:100]...)
		assert.Equal(t, want[100:], again())
		tr.retract(10)
		assert.Equal(t, want[100:n-10], again())
		ps, next := tr.again(nil, 0)
		tr.back(want[100:2000]...)
		assert.Len(t, ps, batchCount)
		ps, _ = tr.again(nil, next)
		assert.Equal(t, want[2000], string(ps[0]), "what came back meanwhile is left out")
		tr.back(want[2000 : n-10]...)
		assert.Empty(t, again())
		for i := range tr.window.ring {
			assert.Nil(t, tr.window.ring[i].payload)
		}
	}
}

func TestTrackerBare(t *testing.T) {
	tr := newTestTracker(1000, nil)
	tr.admit([][]byte{[]byte("a")}, true, noClock)
	assert.Equal(t, 0, tr.check([]datagram.Datagram{{Recipient: 7, Payload: []byte("a")}}, 0))
	tr.mustAdmit(t, "a")
	assert.Equal(t, -1, tr.check([]datagram.Datagram{{Recipient: 7, Payload: []byte("a")}}, 0))
}

func TestTrackerNumbersTellOldDuplicates(t *testing.T) {
	l := newLoader(16, 0)
	tr := newTestTracker(10, l.number)
	p := make([]byte, 16)
	for n := range uint64(3 * maxRecent) {
		l.fill(p, n)
		tr.admit([][]byte{p}, false, noClock)
		tr.check([]datagram.Datagram{{Recipient: 7, Payload: p}}, 0)
	}
	l.fill(p, 0)
	tr.back(string(p))
	l.fill(p, 1<<40)
	tr.back(string(p))
	assert.Equal(t, fmt.Sprintf("sent %d received %[1]d lost 0 duplicated 1 out of order 0 strange 1", 3*maxRecent), tr.result())
}

func TestTrackerManyOvertaken(t *testing.T) {
	l := newLoader(8, 0)
	tr := newTestTracker(2, l.number)
	p := make([]byte, 8)
	for n := range uint64(2 * (maxLate + 5)) {
		l.fill(p, n)
		tr.admit([][]byte{p}, false, noClock)
		if n%2 == 1 {
			tr.check([]datagram.Datagram{{Recipient: 7, Payload: p}}, 0)
		}
	}
	assert.Equal(t, fmt.Sprintf("sent %d received %d lost %[2]d duplicated 0 out of order 0 strange 0", 2*(maxLate+5), maxLate+5), tr.result())
}

// A network that drops, doubles and delays at random is counted exactly, by a plain model of the same.
func TestTrackerAgainstModel(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		l := newLoader(8, 0)
		tr := newTestTracker(1<<20, l.number)
		var wire []uint64
		n := uint64(50)
		p := make([]byte, 8)
		for i := range n {
			l.fill(p, i)
			tr.admit([][]byte{p}, false, noClock)
			switch rng.IntN(6) {
			case 0: // dropped
			case 1:
				wire = append(wire, i, i)
			case 2:
				wire = append(wire, i)
				j := rng.IntN(len(wire))
				wire[j], wire[len(wire)-1] = wire[len(wire)-1], wire[j]
			default:
				wire = append(wire, i)
			}
		}
		var received, duplicated, late uint64
		seen, highest := map[uint64]bool{}, -1
		for _, i := range wire {
			switch {
			case seen[i]:
				duplicated++
				goto deliver
			case int(i) < highest:
				late++
			}
			received++
		deliver:
			seen[i], highest = true, max(highest, int(i))
			l.fill(p, i)
			tr.back(string(p))
		}
		require.Equal(t, fmt.Sprintf("sent %d received %d lost %d duplicated %d out of order %d strange 0",
			n, received, n-received, duplicated, late), tr.result(), "seed %d", seed)
	}
}
