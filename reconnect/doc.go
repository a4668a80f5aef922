// Package reconnect moves datagrams between two programs, in order, each exactly once, over connections that break.
//
// A session is begun by [Dial] or [Open], taken by a [Listener], and outlives its connections. Each side numbers what
// it sends, keeps it until the peer has it, and sends it again when the dialer has dialled anew:
//
//	conn, err := reconnect.Dial(ctx, tcp.Dialer{Addr: "127.0.0.1:7000"}, nil)
//	err = conn.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte("hello")})
//	d, err := conn.Reader().Receive(ctx)
//	err = conn.Close(ctx) // nil: the peer has everything
//
// What holds of a session, for as long as it lives, in each direction:
//
//   - What Receive yields is what the peer's Send accepted: in order, without a gap, each datagram once.
//   - Send is decided when it returns. nil: accepted, and delivered or reported. An error: not sent, and never will be.
//     A context that ends stops the wait, nothing else. Writer.Flush waits until the peer has all.
//   - What is kept is bounded. Send waits while the buffer is full, TrySend does not, and nothing is dropped.
//   - A session that the listener has lost, by a restart, by expiry or for want of room, is reported with what is
//     unconfirmed. By default the dialer begins another and sends that again, marked Redelivered; with
//     DialOptions.Strict the Conn ends instead.
//   - Close waits until the peer has all, or says how much it has not. CloseNow does not wait. No goroutine survives.
//
// What a process had acknowledged and not dealt with when it was killed is gone: the example of [SessionLostError]
// shows what to do where that matters. docs/delivery.md says exactly what is promised and what is not, docs/protocol.md
// what goes over the wire.
//
// A plain connection, made by [NewPlain] or [DialPlain], carries bare version-1 datagrams over one [net.Conn], to any
// peer that speaks them, connect-rs included. Writer and Reader are the same. When it breaks, what was queued or under
// way is lost, and neither side can say what. A Listener takes both on one port.
//
// Goroutines: one for a dialer's session, one for each connection of a listener's and none while it has no connection;
// one that writes, while there is something that a sender could not write by itself; one that tells events, while there
// are any; one for each channel that was asked for with C. A plain connection has the writing one alone.
package reconnect
