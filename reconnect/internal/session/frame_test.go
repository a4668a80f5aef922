package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

func TestNames(t *testing.T) {
	assert.Equal(t, "HELLO", KindHello.String())
	assert.Equal(t, "STOP", KindStop.String())
	assert.Equal(t, "kind 0", Kind(0).String())
	assert.Equal(t, "kind 14", Kind(14).String())

	seen := map[string]bool{}
	for r := ReasonUnknown; r <= ReasonMismatch; r++ {
		assert.NotContains(t, r.String(), "reason")
		assert.False(t, seen[r.String()])
		seen[r.String()] = true
	}
	assert.Equal(t, "reason 0", Reason(0).String())
	assert.Equal(t, "reason 11", Reason(11).String())
	assert.EqualValues(t, 10, ReasonMismatch)

	for r := CloseDone; r <= CloseShutdown; r++ {
		assert.NotContains(t, r.String(), "reason")
	}
	assert.Equal(t, "reason 5", CloseReason(5).String())
	assert.EqualValues(t, 4, CloseShutdown)
}

func TestKindOf(t *testing.T) {
	frame := (&Control{Kind: KindPing}).Append(nil)
	assert.Equal(t, KindPing, KindOf(frame))
	assert.Equal(t, KindPing, KindOf(frame[:8]))
	assert.Equal(t, Kind(0), KindOf(frame[:7]))
	assert.Equal(t, Kind(0), KindOf(nil))
}

// The header is judged too, though a datagram.Reader lets no such frame through.
func TestParseHeader(t *testing.T) {
	ack := (&Control{Kind: KindAck}).Append(nil)
	change := func(at int, b byte) []byte {
		f := bytes.Clone(ack)
		f[at] = b
		return f
	}
	for _, tc := range []struct {
		frame []byte
		want  string
	}{
		{nil, "kind 0: kind: got kind 0, expected ACK to STOP [R-104]"},
		{ack[:7], "kind 0: kind: got kind 0, expected ACK to STOP [R-104]"},
		{ack[:49], "ACK: header: got size 46, version 2, expected size 45, version 2 [R-1]"},
		{append(bytes.Clone(ack), 0), "ACK: header: got size 46, version 2, expected size 47, version 2 [R-1]"},
		{change(5, 1), "ACK: header: got size 46, version 1, expected size 46, version 2 [R-1]"},
		{change(0, 255), "ACK: header: got size 4278190126, version 2, expected size 46, version 2 [R-1]"},
		{change(6, 1), "kind 262: kind: got kind 262, expected ACK to STOP [R-104]"},
	} {
		_, err := ParseControl(tc.frame)
		require.EqualError(t, err, tc.want)
	}

	_, err := ParseHello(nil)
	require.EqualError(t, err, "kind 0: header: got 0 bytes, expected 8 bytes [R-1]")
	_, err = ParseHello(ack)
	require.EqualError(t, err, "ACK: kind: got ACK, expected HELLO [R-104]")
	_, err = ParseWelcome(ack)
	require.EqualError(t, err, "ACK: kind: got ACK, expected WELCOME [R-104]")
	_, err = ParseResume(ack)
	require.EqualError(t, err, "ACK: kind: got ACK, expected RESUME [R-104]")
	_, err = ParseResumed(ack)
	require.EqualError(t, err, "ACK: kind: got ACK, expected RESUMED [R-104]")
	_, err = ParseReject(ack)
	require.EqualError(t, err, "ACK: kind: got ACK, expected REJECT [R-104]")
	_, err = ParseControl((&Reject{Reason: ReasonBusy}).Append(nil))
	require.EqualError(t, err, "REJECT: kind: got REJECT, expected ACK to STOP [R-104]")
}

func TestControlErrorIsFoundWhenWrapped(t *testing.T) {
	_, err := ParseHello((&Hello{Version: 1, Flags: 2, Epoch: 1}).Append(nil))
	var e *ControlError
	require.ErrorAs(t, fmt.Errorf("wrapped: %w", err), &e)
	require.Equal(t, &ControlError{Kind: KindHello, Field: "flags", Expected: "0x0000 or 0x0001", Got: "0x0002",
		Rule: "R-104"}, e)
	require.EqualError(t, e, "HELLO: flags: got 0x0002, expected 0x0000 or 0x0001 [R-104]")

	_, err = ParseHello((&Hello{Version: 7}).Append(nil))
	require.EqualError(t, err, "HELLO: version: got 7, expected 1 [R-104]")
}

// Every frame that is cut off, or has a byte too many, is an error, even where the header says that it is whole.
func TestParseCut(t *testing.T) {
	for _, v := range loadVectors(t).Valid {
		frame := bytes.Clone(v.Frame)
		for n := 8; n < len(frame); n++ {
			binary.BigEndian.PutUint32(frame, uint32(n-4))
			_, err := parse(frame[:n])
			require.Error(t, err, "%s: %d bytes", v.Name, n)
		}
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4+1))
		_, err := parse(append(frame, 0))
		require.Error(t, err, v.Name)
	}
}

// A parsed token cannot be appended to into the bytes behind it.
func TestTokenIsBounded(t *testing.T) {
	frame := (&Hello{Version: 1, Epoch: 1, Token: []byte("abc")}).Append(nil)
	h, err := ParseHello(frame)
	require.NoError(t, err)
	require.Equal(t, "abc", string(h.Token))
	require.Equal(t, 3, cap(h.Token))
	require.Same(t, &frame[len(frame)-3], &h.Token[0])
}

func TestAppendPanics(t *testing.T) {
	require.PanicsWithValue(t, "session: a token of 769 bytes, at most 768 are allowed", func() {
		(&Hello{Token: make([]byte, 769)}).Append(nil)
	})
	require.PanicsWithValue(t, "session: a token of 769 bytes, at most 768 are allowed", func() {
		(&Resume{Token: make([]byte, 769)}).Append(nil)
	})
	for _, k := range []Kind{0, KindReject, KindStop + 1} {
		require.PanicsWithValue(t, fmt.Sprintf("session: %v is not the kind of a Control", k), func() {
			(&Control{Kind: k}).Append(nil)
		})
	}
}

// The longest frame that this package writes fits into what a peer takes.
func TestLongestFrame(t *testing.T) {
	token := make([]byte, MaxToken)
	require.LessOrEqual(t, len((&Hello{Token: token}).Append(nil)), datagram.MaxControl)
	require.LessOrEqual(t, len((&Resume{Token: token}).Append(nil)), datagram.MaxControl)
}

func TestFrameAllocs(t *testing.T) {
	buf := make([]byte, 0, datagram.MaxControl)
	for k := KindAck; k <= KindStop; k++ {
		c := Control{Kind: k, Length: 8}
		assert.Zero(t, testing.AllocsPerRun(100, func() { buf = c.Append(buf[:0]) }), "append %v", k)
		assert.Zero(t, testing.AllocsPerRun(100, func() {
			if _, err := ParseControl(buf); err != nil {
				panic(err)
			}
		}), "parse %v", k)
	}
	h := Hello{Version: 1, Epoch: 1, Token: make([]byte, MaxToken)}
	assert.Zero(t, testing.AllocsPerRun(100, func() { buf = h.Append(buf[:0]) }))
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if _, err := ParseHello(buf); err != nil {
			panic(err)
		}
	}))
}

// What can be parsed is written again with the same fields, and without what was skipped.
func FuzzControl(f *testing.F) {
	vs := loadVectors(f)
	for _, v := range vs.Valid {
		f.Add([]byte(v.Frame))
	}
	for _, v := range vs.Invalid {
		f.Add([]byte(v.Frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := bytes.Clone(frame)
		first, err := parse(frame)
		require.Equal(t, before, frame, "the frame is as it was")
		if err != nil {
			var control *ControlError
			var version *VersionError
			require.True(t, errors.As(err, &control) || errors.As(err, &version), "%T", err)
			require.NotEmpty(t, err.Error())
			return
		}
		written := first.Append(nil)
		require.LessOrEqual(t, len(written), len(frame))
		second, err := parse(written)
		require.NoError(t, err)
		require.Equal(t, first, second)
		require.Equal(t, written, second.Append(nil))
	})
}

func BenchmarkAppendAck(b *testing.B) {
	c := Control{Kind: KindAck, Status: Status{Sent: Position{1, 2}, Received: Position{3, 4}, Credit: 5}}
	buf := make([]byte, 0, datagram.MaxControl)
	b.ReportAllocs()
	for b.Loop() {
		buf = c.Append(buf[:0])
	}
}

func BenchmarkParseAck(b *testing.B) {
	frame := (&Control{Kind: KindAck, Status: Status{Sent: Position{1, 2}}}).Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if c, err := ParseControl(frame); err != nil || c.Sent.N != 1 {
			b.Fatal(err)
		}
	}
}

// A frame full of extensions is the dearest that a stranger can send.
func BenchmarkParseExtensions(b *testing.B) {
	area := []byte{}
	for n := range uint16(225) {
		area = binary.BigEndian.AppendUint16(area, n+2)
		area = append(area, 0, 0)
	}
	frame := (&Hello{Version: 1, Epoch: 1}).Append(nil)
	binary.BigEndian.PutUint16(frame[len(frame)-2:], uint16(len(area)))
	frame = append(frame, area...)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseHello(frame); err != nil {
			b.Fatal(err)
		}
	}
}
