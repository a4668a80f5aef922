package mux

import (
	"context"
	"sync/atomic"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
)

// Dial begins a session, as reconnect.Dial does, and handles what comes on it. Calls that a lost session leaves without
// an answer fail with ErrLost.
func (m *Mux) Dial(ctx context.Context, d transport.Dialer, o *reconnect.DialOptions) (*Conn, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	w := new(watch)
	conn, err := reconnect.Dial(ctx, d, w.options(o))
	if err != nil {
		return nil, err
	}
	return w.attach(m, conn)
}

// Open is Dial that returns at once, as reconnect.Open does: what is sent meanwhile waits. The error is that of Err.
func (m *Mux) Open(d transport.Dialer, o *reconnect.DialOptions) (*Conn, error) {
	if err := m.Err(); err != nil {
		return nil, err
	}
	w := new(watch)
	return w.attach(m, reconnect.Open(d, w.options(o)))
}

// watch tells a Conn of the sessions that are lost under it.
type watch struct {
	c atomic.Pointer[Conn]
}

// options returns o that tell w, and whoever they told before.
func (w *watch) options(o *reconnect.DialOptions) *reconnect.DialOptions {
	own := reconnect.DialOptions{}
	if o != nil {
		own = *o
	}
	told := own.OnEvent
	own.OnEvent = func(conn *reconnect.Conn, e reconnect.Event) {
		if e.Kind == reconnect.EventLost {
			if c := w.c.Load(); c != nil { // before that nothing was called
				c.lost()
			}
		}
		if told != nil {
			told(conn, e)
		}
	}
	return &own
}

func (w *watch) attach(m *Mux, conn *reconnect.Conn) (*Conn, error) {
	return NewServer(m).add(conn, false, w.c.Store)
}
