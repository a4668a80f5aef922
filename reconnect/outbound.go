package reconnect

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/internal/trywrite"
)

const (
	// loneSize and loneGap say, with outbound.lone, what a lone message is: short, and either the answer to something,
	// or after a while in which nothing was written.
	loneSize = 16 << 10
	loneGap  = 20 * time.Microsecond
)

// outbound is the queue of encoded frames. Senders append to front; whoever has set writing owns back, and writes it
// outside of the lock.
//
// Invariants: accepted >= written. While writing is false, back is empty, and so is front.
type outbound struct {
	p   *plain
	try trywrite.Writer // nil where a write without waiting cannot be had

	mu       sync.Mutex
	front    *datagram.Buffer
	back     *datagram.Buffer
	half     int // the length of front from which on senders wait
	accepted uint64
	written  uint64
	inBack   uint64 // datagrams in back
	backLen  int    // bytes in back when its writing began
	inHand   uint64 // 1 while the channel's goroutine waits with a datagram
	writing  bool
	last     time.Time     // when writing ended
	reads    uint64        // how often the stream had been read then
	closing  bool          // no more is accepted
	refusing chan struct{} // closed with closing or err set
	finished bool          // the stream's sending side was closed
	err      error         // the connection has ended
	changed  signal        // written, writing, finished or err
}

func (o *outbound) init(p *plain, codec *datagram.Options, size int) {
	if size <= 0 {
		size = DefaultPlainBuffer
	}
	o.p = p
	o.refusing = make(chan struct{})
	o.try = trywrite.New(p.nc)
	o.front, o.back = datagram.NewBuffer(codec), datagram.NewBuffer(codec)
	o.half = max(size/2, 1)
}

// refusal says why nothing is accepted any more. mu is held.
func (o *outbound) refusal() error {
	if o.err != nil {
		return o.err
	}
	if o.closing {
		return ErrClosed
	}
	return nil
}

// send accepts one datagram, and waits for room.
func (o *outbound) send(ctx context.Context, d datagram.Datagram, mode sendMode) error {
	o.mu.Lock()
	for {
		if err := o.refusal(); err != nil {
			o.mu.Unlock()
			return err
		}
		if o.front.Len() < o.half {
			break
		}
		if mode&noWait != 0 {
			o.mu.Unlock()
			return ErrWouldBlock
		}
		if err := o.await(ctx); err != nil {
			o.mu.Unlock()
			return err
		}
	}
	if err := o.front.Append(d); err != nil {
		o.mu.Unlock()
		return err
	}
	o.accepted++
	if mode&held != 0 {
		o.inHand = 0
	}
	o.start()
	return nil
}

// hold counts a datagram that the channel has taken and that is not in the queue yet.
func (o *outbound) hold() {
	o.mu.Lock()
	o.inHand = 1
	o.mu.Unlock()
}

// sendBatch accepts datagrams in order, as many as there is room for before each wait. It returns how many were
// accepted.
func (o *outbound) sendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error) {
	if len(ds) == 0 {
		return 0, nil
	}
	o.mu.Lock()
	for {
		if err = o.refusal(); err != nil {
			break
		}
		for n < len(ds) && o.front.Len() < o.half && err == nil {
			if err = o.front.Append(ds[n]); err == nil {
				n++
				o.accepted++
			}
		}
		if n == len(ds) || err != nil {
			break
		}
		// The queue is full, so that somebody is writing or must begin to.
		if !o.writing {
			o.writing = true
			go o.write()
		}
		if err = o.await(ctx); err != nil {
			break
		}
	}
	o.start()
	return n, err
}

// await gives up mu until something changed. The error is ctx's.
func (o *outbound) await(ctx context.Context) error {
	changed := o.changed.wait()
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start sees to it that what is in front gets written, and gives up mu.
func (o *outbound) start() {
	if o.writing || o.front.Len() == 0 || o.err != nil {
		o.mu.Unlock()
		return
	}
	o.writing = true
	if !o.lone() {
		o.mu.Unlock()
		go o.write()
		return
	}
	o.swap()
	o.mu.Unlock()
	_, err := o.back.WriteTo(o.try)
	o.mu.Lock()
	if err == nil {
		o.wrote()
		if o.front.Len() == 0 && !o.closing {
			o.rest()
			o.mu.Unlock()
			return
		}
	}
	o.mu.Unlock()
	if err != nil && !errors.Is(err, trywrite.ErrWouldBlock) {
		o.p.fail(err)
		return
	}
	go o.write()
}

// lone reports whether what is in front should be written by the goroutine that sends it, which saves the hand-over to
// another one. When messages follow each other closely the hand-over is worth its price: while one goroutine writes,
// more messages gather, and most of the system calls are saved. mu is held.
func (o *outbound) lone() bool {
	if o.try == nil || o.front.Len() > loneSize {
		return false
	}
	return o.reads != o.p.inbound.reads.Load() || time.Since(o.last) >= loneGap
}

// swap moves front to back, which is empty. mu is held and writing set.
func (o *outbound) swap() {
	o.front, o.back = o.back, o.front
	o.inBack, o.backLen = o.accepted-o.written, o.back.Len()
}

// wrote counts what was in back. mu is held.
func (o *outbound) wrote() {
	o.written += o.inBack
	o.inBack, o.backLen = 0, 0
	o.changed.broadcast()
}

// rest ends the writing. mu is held.
func (o *outbound) rest() {
	o.writing = false
	o.last = time.Now()
	o.reads = o.p.inbound.reads.Load()
	o.changed.broadcast()
}

// write writes until nothing is left, then closes the sending side if that was asked for. It runs in a goroutine of its
// own.
func (o *outbound) write() {
	o.mu.Lock()
	for o.err == nil {
		if o.back.Len() == 0 {
			if o.front.Len() == 0 {
				break
			}
			o.swap()
		}
		o.mu.Unlock()
		_, err := o.back.WriteTo(o.p.nc)
		if err != nil {
			o.p.fail(err) // nothing may follow a frame that was cut
			return
		}
		o.mu.Lock()
		o.wrote()
	}
	if o.closing && o.err == nil && !o.finished {
		o.mu.Unlock()
		if w, ok := o.p.nc.(closeWriter); ok {
			if err := w.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
				o.p.fail(err)
				return
			}
		}
		o.mu.Lock()
		o.finished = true
	}
	o.rest()
	o.mu.Unlock()
}

// flush waits until all that was accepted before the call is written.
func (o *outbound) flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	upTo := o.accepted
	for o.written < upTo {
		if o.err != nil {
			return o.err
		}
		if err := o.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// finish ends the accepting, and waits until all is written and the sending side closed.
func (o *outbound) finish(ctx context.Context) error {
	o.finishing()
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.finished {
		if o.err != nil {
			return o.unsent(o.err)
		}
		if err := o.await(ctx); err != nil {
			return o.unsent(err)
		}
	}
	return nil
}

// finishing is finish without the wait.
func (o *outbound) finishing() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse()
	o.closing = true
	if !o.writing && !o.finished && o.err == nil {
		o.writing = true
		go o.write()
	}
	o.changed.broadcast()
}

func (o *outbound) unsent(err error) error {
	if n := o.accepted - o.written + o.inHand; n > 0 || !errors.Is(err, ErrClosed) {
		return &CloseError{Unsent: n, Err: err}
	}
	return nil
}

// end wakes all who wait, for good.
func (o *outbound) end(err error) {
	o.mu.Lock()
	o.refuse()
	o.err = err
	o.changed.broadcast()
	o.mu.Unlock()
}

// refuse tells that nothing more is accepted, at the first call. mu is held.
func (o *outbound) refuse() {
	if !o.closing && o.err == nil {
		close(o.refusing)
	}
}

func (o *outbound) stats(s *Stats) {
	o.mu.Lock()
	s.Sent, s.Queued, s.QueuedBytes = o.accepted, o.accepted-o.written, o.front.Len()+o.backLen
	o.mu.Unlock()
}
