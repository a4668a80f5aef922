package datagram_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// heap returns the bytes in use after a collection. It runs twice: what a sync.Pool holds survives one.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// zeros gives n zero bytes behind head, without holding them, and then passing errors for ever: a peer that falls
// silent.
type zeros struct {
	head    []byte
	n       int
	longest int
}

func (z *zeros) Read(p []byte) (int, error) {
	z.longest = max(z.longest, len(p))
	if len(z.head) > 0 {
		n := copy(p, z.head)
		z.head = z.head[n:]
		return n, nil
	}
	if z.n == 0 {
		return 0, errPassing
	}
	n := min(len(p), z.n)
	clear(p[:n])
	z.n -= n
	return n, nil
}

// What a header claims costs 64 KiB at most, whatever follows it.
func TestClaimsCostNothing(t *testing.T) {
	for _, claim := range []int{16 << 10, 64<<10 + 1, 1<<20 + 7, 16 << 20, 100_000_000} {
		for _, k := range []int{0, 1, 8, 100, 65527, 65528, 65536, 65537, 1 << 20} {
			if k >= claim {
				continue
			}
			t.Run(fmt.Sprintf("%d of %d", k, claim), func(t *testing.T) {
				frames := (k+claim)%2 == 0 // the ways take turns
				head := datagram.Header{Size: uint32(claim) + 4, Version: 1, Recipient: 7}.Append(nil)
				src := &zeros{head: head, n: k}
				before := heap()
				r := datagram.NewReader(src, &datagram.Options{MaxPayload: 100_000_000})
				arrived := func() int { return datagram.HeaderSize - len(src.head) + k - src.n }
				for {
					if frames {
						run, err := r.Frames()
						require.NoError(t, err)
						require.Zero(t, run)
					} else {
						_, ok, err := r.Next()
						require.NoError(t, err)
						require.False(t, ok)
					}
					if err := r.Fill(); err != nil {
						require.ErrorIs(t, err, errPassing)
						break
					}
					require.LessOrEqual(t, r.Held(), arrived()+datagram.MaxAhead)
				}
				require.Equal(t, datagram.HeaderSize+k, arrived())
				for range 100 { // an error that passes takes nothing either
					_, err := r.Read()
					require.ErrorIs(t, err, errPassing)
				}
				held := heap() - before
				// The heap rounds up to its next size, which is up to 8 KiB more.
				require.LessOrEqual(t, held, int64(k+datagram.MaxAhead+16<<10))
				require.LessOrEqual(t, src.longest, datagram.MaxAhead)
				runtime.KeepAlive(r)
			})
		}
	}
}

// A header that is refused costs nothing: neither its error nor its Reader holds a buffer.
func TestRefusedHoldsNothing(t *testing.T) {
	for _, v := range loadVectors(t) {
		for _, read := range ways {
			r := datagram.NewReader(&chunked{data: v.Stream}, v.options())
			_, err := read(t, r)
			require.Error(t, err)
			require.Zero(t, r.Held(), v.Name)
		}
	}
}

// A Reader holds nothing before its first Fill.
func TestNewReaderHoldsNothing(t *testing.T) {
	r := datagram.NewReader(&zeros{}, nil)
	_, ok, err := r.Next()
	require.NoError(t, err)
	require.False(t, ok)
	require.Zero(t, r.Held())
}

// boundaries are frame lengths around each place where the Reader changes how it takes memory.
func boundaries() []int {
	var out []int
	for _, b := range []int{
		4 << 10, datagram.LargeFrame, 32 << 10, datagram.MaxAhead - datagram.PeekSize, datagram.MaxAhead, datagram.MaxAhead + datagram.PeekSize,
		datagram.SegmentSize + datagram.MaxAhead, 2*datagram.SegmentSize + datagram.MaxAhead, 1 << 20, 3 << 20,
	} {
		for _, d := range []int{-9, -8, -1, 0, 1, 7, 8, 9} {
			if b < 1<<20 || d == 0 || d == -1 {
				out = append(out, b+d)
			}
		}
	}
	return out
}

func TestFramesAroundEveryBoundary(t *testing.T) {
	noise := pattern(1, 4<<20)
	payload := func(i, n int) []byte { return noise[i*31 : i*31+n] }
	var want [][]byte
	var stream []byte
	add := func(n int) {
		p := payload(len(want), n)
		want = append(want, p)
		stream = append(stream, encode(t, datagram.Datagram{Recipient: uint16(len(want)), Payload: p})...)
	}
	for i, length := range boundaries() {
		add(length - datagram.HeaderSize)
		for j := range i % 4 { // small frames between them, so that the next large one begins anywhere
			add(j * 37)
		}
		if i%5 == 0 {
			add(length - datagram.HeaderSize)
		}
	}
	for _, sizes := range [][]int{
		nil, {509}, {datagram.PeekSize}, {4096, 1, 65536}, {65535}, {65536}, {65537, 3}, {7, 1000, 0, 16384}, {datagram.LargeFrame},
	} {
		for way, read := range ways {
			t.Run(fmt.Sprint(way, sizes), func(t *testing.T) {
				src := &chunked{data: stream, sizes: sizes}
				got, err := read(t, datagram.NewReader(src, nil))
				require.Equal(t, io.EOF, err)
				require.Len(t, got, len(want))
				for i, d := range got {
					require.EqualValues(t, i+1, d.Recipient)
					require.True(t, bytes.Equal(want[i], d.Payload), "frame %d of %d bytes", i, len(want[i]))
				}
				require.LessOrEqual(t, src.longest, datagram.MaxAhead, "[R-7]")
			})
		}
	}
}

// One byte at a time over the smaller boundaries.
func TestFramesByteByByte(t *testing.T) {
	for _, length := range []int{8, 9, 4096, datagram.LargeFrame, datagram.MaxAhead + 1, 200_000} {
		p := pattern(length, length-datagram.HeaderSize)
		stream := encode(t, datagram.Datagram{Recipient: 1, Payload: p}, datagram.Datagram{Recipient: 2})
		r := datagram.NewReader(&chunked{data: stream, sizes: []int{1}}, nil)
		took := allocated(func() {
			d, err := r.Read()
			require.NoError(t, err)
			require.True(t, bytes.Equal(p, d.Payload))
		})
		require.LessOrEqual(t, took, uint64(3*length+256<<10))
		d, err := r.Read()
		require.NoError(t, err)
		require.EqualValues(t, 2, d.Recipient)
	}
}

// A large frame that is cut anywhere near a boundary, or in whose middle a deadline passes, is cut or goes on.
func TestLargeFrameCut(t *testing.T) {
	p := pattern(1, 300_000)
	stream := encode(t, datagram.Datagram{Recipient: 1, Payload: p})
	for _, n := range []int{7, 8, 9, 4095, 4096, 65535, 65536, 65537, 131072, 234_471, 234_472, 234_473, 299_999, 300_007} {
		for _, read := range ways {
			r := datagram.NewReader(&chunked{data: stream[:n]}, nil)
			got, err := read(t, r)
			require.Equal(t, io.ErrUnexpectedEOF, err, "%d", n)
			require.Empty(t, got)
			require.Zero(t, r.Held())

			got, err = read(t, datagram.NewReader(&chunked{data: stream, sizes: []int{n, 0, 1, 0}}, nil))
			require.Equal(t, io.EOF, err)
			require.Len(t, got, 1)
			require.True(t, bytes.Equal(p, got[0].Payload))
		}
	}
}

// A small payload that came behind a large one keeps at most 64 KiB alive, as Reader promises.
func TestSmallFrameDoesNotPinALargeOne(t *testing.T) {
	for _, read := range ways {
		for _, size := range []int{20_000, 65_536 - 8, 65_536, 100_000, 1 << 20} {
			for _, chunk := range []int{100, 4096, 65536, 1 << 20} {
				large := datagram.Datagram{Recipient: 1, Payload: pattern(1, size)}
				small := datagram.Datagram{Recipient: 2, Payload: []byte("small")}
				stream := encode(t, large, small, small, large, small)
				r := datagram.NewReader(&chunked{data: stream, sizes: []int{chunk}}, nil)
				got, err := read(t, r)
				require.Equal(t, io.EOF, err)
				requireSame(t, []datagram.Datagram{large, small, small, large, small}, got)
				from := uintptr(unsafe.Pointer(unsafe.SliceData(got[0].Payload)))
				for _, i := range []int{1, 2} {
					at := uintptr(unsafe.Pointer(unsafe.SliceData(got[i].Payload)))
					shares := at >= from && at < from+uintptr(size+datagram.PeekSize)
					require.False(t, shares && size > datagram.MaxSlab, "a small payload lies behind one of %d bytes", size)
				}
			}
		}
	}
}

func TestParseHeaderRoundTrip(t *testing.T) {
	for _, h := range []datagram.Header{{}, {Size: 1<<32 - 1, Version: 1<<16 - 1, Recipient: 1<<16 - 1}, {Size: 16, Version: 1, Recipient: 0x1234}} {
		b := h.Append([]byte("x"))
		require.Len(t, b, 1+datagram.HeaderSize)
		require.Equal(t, h, datagram.ParseHeader(b[1:]))
		require.Equal(t, h.Size, binary.BigEndian.Uint32(b[1:]))
	}
	require.Panics(t, func() { datagram.ParseHeader(make([]byte, 7)) })
}
