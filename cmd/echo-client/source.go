package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
)

// source is where payloads come from.
type source interface {
	// next returns one payload or more, which are valid until the following call, and io.EOF behind the last. It may
	// block.
	next() ([][]byte, error)
	// bare reports whether the last payload that next returned is a last line without its newline.
	bare() bool
}

const (
	readSize   = 256 << 10 // what is read of the input at once
	batchCount = 1024      // the most payloads that next returns
	batchBytes = 256 << 10
)

// cutter cuts a stream in lines or chunks. It returns what has arrived before it reads on, so that what a person types
// goes out line by line.
type cutter struct {
	r     io.Reader
	chunk int // 0: lines
	limit int // of a line

	buf        []byte
	start, end int // buf[start:end] was read and not returned
	searched   int // of that, how much contains no newline
	err        error
	unended    bool
	batch      [][]byte
	total      int64 // bytes read
}

func newCutter(r io.Reader, chunk, limit int) *cutter {
	return &cutter{r: r, chunk: chunk, limit: limit, buf: make([]byte, readSize)}
}

func (c *cutter) bare() bool { return c.unended }

func (c *cutter) next() ([][]byte, error) {
	c.batch = c.batch[:0]
	for {
		for len(c.batch) < batchCount {
			p, ok := c.cut()
			if !ok {
				break
			}
			c.batch = append(c.batch, p)
		}
		if len(c.batch) > 0 {
			return c.batch, nil
		}
		switch {
		case c.chunk == 0 && c.end-c.start > c.limit: // without a newline in its first limit bytes
			return nil, c.tooLong()
		case c.err == io.EOF && c.end > c.start:
			c.unended = c.chunk == 0
			c.batch = append(c.batch, c.buf[c.start:c.end])
			c.start, c.searched = c.end, 0
			return c.batch, nil
		case c.err != nil:
			return nil, c.err
		}
		c.fill()
	}
}

// cut takes a whole line or chunk from the buffer.
func (c *cutter) cut() ([]byte, bool) {
	have := c.buf[c.start:c.end]
	if c.chunk > 0 {
		if len(have) < c.chunk {
			return nil, false
		}
		c.start += c.chunk
		return have[:c.chunk], true
	}
	i := bytes.IndexByte(have[c.searched:], '\n')
	if i < 0 {
		c.searched = len(have)
		return nil, false
	}
	i += c.searched
	if i > c.limit {
		return nil, false // next will say so
	}
	c.start += i + 1
	c.searched = 0
	return have[:i], true
}

// fill reads once, behind what is there.
func (c *cutter) fill() {
	if c.start > 0 {
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.buf) {
		size := len(c.buf) + min(len(c.buf), math.MaxInt-len(c.buf))
		if c.chunk > 0 {
			size = min(size, max(c.chunk, readSize))
		}
		c.buf = append(make([]byte, 0, size), c.buf...)[:size]
	}
	n, err := c.r.Read(c.buf[c.end:])
	c.end += n
	c.total += int64(n)
	c.err = err
}

func (c *cutter) tooLong() error {
	return fmt.Errorf("a line is longer than %d bytes; cut such input with --chunk 65536", c.limit)
}
