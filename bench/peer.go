package main

import (
	"context"
	"sync/atomic"
)

// peer is another way for messages from program to program in Go.
type peer struct {
	name string
	// module is where it comes from: its version is looked up there.
	module string
	// how says how it was set up for speed, and missing what it does not promise that a session does.
	how, missing string

	pipe func(ctx context.Context, size int) (*pipe, error)
	// echo is nil where questions and answers are not what it is for.
	echo func(ctx context.Context, size int) (*echo, error)
	// skip says why it cannot be measured here; "" if it can.
	skip string
}

// peers lists them all.
func peers() []peer {
	return []peer{
		natsPeer(), jetStreamPeer(), grpcPeer(), websocketPeer(), zmqPeer(), goZeromqPeer(), mangosPeer(), mqttPeer(), rsocketPeer(),
		{name: "Teleport's resumable connection", skip: "not a module of its own: it is part of a program"},
	}
}

// oneWay lists what can be measured of it with messages of one size.
func (p peer) oneWay(size int) []bench {
	if p.skip != "" {
		return nil
	}
	return []bench{{
		key{oneWay, p.name, "tcp", "", size},
		measureOneWay(func(ctx context.Context) (*pipe, error) { return p.pipe(ctx, size) }),
	}}
}

// roundTrip lists what can be measured of it by questions and answers.
func (p peer) roundTrip() []bench {
	if p.skip != "" || p.echo == nil {
		return nil
	}
	return []bench{{
		key{roundTrip, p.name, "tcp", "", tiny},
		measureRoundTrip(func(ctx context.Context) (*echo, error) { return p.echo(ctx, tiny) }),
	}}
}

// counter counts what a callback is told, for those who wait.
type counter struct {
	n, want atomic.Int64
	reached chan struct{}
}

func newCounter() *counter {
	return &counter{reached: make(chan struct{}, 1)}
}

// add is the callback's.
func (c *counter) add() {
	if c.n.Add(1) == c.want.Load() {
		select {
		case c.reached <- struct{}{}:
		default:
		}
	}
}

// wait returns when n more than at the end of the wait before have been counted. Nobody else may wait.
func (c *counter) wait(ctx context.Context, n int) error {
	want := c.want.Add(int64(n)) // an add that does not see it comes before the look at n
	for c.n.Load() < want {
		select {
		case <-c.reached:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
