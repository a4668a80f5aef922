package reconnect_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
)

// seedSide is one side of a session, with an application that sends and receives by every form of call.
type seedSide struct {
	r        *seedRun
	d        *seedDialer
	c        *reconnect.Conn
	p        *sidePlan
	o        *reconnect.SessionOptions
	name     string
	origin   uint32 // of what it sends, in all of the seed
	listener bool
	index    int // of a listener's: how many there were before for the same dialer

	out []*sender
	in  []*receiver

	senders, receivers, others sync.WaitGroup
	over                       chan struct{} // closed at the end
	ending                     atomic.Bool   // the plan ended its sending
	dropped                    atomic.Bool   // it was closed: what is not received is dropped
	closed                     sync.Once
	closeErr                   error // of Close
	sendErr                    error // of CloseSend
	byChannel                  bool
	last                       reconnect.Stats
	unconfirmed                []datagram.Datagram
	ended                      error
}

// sender is a goroutine that sends. What it had accepted is numbered from 0.
type sender struct {
	s      *seedSide
	i      int
	p      senderPlan
	rng    *rand.Rand
	accept []uint32 // by number, which attempt it was
	count  atomic.Uint32
	try    uint32
}

// receiver is a goroutine that receives.
type receiver struct {
	form string
	got  []item
	next map[[2]uint32]uint32 // by origin and sender, what comes next
	kept []kept               // some payloads, which are to stay as they are
	err  error
}

// item is a datagram that was received.
type item struct {
	origin, sender, number, attempt uint32
	redelivered                     bool
}

func newSeedSide(r *seedRun, c *reconnect.Conn, p *sidePlan, d *seedDialer, listener bool) *seedSide {
	s := &seedSide{r: r, d: d, c: c, p: p, o: &d.p.o, origin: r.sides.Add(1), listener: listener, over: make(chan struct{})}
	if listener {
		s.o = &r.p.listen.SessionOptions
	}
	n := d.i*1000 + int(s.origin)*20
	if !listener {
		n = d.i
	}
	for i, sp := range p.senders {
		s.out = append(s.out, &sender{s: s, i: i, p: sp, rng: r.rng("sender", 100*n+i)})
	}
	for _, form := range p.receivers {
		s.in = append(s.in, &receiver{form: form, next: map[[2]uint32]uint32{}})
	}
	return s
}

func (s *seedSide) run() {
	r := s.r
	r.total.sessions.Add(1)
	for _, w := range s.out {
		s.senders.Go(w.run)
	}
	for i, in := range s.in {
		rng := r.rng("receiver", int(s.origin)*10+i)
		s.receivers.Go(func() { s.receive(in, rng) })
	}
	s.others.Go(s.poll)
	if s.p.flushes {
		s.others.Go(s.flush)
	}
	if !s.listener {
		s.others.Go(s.end)
	}
	select {
	case <-r.well:
	case <-s.c.Done():
		<-r.well
	}
	s.senders.Wait()
	err := s.c.Writer().Flush(r.ctx)
	s.typed("Flush", err)
	if took, bound := time.Since(r.healed), r.p.bound(s.d.p); err == nil && took > bound {
		r.fail("D2: %s: all it had accepted was acknowledged only %v after the faults, expected %v at most", s.name, took, bound)
	} else if err == nil {
		for most := r.total.recovery.Load(); uint64(took) > most && !r.total.recovery.CompareAndSwap(most, uint64(took)); {
			most = r.total.recovery.Load()
		}
	}
	if s.byChannel = s.p.closesCh && s.usesC() && !s.ending.Load(); s.byChannel {
		close(s.c.Writer().C())
		r.did("a sending was ended by closing the channel")
	}
	s.sendErr = s.c.CloseSend(r.ctx)
	s.typed("CloseSend", s.sendErr)
	s.receivers.Wait()
	s.close(r.ctx, 0)
	<-s.c.Done()
	close(s.over)
	s.others.Wait()
	s.last, s.unconfirmed, s.ended = s.c.Stats(), s.c.Unconfirmed(), s.c.Err()
	r.log.add("%s: over: %v; %d sent, %d received, %d unconfirmed", s.name, s.ended, s.last.Sent, s.last.Received, s.last.Unconfirmed)
	s.typed("the end", s.ended)
	if s.c.State() != reconnect.Closed {
		r.fail("%s: state %v in the end", s.name, s.c.State())
	}
}

func (s *seedSide) usesC() bool {
	for _, w := range s.p.senders {
		if w.form == "C" {
			return true
		}
	}
	return false
}

// close closes in good order, within a time; 0 is without limit.
func (s *seedSide) close(ctx context.Context, within time.Duration) {
	first := false
	s.closed.Do(func() { first = true })
	if !first {
		if err := s.c.Close(ctx); err != nil {
			s.r.fail("%s: a second Close: %v", s.name, err)
		}
		return
	}
	limit := seedPatience
	if within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
		limit = within + 25*time.Millisecond
	}
	s.r.bounded(ctx, s.name+": Close", limit, func(ctx context.Context) { s.closeErr = s.c.Close(ctx) })
	s.r.log.add("%s: Close: %v", s.name, s.closeErr)
	if s.closeErr == nil {
		s.r.did("Close said that the peer has everything")
		if s.c.Stats().Resumes > 0 {
			s.r.did("Close said that the peer has everything, over several connections")
		}
		return
	}
	var e *reconnect.CloseError
	if !errors.As(s.closeErr, &e) {
		s.r.fail("%s: Close: %v", s.name, s.closeErr)
		return
	}
	s.r.did("Close said how much is unconfirmed")
	if within == 0 || !errors.Is(s.closeErr, context.DeadlineExceeded) {
		s.typed("Close", s.closeErr)
	}
}

func (s *seedSide) closeNow() {
	s.closed.Do(func() {})
	s.r.bounded(s.r.ctx, s.name+": CloseNow", 20*time.Millisecond, func(context.Context) { s.c.CloseNow() })
}

// end ends the session in the middle, if the plan says so.
func (s *seedSide) end() {
	p := s.d.p
	if p.end == "good" || !pass(s.over, p.endAfter) {
		return
	}
	b := s.d.newestB()
	s.r.log.add("%s: the plan ends it: %s", s.name, p.end)
	if s.c.State() == reconnect.Disconnected {
		s.r.did("a session was ended while it had no connection")
	}
	s.r.did("end: " + p.end)
	done := make(chan struct{})
	close1 := func(s *seedSide, within time.Duration) {
		if s != nil {
			s.dropped.Store(true)
			s.ending.Store(true)
			s.close(s.r.ctx, within)
		}
	}
	switch p.end {
	case "half":
		s.ending.Store(true)
		s.typed("CloseSend", s.c.CloseSend(s.r.ctx))
	case "dialer Close":
		close1(s, 0)
	case "listener Close":
		close1(b, 0)
	case "both Close":
		go func() { close1(b, 0); close(done) }()
		close1(s, 0)
		<-done
	case "dialer Close within":
		close1(s, p.endWithin+1)
	case "dialer CloseNow":
		s.dropped.Store(true)
		s.ending.Store(true)
		s.closeNow()
	case "listener CloseNow":
		if b != nil {
			b.dropped.Store(true)
			b.ending.Store(true)
			b.closeNow()
		}
	}
}

// typed fails if an error is not one of those that the calls promise.
func (s *seedSide) typed(what string, err error) {
	var lost *reconnect.SessionLostError
	var gaveUp *redial.Error
	var unsent *reconnect.CloseError
	if errors.As(err, &unsent) {
		err = unsent.Err
	}
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, reconnect.ErrClosed):
	case errors.Is(err, reconnect.ErrPeerClosed):
		s.r.did("a call said that the peer has closed")
		if s.d.p.end == "good" && !s.listener && !s.r.restarted.Load() {
			s.r.fail("%s: %s: %v, though the listener's application ends nothing early", s.name, what, err)
		}
	case errors.As(err, &lost):
		if s.listener {
			s.r.did("the listener's side of a session was told that it is lost")
		} else {
			s.r.did("a session was lost, and that was the end of it")
		}
	case errors.As(err, &gaveUp) && s.d.p.attempts > 0:
		s.r.did("a dialer gave up")
	default:
		s.r.fail("%s: %s: %v: not an error that is promised", s.name, what, err)
	}
}

// run sends until all is sent, the faults are over, or nothing more is accepted.
func (w *sender) run() {
	s := w.s
	for len(w.accept) < w.p.count {
		select {
		case <-s.r.well:
			return
		default:
		}
		if !pass(s.r.well, span(w.rng, 0, w.p.pause)) {
			return
		}
		form := w.p.form
		if form == "any" {
			form = one(w.rng, "Send", "Send with ctx", "TrySend", "SendBatch")
		}
		n, err := w.send(form)
		if n == 0 && err == nil {
			continue // not this time
		}
		if err != nil {
			s.typed(form, err)
			s.r.log.add("%s: sender %d: %v after %d", s.name, w.i, err, len(w.accept))
			if again := s.c.Writer().Send(s.r.ctx, w.next(0)); again == nil {
				s.r.fail("%s: %s after %v was accepted", s.name, form, err)
			}
			return
		}
	}
}

// send makes one call, and returns how many datagrams it got accepted. No error and none accepted: not this time.
func (w *sender) send(form string) (n int, err error) {
	c, r := w.s.c, w.s.r
	if c.State() == reconnect.Disconnected {
		r.did("something was sent while there was no connection")
	}
	switch form {
	case "Send":
		err = c.Writer().Send(r.ctx, w.next(0))
	case "SendExpiring":
		err = c.Writer().SendExpiring(r.ctx, w.next(0), span(w.rng, 0, 2*time.Second))
	case "Send with ctx":
		ctx, done := w.s.short(w.rng)
		d := w.next(0)
		err = c.Writer().Send(ctx, d)
		if done(err) {
			return 0, nil
		}
	case "TrySend":
		if err = c.Writer().TrySend(w.next(0)); errors.Is(err, reconnect.ErrWouldBlock) {
			r.did("TrySend found the buffer full")
			pass(r.well, 10*time.Millisecond)
			return 0, nil
		}
	case "SendBatch":
		var ds []datagram.Datagram
		for i := range 1 + w.rng.IntN(6) {
			ds = append(ds, w.next(i))
		}
		ctx, done := w.s.short(w.rng)
		n, err = c.Writer().SendBatch(ctx, ds)
		if n > len(ds) || n < len(ds) && err == nil {
			r.fail("%s: SendBatch of %d: %d, %v", w.s.name, len(ds), n, err)
		}
		if n > 0 && n < len(ds) {
			r.did("a batch was accepted in part")
		}
		w.accepted(n)
		if done(err) {
			return n, nil
		}
		return n, err
	case "C":
		select {
		case c.Writer().C() <- w.next(0):
		case <-c.Writer().Done():
			return 0, w.done()
		}
	}
	if err == nil {
		w.accepted(1)
		n = 1
	}
	return n, err
}

// done says why nothing is accepted any more.
func (w *sender) done() error {
	err := w.s.c.Writer().Send(w.s.r.ctx, w.next(0))
	if err == nil {
		w.s.r.fail("%s: Send accepted something after Writer.Done", w.s.name)
	}
	return err
}

// short is a context that ends soon, by itself or by hand, and a function that judges what came of it: true, if it was
// the context.
func (s *seedSide) short(rng *rand.Rand) (context.Context, func(error) bool) {
	limit := span(rng, 0, 100*time.Millisecond)
	if rng.IntN(3) > 0 {
		limit = span(rng, 0, 10*time.Second)
	}
	why := errors.New("the caller does not want it any more")
	ctx, cancel := context.WithTimeoutCause(s.r.ctx, limit, why)
	start := time.Now()
	return ctx, func(err error) bool {
		cancel()
		if took := time.Since(start); took > limit {
			s.r.fail("D5: %s: a call took %v, its context ended after %v", s.name, took, limit)
		}
		if errors.Is(err, why) {
			s.r.did("a context ended in the middle of a call")
			return true
		}
		return false
	}
}

// accepted notes that n more were.
func (w *sender) accepted(n int) {
	for range n {
		w.accept = append(w.accept, w.try)
		w.try++
	}
	w.count.Store(uint32(len(w.accept)))
	w.s.r.total.messages.Add(uint64(n))
}

const itemHead = 14

// next makes the datagram that comes k-th from now, if all are accepted. It holds how many of each other sender had been
// accepted before: these are ahead of it.
func (w *sender) next(k int) datagram.Datagram {
	if k == 0 {
		w.try += 1000 // another attempt
	}
	size := itemHead + 4*len(w.s.out) + w.rng.IntN(100)
	if w.p.big {
		switch w.rng.IntN(30) {
		case 0:
			size += w.rng.IntN(150_000)
			w.s.r.did("a datagram of up to 150 KB")
		case 1, 2, 3:
			size += w.rng.IntN(5000)
		}
	}
	b := make([]byte, 0, size)
	b = binary.BigEndian.AppendUint32(b, w.s.origin)
	b = append(b, byte(w.i))
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.accept)+k))
	b = binary.BigEndian.AppendUint32(b, w.try+uint32(k))
	b = append(b, byte(len(w.s.out)))
	for _, other := range w.s.out {
		var n uint32
		if other != w && other.p.form != "C" && other.p.form != "SendExpiring" {
			n = other.count.Load()
		}
		b = binary.BigEndian.AppendUint32(b, n)
	}
	fill := byte(len(w.accept) + k)
	for len(b) < size {
		b = append(b, fill)
	}
	return datagram.Datagram{Recipient: uint16(w.i), Payload: b}
}

// parse is the opposite of next.
func parseItem(d datagram.Datagram) (it item, ahead []uint32, ok bool) {
	b := d.Payload
	if len(b) < itemHead {
		return item{}, nil, false
	}
	it = item{
		origin: binary.BigEndian.Uint32(b), sender: uint32(b[4]), number: binary.BigEndian.Uint32(b[5:]),
		attempt: binary.BigEndian.Uint32(b[9:]), redelivered: d.Redelivered,
	}
	n := int(b[13])
	if len(b) < itemHead+4*n || it.sender != uint32(d.Recipient) {
		return it, nil, false
	}
	for i := range n {
		ahead = append(ahead, binary.BigEndian.Uint32(b[itemHead+4*i:]))
	}
	for _, c := range b[itemHead+4*n:] {
		if c != byte(it.number) {
			return it, nil, false
		}
	}
	return it, ahead, true
}

// receive receives until the end.
func (s *seedSide) receive(in *receiver, rng *rand.Rand) {
	r, c := s.r, s.c.Reader()
	batch := make([]datagram.Datagram, 1+rng.IntN(40))
	for in.err == nil {
		if rng.IntN(20) == 0 {
			pass(r.well, span(rng, 0, 50*time.Millisecond))
		}
		switch in.form {
		case "Receive":
			d, err := c.Receive(r.ctx)
			s.take(in, err, d)
		case "Receive with ctx":
			ctx, done := s.short(rng)
			d, err := c.Receive(ctx)
			if !done(err) {
				s.take(in, err, d)
			}
		case "ReceiveBatch":
			n, err := c.ReceiveBatch(r.ctx, batch)
			s.take(in, err, batch[:n]...)
		case "All":
			left := false
			for d, err := range c.All(r.ctx) {
				if s.take(in, err, d); err == nil && rng.IntN(50) == 0 {
					left = true
					break
				}
			}
			if !left && in.err == nil {
				in.err = io.EOF
			}
		case "Each":
			err := c.Each(r.ctx, func(d datagram.Datagram) error {
				s.take(in, nil, d)
				if rng.IntN(50) == 0 {
					return errEnough
				}
				return nil
			})
			switch {
			case err == nil:
				in.err = io.EOF
			case err != errEnough:
				in.err = err
			}
		case "C":
			for d := range c.C() {
				s.take(in, nil, d)
			}
			if in.err = s.c.Err(); in.err == nil {
				in.err = reconnect.ErrClosed
				if !s.dropped.Load() {
					r.fail("%s: the channel is closed, and nothing has ended", s.name)
				}
			}
			r.did("the channel of a reader was closed")
		}
	}
	for _, k := range in.kept {
		if !bytes.Equal(k.got, k.was) {
			r.fail("%s: a payload that %s returned has changed", s.name, in.form)
		}
	}
	s.typed(in.form, in.err)
	r.log.add("%s: receiver: %v after %d", s.name, in.err, len(in.got))
	if errors.Is(in.err, io.EOF) {
		r.did("a reader had everything, and the end: " + in.form)
	}
	if d, err := c.Receive(r.ctx); err == nil && in.form != "C" && (s.dropped.Load() || len(s.in) == 1) {
		r.fail("%s: received %v after %v", s.name, d, in.err)
	}
}

// take notes what was received, and checks what can be checked at once.
func (s *seedSide) take(in *receiver, err error, ds ...datagram.Datagram) {
	if err != nil {
		in.err = err
		return
	}
	for _, d := range ds {
		it, ahead, ok := parseItem(d)
		if !ok {
			s.r.fail("D1: %s received what nobody sent: %d bytes for %d", s.name, len(d.Payload), d.Recipient)
			continue
		}
		in.got = append(in.got, it)
		if in.form != "Each" && len(in.kept) < 100 {
			in.kept = append(in.kept, keep(d))
		}
		if it.redelivered {
			s.r.did("a datagram was marked as redelivered")
		}
		in.next[[2]uint32{it.origin, it.sender}] = it.number + 1
		if len(s.in) > 1 || s.index > 0 {
			continue
		}
		for k, n := range ahead {
			if got := in.next[[2]uint32{it.origin, uint32(k)}]; got < n && it.sender != uint32(k) && !s.r.lossy(s) {
				s.r.fail("D1: %s received number %d of sender %d before number %d of sender %d, which was accepted before it",
					s.name, it.number, it.sender, got, k)
			}
		}
	}
	if s.o.AckConsumed {
		if err := s.c.Reader().Ack(len(ds)); err != nil {
			s.typed("Ack", err)
		}
	}
}

// lossy reports whether the listener's first session for a dialer may not be the first.
func (r *seedRun) lossy(s *seedSide) bool {
	return s.listener && s.d.a != nil && s.d.a.c.Stats().Lost > 0
}

// flush calls Flush now and then: when it returns nil, all that was accepted before is acknowledged.
func (s *seedSide) flush() {
	rng := s.r.rng("flush", int(s.origin))
	for pass(s.over, span(rng, 0, s.r.p.chaos/10)) {
		before := s.c.Stats().Sent
		resumes := s.c.Stats().Resumes
		ctx, done := s.short(rng)
		err := s.c.Writer().Flush(ctx)
		if done(err) {
			continue
		}
		s.typed("Flush", err)
		if err != nil {
			return
		}
		if st := s.c.Stats(); st.Sent-st.Unconfirmed < before {
			s.r.fail("%s: Flush returned nil, but of %d datagrams only %d are acknowledged", s.name, before, st.Sent-st.Unconfirmed)
		} else if st.Resumes > resumes {
			s.r.did("Flush waited over several connections")
		}
	}
}

// poll looks at everything now and then: counters only grow, and what is kept is bounded.
func (s *seedSide) poll() {
	rng := s.r.rng("poll", int(s.origin))
	const longest = 160_000 // a frame
	var was reconnect.Stats
	buffer, window := s.o.SendBuffer, max(s.o.MaxWindow, 64<<10)
	if buffer == 0 {
		buffer = reconnect.DefaultSessionBuffer
	}
	if s.o.MaxWindow == 0 {
		window = reconnect.DefaultMaxWindow
	}
	for pass(s.over, span(rng, 0, time.Second)) {
		_, _ = s.c.NetConn(), s.c.Err()
		st := s.c.Stats()
		for _, pair := range [][2]uint64{
			{was.Sent, st.Sent}, {was.Received, st.Received}, {was.Resumes, st.Resumes}, {was.Lost, st.Lost},
			{was.Replayed, st.Replayed}, {was.Duplicates, st.Duplicates}, {was.Expired, st.Expired},
		} {
			if pair[0] > pair[1] {
				s.r.fail("%s: a counter went back: %+v, then %+v", s.name, was, st)
			}
		}
		was = st
		switch {
		case st.UnconfirmedBytes > buffer+longest:
			s.r.fail("D4: %s keeps %d bytes, its buffer is %d", s.name, st.UnconfirmedBytes, buffer)
		case st.Waiting > window+longest:
			s.r.fail("D4: %s lets %d bytes wait, its window is %d", s.name, st.Waiting, window)
		case st.Unconfirmed > st.Sent:
			s.r.fail("%s: %+v", s.name, st)
		}
		if st.Unconfirmed > 0 && st.Credit == 0 && s.c.State() == reconnect.Connected {
			s.r.did("a sender had no credit")
		}
		if st.Duplicates > 0 {
			s.r.did("a datagram arrived again, and was dropped")
		}
		if st.Replayed > 0 {
			s.r.did("a datagram was written again")
		}
		if n := len(s.c.Unconfirmed()); n > 0 && s.c.State() == reconnect.Disconnected {
			s.r.did("a session without a connection kept what is unconfirmed")
		}
	}
}
