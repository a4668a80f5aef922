// Package reconnect gives datagrams a Writer and a Reader that any number of goroutines can share.
//
// A plain connection, made by [NewPlain] or [DialPlain], carries bare version-1 datagrams over one [net.Conn], to any
// peer that speaks them, connect-rs included:
//
//	conn, err := reconnect.DialPlain(ctx, tcp.Dialer{Addr: "127.0.0.1:7000"}, nil)
//	err = conn.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: []byte("hello")})
//	d, err := conn.Reader().Receive(ctx)
//	err = conn.Close(ctx)
//
// What holds of a plain connection:
//
//   - Send is decided at admission. nil: the datagram is queued, behind all that were accepted before it. An error: it
//     was not sent, and never will be. A context that ends stops the wait, never the connection, and never leaves half a frame.
//   - The queue is bounded in bytes. When it is full Send waits and TrySend does not. Nothing is ever dropped while the
//     connection lives.
//   - Close sends what was accepted, and says how much it could not. CloseNow does not wait. Both end every waiter.
//   - A write that fails kills the connection: a frame that was cut is never followed by another.
//   - What Receive yields is an exact prefix of what the peer accepted. A peer that ended its stream is io.EOF, one that was
//     cut off inside a frame io.ErrUnexpectedEOF.
//
// What a plain connection cannot promise: that the peer has what was accepted. If the connection breaks, datagrams that
// were queued, or in the kernel, or in flight, are lost, and neither side can say which.
//
// The only goroutine of a plain connection is one that writes, while there is something that a sender could not
// write by itself; and one for each channel that was asked for with C.
package reconnect
