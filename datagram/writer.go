package datagram

import (
	"io"
)

// Writer puts datagrams on a stream. Small ones are gathered until 64 KiB are there or Flush is called; the payload of
// a large one is written from where it lies.
//
// A write that fails may have left a part of a frame behind it. From then on every call returns that error: the stream
// is to be closed. A Writer must not be used by two goroutines at once.
type Writer struct {
	w   io.Writer
	b   *Buffer
	err error
}

// NewWriter returns a Writer on w. nil Options are the defaults. It holds no memory for frames until there are some. On
// a *net.TCPConn and a *net.UnixConn it uses vectored writes.
func NewWriter(w io.Writer, o *Options) *Writer {
	return &Writer{w: w, b: NewBuffer(o)}
}

// Write adds d. It blocks while the stream does, if 64 KiB or more are waiting then. No reference to the payload is
// kept after the call, and a payload of over 64 KiB is not copied but for its beginning.
//
// An error that matches ErrTooLarge or ErrFraming means that nothing of d was written and that the Writer can go on.
// Any other is the stream's, and final.
func (w *Writer) Write(d Datagram) error {
	if w.err != nil {
		return w.err
	}
	if len(d.Payload) > segmentSize && w.b.framing == nil {
		return w.writeLarge(d)
	}
	if err := w.b.Append(d); err != nil {
		return err
	}
	if w.b.n >= segmentSize {
		return w.Flush()
	}
	return nil
}

// writeLarge copies of the payload only what the last segment has room for, so that no header travels alone.
func (w *Writer) writeLarge(d Datagram) error {
	if err := checkSend(len(d.Payload), w.b.limit); err != nil {
		return err
	}
	w.b.appendHeader(d)
	s := w.b.tail()
	k := segmentSize - s.n
	w.b.appendBytes(d.Payload[:k])
	_, w.err = w.b.writeTo(w.w, d.Payload[k:])
	return w.err
}

// Flush writes what is buffered, and blocks until the stream has taken it. It says nothing about the peer.
func (w *Writer) Flush() error {
	if w.err == nil {
		_, w.err = w.b.WriteTo(w.w)
	}
	return w.err
}

// Buffered returns how many bytes wait for Flush.
func (w *Writer) Buffered() int { return w.b.n }
