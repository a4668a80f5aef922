// Package mux gives each recipient tag a Go type, a codec and a handler, and serves connections with them.
//
// A set of tags is made once, by code that both programs share. Each gives the handlers that it has, and nil for what
// it only sends:
//
//	func protocol(onJob func(context.Context, *mux.Conn, Job) error, onResult func(context.Context, *mux.Conn, Result) error) *mux.Mux {
//		m := mux.New(nil)
//		mux.Handle(m, 1, "job", mux.Msgpack{}, onJob)
//		mux.Handle(m, 2, "result", mux.Msgpack{}, onResult)
//		return m
//	}
//
// A server serves a reconnect.Listener with it, which may have any number of net.Listeners; a client dials:
//
//	s := mux.NewServer(protocol(work, nil))
//	err := s.Serve(reconnect.NewListener(ln, nil)) // until s.Shutdown(ctx) or s.Close()
//
//	c, err := protocol(nil, show).Dial(ctx, tcp.Dialer{Addr: "127.0.0.1:7000"}, nil)
//	err = mux.Send(ctx, c, Job{…})                  // finds tag and codec by the type
//
// What holds:
//
//   - What contradicts itself in a set of tags, and what a codec cannot carry, is an error before the first connection.
//   - Handlers of one recipient on one connection run one after the other, in the order of sending, across reconnects.
//     By default all of a connection do; with Options.SideBySide recipients do not wait for each other. Calls run beside
//     each other.
//   - A payload that cannot be decoded, a recipient that nothing takes, an error of a handler: each is told to
//     Options.Error, counted or both, and a panic ends its connection and no other. Nothing is dropped unseen.
//   - Decoding is bounded before it begins: see Limits.
//   - With reconnect.SessionOptions.AckConsumed a datagram is acknowledged when its handler has returned, in order.
//
// Call sends a request and waits for its answer, over as many connections as that takes. docs/mux.md has the wire of
// calls, all limits with their defaults, and what happens when a session is lost.
package mux
