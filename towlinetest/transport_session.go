package towlinetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
)

// newestConn dials, and knows the connection that it dialled last.
type newestConn struct {
	d  transport.Dialer
	mu sync.Mutex
	nc net.Conn
}

// DialContext implements transport.Dialer.
func (n *newestConn) DialContext(ctx context.Context) (net.Conn, error) {
	nc, err := n.d.DialContext(ctx)
	if err == nil {
		n.mu.Lock()
		n.nc = nc
		n.mu.Unlock()
	}
	return nc, err
}

func (n *newestConn) cut() {
	n.mu.Lock()
	nc := n.nc
	n.mu.Unlock()
	closeNow(nc)
}

// session begins one over the transport.
func (c *check) session(l *reconnect.Listener, d transport.Dialer) (a, b *reconnect.Conn) {
	a, err := reconnect.Dial(c.ctx, d, nil)
	c.must("beginning a session", err)
	c.cleanup(func() { _ = a.CloseNow() })
	b, err = l.Accept(c.ctx)
	c.must("accepting a session", err)
	c.cleanup(func() { _ = b.CloseNow() })
	return a, b
}

func (c *check) serve() *reconnect.Listener {
	l := reconnect.NewListener(c.listener, nil)
	c.cleanup(func() { _ = l.Close() })
	return l
}

// carries sends datagrams from one to the other, and sees that each comes once and in order.
func (c *check) carries(from, to *reconnect.Conn, n, size int, each func(i int)) {
	sent := c.background(func() error {
		for i := range n {
			payload := append(fmt.Appendf(nil, "%d ", i), pattern(size)...)
			if err := from.Writer().Send(c.ctx, datagram.Datagram{Recipient: uint16(i), Payload: payload}); err != nil {
				return err
			}
		}
		return from.Writer().Flush(c.ctx)
	})
	for i := range n {
		d, err := to.Reader().Receive(c.ctx)
		c.must(fmt.Sprintf("receiving datagram %d of %d", i+1, n), err)
		want := append(fmt.Appendf(nil, "%d ", i), pattern(size)...)
		if d.Recipient != uint16(i) || !bytes.Equal(d.Payload, want) {
			c.failf("D1", "expected datagram %d, %s, came %s for %d", i+1, brief(want), brief(d.Payload), d.Recipient)
		}
		if each != nil {
			each(i)
		}
	}
	c.wait("sending", sent)
}

func sessionCases() []testCase {
	t := &table{group: "sessions"}
	t.add("datagrams, both ways", "D1", func(c *check) {
		a, b := c.session(c.serve(), c.dialer)
		c.carries(a, b, 500, 10, nil)
		c.carries(b, a, 500, 10, nil)
		closed := c.background(func() error { return b.Close(c.ctx) })
		c.must("Close", a.Close(c.ctx))
		c.wait("Close", closed)
	})
	t.add("large payloads", "D1", func(c *check) {
		a, b := c.session(c.serve(), c.dialer)
		for _, size := range []int{65535, 65536, 65537, 1 << 20} {
			c.carries(a, b, 2, size, nil)
			c.carries(b, a, 2, size, nil)
		}
	})
	t.add("connections that are cut", "D1, D2", func(c *check) {
		d := &newestConn{d: c.dialer}
		a, b := c.session(c.serve(), d)
		cut := func(i int) {
			if i%50 == 25 {
				d.cut()
			}
		}
		c.carries(a, b, 250, 500, cut)
		c.carries(b, a, 250, 500, cut)
		if a.Stats().Resumes == 0 {
			c.failf("D2", "nothing was resumed, though connections were closed")
		}
	})
	t.add("takeovers of connections that work", "D1", func(c *check) {
		a, b := c.session(c.serve(), c.dialer)
		c.carries(a, b, 250, 100, func(i int) {
			if i%50 == 25 {
				a.Redial(errors.New("a better one"))
			}
		})
	})
	t.add("many at once", "D1", func(c *check) {
		l := c.serve()
		var wg sync.WaitGroup
		for range 20 {
			a, b := c.session(l, c.dialer)
			wg.Go(func() { c.carries(a, b, 20, 1000, nil) })
		}
		wg.Wait()
	})
	t.add("a plain connection", "R-1, R-8", func(c *check) {
		l := c.serve()
		a, err := reconnect.DialPlain(c.ctx, c.dialer, nil)
		c.must("dialling", err)
		c.cleanup(func() { _ = a.CloseNow() })
		c.must("Send", a.Writer().Send(c.ctx, datagram.Datagram{Recipient: 5, Payload: []byte("plain")}))
		b, err := l.Accept(c.ctx)
		c.must("Accept", err)
		c.cleanup(func() { _ = b.CloseNow() })
		d, err := b.Reader().Receive(c.ctx)
		c.must("Receive", err)
		if d.Recipient != 5 || string(d.Payload) != "plain" || b.IsSession() {
			c.failf("R-1", "expected a plain datagram, came %v %q", d.Recipient, d.Payload)
		}
	})
	return t.cases
}
