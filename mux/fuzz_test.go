package mux_test

import (
	"runtime/metrics"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/mux"
)

// allocated returns how many bytes were ever allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// No payload takes more memory than the limits allow, nor the process down; what was decoded can be encoded and decoded
// again.
func FuzzMsgpack(f *testing.F) {
	for _, src := range hostile() {
		if len(src) < 1<<10 {
			f.Add(src)
		}
	}
	whole, err := mux.Msgpack{}.Append(nil, tree{Name: "n", Left: &tree{Any: []any{1, "a", 1.5}}, Tags: map[string][]int{"a": {1, 2}}})
	require.NoError(f, err)
	f.Add(whole)
	f.Add([]byte{0x82, 0xa1, 'a', 0xd6, 0xff, 0x81, 0xa0, 0, 0, 0xa1, 'b', 0xc4, 3, 0xdf, 1, 1})
	c := mux.Msgpack{Limits: mux.Limits{Depth: 16, Elements: 1 << 10, Memory: 1 << 20}}
	f.Fuzz(func(t *testing.T, src []byte) {
		for into, target := range targets() {
			v := target()
			before := allocated()
			err := decodeHostile(c, src, v)
			took := allocated() - before
			// The library keeps what it read for longer than needed, and other goroutines allocate as well.
			if limit := uint64(4<<20 + 64*len(src)); took > limit {
				t.Fatalf("%s: %d bytes took %d bytes of memory, %d allowed", into, len(src), took, limit)
			}
			if err != nil {
				continue
			}
			b, err := c.Append(nil, v)
			if err != nil || len(b) == 0 {
				continue // a RawMessage of nil is nothing
			}
			if err := decodeHostile(mux.Msgpack{Limits: mux.Limits{Depth: 32, Elements: 1 << 24, Memory: 1 << 30}}, b, target()); err != nil {
				t.Fatalf("%s: encoded again as %.100x…: %v", into, b, err)
			}
		}
	})
}

// decodeHostile is how a Mux decodes: a codec may panic over a payload, and a key of a map that cannot be one does.
func decodeHostile(c mux.Codec, src []byte, v any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = mux.ErrPayload
		}
	}()
	return c.Decode(src, v)
}
