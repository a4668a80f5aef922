package reconnect_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/towline-mq/towline/reconnect"
)

// check compares what was accepted with what was received, when all is over.
func (r *seedRun) check() {
	st := r.net.Faults().Stats()
	r.total.faults.Add(r.faultCount.Load() + uint64(st.Cuts))
	if st.Live != 0 {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		pass(nil, time.Hour) // is somebody slow, or has nobody it?
		for k := 1; k <= st.Conns; k++ {
			if f, err := r.net.Faults().WaitConn(context.Background(), k); err == nil && f.Stats().Live > 0 {
				r.log.add("connection %d of %d is open: %+v", k, st.Conns, f.Stats())
			}
		}
		r.fail("D5: %d connections are still open, and %d an hour later\n%s", st.Live, r.net.Faults().Stats().Live, stacks)
	}
	var all []*seedSide
	for _, d := range r.dialers {
		if len(d.bs) > 1 {
			r.did("a dialer had several sessions, one after the other")
		}
		up := flow{src: d.a, sinks: d.bs, whole: uint64(len(d.bs)) == d.a.last.Lost+1}
		r.checkFlow(&up)
		for _, b := range d.bs {
			r.checkFlow(&flow{src: b, sinks: []*seedSide{d.a}, whole: true})
		}
		all = append(append(all, d.a), d.bs...)
		if d.a.last.Lost > 0 && !r.restarted.Load() && r.p.listen.Expiry == 0 &&
			r.p.listen.MaxDetached == 0 && r.p.listen.MaxSessions == 0 {
			r.fail("D3: %s has lost %d sessions, but there was no reason to", d.a.name, d.a.last.Lost)
		}
	}
	if len(all) > 3 {
		r.did("several sessions at once")
	}
	for _, s := range all {
		r.checkEnd(s)
		r.total.reconnects.Add(s.last.Resumes)
		r.total.lost.Add(s.last.Lost)
	}
}

// flow is what one side sent, and who has received it: of a dialer's, each of the sessions that took the place of one
// another.
type flow struct {
	src   *seedSide
	sinks []*seedSide
	whole bool // all sessions that the dialer had are among the sinks
}

func (r *seedRun) checkFlow(f *flow) {
	src := f.src
	where := make([]map[uint32]int, len(src.out)) // by sender and number, the newest sink
	for i := range where {
		where[i] = map[uint32]int{}
	}
	held, distinct := 0, uint64(0)
	for k, sink := range f.sinks {
		here := make([]map[uint32]bool, len(src.out))
		for i := range here {
			here[i] = map[uint32]bool{}
		}
		for _, in := range sink.in {
			last := make([]int64, len(src.out))
			for i := range last {
				last[i] = -1
			}
			for _, it := range in.got {
				if it.origin != src.origin {
					if sink.listener {
						r.fail("D1: %s received what was sent to another", sink.name)
					}
					continue
				}
				if int(it.sender) >= len(src.out) || int(it.number) >= len(src.out[it.sender].accept) {
					r.fail("D1: %s received number %d of sender %d, which was never accepted", sink.name, it.number, it.sender)
					continue
				}
				w := src.out[it.sender]
				if w.accept[it.number] != it.attempt {
					r.fail("D1: %s received attempt %d of number %d of sender %d, accepted was attempt %d",
						sink.name, it.attempt, it.number, it.sender, w.accept[it.number])
				}
				if int64(it.number) <= last[it.sender] {
					r.fail("D1: %s received number %d of sender %d after %d", sink.name, it.number, it.sender, last[it.sender])
				}
				last[it.sender] = int64(it.number)
				if here[it.sender][it.number] {
					r.fail("D1: %s received number %d of sender %d twice", sink.name, it.number, it.sender)
				}
				here[it.sender][it.number] = true
				if it.redelivered && (!sink.listener || src.last.Lost == 0 && src.last.Epoch <= src.last.Resumes+1) {
					r.fail("D3: %s: number %d of sender %d is marked as redelivered, but there was nobody else who may have had it", sink.name, it.number, it.sender)
				}
				if before, twice := where[it.sender][it.number]; twice {
					r.did("a datagram was delivered again by another session, and marked")
					if !it.redelivered {
						r.fail("D3: %s received number %d of sender %d without a mark, %s had it before",
							sink.name, it.number, it.sender, f.sinks[before].name)
					}
				} else {
					distinct++
				}
			}
		}
		for i, numbers := range here {
			for n := range numbers {
				where[i][n] = k
			}
			if src.out[i].p.form == "SendExpiring" || sink.losesTail() || len(numbers) == 0 {
				continue
			}
			first, after := slices.Min(keys(numbers)), slices.Max(keys(numbers))+1
			if int(after-first) != len(numbers) {
				r.fail("D1: %s: of the numbers %d to %d of sender %d only %d came", sink.name, first, after-1, i, len(numbers))
			}
			if k == 0 && f.whole && first != 0 {
				r.fail("D1: %s: the first of sender %d is number %d", sink.name, i, first)
			}
		}
	}
	// What was acknowledged was received, if nobody dropped it.
	unconfirmed := make([][]uint32, len(src.out))
	for _, d := range src.unconfirmed {
		if it, _, ok := parseItem(d); !ok || it.origin != src.origin || int(it.sender) >= len(src.out) {
			r.fail("D3: %s: among the unconfirmed is what nobody sent", src.name)
		} else {
			unconfirmed[it.sender] = append(unconfirmed[it.sender], it.number)
		}
	}
	drained := f.whole
	for _, sink := range f.sinks {
		drained = drained && !sink.dropped.Load()
	}
	for i, w := range src.out {
		acked := len(w.accept)
		if list := unconfirmed[i]; len(list) > 0 && w.p.form != "SendExpiring" {
			acked = int(list[0])
			for k, n := range list {
				if int(n) != acked+k {
					r.fail("D3: %s: unconfirmed of sender %d: %v", src.name, i, list)
					break
				}
			}
			if missing := len(w.accept) - acked - len(list); missing != 0 && (w.p.form != "C" || missing != 1) {
				r.fail("D3: %s: of sender %d %d were accepted, unconfirmed are %v", src.name, i, len(w.accept), list)
			}
		}
		if w.p.form == "C" && acked == len(w.accept) && src.last.Sent < src.taken() {
			acked-- // what the channel took last
			held++
		}
		if !drained || w.p.form == "SendExpiring" {
			continue
		}
		for n := range acked {
			if _, ok := where[i][uint32(n)]; !ok {
				if w.p.form == "C" && n >= acked-1 {
					continue
				}
				r.fail("D1: number %d of sender %d of %s was acknowledged, and never received", n, i, src.name)
				break
			}
		}
	}
	if drained && distinct+src.last.Expired+src.last.Unconfirmed < src.last.Sent {
		r.fail("D1: %s: %d accepted, %d received, %d expired, %d unconfirmed", src.name, src.last.Sent, distinct, src.last.Expired,
			src.last.Unconfirmed)
	}
	if distinct+src.last.Expired > src.last.Sent {
		r.fail("D1: %s: %d accepted, %d received, %d expired", src.name, src.last.Sent, distinct, src.last.Expired)
	}
}

// losesTail reports whether some of what is received may not have come to those that count it: the channel of a Reader
// drops what waits in it when the Conn is closed.
func (s *seedSide) losesTail() bool { return s.dropped.Load() && slices.Contains(s.p.receivers, "C") }

// taken counts what the senders had accepted.
func (s *seedSide) taken() (n uint64) {
	for _, w := range s.out {
		n += uint64(len(w.accept))
	}
	return n
}

// checkEnd compares what a side says of itself.
func (r *seedRun) checkEnd(s *seedSide) {
	channels := uint64(0)
	if s.usesC() {
		channels = 1
	}
	if taken := s.taken(); s.last.Sent > taken || s.last.Sent+channels < taken {
		r.fail("%s: %d were accepted, Stats say %d", s.name, taken, s.last.Sent)
	}
	received := uint64(0)
	for _, in := range s.in {
		received += uint64(len(in.got))
	}
	if s.last.Received != received && !s.losesTail() {
		r.fail("%s: %d were received, Stats say %d", s.name, received, s.last.Received)
	}
	if n := uint64(len(s.unconfirmed)); n != s.last.Unconfirmed {
		r.fail("%s: %d unconfirmed, Stats say %d", s.name, n, s.last.Unconfirmed)
	}
	var e *reconnect.CloseError
	for what, err := range map[string]error{"Close": s.closeErr, "CloseSend": s.sendErr} {
		n := uint64(len(s.unconfirmed))
		switch {
		case errors.As(err, &e) && (errors.Is(err, context.DeadlineExceeded) || what == "CloseSend"):
			if e.Unsent < n { // more may have been acknowledged since
				r.fail("%s: %s: %v, but %d are unconfirmed", s.name, what, err, n)
			}
		case errors.As(err, &e):
			if e.Unsent < n || e.Unsent > n+channels {
				r.fail("%s: %s: %v, but %d are unconfirmed", s.name, what, err, n)
			}
		case what == "Close" && !errors.Is(s.ended, reconnect.ErrClosed):
		case n != 0 && s.closeErr == nil && errors.Is(s.ended, reconnect.ErrClosed) && !s.dropped.Load():
			r.fail("%s: %s returned %v, but %d are unconfirmed", s.name, what, err, n)
		}
	}
	var lost *reconnect.SessionLostError
	if errors.As(s.ended, &lost) && len(lost.Unconfirmed) != len(s.unconfirmed) {
		r.fail("D3: %s: the session was lost with %d unconfirmed, now it has %d", s.name, len(lost.Unconfirmed), len(s.unconfirmed))
	}
	r.mu.Lock()
	told := *r.check4(s.c)
	r.mu.Unlock()
	if !told.closed {
		r.fail("%s: there was no last event", s.name)
	}
	if told.expired != s.last.Expired || told.losses != s.last.Lost {
		r.fail("%s: events tell of %d expired, %d lost, Stats of %d, %d", s.name, told.expired, told.losses, s.last.Expired, s.last.Lost)
	}
}

func keys(m map[uint32]bool) (ks []uint32) {
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

// allSituations must all come about in 150 seeds.
var allSituations = func() []string {
	list := []string{
		"a session went on with another connection",
		"a connection was given up for silence",
		"a session was lost, and another took its place",
		"a session was lost, and that was the end of it",
		"the listener's side of a session was told that it is lost",
		"a datagram was delivered again by another session, and marked",
		"a datagram was marked as redelivered",
		"a datagram arrived again, and was dropped",
		"a datagram was written again",
		"a datagram was not sent in its time",
		"a datagram of up to 150 KB",
		"a batch was accepted in part",
		"a context ended in the middle of a call",
		"TrySend found the buffer full",
		"something was sent while there was no connection",
		"a sender had no credit",
		"a sending was ended by closing the channel",
		"a session without a connection kept what is unconfirmed",
		"a session was ended while it had no connection",
		"Flush waited over several connections",
		"Close said that the peer has everything",
		"Close said that the peer has everything, over several connections",
		"Close said how much is unconfirmed",
		"a call said that the peer has closed",
		"a side was told that its peer takes nothing more",
		"a side was told to go away",
		"a dialer was told that the listener is full",
		"a dialer gave up",
		"a dialer had several sessions, one after the other",
		"several sessions at once",
		"a Dial failed",
		"the channel of a reader was closed",
		"the listener closed an endpoint and opened it again, with all its sessions",
		"the listener started again, with nothing",
		"the listener shut down and started again",
	}
	for _, f := range lineFaults {
		list = append(list, "fault: "+f)
	}
	for _, f := range birthFaults {
		list = append(list, "a connection born with: "+f)
	}
	for _, e := range slices.Compact(slices.Clone(allEnds)) {
		if e != "good" {
			list = append(list, "end: "+e)
		}
	}
	for _, form := range receiveForms {
		list = append(list, "a reader had everything, and the end: "+form)
	}
	return list
}()

// missing yields those that did not come about.
func (s *situations) missing() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, name := range allSituations {
			if s.n[name] == 0 && !yield(name) {
				return
			}
		}
	}
}

func (s *situations) String() string {
	var names []string
	for name, n := range s.n {
		names = append(names, fmt.Sprintf("%8d  %s", n, name))
	}
	slices.Sort(names)
	return fmt.Sprintf("%d situations:\n%s", len(names), strings.Join(names, "\n"))
}
