package protobuf_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/mux/protobuf"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

var _ mux.Codec = protobuf.Codec{}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A message goes there and back, by a call.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	network := new(mem.Network)
	ln, err := mem.Listen(ctx, "s", &mem.Config{Network: network})
	if err != nil {
		fmt.Println(err)
		return
	}
	m := mux.New(nil)
	mux.HandleCall(m, 1, "in seconds", protobuf.Codec{}, func(_ context.Context, _ *mux.Conn, d *durationpb.Duration) (*wrapperspb.DoubleValue, error) {
		return wrapperspb.Double(d.AsDuration().Seconds()), nil
	})
	s := mux.NewServer(m)
	go s.Serve(reconnect.NewListener(ln, nil))
	c, err := m.Dial(ctx, mem.Dialer{Network: network, Addr: "s"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := mux.Call[*durationpb.Duration, *wrapperspb.DoubleValue](ctx, c, durationpb.New(90*time.Second))
	fmt.Println(v.GetValue(), err)
	fmt.Println(c.Close(ctx), s.Shutdown(ctx))
	// Output:
	// 90 <nil>
	// <nil> <nil>
}

func TestCodec(t *testing.T) {
	c := protobuf.Codec{}
	v, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": []any{"c", nil, true}})
	require.NoError(t, err)
	b, err := c.Append([]byte("before"), v)
	require.NoError(t, err)
	require.Equal(t, "before", string(b[:6]))
	var got *structpb.Struct
	require.NoError(t, c.Decode(b[6:], &got))
	assert.True(t, proto.Equal(v, got))
	require.Error(t, c.Decode(b[6:len(b)-1], &got), "a part")
	_, err = c.Append(nil, 7)
	require.Error(t, err)
	require.Error(t, c.Decode(nil, new(int)))

	m := mux.New(nil)
	mux.Handle[int](m, 1, "int", c, nil)
	mux.Handle[structpb.Struct](m, 2, "no pointer", c, nil)
	mux.Handle[*structpb.Value](m, 3, "good", c, nil)
	err = m.Err()
	require.ErrorContains(t, err, "int (recipient 1): protobuf: int is not a pointer")
	require.ErrorContains(t, err, "structpb.Struct is not a pointer")
	assert.NotContains(t, err.Error(), "good")
}

// Messages in messages are refused where they lie too deep.
func TestDepth(t *testing.T) {
	deep := func(n int) []byte {
		v := structpb.NewNullValue()
		for range n {
			v = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{v}})
		}
		b, err := proto.Marshal(v)
		require.NoError(t, err)
		return b
	}
	var got *structpb.Value
	require.NoError(t, protobuf.Codec{}.Decode(deep(49), &got))
	require.Error(t, protobuf.Codec{}.Decode(deep(51), &got))
	require.NoError(t, protobuf.Codec{Depth: 1000}.Decode(deep(400), &got))
	require.Error(t, protobuf.Codec{}.Decode(bytes.Repeat([]byte{0x32, 0xff, 0xff, 0xff, 0x7f}, 1000), &got), "lengths that lie")
}
