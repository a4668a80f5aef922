package mux_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// tree has everything that a table has to show.
type tree struct {
	Name   string `msgpack:"n"`
	Left   *tree
	At     time.Time
	Tags   map[string][]int `json:"tags,omitempty"`
	Sum    [2]byte
	Any    any
	Hidden int `msgpack:"-"`
	own    int
}

type level uint8

func bindAll(m *mux.Mux) {
	mux.Handle[tree](m, 300, "tree", mux.JSON{}, nil)
	mux.Handle[blob](m, 2, "blob", mux.Raw{}, nil)
	mux.Handle[level](m, 3, "a|b", mux.Msgpack{}, nil)
	mux.HandleCall[sum, number](m, 4, "add", mux.Msgpack{}, nil)
	m.HandleRaw(65535, "rest", nil)
}

// The table says all that two programs have to agree on, and nothing of who handles what.
func TestTable(t *testing.T) {
	m := mux.New(nil)
	bindAll(m)
	require.NoError(t, m.Err())
	assert.Equal(t, `| recipient | name | type | reply | codec |
|---:|---|---|---|---|
| 2 | blob | `+"`blob []uint8`"+` | – | raw |
| 3 | a\|b | `+"`level uint8`"+` | – | msgpack |
| 4 | add | `+"`sum{A int; B int}` | `number{N int}`"+` | msgpack |
| 300 | tree | `+"`tree{n string; Left *tree; At Time; tags map[string][]int; Sum [2]uint8; Any interface}`"+` | – | json |
| 65535 | rest | – | – |  |
`, m.Table().String())

	other := mux.New(nil)
	mux.Handle(other, 2, "blob", mux.Raw{}, func(context.Context, *mux.Conn, blob) error { return nil })
	mux.Handle[level](other, 3, "a|b", mux.JSON{}, nil)
	assert.Equal(t, m.Table()[0], other.Table()[0], "a handler changes nothing")
	assert.NotEqual(t, m.Table()[1], other.Table()[1], "another codec does")
	assert.Equal(t, 0, tree{}.own)
}

type converter interface{ Convert() }

type ownJSON struct{ C chan int }

func (*ownJSON) UnmarshalJSON([]byte) error { return nil }

// All that is wrong with a set of tags is said at the start, by whatever is used first, and all of it at once.
func TestFaultsAtStart(t *testing.T) {
	m := mux.New(nil)
	mux.Handle[number](m, 1, "number", mux.Msgpack{}, nil)
	mux.Handle[words](m, 1, "words", mux.Msgpack{}, nil)
	mux.Handle[number](m, 2, "again", mux.Msgpack{}, nil)
	mux.Handle[string](m, 3, "number", mux.Text{}, nil)
	mux.Handle[chan int](m, 4, "chan", mux.Msgpack{}, nil)
	mux.Handle[struct{ F []func() }](m, 5, "func", mux.JSON{}, nil)
	mux.Handle[int](m, 6, "raw", mux.Raw{}, nil)
	mux.Handle[bool](m, 7, "text", mux.Text{}, nil)
	mux.Handle[int8](m, 8, "", mux.Msgpack{}, nil)
	mux.Handle[int16](m, 9, "none", nil, nil)
	mux.HandleCall[int32, map[string]converter](m, 10, "call", mux.Msgpack{}, nil)
	mux.Handle[struct {
		S string `msgpack:"s,intern"`
	}](m, 11, "interned", mux.Msgpack{}, nil)
	mux.Handle[struct{ *Embedded1 }](m, 12, "embedded", mux.Msgpack{}, nil)
	mux.Handle[struct {
		*Embedded2 `msgpack:",noinline"`
	}](m, 13, "whole", mux.Msgpack{}, nil)
	mux.Handle[struct{ *time.Time }](m, 14, "time", mux.Msgpack{}, nil)
	mux.Handle[ownJSON](m, 15, "own JSON", mux.Msgpack{}, nil)
	mux.Sender[float32](m)
	mux.Sender[int32](m)
	err := m.Err()
	require.Error(t, err)
	for _, want := range []string{
		"words (recipient 1): bound to number already",
		"again (recipient 2): mux_test.number is the type of number (recipient 1) already",
		"number (recipient 3): the name is that of recipient 1 too",
		"chan (recipient 4): msgpack: cannot carry chan int",
		"func (recipient 5): json: cannot carry func(), which is in struct",
		"raw (recipient 6): raw: int is not a slice of bytes",
		"text (recipient 7): text: bool is not a string",
		"(recipient 8): a tag needs a name",
		"none (recipient 9): no codec",
		"call (recipient 10): msgpack: cannot decode into mux_test.converter",
		"interned (recipient 11): msgpack: field S",
		"embedded (recipient 12): msgpack: struct { *mux_test.Embedded1 } embeds a pointer to mux_test.Embedded1",
		"whole (recipient 13): msgpack: mux_test.Embedded2 embeds a pointer to mux_test.Embedded3",
		"own JSON (recipient 15): msgpack: cannot carry chan int",
		"float32 has no tag",
		"int32 is the request of a call",
	} {
		assert.ErrorContains(t, err, want)
	}
	assert.ErrorIs(t, err, mux.ErrUnbound)
	assert.NotContains(t, err.Error(), "(recipient 14)")

	var n mem.Network
	s := mux.NewServer(m)
	assert.Equal(t, err, s.Serve(reconnect.NewListener(listen(t, &n, "s"), nil)))
	_, dialErr := m.Dial(t.Context(), mem.Dialer{Network: &n, Addr: "s"}, nil)
	assert.Equal(t, err, dialErr)
	_, dialErr = m.Open(mem.Dialer{Network: &n, Addr: "s"}, nil)
	assert.Equal(t, err, dialErr)
	a, b := mem.Pipe(nil)
	defer b.Close()
	_, dialErr = s.Attach(reconnect.NewPlain(a, nil))
	assert.Equal(t, err, dialErr)

	assert.Panics(t, func() { m.HandleRaw(20, "late", nil) })
	assert.Panics(t, func() { m.Use() })
	assert.Panics(t, func() { mux.Sender[number](m) })
}

// What is not bound cannot be sent; what is a call, only called.
func TestUnbound(t *testing.T) {
	m := mux.New(nil)
	mux.Handle[number](m, 1, "number", mux.Msgpack{}, nil)
	mux.HandleCall[sum, number](m, 2, "add", mux.Msgpack{}, nil)
	w := serve(t, m, nil)
	c := w.dial(m, nil)
	ctx := bounded(t)
	assert.ErrorIs(t, mux.Send(ctx, c, words{}), mux.ErrUnbound)
	assert.ErrorIs(t, mux.Send(ctx, c, sum{}), mux.ErrUnbound)
	_, err := mux.Encode(m, 7)
	assert.ErrorIs(t, err, mux.ErrUnbound)
	_, err = mux.Call[number, number](ctx, c, number{})
	assert.ErrorIs(t, err, mux.ErrUnbound)
	_, err = mux.Call[sum, words](ctx, c, sum{})
	assert.ErrorContains(t, err, "is answered by mux_test.number, not mux_test.words")
	_, err = mux.Broadcast(ctx, w.server, words{}, mux.Skip)
	assert.ErrorIs(t, err, mux.ErrUnbound)

	d, err := mux.Encode(m, number{7})
	require.NoError(t, err)
	assert.Equal(t, datagram.Datagram{Recipient: 1, Payload: []byte("\x81\xa1N\x07")}, d)
}
