package datagram_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

var benchSizes = []int{64, 1 << 10, 64 << 10}

// BenchmarkLoopback sends b.N messages one way over loopback TCP: floor is a bufio pair that does nothing but move
// header and payload, codec is Writer and Reader, released the
// same with payloads given back.
func BenchmarkLoopback(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("floor/%dB", size), func(b *testing.B) {
			c, s := pair(b, "tcp")
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			done := make(chan error, 1)
			b.ResetTimer()
			go func() {
				w := bufio.NewWriterSize(c, 64<<10)
				var h [8]byte
				for range b.N {
					binary.BigEndian.PutUint32(h[:], uint32(4+size))
					binary.BigEndian.PutUint32(h[4:], 1<<16|7)
					w.Write(h[:])
					w.Write(payload)
				}
				done <- w.Flush()
			}()
			r := bufio.NewReaderSize(s, 64<<10)
			buf := make([]byte, size)
			var h [8]byte
			for range b.N {
				if _, err := io.ReadFull(r, h[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, buf[:binary.BigEndian.Uint32(h[:])-4]); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			require.NoError(b, <-done)
		})
		for _, release := range []bool{false, true} {
			name := "codec"
			if release {
				name = "released"
			}
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) {
				c, s := pair(b, "tcp")
				d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				done := make(chan error, 1)
				b.ResetTimer()
				go func() {
					w := datagram.NewWriter(c, nil)
					for range b.N {
						if err := w.Write(d); err != nil {
							done <- err
							return
						}
					}
					done <- w.Flush()
				}()
				r := datagram.NewReader(s, nil)
				for range b.N {
					d, err := r.Read()
					if err != nil {
						b.Fatal(err)
					}
					if release {
						datagram.Release(d)
					}
				}
				b.StopTimer()
				require.NoError(b, <-done)
			})
		}
	}
}

// BenchmarkHeader writes and reads one header.
func BenchmarkHeader(b *testing.B) {
	var buf [datagram.HeaderSize]byte
	h := datagram.Header{Size: 68, Version: datagram.Version, Recipient: 7}
	b.SetBytes(datagram.HeaderSize)
	for b.Loop() {
		h = datagram.ParseHeader(h.Append(buf[:0]))
	}
	require.EqualValues(b, 7, h.Recipient)
}

// BenchmarkAppend encodes a datagram into memory that is there.
func BenchmarkAppend(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
			buf := make([]byte, 0, size+datagram.HeaderSize)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, _ = datagram.Append(buf, d)
			}
		})
	}
}

// BenchmarkWriter writes to nowhere, so that the codec is all that is measured.
func BenchmarkWriter(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			d := datagram.Datagram{Recipient: 7, Payload: make([]byte, size)}
			w := datagram.NewWriter(io.Discard, nil)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_ = w.Write(d)
			}
		})
	}
}

// BenchmarkReader reads from memory.
func BenchmarkReader(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			r := datagram.NewReader(newRepeat(size), nil)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// repeat is an endless stream of equal frames.
type repeat struct {
	frames []byte
	at     int
}

func newRepeat(size int) *repeat {
	frame, _ := datagram.Append(nil, datagram.Datagram{Recipient: 7, Payload: make([]byte, size)})
	return &repeat{frames: bytes.Repeat(frame, 1+256<<10/len(frame))}
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.frames[r.at:])
	if r.at += n; r.at == len(r.frames) {
		r.at = 0
	}
	return n, nil
}

// BenchmarkTake takes frames of 64 bytes that have arrived: nothing is read, and no memory taken.
func BenchmarkTake(b *testing.B) {
	next := func(b *testing.B, r *datagram.Reader) (n int) {
		for ; ; n++ {
			if _, ok, err := r.Next(); err != nil {
				b.Fatal(err)
			} else if !ok {
				return n
			}
		}
	}
	frames := func(b *testing.B, r *datagram.Reader) (n int) {
		for {
			run, err := r.Frames()
			if err != nil {
				b.Fatal(err)
			}
			if run.N == 0 {
				return n
			}
			n += run.N
		}
	}
	framesNext := func(b *testing.B, r *datagram.Reader) (n int) {
		for {
			run, err := r.Frames()
			if err != nil {
				b.Fatal(err)
			}
			if run.N == 0 {
				return n
			}
			for _, ok := run.Next(); ok; _, ok = run.Next() {
				n++
			}
		}
	}
	for _, way := range []struct {
		name string
		take func(*testing.B, *datagram.Reader) int
	}{{"Next", next}, {"Frames", frames}, {"Frames and Run.Next", framesNext}} {
		b.Run(way.name, func(b *testing.B) {
			r := datagram.NewReader(newRepeat(64), nil)
			for r.Held() < datagram.MaxSlab {
				require.NoError(b, r.Fill())
				way.take(b, r)
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				r.Rewind()
				n += way.take(b, r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/frame")
		})
	}
}
