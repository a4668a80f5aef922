package reconnect

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
)

// inbound is the receiving side. Its errors leave the sending side as it is. There is no goroutine for it: a
// caller that finds nothing reads the stream itself, one at a time, for all.
//
// Invariant: while reading is set only the goroutine that set it touches dec, and dec holds no whole frame; rest may.
type inbound struct {
	p     *plain
	reads atomic.Uint64 // how often the stream was read

	mu       sync.Mutex
	dec      *datagram.Reader
	rest     []datagram.Run // goes before what dec has
	framed   bool           // dec has a Framing, and so no runs
	reading  bool
	poked    bool        // the read was interrupted, for there is something in rest
	err      error       // final: the stream's end, or the connection's
	dropping atomic.Bool // this side has closed: no more is handed out; set under mu
	received uint64
	changed  signal // reading or err
}

func (i *inbound) init(p *plain, codec *datagram.Options, head []byte) {
	i.p = p
	var stream io.Reader = p.nc
	if len(head) > 0 {
		stream = &headed{head, stream}
	}
	i.dec = datagram.NewReader(stream, codec)
	i.framed = codec.Framing != nil
}

// receive waits for one datagram.
func (i *inbound) receive(ctx context.Context) (datagram.Datagram, error) {
	i.mu.Lock()
	for {
		if d, ok := i.next(); ok {
			i.received++
			i.mu.Unlock()
			return d, nil
		}
		if err := i.more(ctx); err != nil {
			i.mu.Unlock()
			return datagram.Datagram{}, err
		}
	}
}

// receiveBatch waits for one datagram, and takes as many more as are there.
func (i *inbound) receiveBatch(ctx context.Context, dst []datagram.Datagram) (n int, err error) {
	if len(dst) == 0 {
		return 0, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		for n < len(dst) {
			d, ok := i.next()
			if !ok {
				break
			}
			dst[n] = d
			n++
		}
		if n > 0 {
			i.received += uint64(n)
			return n, nil
		}
		if err := i.more(ctx); err != nil {
			return 0, err
		}
	}
}

// next takes a datagram that has arrived, if there is one. mu is held.
func (i *inbound) next() (datagram.Datagram, bool) {
	if i.dropping.Load() {
		return datagram.Datagram{}, false
	}
	if n := len(i.rest); n > 0 {
		i.rest[n-1].Keep() // the payload is the caller's, and so is the memory around it
		d, _ := i.rest[n-1].Next()
		if i.rest[n-1].N == 0 {
			i.rest = i.rest[:n-1]
		}
		return d, true
	}
	if i.reading {
		return datagram.Datagram{}, false
	}
	d, ok, err := i.dec.Next()
	i.final(err)
	return d, ok
}

// each calls f with each datagram, and gives their memory back.
func (i *inbound) each(ctx context.Context, f func(datagram.Datagram) error) error {
	for i.framed {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d, err := i.receive(ctx)
		if err == nil {
			err = f(d)
		}
		if err != nil {
			return err
		}
	}
	for {
		run, err := i.takeRun(ctx)
		if err != nil {
			return err
		}
		if err := i.eachOf(ctx, run, f); err != nil {
			return err
		}
	}
}

// takeRun waits for a run, and takes all of it.
func (i *inbound) takeRun(ctx context.Context) (run datagram.Run, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		if n := len(i.rest); n > 0 && !i.dropping.Load() {
			run, i.rest = i.rest[n-1], i.rest[:n-1]
			i.received += uint64(run.N)
			return run, nil
		}
		if !i.reading && !i.dropping.Load() {
			run, err := i.dec.Frames()
			if run.N > 0 {
				i.received += uint64(run.N)
				return run, nil
			}
			i.final(err)
		}
		if err := i.more(ctx); err != nil {
			return run, err
		}
	}
}

// eachOf calls f with each datagram of run, until ctx or the receiving ends. What f has not seen is left to the next
// receiver.
func (i *inbound) eachOf(ctx context.Context, run datagram.Run, f func(datagram.Datagram) error) error {
	whole, done := run, false
	defer func() {
		if done {
			whole.Release()
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.received -= uint64(run.N)
		if run.N > 0 && !i.dropping.Load() {
			i.rest = append(i.rest, run)
			i.changed.broadcast()
			if i.reading {
				i.poked = true
				_ = i.p.nc.SetReadDeadline(longAgo)
			}
		}
	}()
	ends := ctx.Done() != nil
	for run.N > 0 {
		if ends && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if i.dropping.Load() {
			return ErrClosed
		}
		d, _ := run.Next()
		if err := f(d); err != nil {
			return err
		}
	}
	done = true
	return nil
}

// more returns nil when it may be worth looking again, which it makes so: by reading, or by waiting for who reads. mu
// is given up meanwhile.
func (i *inbound) more(ctx context.Context) error {
	if i.err != nil {
		return i.err
	}
	if i.reading {
		changed := i.changed.wait()
		i.mu.Unlock()
		defer i.mu.Lock()
		select {
		case <-changed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	i.reading = true
	i.mu.Unlock()
	err := i.fill(ctx)
	i.reads.Add(1)
	i.mu.Lock()
	i.reading = false
	i.changed.broadcast()
	poked := i.poked
	if i.poked = false; poked && !i.dropping.Load() {
		_ = i.p.nc.SetReadDeadline(time.Time{})
	}
	switch {
	case i.err != nil:
		// The connection ended while the read was under way. What it brought is still handed out.
	case err != nil && ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		// Not any timeout: ETIMEDOUT is the system's word that the peer is gone.
		return context.Cause(ctx)
	case err != nil && poked && errors.Is(err, os.ErrDeadlineExceeded):
	case err != nil:
		i.final(err)
	}
	return nil
}

// fill reads once. The end of ctx interrupts it, with a timeout as the error and nothing lost.
func (i *inbound) fill(ctx context.Context) error {
	if ctx.Done() == nil {
		return i.dec.Fill()
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = i.p.nc.SetReadDeadline(longAgo) // fails on a closed connection only, whose Read has ended
		close(interrupted)
	})
	err := i.dec.Fill()
	if !stop() {
		<-interrupted
		i.mu.Lock()
		if !i.dropping.Load() {
			_ = i.p.nc.SetReadDeadline(time.Time{})
		}
		i.mu.Unlock()
	}
	return err
}

// final notes what ended the stream, if anything did. mu is held.
func (i *inbound) final(err error) {
	if err != nil && i.err == nil {
		i.err = err
		i.changed.broadcast()
	}
}

// receiveErr returns why nothing more can be received, or nil.
func (i *inbound) receiveErr() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// stop makes every receiver return ErrClosed.
func (i *inbound) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.dropping.Store(true)
	if i.err == nil || !isEOF(i.err) {
		i.err = ErrClosed
	}
	i.changed.broadcast()
	if i.reading {
		_ = i.p.nc.SetReadDeadline(longAgo)
	}
}

// linger drops what arrives until the peer ends its stream, ctx ends, or lingerTime has passed. stop was called.
func (i *inbound) linger(ctx context.Context) {
	if !i.p.canFinish() {
		return // the peer was not told
	}
	i.mu.Lock()
	for i.reading {
		changed := i.changed.wait()
		i.mu.Unlock()
		<-changed // bounded: the read was interrupted
		i.mu.Lock()
	}
	ended := isEOF(i.err)
	i.reading = true
	i.mu.Unlock()
	if ended {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lingerTime)
	defer cancel()
	_ = i.p.nc.SetReadDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = i.p.nc.SetReadDeadline(longAgo) })
	defer stop()
	_, _ = io.Copy(io.Discard, onlyReader{i.p.nc})
}

// end wakes all who wait, for good. What has wholly arrived is still handed out, unless it was this side that closed.
func (i *inbound) end(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == ErrClosed {
		i.dropping.Store(true)
	}
	i.final(err)
	i.changed.broadcast()
}

func (i *inbound) stats(s *Stats) {
	i.mu.Lock()
	s.Received = i.received
	i.mu.Unlock()
}
