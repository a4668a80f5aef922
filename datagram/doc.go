// Package datagram is Towline's codec: framed messages on any stream of bytes.
//
// A frame is an 8-byte header, big-endian, and the payload:
//
//	bytes 0..3  size       u32: bytes that follow this field, 4 + payload length
//	bytes 4..5  version    u16: 1 for a datagram, 2 for a control frame of the session protocol
//	bytes 6..7  recipient  u16: the application's tag, all 65,536 values free
//
// docs/protocol.md is the normative text; its requirements are cited as [R-n]. The bytes are those of connect-rs 0.2
// and 0.3, with one freedom more: a payload may be empty, which connect-rs peers cannot take.
//
// [Append] and [Parse] work on slices. [Reader] takes datagrams from an [io.Reader], whatever the boundaries of its
// reads; [Writer] puts them on an [io.Writer], small ones together and large ones without a copy; [Buffer] is a
// Writer's queue on its own, for code that decides itself when to write. [Options] sets the largest payload and, where
// a peer speaks something else, another [Framing] such as [Lines]. [Reader.Frames] takes frames by the [Run], unparsed,
// for code that moves many.
//
//	w := datagram.NewWriter(conn, nil)
//	err := w.Write(datagram.Datagram{Recipient: 7, Payload: []byte("hello")})
//	err = w.Flush()
//
//	r := datagram.NewReader(conn, nil)
//	d, err := r.Read()
//
// What a peer claims costs nothing: limits are checked on the header, and no more than 64 KiB is held beyond the
// bytes that have really arrived. A stream that ends between two frames is io.EOF; one that ends inside a frame is
// io.ErrUnexpectedEOF; the two are never confused. Nothing in this package starts a goroutine, and no type in it may be
// used by two goroutines at once: package reconnect adds that.
package datagram
