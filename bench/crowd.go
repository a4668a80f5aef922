package main

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// crowd is many sessions with one listener.
type crowd struct {
	l                 *reconnect.Listener
	dialled, accepted []*reconnect.Conn
	gone              atomic.Bool // no dial succeeds any more
}

// newCrowd makes n sessions.
func newCrowd(ctx context.Context, n int) (*crowd, error) {
	ln, err := tcp.Listen(ctx, "127.0.0.1:0", nil)
	if err != nil {
		return nil, err
	}
	c := &crowd{l: reconnect.NewListener(ln, &reconnect.ListenOptions{Expiry: time.Hour})}
	dialer := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		if c.gone.Load() {
			return nil, redial.Fatal(errors.New("gone for good"))
		}
		return tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
	})
	accepting := make(chan error, 1)
	go func() {
		for range n {
			a, err := c.l.Accept(ctx)
			if err != nil {
				accepting <- err
				return
			}
			c.accepted = append(c.accepted, a)
		}
		accepting <- nil
	}()
	var mu sync.Mutex
	err = share(n, 32, func(n int) error {
		for range n {
			d, err := reconnect.Dial(ctx, dialer, nil)
			if err != nil {
				return err
			}
			mu.Lock()
			c.dialled = append(c.dialled, d)
			mu.Unlock()
		}
		return nil
	})
	if err != nil {
		_ = c.l.Close()
	}
	if err = errors.Join(err, <-accepting); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// greet moves one message each way on all sessions, until all is acknowledged. In the end accepted is in the order of
// dialled.
func (c *crowd) greet(ctx context.Context) error {
	for i, conn := range c.dialled {
		hello := binary.BigEndian.AppendUint64(nil, uint64(i))
		if err := conn.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: hello}); err != nil {
			return err
		}
	}
	ordered := make([]*reconnect.Conn, len(c.dialled))
	for _, conn := range c.accepted {
		d, err := conn.Reader().Receive(ctx)
		if err != nil {
			return err
		}
		ordered[binary.BigEndian.Uint64(d.Payload)] = conn
		if err := conn.Writer().Send(ctx, d); err != nil {
			return err
		}
	}
	c.accepted = ordered
	for i, conn := range c.dialled {
		if _, err := conn.Reader().Receive(ctx); err != nil {
			return err
		}
		if err := errors.Join(conn.Writer().Flush(ctx), c.accepted[i].Writer().Flush(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// move moves n messages of 64 bytes on each session at once.
func (c *crowd) move(ctx context.Context, n int) (wall, used time.Duration, err error) {
	d := datagram.Datagram{Recipient: 7, Payload: payload(tiny)}
	errs := make(chan error, 2*len(c.dialled))
	usedBefore, begin := cpuTime(), time.Now()
	for i := range c.dialled {
		w, r := c.dialled[i].Writer(), c.accepted[i].Reader()
		go func() {
			for range n {
				if err := w.Send(ctx, d); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
		go func() {
			for range n {
				if _, err := r.Receive(ctx); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return time.Since(begin), cpuTime() - usedBefore, err
}

// detach makes the dialers vanish: their ends are gone, and the listener's have no connection.
func (c *crowd) detach(ctx context.Context) error {
	c.gone.Store(true)
	reason := errors.New("gone for good")
	for _, d := range c.dialled {
		d.Redial(reason)
	}
	for _, d := range c.dialled {
		select {
		case <-d.Done():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.dialled = nil
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, a := range c.accepted {
		for a.State() == reconnect.Connected {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if a.State() != reconnect.Disconnected {
			return errors.New("a session is " + a.State().String() + " that should have lost its connection alone")
		}
	}
	return nil
}

func (c *crowd) close() {
	var wg sync.WaitGroup
	for part := range 32 {
		wg.Go(func() {
			for i := part; i < len(c.dialled); i += 32 {
				c.dialled[i].CloseNow()
			}
		})
	}
	wg.Wait()
	_ = c.l.Close()
}
