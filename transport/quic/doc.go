// Package quic carries one byte stream per QUIC connection: a [net.Conn] with TLS 1.3, half-close and real deadlines
// over UDP, on github.com/quic-go/quic-go. None of that library's types shows here.
//
//	ln, err := quic.Listen(ctx, ":7000", &quic.Config{TLS: serverTLS})
//	conn, err := quic.Dialer{Addr: "example.org:7000", Config: clientTLS}.DialContext(ctx)
//
// Bytes arrive in order and once. [Conn.Close] returns nil when the peer's machine holds everything that was written,
// so a program may write, close and exit. A stream ends with [io.EOF] only after the peer closed its side in good
// order; a connection that broke reads as an error. 0-RTT is never used: nothing sent here can be replayed.
// A peer that vanished is noticed when nothing was heard for the idle timeout (30 s; a ping every 10 s of silence
// keeps quiet connections alive). Errors use the words listed in package transport.
//
// # On the wire
//
// ALPN "towline/1". The dialer opens bidirectional stream 0 and at once sends the preface, two bytes: 0x54 ('T')
// and the version 0x01. The rest of the stream is the user's, both ways. Either side may speak first.
//
// Each side opens at most one unidirectional stream. It is empty, and means: your half of stream 0 needs no more of
// you, because all of it up to its FIN is in my memory, or because I have closed and do not want it.
//
// To close, a side sends its FIN, STOP_SENDING for the other half (unless that has ended) and its empty stream, waits
// for the peer's empty stream, and then closes the connection with application code 0. Codes: 0 closed in good
// order, 1 aborted, 2 wrong preface, 3 no preface in time, 4 the listener is full or closed.
//
// # UDP buffers
//
// Kernels give UDP sockets small buffers, and bursts that overflow them are lost and sent again. This package asks
// for 7 MiB each way and takes what it gets, silently. For fast links allow as much, on Linux with
//
//	sysctl -w net.core.rmem_max=7500000 net.core.wmem_max=7500000
package quic
