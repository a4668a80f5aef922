package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/tcp"
)

// settle is how many messages, one each millisecond, pass between two cuts.
const settle = 10

// cuts says how many to make in one round.
func cuts(long time.Duration) int { return min(max(int(long/time.Millisecond), 5), 300) }

// arrival is a message that was received.
type arrival struct {
	n  uint64
	at time.Time
}

// paced sends numbered messages of 64 bytes, one each millisecond, from one end to the other, and now and then does
// something to the connection just before one of them.
type paced struct {
	*ends
	next     uint64
	arrivals chan arrival
	failed   chan error
}

func newPaced(ctx context.Context, e *ends) *paced {
	p := &paced{ends: e, arrivals: make(chan arrival, 1<<14), failed: make(chan error, 1)}
	go func() {
		for want := uint64(0); ; want++ {
			d, err := e.accepted.Reader().Receive(ctx)
			at := time.Now()
			if err == nil {
				if n := binary.BigEndian.Uint64(d.Payload); n != want {
					err = fmt.Errorf("message %d arrived where %d was next", n, want)
				}
			}
			if err != nil {
				p.failed <- err
				return
			}
			p.arrivals <- arrival{want, at}
		}
	}()
	return p
}

func (p *paced) send(ctx context.Context) error {
	out := make([]byte, tiny)
	binary.BigEndian.PutUint64(out, p.next)
	p.next++
	return p.dialled.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: out})
}

// times does harm n times, each followed at once by a message, and returns how long after it that message arrived.
func (p *paced) times(ctx context.Context, n int, harm func() error) ([]time.Duration, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var took []time.Duration
	quiet := 0           // messages since the last one that was awaited
	var awaited *uint64  // the message after the harm, until it has arrived
	var harmed time.Time // when
	for len(took) < n {
		select {
		case <-tick.C:
			if quiet++; awaited == nil && quiet > settle {
				number := p.next
				awaited, harmed = &number, time.Now()
				if err := harm(); err != nil {
					return nil, err
				}
			}
			if err := p.send(ctx); err != nil {
				return nil, err
			}
		case a := <-p.arrivals:
			if awaited != nil && a.n == *awaited {
				took = append(took, a.at.Sub(harmed))
				awaited, quiet = nil, 0
			}
		case err := <-p.failed:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return took, nil
}

// tapped is a session over TCP whose connections are at hand.
func tapped(ctx context.Context) (*ends, *tap, *hook, error) {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return nil, nil, nil, err
	}
	t := &tap{Listener: ln}
	h := &hook{Dialer: tcp.Dialer{Addr: ln.Addr().String()}}
	e, err := join(ctx, session, t, h)
	return e, t, h, err
}

// measureRecovery resets the connection under a session again and again. What is measured is the time from the reset to
// the arrival of a message that was sent just after it.
func measureRecovery(ctx context.Context, long time.Duration) (figures, error) {
	e, t, _, err := tapped(ctx)
	if err != nil {
		return nil, err
	}
	defer e.close()
	took, err := newPaced(ctx, e).times(ctx, cuts(long), t.reset)
	if err != nil {
		return nil, err
	}
	f := percentiles(took)
	f["resumed"] = float64(e.dialled.Stats().Resumes)
	return f, nil
}

// measureTakeover lets a session dial again while its connection looks alive to the listener, and everything on it is
// lost.
func measureTakeover(ctx context.Context, long time.Duration) (figures, error) {
	e, _, h, err := tapped(ctx)
	if err != nil {
		return nil, err
	}
	defer e.close()
	var kept []*os.File
	defer func() {
		for _, f := range kept {
			f.Close()
		}
	}()
	reason := errors.New("a hole")
	took, err := newPaced(ctx, e).times(ctx, cuts(long), func() error {
		f, err := h.keep()
		if err != nil {
			return err
		}
		kept = append(kept, f)
		e.dialled.Redial(reason)
		return nil
	})
	if err != nil {
		return nil, err
	}
	f := percentiles(took)
	f["resumed"] = float64(e.dialled.Stats().Resumes)
	return f, nil
}

// measureBareRecovery is what the machine can do: a TCP connection is reset, who reads from it notices, dials again, and
// writes one message.
func measureBareRecovery(ctx context.Context, long time.Duration) (figures, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	accepted, arrived := make(chan net.Conn, 1), make(chan time.Time, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
			r, buf := bufio.NewReaderSize(c, 4096), make([]byte, headerSize+tiny)
			if _, err := io.ReadFull(r, buf); err == nil {
				arrived <- time.Now()
			}
		}
	}()
	message := make([]byte, headerSize+tiny)
	dial := func() (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		if err == nil {
			_, err = c.Write(message)
		}
		return c, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer func() { c.Close() }()
	var took []time.Duration
	tick := time.NewTicker(settle * time.Millisecond)
	defer tick.Stop()
	s := <-accepted
	<-arrived
	for range cuts(long) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		broken := make(chan struct{})
		old := c
		go func() {
			_, _ = old.Read(make([]byte, 1)) // until the reset
			close(broken)
		}()
		begin := time.Now()
		if err := reset(s); err != nil {
			return nil, err
		}
		<-broken
		old.Close()
		if c, err = dial(); err != nil {
			return nil, err
		}
		s = <-accepted
		took = append(took, (<-arrived).Sub(begin))
	}
	s.Close()
	return percentiles(took), nil
}

// measureReplay lets a session without a connection accept so many bytes, and measures from when it may dial until all
// has been received.
func measureReplay(bytes int) func(context.Context, time.Duration) (figures, error) {
	return func(ctx context.Context, _ time.Duration) (figures, error) {
		e, t, h, err := tapped(ctx)
		if err != nil {
			return nil, err
		}
		defer e.close()
		d := datagram.Datagram{Recipient: 7, Payload: payload(1 << 10)}
		n := bytes / (headerSize + len(d.Payload))
		var took []time.Duration
		for range 5 {
			open := h.close()
			if err := t.reset(); err != nil {
				return nil, err
			}
			for range n {
				if err := e.dialled.Writer().Send(ctx, d); err != nil {
					return nil, err
				}
			}
			begin := time.Now()
			open()
			for range n {
				if _, err := e.accepted.Reader().Receive(ctx); err != nil {
					return nil, err
				}
			}
			took = append(took, time.Since(begin))
			if err := e.dialled.Writer().Flush(ctx); err != nil {
				return nil, err
			}
		}
		f := percentiles(took)
		return figures{"ms": f[p50] / 1e3, perMiB: f[p50] / 1e3 / (float64(bytes) / (1 << 20))}, nil
	}
}

const perMiB = "ms/MiB"

// measureDeath makes everything get lost that a session sends and should receive, and measures until it has noticed:
// while it is idle, and while something is unconfirmed.
func measureDeath(options reconnect.SessionOptions) func(context.Context, time.Duration) (figures, error) {
	return func(ctx context.Context, _ time.Duration) (figures, error) {
		f := figures{}
		type outcome struct {
			name string
			took time.Duration
			err  error
		}
		outcomes := make(chan outcome)
		for name, busy := range map[string]bool{noticedIdle: false, noticedBusy: true} {
			go func() {
				took, err := notice(ctx, options, busy)
				outcomes <- outcome{name, took, err}
			}()
		}
		var errs error
		for range 2 {
			o := <-outcomes
			f[o.name] = o.took.Seconds()
			errs = errors.Join(errs, o.err)
		}
		return f, errs
	}
}

const (
	noticedIdle = "idle s"
	noticedBusy = "unconfirmed s"
)
