package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
)

const headerSize = 8

// putHeader writes the header of a datagram with a payload of size bytes.
func putHeader(h *[headerSize]byte, size int) {
	binary.BigEndian.PutUint32(h[:], uint32(4+size))
	binary.BigEndian.PutUint32(h[4:], 1<<16|7)
}

// sizeIn returns the length of the payload that a header tells of.
func sizeIn(h []byte) int { return int(binary.BigEndian.Uint32(h)) - 4 }

// floorPipe is what the machine can do. The receiver reads all messages into the same memory, or, if they are its to keep,
// as those of Receive are, each into memory of its own, cut from slabs of 64 KiB.
func (s *secrets) floorPipe(ctx context.Context, transport string, size int, keep bool) (*pipe, error) {
	c, a, err := s.rawPair(ctx, transport)
	if err != nil {
		return nil, err
	}
	w, r := bufio.NewWriterSize(c, 64<<10), bufio.NewReaderSize(a, 64<<10)
	out, in := payload(size), make([]byte, size)
	var slab []byte
	place := func() []byte {
		if !keep {
			return in
		}
		if len(slab) < size {
			slab = make([]byte, max(64<<10, size))
		}
		in, slab = slab[:size:size], slab[size:]
		return in
	}
	return &pipe{
		send: func(_ context.Context, n int) error {
			var h [headerSize]byte
			for range n {
				putHeader(&h, size)
				if _, err := w.Write(h[:]); err != nil {
					return err
				}
				if _, err := w.Write(out); err != nil {
					return err
				}
			}
			return w.Flush()
		},
		receive: func(_ context.Context, n int) error {
			var h [headerSize]byte
			for range n {
				if _, err := io.ReadFull(r, h[:]); err != nil {
					return err
				}
				got := sizeIn(h[:])
				if got != size {
					return wrongSize(got, size)
				}
				if _, err := io.ReadFull(r, place()); err != nil {
					return err
				}
			}
			return nil
		},
		close: func() {
			_ = c.Close()
			_ = a.Close()
		},
	}, nil
}

// floorEcho is the same for round trips: one write and one read for each message, either way.
func (s *secrets) floorEcho(ctx context.Context, transport string, size int) (*echo, error) {
	c, a, err := s.rawPair(ctx, transport)
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, headerSize+size)
		for {
			if _, err := io.ReadFull(a, buf); err != nil {
				return
			}
			if _, err := a.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, headerSize+size)
	putHeader((*[headerSize]byte)(buf), size)
	return &echo{
		ask: func(context.Context) error {
			if _, err := c.Write(buf); err != nil {
				return err
			}
			_, err := io.ReadFull(c, buf)
			return err
		},
		close: func() {
			_ = c.Close()
			_ = a.Close()
		},
	}, nil
}
