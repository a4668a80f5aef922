package mux

import (
	"context"
	"errors"
	"sync"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// Slow says what a broadcast does about a peer whose queue is full: reconnect.SessionOptions.SendBuffer sets how much
// that is. In no case do the others wait for it.
type Slow int

const (
	// Skip leaves it out.
	Skip Slow = iota
	// Wait waits for room, until the context ends.
	Wait
	// Disconnect leaves it out, and ends its connection.
	Disconnect
)

// Broadcast sends v to all connections of s, encoded once, as Server.Broadcast does.
func Broadcast[T any](ctx context.Context, s *Server, v T, slow Slow) (sent int, err error) {
	d, err := Encode(s.m, v)
	if err != nil {
		return 0, err
	}
	return s.Broadcast(ctx, d, slow)
}

// Broadcast sends d to all connections that there are when it begins, and whose Ready has returned, and returns how many accepted it. First it offers
// d to each, without waiting; then it does as slow says with those that had no room. It blocks for Wait alone, until
// ctx ends. The error, if there is one, is a *BroadcastError that names those that did not get it. The payload is the
// caller's again when it returns.
func (s *Server) Broadcast(ctx context.Context, d datagram.Datagram, slow Slow) (sent int, err error) {
	missed := map[*Conn]error{}
	var full []*Conn
	for _, c := range s.all() {
		if !c.ready.Load() {
			continue
		}
		switch err := c.Writer().TrySend(d); {
		case err == nil:
			sent++
		case errors.Is(err, reconnect.ErrWouldBlock):
			full = append(full, c)
		default:
			missed[c] = err
		}
	}
	switch slow {
	case Wait:
		var mu sync.Mutex
		var work sync.WaitGroup
		for _, c := range full {
			work.Go(func() {
				err := c.Writer().Send(ctx, d)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					missed[c] = err
				} else {
					sent++
				}
			})
		}
		work.Wait()
	default:
		for _, c := range full {
			missed[c] = reconnect.ErrWouldBlock
			if slow == Disconnect {
				c.because(ErrSlow)
				c.cancel(ErrSlow)
				go c.CloseNow() // 20 ms at most
			}
		}
	}
	if len(missed) > 0 {
		return sent, &BroadcastError{missed}
	}
	return sent, nil
}
