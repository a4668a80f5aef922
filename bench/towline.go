package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/quic"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/tls"
	"github.com/towline-mq/towline/transport/unix"
)

// batchSize is how many datagrams go with one SendBatch and come with one ReceiveBatch at most.
const batchSize = 64

// ends are the two ends of a Towline connection.
type ends struct {
	dialled, accepted *reconnect.Conn
	close             func()
}

// listen listens on a transport, and says how to dial there. remove is called in the end.
func (s *secrets) listen(ctx context.Context, on string) (ln net.Listener, d transport.Dialer, remove func(), err error) {
	remove = func() {}
	switch on {
	case "tcp":
		if ln, err = tcp.Listen(ctx, "127.0.0.1:0", nil); err == nil {
			d = tcp.Dialer{Addr: ln.Addr().String()}
		}
	case "tls":
		if ln, err = tls.Listen(ctx, "127.0.0.1:0", &tls.Config{TLS: s.server}); err == nil {
			d = tls.Dialer{Addr: ln.Addr().String(), Config: s.client}
		}
	case "quic":
		if ln, err = quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: s.server}); err == nil {
			d = quic.Dialer{Addr: ln.Addr().String(), Config: s.client}
		}
	case "unix":
		var dir string
		if dir, err = os.MkdirTemp("", "towline-bench"); err != nil {
			return nil, nil, nil, err
		}
		remove = func() { _ = os.RemoveAll(dir) }
		path := filepath.Join(dir, "socket")
		d = unix.Dialer{Path: path}
		ln, err = unix.Listen(ctx, path, nil)
	default:
		err = errors.New("no such transport: " + on)
	}
	if err != nil {
		remove()
		return nil, nil, nil, err
	}
	return ln, d, remove, nil
}

// connect makes a session, or a plain connection, over a transport, with defaults for everything.
func (s *secrets) connect(ctx context.Context, kind, on string) (*ends, error) {
	ln, d, remove, err := s.listen(ctx, on)
	if err != nil {
		return nil, err
	}
	e, err := join(ctx, kind, ln, d)
	if err != nil {
		remove()
		return nil, err
	}
	closeAll := e.close
	e.close = func() { closeAll(); remove() }
	return e, nil
}

// join makes a session, or a plain connection, of a listener and a dialer that leads there.
func join(ctx context.Context, kind string, ln net.Listener, d transport.Dialer) (*ends, error) {
	o := &reconnect.ListenOptions{}
	if kind == plain {
		o.Plain = reconnect.OnlyPlain
	}
	l := reconnect.NewListener(ln, o)
	var e ends
	var err error
	if kind == plain {
		e.dialled, err = reconnect.DialPlain(ctx, d, nil)
	} else {
		e.dialled, err = reconnect.Dial(ctx, d, nil)
	}
	if err == nil {
		e.accepted, err = l.Accept(ctx)
	}
	e.close = func() {
		if e.dialled != nil {
			e.dialled.CloseNow()
		}
		if e.accepted != nil {
			e.accepted.CloseNow()
		}
		_ = l.Close()
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return &e, nil
}

// pipe moves datagrams of size bytes from the dialled end to the accepted one.
func (e *ends) pipe(mode string, size int) *pipe {
	w, r := e.dialled.Writer(), e.accepted.Reader()
	d := datagram.Datagram{Recipient: 7, Payload: payload(size)}
	sendSome := func(ctx context.Context, n int) error {
		for range n {
			if err := w.Send(ctx, d); err != nil {
				return err
			}
		}
		return nil
	}
	p := &pipe{close: e.close}
	switch mode {
	case lent, lentMany:
		p.receive = func(ctx context.Context, n int) error { return receiveLent(ctx, r, size, n) }
	case batch:
		p.receive = func(ctx context.Context, n int) error { return receiveBatches(ctx, r, size, n) }
	default:
		p.receive = func(ctx context.Context, n int) error {
			for range n {
				d, err := r.Receive(ctx)
				if err != nil {
					return err
				}
				if len(d.Payload) != size {
					return wrongSize(len(d.Payload), size)
				}
				if mode == released {
					datagram.Release(d)
				}
			}
			return nil
		}
	}
	switch mode {
	case batch, lentMany:
		p.send = func(ctx context.Context, n int) error { return sendBatches(ctx, w, d, n) }
	default:
		senders := 1
		if mode == sixteen {
			senders = 16
		}
		p.send = func(ctx context.Context, n int) error {
			if err := share(n, senders, func(n int) error { return sendSome(ctx, n) }); err != nil {
				return err
			}
			return w.Flush(ctx)
		}
	}
	return p
}

func sendBatches(ctx context.Context, w *reconnect.Writer, d datagram.Datagram, n int) error {
	ds := make([]datagram.Datagram, batchSize)
	for i := range ds {
		ds[i] = d
	}
	for n > 0 {
		k, err := w.SendBatch(ctx, ds[:min(n, len(ds))])
		if err != nil {
			return err
		}
		n -= k
	}
	return w.Flush(ctx)
}

// receiveLent takes n datagrams, whose payloads are lent.
func receiveLent(ctx context.Context, r *reconnect.Reader, size, n int) error {
	if n == 0 {
		return nil
	}
	err := r.Each(ctx, func(d datagram.Datagram) error {
		if len(d.Payload) != size {
			return wrongSize(len(d.Payload), size)
		}
		if n--; n == 0 {
			return errAll
		}
		return nil
	})
	if errors.Is(err, errAll) {
		return nil
	}
	return err
}

var errAll = errors.New("bench: all have arrived")

func receiveBatches(ctx context.Context, r *reconnect.Reader, size, n int) error {
	ds := make([]datagram.Datagram, batchSize)
	for n > 0 {
		k, err := r.ReceiveBatch(ctx, ds[:min(n, len(ds))])
		if err != nil {
			return err
		}
		for _, d := range ds[:k] {
			if len(d.Payload) != size {
				return wrongSize(len(d.Payload), size)
			}
		}
		n -= k
	}
	return nil
}

// echo asks from the dialled end; the accepted one sends everything back.
func (e *ends) echo(size int) *echo {
	go func() {
		for d, err := range e.accepted.Reader().All(context.Background()) {
			if err != nil || e.accepted.Writer().Send(context.Background(), d) != nil {
				return
			}
		}
	}()
	w, r := e.dialled.Writer(), e.dialled.Reader()
	d := datagram.Datagram{Recipient: 7, Payload: payload(size)}
	return &echo{
		ask: func(ctx context.Context) error {
			if err := w.Send(ctx, d); err != nil {
				return err
			}
			_, err := r.Receive(ctx)
			return err
		},
		close: e.close,
	}
}
