package datagram

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// segmentSize is the unit in which a Buffer takes memory, and the size of a write to a stream that takes one slice at a
// time.
const segmentSize = 64 << 10

var segments = sync.Pool{New: func() any { return new([segmentSize]byte) }}

// segment is a stretch of encoded bytes; frames cross from one to the next.
type segment struct {
	b *[segmentSize]byte
	n int // bytes in use
}

// Buffer is a queue of encoded frames: Append puts datagrams in, WriteTo moves the bytes to a stream. It takes its
// memory in pooled pieces of 64 KiB and holds none while it is empty. Writer is a Buffer with a stream of its own; a
// Buffer alone is for code that appends under a lock and writes outside of it, with two Buffers taking turns.
type Buffer struct {
	limit   uint64
	framing Framing

	segs []segment
	off  int         // bytes of segs[0] that were written
	n    int         // bytes that wait to be written
	vec  net.Buffers // scratch of WriteTo
}

// NewBuffer returns an empty Buffer. nil Options are the defaults.
func NewBuffer(o *Options) *Buffer {
	return &Buffer{limit: o.limit(), framing: o.framing()}
}

// Append encodes d at the end of the queue, with a copy of its payload. It never blocks. An error means that nothing
// was added and that the Buffer can go on: it matches ErrTooLarge or ErrFraming.
func (b *Buffer) Append(d Datagram) error {
	if err := checkSend(len(d.Payload), b.limit); err != nil {
		return err
	}
	if b.framing != nil {
		return b.appendFraming(d)
	}
	b.appendHeader(d)
	b.appendBytes(d.Payload)
	return nil
}

// Len returns how many bytes wait to be written.
func (b *Buffer) Len() int { return b.n }

func (b *Buffer) appendHeader(d Datagram) {
	v := headerBits(d.Recipient, len(d.Payload))
	if i := len(b.segs) - 1; i >= 0 && segmentSize-b.segs[i].n >= HeaderSize {
		s := &b.segs[i]
		binary.BigEndian.PutUint64(s.b[s.n:], v)
		s.n += HeaderSize
		b.n += HeaderSize
		return
	}
	var h [HeaderSize]byte
	binary.BigEndian.PutUint64(h[:], v)
	b.appendBytes(h[:])
}

func (b *Buffer) appendBytes(p []byte) {
	b.n += len(p)
	for len(p) > 0 {
		s := b.tail()
		m := copy(s.b[s.n:], p)
		s.n += m
		p = p[m:]
	}
}

// appendFraming lets the framing encode straight into the last segment, and copies only what did not fit there.
func (b *Buffer) appendFraming(d Datagram) error {
	s := b.tail()
	out, err := b.framing.Append(s.b[s.n:s.n], d)
	switch {
	case err != nil:
		b.dropEmptyTail()
		return err
	case len(out) == 0:
		b.dropEmptyTail()
		return &FrameError{
			Err: ErrFraming, Sending: true, Value: uint64(len(d.Payload)), Detail: "the framing made no bytes of it",
		}
	case len(out) <= segmentSize-s.n:
		// Copying is a no-op where the framing used the room it was given.
		s.n += copy(s.b[s.n:], out)
		b.n += len(out)
	default:
		b.appendBytes(out)
	}
	return nil
}

// tail returns the last segment, with room for a byte or more.
func (b *Buffer) tail() *segment {
	if i := len(b.segs) - 1; i >= 0 && b.segs[i].n < segmentSize {
		return &b.segs[i]
	}
	b.segs = append(b.segs, segment{b: segments.Get().(*[segmentSize]byte)})
	return &b.segs[len(b.segs)-1]
}

func (b *Buffer) dropEmptyTail() {
	if i := len(b.segs) - 1; i >= 0 && b.segs[i].n == 0 {
		segments.Put(b.segs[i].b)
		b.segs[i] = segment{}
		b.segs = b.segs[:i]
	}
}

// WriteTo writes what is queued to w, and returns how many bytes w took. It blocks as w does. After an error the bytes
// that w did not take are still queued, and the next WriteTo goes on after the last byte taken: a stream where that is
// not what should happen has to be given up.
//
// Several segments go to a *net.TCPConn or *net.UnixConn in one vectored write. A w that takes less than it was given,
// without an error, is asked again.
func (b *Buffer) WriteTo(w io.Writer) (int64, error) { return b.writeTo(w, nil) }

// writeTo writes the queue and then tail, which is not copied and of which nothing is kept. An error loses the rest of
// tail.
func (b *Buffer) writeTo(w io.Writer, tail []byte) (int64, error) {
	if len(b.segs) > 1 || len(tail) > 0 {
		switch w.(type) {
		case *net.TCPConn, *net.UnixConn:
			return b.writeVector(w, tail)
		}
	}
	var total int64
	for b.n > 0 {
		s := &b.segs[0]
		n, err := writeFull(w, s.b[b.off:s.n])
		b.discard(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	n, err := writeFull(w, tail)
	return total + int64(n), err
}

func (b *Buffer) writeVector(w io.Writer, tail []byte) (int64, error) {
	vec := b.vec[:0]
	off := b.off
	for i := range b.segs {
		vec = append(vec, b.segs[i].b[off:b.segs[i].n])
		off = 0
	}
	if len(tail) > 0 {
		vec = append(vec, tail)
	}
	b.vec = vec
	n, err := b.vec.WriteTo(w) // consumes b.vec, and clears its entries
	b.vec = vec[:0]
	clear(vec)
	b.discard(int(min(n, int64(b.n))))
	return n, err
}

// discard drops the first n bytes of the queue.
func (b *Buffer) discard(n int) {
	b.n -= n
	done := 0
	for n > 0 {
		s := &b.segs[done]
		m := min(n, s.n-b.off)
		b.off += m
		n -= m
		if b.off == s.n {
			segments.Put(s.b)
			b.off = 0
			done++
		}
	}
	if done > 0 {
		k := copy(b.segs, b.segs[done:])
		clear(b.segs[k:])
		b.segs = b.segs[:k]
	}
}

var errInvalidWrite = errors.New("datagram: writer returned an impossible count")

// writeFull gives all of p to w, in as many calls as w needs.
func writeFull(w io.Writer, p []byte) (n int, err error) {
	for n < len(p) {
		m, err := w.Write(p[n:])
		if m < 0 || m > len(p)-n {
			return n, errInvalidWrite
		}
		n += m
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
	}
	return n, nil
}
