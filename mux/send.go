package mux

import (
	"context"
	"reflect"

	"github.com/towline-mq/towline/datagram"
)

// Send sends v to the peer, to the recipient that T is bound to, in its codec. It blocks while the queue is full, as
// reconnect.Writer.Send does, and its errors are of the same kind: an error means that v was not sent and will not be.
// One that matches ErrUnbound says that T has no tag; a Sender learns of that when the program starts. v is the
// caller's again when Send returns.
func Send[T any](ctx context.Context, c *Conn, v T) error {
	r, err := sends(c.m, reflect.TypeFor[T]())
	if err != nil {
		return err
	}
	return send(ctx, c, r, v)
}

// Sender returns what sends a T, as Send does. That T has a tag is checked when m starts.
func Sender[T any](m *Mux) func(ctx context.Context, c *Conn, v T) error {
	t := reflect.TypeFor[T]()
	m.want(func() error {
		_, err := sends(m, t)
		return err
	})
	return func(ctx context.Context, c *Conn, v T) error {
		r, err := sends(m, t)
		if err != nil {
			return err
		}
		return send(ctx, c, r, v)
	}
}

// Encode returns the datagram that Send would send, for the other ways of reconnect.Writer: TrySend, SendBatch,
// SendExpiring, C. The payload is the caller's.
func Encode[T any](m *Mux, v T) (datagram.Datagram, error) {
	r, err := sends(m, reflect.TypeFor[T]())
	if err != nil {
		return datagram.Datagram{}, err
	}
	payload, err := r.codec.Append(nil, v)
	if err != nil {
		return datagram.Datagram{}, &HandlerError{r.recipient, r.name, err}
	}
	return datagram.Datagram{Recipient: r.recipient, Payload: payload}, nil
}

func send(ctx context.Context, c *Conn, r *route, v any) error {
	b := c.m.buffer()
	defer c.m.free(b)
	var err error
	if *b, err = r.codec.Append(*b, v); err != nil {
		return &HandlerError{r.recipient, r.name, err}
	}
	return c.Writer().Send(ctx, datagram.Datagram{Recipient: r.recipient, Payload: *b})
}

// buffer returns an empty buffer for encoding.
func (m *Mux) buffer() *[]byte { return m.buffers.Get().(*[]byte) }

// free takes it back.
func (m *Mux) free(b *[]byte) {
	if cap(*b) <= m.o.PoolBytes {
		*b = (*b)[:0]
		m.buffers.Put(b)
	}
}
