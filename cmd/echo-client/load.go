package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// loader makes numbered payloads: the number in the first 8 bytes, big-endian, or as many of its low bytes as fit; then
// bytes that are different for successive numbers.
type loader struct {
	size  int
	count uint64 // 0: no end
	n     uint64 // the next number

	pattern []byte
	buf     []byte
	batch   [][]byte
}

// shifts is how many different stretches of the pattern there are.
const shifts = 1021

func newLoader(size int, count uint64) *loader {
	l := &loader{size: size, count: count, pattern: make([]byte, size+shifts)}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range l.pattern {
		l.pattern[i] = byte(rng.Uint32())
	}
	n := min(batchCount, max(1, batchBytes/max(1, size)))
	l.buf = make([]byte, n*size)
	l.batch = make([][]byte, n)
	return l
}

func (l *loader) bare() bool { return false }

func (l *loader) next() ([][]byte, error) {
	n := uint64(len(l.batch))
	if l.count > 0 {
		n = min(n, l.count-l.n)
	}
	if n == 0 {
		return nil, io.EOF
	}
	for i := range l.batch[:n] {
		p := l.buf[i*l.size : (i+1)*l.size]
		l.fill(p, l.n)
		l.batch[i] = p
		l.n++
	}
	return l.batch[:n], nil
}

// make makes payload n.
func (l *loader) make(n uint64) []byte {
	p := make([]byte, l.size)
	l.fill(p, n)
	return p
}

// fill writes payload n.
func (l *loader) fill(p []byte, n uint64) {
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], n)
	if len(p) < 8 {
		copy(p, number[8-len(p):])
		return
	}
	copy(p, number[:])
	copy(p[8:], l.pattern[n%shifts:])
}

// number returns which datagram a payload is of, if it is exactly that. Payloads of less than 8 bytes do not say.
func (l *loader) number(p []byte) (uint64, bool) {
	if len(p) != l.size || l.size < 8 {
		return 0, false
	}
	n := binary.BigEndian.Uint64(p)
	return n, bytes.Equal(p[8:], l.pattern[n%shifts:][:l.size-8])
}
