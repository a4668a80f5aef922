package session

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// The simulator guards D1 to D4 of docs/delivery.md: one to four dialers, one listener with all its sessions, any number
// of connections, in one goroutine, in virtual time, from one seed. Nothing else decides what happens, so that a seed is
// an exact replay. Two phases: faults happen, then they stop and D2 must come true. After each event the machines'
// invariants are checked, and what an application takes is compared with what the other one sent. A failure names its
// seed, is shrunk (sim_shrink_test.go), and is printed as a story: the last lines are what led to it.
//
// sim_net_test.go has time and the connections, sim_driver_test.go what a driver does with a Session, sim_dialer_test.go
// and sim_server_test.go the two drivers, sim_app_test.go the applications and what they must see, sim_fault_test.go the
// faults, sim_test.go the tests.

// sim is a whole simulation.
type sim struct {
	seed   uint64
	rng    *rand.Rand
	secret *rand.ChaCha8 // what the Sessions draw
	now    time.Duration
	events events
	seq    uint64
	steps  int
	plan   plan
	less   lessening // what is left out
	mem    *segments
	noise  []byte // what payloads are slices of
	buffer []byte // for the payload that is handed over

	server  *server
	dialers []*dialer
	copies  []*dialer // of their sessions, in other hands
	conns   []*conn
	cuts    []breach // of the connections, if they are not drawn

	calm    time.Duration // when the last fault has ended; 0: not yet
	healed  bool          // no fault begins any more
	void    bool          // a session that began near the largest counts was renewed: they do not last for another
	ordinal int           // of the next fault
	faults  int           // those that met something
	walk    int           // events until the next check of all that is in memory
	slowest time.Duration // delivery after the faults
	hits    [numSituations]int

	tracing bool
	trace   []string
}

// failure is what a check panics with.
type failure struct{ text string }

func (m *sim) failf(format string, args ...any) {
	panic(failure{fmt.Sprintf(format, args...)})
}

func (m *sim) hit(what situation) { m.hits[what]++ }

// hitIf counts a situation if it is there.
func (m *sim) hitIf(what situation, there bool) {
	if there {
		m.hits[what]++
	}
}

// note traces. The arguments must be cheap to make: most runs drop them.
func (m *sim) note(format string, args ...any) {
	if !m.tracing {
		return
	}
	m.trace = append(m.trace, fmt.Sprintf("%12v ", m.now)+fmt.Sprintf(format, args...))
}

// ---- time

type event struct {
	at  time.Duration
	seq uint64
	f   func()
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// events is a heap ordered by time and then by the order of creation.
type events []event

func (h *events) push(e event) {
	*h = append(*h, e)
	q := *h
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = e
}

func (h *events) pop() event {
	q := *h
	top, last := q[0], q[len(q)-1]
	n := len(q) - 1
	q[n] = event{}
	q = q[:n]
	*h = q
	for i := 0; n > 0; {
		k := 2*i + 1
		if k+1 < n && q[k+1].before(&q[k]) {
			k++
		}
		if k >= n || !q[k].before(&last) {
			q[i] = last
			break
		}
		q[i] = q[k]
		i = k
	}
	return top
}

// at calls f at a time, which may be now, but never before what is under way has returned.
func (m *sim) at(t time.Duration, f func()) {
	m.seq++
	m.events.push(event{max(t, m.now), m.seq, f})
}

func (m *sim) after(d time.Duration, f func()) { m.at(m.now+d, f) }

// run goes on until stop says so, there is nothing more to happen, or the time is over.
func (m *sim) run(until time.Duration, stop func() bool) {
	for len(m.events) > 0 && m.events[0].at <= until && !stop() {
		e := m.events.pop()
		m.now = e.at
		if m.steps++; m.steps > maxSteps {
			m.failf("no end after %d events", m.steps)
		}
		e.f()
	}
}

// maxSteps is far more events than any run needs: one that gets there turns in circles.
const maxSteps = 3_000_000

// between draws a duration.
func (m *sim) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(m.rng.Int64N(int64(b-a)))
}

// odds is true once in n.
func (m *sim) odds(n int) bool { return m.rng.IntN(n) == 0 }

// pick draws one of the choices.
func pick[T any](m *sim, choices ...T) T { return choices[m.rng.IntN(len(choices))] }

// ---- connections

const (
	dialing   = 0 // the dialer's end of a connection, and the lane that it writes
	listening = 1
)

// conn is a connection: two lanes, and what the driver at each end has of it.
type conn struct {
	m        *sim
	n        int
	d        *dialer // who has dialled it
	exporter []byte
	lanes    [2]*lane // by who writes
	ends     [2]*connEnd
	dead     bool          // reset: nothing passes any more
	rejected time.Duration // when the listener said no; 0: it has not
	slow     time.Duration // how long an answer may take, from the frame that is answered, if nothing is the matter
}

// lane is one direction of a connection.
type lane struct {
	c     *conn
	from  int
	come  func() // arrive
	end   func() // finish
	q     queue  // on the way
	parts []part // of q
	inbox queue  // arrived, and not read

	latency, perByte time.Duration
	capacity         int // bytes that may be on the way and in the inbox: then the writer waits
	readSize         int // how many bytes a read gives at most
	smallReads       int // for so many bytes more; then reads are large

	last      time.Duration // when the last part arrives
	frozen    time.Duration // nothing arrives before
	hole      bool          // nothing arrives any more, and nobody is told
	closed    bool          // no more is written: the end of the stream follows
	ended     bool          // the reader has seen the end
	delivered int
	cutAt     int // the connection is reset when so many bytes have arrived; -1: never
	finAt     int // the stream ends there, whatever is written; -1: never
	flipAt    int // this byte is changed; -1: none
	holdAt    int // what is behind it comes late, and the dialer does not wait for it; -1: nothing

	scan scanner
}

// queue is bytes in their order.
type queue struct {
	buf []byte
	off int // where they begin
}

func (q *queue) len() int { return len(q.buf) - q.off }

func (q *queue) push(p []byte) {
	if len(q.buf)+len(p) > cap(q.buf) && q.off >= len(q.buf)/2 {
		q.buf = q.buf[:copy(q.buf, q.buf[q.off:])]
		q.off = 0
	}
	q.buf = append(q.buf, p...)
}

// take returns the first n, which are good until the next push.
func (q *queue) take(n int) []byte {
	p := q.buf[q.off : q.off+n]
	q.off += n
	return p
}

func (q *queue) drop() { q.buf, q.off = q.buf[:0], 0 }

type part struct {
	n  int
	at time.Duration
}

func (m *sim) newConn(d *dialer) *conn {
	c := &conn{m: m, n: len(m.conns), d: d}
	for i := range c.lanes {
		l := &lane{c: c, from: i, cutAt: -1, finAt: -1, flipAt: -1, holdAt: -1, capacity: 256 << 10, readSize: 64 << 10}
		l.q.buf, l.inbox.buf = m.mem.bytes(), m.mem.bytes()
		l.come, l.end = l.arrive, l.finish
		l.latency = m.between(0, m.plan.latency)
		if !m.healed && m.plan.total > 0 {
			if m.odds(4) {
				l.latency *= 4
			}
			l.capacity = pick(m, 600, 4<<10, 64<<10, 1<<20)
			l.readSize = pick(m, 1, 7, 100, 1500, 64<<10, 64<<10)
			l.smallReads = 3000 * l.readSize / (1 + l.readSize/10)
			if m.odds(5) {
				l.perByte = pick(m, time.Microsecond, 20*time.Microsecond, 200*time.Microsecond)
				l.capacity = min(l.capacity, 64<<10)
			}
			if m.plan.weights[faultCut] > 0 && m.odds(8) {
				l.cutAt = m.rng.IntN(400) // in the handshake, or soon behind it
			}
			m.hitIf(oneByteReads, l.readSize == 1)
		}
		for _, cut := range m.cuts {
			switch {
			case cut.conn != c.n || cut.from != i:
			case cut.late:
				l.holdAt = cut.at
			default:
				l.cutAt = cut.at
			}
		}
		c.lanes[i] = l
	}
	if m.plan.exporter {
		c.exporter = make([]byte, 32)
		m.secret.Read(c.exporter)
	}
	c.slow = 2*m.plan.writeDelay + max(c.lanes[0].latency, c.lanes[1].latency) + 200*time.Millisecond
	m.conns = append(m.conns, c)
	return c
}

func (l *lane) room() int {
	if l.c.dead || l.closed {
		return 0
	}
	return max(0, l.capacity-l.q.len()-l.inbox.len())
}

// write takes as much of p as there is room for.
func (l *lane) write(p []byte) int {
	m := l.c.m
	p = p[:min(len(p), l.room())]
	if len(p) == 0 {
		return 0
	}
	n := len(p)
	l.q.push(p)
	for len(p) > 0 {
		k := min(len(p), 16<<10)
		if l.perByte > 0 {
			k = min(k, max(1, int(50*time.Millisecond/l.perByte))) // a slow link is slow, and does not stutter
		}
		l.last = max(l.last, m.now+l.latency) + time.Duration(k)*l.perByte
		l.parts = append(l.parts, part{k, l.last})
		p = p[k:]
		m.at(l.last, l.come)
	}
	return n
}

// arrive delivers what it is time for.
func (l *lane) arrive() {
	m := l.c.m
	switch {
	case l.c.dead || l.hole || l.ended:
		return
	case m.now < l.frozen:
		m.hitIf(clogged, l.q.len() > 0)
		m.at(l.frozen, l.come)
		return
	}
	n := 0
	for len(l.parts) > 0 && l.parts[0].at <= m.now {
		n += l.parts[0].n
		l.parts = l.parts[1:]
	}
	cut := l.cutAt >= 0 && l.delivered+n >= l.cutAt
	if cut {
		n = max(0, l.cutAt-l.delivered)
	}
	fin := l.finAt >= 0 && l.delivered+n >= l.finAt
	if fin {
		n = max(0, l.finAt-l.delivered)
	}
	if l.holdAt >= 0 && l.delivered+n > l.holdAt {
		rest := l.delivered + n - l.holdAt
		n -= rest
		l.frozen, l.holdAt = m.now+time.Second, -1
		l.parts = append([]part{{rest, l.frozen}}, l.parts...)
		l.last = max(l.last, l.frozen)
		m.at(l.frozen, l.come)
		m.after(time.Millisecond, func() { l.c.d.leave() })
	}
	if n > 0 {
		p := l.q.take(n)
		if at := l.flipAt - l.delivered; l.flipAt >= 0 && at >= 0 && at < n {
			m.note("conn %d: byte %d from %d is changed", l.c.n, l.flipAt, l.from)
			p[at] ^= 1 << m.rng.IntN(8)
			l.c.d.tainted = true
			m.hit(byteFlipped)
		}
		l.delivered += n
		l.scan.feed(p)
		l.inbox.push(p)
	}
	if cut || fin {
		l.where()
	}
	if fin {
		l.q.drop()
		l.parts, l.closed = nil, true
	}
	l.c.ends[1-l.from].readable()
	if cut {
		l.c.reset()
		return
	}
	l.finish()
	l.c.ends[l.from].writable()
}

// where counts what a cut cuts through.
func (l *lane) where() {
	m := l.c.m
	s := &l.scan
	switch {
	case s.have == 0 && s.left == 0:
		m.hit(cutBetween)
	case s.left == 0:
		m.hit(cutInHeader)
	case s.version == datagram.Version:
		m.hit(cutInPayload)
	case s.kind == KindHello:
		m.hit(cutInHello)
	case s.kind == KindWelcome:
		m.hit(cutInWelcome)
	case s.kind == KindResume:
		m.hit(cutInResume)
	case s.kind == KindResumed:
		m.hit(cutInResumed)
	default:
		m.hit(cutInControl)
	}
}

// close ends the lane behind what was written.
func (l *lane) close() {
	l.closed = true
	l.c.m.at(max(l.last, l.c.m.now+l.latency), l.end)
}

// finish tells the reader of the end of the stream.
func (l *lane) finish() {
	switch m := l.c.m; {
	case !l.closed || l.ended || l.c.dead || l.hole || l.q.len() > 0:
	case m.now < l.frozen:
		m.at(l.frozen, l.end)
	default:
		l.ended = true
		l.c.ends[1-l.from].readable()
	}
}

// Read gives what has arrived to a datagram.Reader.
func (l *lane) Read(p []byte) (int, error) {
	n := copy(p, l.inbox.take(min(len(p), l.readSize, l.inbox.len())))
	if l.smallReads -= n; l.smallReads < 0 {
		l.readSize = 64 << 10
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// reset breaks the connection: what is on the way is lost, and both ends are told soon.
func (c *conn) reset() {
	if c.dead {
		return
	}
	c.dead = true
	for i, l := range c.lanes {
		l.q.drop()
		l.inbox.drop()
		l.parts = nil
		e := c.ends[i]
		c.m.after(c.m.between(0, 50*time.Millisecond), func() { e.broken("reset") })
	}
}

// scanner follows the frames in a stream of bytes.
type scanner struct {
	head    [datagram.HeaderSize]byte
	have    int // bytes of the header
	left    int // bytes of the payload that are still to come, while there are any
	version uint16
	kind    Kind
}

func (s *scanner) feed(p []byte) {
	for len(p) > 0 {
		if s.left > 0 {
			n := min(s.left, len(p))
			s.left -= n
			p = p[n:]
			if s.left == 0 {
				s.have = 0
			}
			continue
		}
		n := copy(s.head[s.have:], p)
		s.have += n
		p = p[n:]
		if s.have == len(s.head) {
			s.left = int(binary.BigEndian.Uint32(s.head[:])) - 4
			s.version, s.kind = binary.BigEndian.Uint16(s.head[4:]), Kind(binary.BigEndian.Uint16(s.head[6:]))
			if s.left <= 0 {
				s.left, s.have = 0, 0
			}
		}
	}
}
