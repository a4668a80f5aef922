package mux_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/towline-mq/towline/mux"
)

func roundTrip[T any](t *testing.T, c mux.Codec, v T) {
	t.Helper()
	b, err := c.Append([]byte("before"), v)
	require.NoError(t, err)
	require.Equal(t, "before", string(b[:6]))
	var got T
	require.NoError(t, c.Decode(b[6:], &got))
	assert.Equal(t, v, got)
}

// Every codec gives back what it was given, behind what was there.
func TestCodecs(t *testing.T) {
	left := &tree{Name: "l", Any: "x"}
	whole := tree{
		Name: "n", Left: left, At: time.Unix(1<<33, 999999999), Tags: map[string][]int{"a": {1, -2, math.MaxInt}, "b": nil},
		Sum: [2]byte{1, 2}, Any: map[string]any{"k": []any{int8(1), "v", nil, true}},
	}
	roundTrip(t, mux.Msgpack{}, whole)
	roundTrip(t, mux.Msgpack{}, &whole)
	roundTrip(t, mux.Msgpack{}, "")
	roundTrip(t, mux.Msgpack{}, []*tree{left, nil})
	roundTrip(t, mux.Msgpack{}, map[string]time.Time{"now": time.Unix(1700000000, 0), "then": time.Unix(1<<40, 5)})
	roundTrip(t, mux.Msgpack{}, strings.Repeat("x", 100_000))
	roundTrip(t, mux.Msgpack{}, msgpack.RawMessage{0x93, 1, 2, 3})
	roundTrip(t, mux.Msgpack{}, math.Inf(1))
	roundTrip(t, mux.Msgpack{}, make([]int, 70_000))
	roundTrip(t, mux.JSON{}, tree{Name: `"a,b:[{"`, Left: left, Tags: map[string][]int{`\"`: {1}}, At: time.Unix(9, 0).UTC()})
	roundTrip(t, mux.JSON{}, []float64{1, 2.5})
	roundTrip(t, mux.Raw{}, []byte{0, 255})
	roundTrip(t, mux.Raw{}, blob("b"))
	roundTrip(t, mux.Text{}, "ä")
	type text string
	roundTrip(t, mux.Text{}, text("t"))

	for _, c := range []mux.Codec{mux.Msgpack{}, mux.JSON{}, mux.Raw{}, mux.Text{}} {
		dst := []byte("before")
		out, err := c.Append(dst, make(chan int))
		require.Error(t, err, "%v", c)
		assert.Equal(t, "before", string(out), "%v", c)
	}
	require.Error(t, mux.Raw{}.Decode(nil, new(int)))
	require.Error(t, mux.Text{}.Decode(nil, new(int)))
	require.Error(t, mux.JSON{}.Decode([]byte("{"), new(tree)))
}

// Raw hands out the payload itself.
func TestRawCopiesNothing(t *testing.T) {
	src := []byte("payload")
	var got blob
	require.NoError(t, mux.Raw{}.Decode(src, &got))
	src[0] = 'P'
	assert.Equal(t, "Payload", string(got))
}

// Limits hold exactly, and say so.
func TestLimits(t *testing.T) {
	nested := func(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n), 0xc0) }
	for _, c := range []struct {
		name   string
		limits mux.Limits
		ok, no []byte
	}{
		{"depth by default", mux.Limits{}, nested(64), nested(65)},
		{"depth", mux.Limits{Depth: 3}, nested(3), nested(4)},
		{"depth, empty inside", mux.Limits{Depth: 2}, []byte{0x91, 0x90}, []byte{0x91, 0x91, 0x80}},
		{"great depth", mux.Limits{Depth: 1 << 30}, nested(1000), nested(1001)},
		{"elements", mux.Limits{Elements: 4}, []byte{0x93, 1, 2, 3}, []byte{0x94, 1, 2, 3, 4}},
		{"elements of maps", mux.Limits{Elements: 5}, []byte{0x82, 0xa1, 'a', 1, 0xa1, 'b', 2}, []byte{0x83, 0xa1, 'a', 1, 0xa1, 'b', 2, 0xa1, 'c', 3}},
		{"elements of all levels", mux.Limits{Elements: 4}, []byte{0x91, 0x92, 1, 2}, []byte{0x92, 0x92, 1, 2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v any
			require.NoError(t, mux.Msgpack{Limits: c.limits}.Decode(c.ok, &v))
			require.ErrorIs(t, mux.Msgpack{Limits: c.limits}.Decode(c.no, &v), mux.ErrLimit)
		})
	}
	t.Run("memory", func(t *testing.T) {
		type row struct{ Fields [100]byte }
		array := append([]byte{0x98}, bytes.Repeat([]byte{0xc0}, 8)...)
		var v []row
		l := mux.Limits{Memory: 8 * 2 * 100}
		require.NoError(t, mux.Msgpack{Limits: l}.Decode(array, &v))
		l.Memory--
		require.ErrorIs(t, mux.Msgpack{Limits: l}.Decode(array, &v), mux.ErrLimit)
	})
	t.Run("memory of honest rows", func(t *testing.T) {
		type row struct {
			A, B, C, D, E, F, G, H, I, J int
			Name                         string
			More                         [][]byte
		}
		rows := make([]row, 30_000)
		for _, c := range []mux.Codec{mux.Msgpack{}, mux.JSON{}} {
			b, err := c.Append(nil, rows)
			require.NoError(t, err)
			var got []row
			require.NoError(t, c.Decode(b, &got), "%v", c)
			assert.Len(t, got, len(rows))
		}
	})
	t.Run("json", func(t *testing.T) {
		var v any
		j := mux.JSON{Limits: mux.Limits{Depth: 3, Elements: 7}}
		require.NoError(t, j.Decode([]byte(`[[[1,2,3,"[[[[,,,,\"[,"]]]`), &v))
		require.ErrorIs(t, j.Decode([]byte(`[[[[1]]]]`), &v), mux.ErrLimit)
		require.ErrorIs(t, j.Decode([]byte(`[1,2,3,4,5,6,7,8]`), &v), mux.ErrLimit)
		require.ErrorIs(t, j.Decode([]byte(`{"a":1,"b":2,"c":3,"d":4}`), &v), mux.ErrLimit)
		require.NoError(t, j.Decode([]byte(`{"a":1,"b":2,"c":3}`), &v))
		require.ErrorIs(t, mux.JSON{}.Decode([]byte("["+strings.Repeat("{},", 500_000)+"{}]"), new([][1000]int)), mux.ErrLimit)
	})
}

// nest is a type that nests for as long as the payload does.
type nest map[string]nest

// hostile are payloads that cost a naive decoder gigabytes, its stack, or hours.
func hostile() map[string][]byte {
	u32 := func(code byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{code}, n) }
	// An extension whose body is the head of a huge map: where the library looks for a map it skips the extension's
	// head and takes its body for one.
	extMap := append([]byte{0xd7, 0xff}, append(u32(0xdf, math.MaxUint32), 0, 0, 0)...)
	// Where the library looks for a map and finds an extension without a body, it takes the next value for that map: so
	// these would lie in each other, however many there are.
	emptyExts := []byte{0xdc, 0x10, 0x00, 0xc7, 0, 5}
	for range 0x1000 - 1 {
		emptyExts = append(emptyExts, 0x81, 0xa0, 0xc7, 0, 5)
	}
	all := map[string][]byte{
		"empty exts before maps": emptyExts,
		"array of 4 Gi":          u32(0xdd, math.MaxUint32),
		"map of 4 Gi":            u32(0xdf, math.MaxUint32),
		"string of 4 Gi":         u32(0xdb, math.MaxUint32),
		"bytes of 4 Gi":          u32(0xc6, math.MaxUint32),
		"extension of 4 Gi":      append(u32(0xc9, math.MaxUint32), 0xff),
		"array of 64 Ki":         {0xdc, 0xff, 0xff},
		"array in maps":          append([]byte{0x81, 0xa1, 'k'}, u32(0xdd, 1<<30)...),
		"arrays in arrays":       bytes.Repeat([]byte{0xdd, 0, 1, 0, 0}, 20_000),
		"10 M arrays deep":       bytes.Repeat([]byte{0x91}, 10_000_000),
		"10 M maps deep":         bytes.Repeat([]byte{0x81, 0xa0}, 5_000_000),
		"array of 16 M nils":     append(u32(0xdd, 16<<20), bytes.Repeat([]byte{0xc0}, 16<<20)...),
		"array of 16 M maps":     append(u32(0xdd, 16<<20), bytes.Repeat([]byte{0x80}, 16<<20)...),
		"extension for a map":    extMap, // which is a time, for who wants one
		"extension for a map, 2": append([]byte{0x81, 0xa1, 'k'}, extMap...),
		"empty ext for a map":    {0x82, 0xa1, 'k', 0xc7, 0, 5, 0xa1, 'l', 0x80},
		"code without a meaning": {0xc1},
		"nothing":                {},
		"two values":             {1, 2},
	}
	return all
}

// targets are what the payloads are decoded into: types whose decoders go different ways in the library.
func targets() map[string]func() any {
	return map[string]func() any{
		"any":        func() any { return new(any) },
		"[]any":      func() any { return new([]any) },
		"struct":     func() any { return new(tree) },
		"[]big":      func() any { return new([][1024]uint64) },
		"[]*big":     func() any { return new([]*[1024]uint64) },
		"map of big": func() any { return new(map[string][1024]uint64) },
		"[]string":   func() any { return new([]string) },
		"map any":    func() any { return new(map[string]any) },
		"map string": func() any { return new(map[string]string) },
		"nest":       func() any { return new(nest) },
		"[]nest":     func() any { return new([]nest) },
		"string":     func() any { return new(string) },
		"bytes":      func() any { return new([]byte) },
		"raw":        func() any { return new(msgpack.RawMessage) },
		"time":       func() any { return new(time.Time) },
		"times":      func() any { return new(map[string]time.Time) },
	}
}

// Payloads that lie cost bytes and microseconds, whatever they are decoded into.
func TestHostileMsgpack(t *testing.T) {
	const (
		most  = 16 << 10              // bytes: a value of the largest type, twice
		limit = 10 * time.Millisecond // of the best of five: microseconds, on a machine that has no other work
	)
	var worst uint64
	var dearest string
	var slowest time.Duration
	for name, src := range hostile() {
		for into, target := range targets() {
			c := mux.Msgpack{}
			err := c.Decode(src, target()) // and warm up
			if !strings.HasPrefix(name, "extension for a map") {
				require.Error(t, err, "%s into %s", name, into)
			}
			const runs = 5
			took := make([]time.Duration, runs)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for i := range took {
				v := target()
				begin := time.Now()
				_ = c.Decode(src, v)
				took[i] = time.Since(begin)
			}
			runtime.ReadMemStats(&after)
			bytes := (after.TotalAlloc - before.TotalAlloc) / runs
			fastest := min(took[0], took[1], took[2], took[3], took[4])
			if bytes > worst {
				worst, dearest = bytes, name+" into "+into
			}
			slowest = max(slowest, fastest)
			assert.LessOrEqual(t, bytes, uint64(most), "%s into %s", name, into)
			if !raceEnabled {
				assert.LessOrEqual(t, fastest, limit, "%s into %s", name, into)
			}
		}
	}
	t.Logf("%d payloads into %d types: at most %d bytes of memory (%s), and %v at best of five", len(hostile()), len(targets()), worst, dearest, slowest)
}

// What is not one whole value is refused before anything is decoded.
func TestPartsOfMsgpack(t *testing.T) {
	whole, err := mux.Msgpack{}.Append(nil, tree{
		Name: strings.Repeat("n", 300), Left: &tree{}, At: time.Unix(1, 1), Tags: map[string][]int{"a": {1, 1 << 10, 1 << 20, 1 << 30}},
		Any: []any{1.5, float32(1), []byte("b"), make([]byte, 70_000), uint8(200), int16(-300)},
	})
	require.NoError(t, err)
	for n := range whole {
		if n > 400 && n < len(whole)-100 {
			continue
		}
		var v tree
		require.ErrorIs(t, mux.Msgpack{}.Decode(whole[:n], &v), io.ErrUnexpectedEOF, "%d bytes", n)
		require.Zero(t, v)
	}
	var v tree
	require.NoError(t, mux.Msgpack{}.Decode(whole, &v))
	require.Error(t, mux.Msgpack{}.Decode(append(whole, 0xc0), &v))
}

// Every code of MessagePack is as long as the library says: what it writes, the scan takes as one value.
func TestScanKnowsEveryCode(t *testing.T) {
	var all bytes.Buffer
	e := msgpack.NewEncoder(&all)
	values := []any{
		nil, true, false, 0, 127, -1, -32, 128, 255, 256, 65535, 65536, int64(1 << 40), -33, -129, -40000, int64(-1 << 40), uint64(math.MaxUint64), float32(1), 1.0,
		"", strings.Repeat("a", 31), strings.Repeat("a", 32), strings.Repeat("a", 256), strings.Repeat("a", 65536),
		[]byte{}, make([]byte, 255), make([]byte, 256), make([]byte, 65536),
		[]int{}, make([]int, 15), make([]int, 16), make([]int, 65536),
		map[string]int{}, time.Unix(1, 0), time.Unix(1, 1), time.Unix(1<<40, 1),
	}
	m := map[string]int{}
	for i := range 70_000 {
		m[fmt.Sprint(i)] = i
		if i == 10 || i == 20 {
			n := map[string]int{}
			for k, v := range m {
				n[k] = v
			}
			values = append(values, n)
		}
	}
	values = append(values, m)
	seen := map[byte]bool{}
	for _, compact := range []bool{true, false} {
		e.UseCompactInts(compact)
		for _, v := range values {
			all.Reset()
			require.NoError(t, e.Encode(v))
			seen[all.Bytes()[0]] = true
			var got any
			require.NoError(t, mux.Msgpack{Limits: mux.Limits{Memory: 1 << 30}}.Decode(all.Bytes(), &got), "%T", v)
		}
	}
	for _, n := range []int{1, 2, 4, 8, 16, 3, 256, 65536} {
		all.Reset()
		require.NoError(t, e.EncodeExtHeader(42, n))
		all.Write(make([]byte, n))
		seen[all.Bytes()[0]] = true
		var got msgpack.RawMessage
		require.NoError(t, mux.Msgpack{}.Decode(all.Bytes(), &got))
		assert.Equal(t, all.Bytes(), []byte(got))
	}
	for code := 0xc0; code <= 0xdf; code++ {
		assert.Equal(t, code != 0xc1, seen[byte(code)], "%#x", code)
	}
}

// Embedded has a field that is three pointers away, with 4 KiB behind each.
type (
	Embedded  struct{ *Embedded1 }
	Embedded1 struct {
		*Embedded2
		_ [512]int64
	}
	Embedded2 struct {
		*Embedded3
		_ [512]int64
	}
	Embedded3 struct {
		V int
		_ [512]int64
	}
)

// What embedded pointers lead to counts too: one key makes all of it.
func TestEmbeddedPointersCount(t *testing.T) {
	const n = 100
	src := []byte("[" + strings.Repeat(`{"V":1},`, n-1) + `{"V":1}]`)
	var v []Embedded
	j := mux.JSON{Limits: mux.Limits{Memory: n * 3 * 4096}}
	require.ErrorIs(t, j.Decode(src, &v), mux.ErrLimit)
	j.Memory *= 4 // the struct and its key count as much as the value
	require.NoError(t, j.Decode(src, &v))
	require.Equal(t, 1, v[n-1].V)
	require.NoError(t, mux.JSON{}.Decode([]byte(`{"V":1}`), new(struct{ *Embedded })))
}
