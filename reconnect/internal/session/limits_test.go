package session

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// What waits behind smallRuns others shares no memory with what came between, which nobody counts.
func TestRunsPinNothing(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		const n = 100
		var shared int
		for i := range n {
			run := runOf(string(rune('a' + i%26)))
			s.Read(p.now, true)
			require.NoError(t, s.Data(p.now, run))
			last := s.recv.queue[len(s.recv.queue)-1]
			if &last.Raw[0] == &run.Raw[0] {
				shared++
			} else {
				for j := range run.Raw {
					run.Raw[j] = 0xdd
				}
			}
			require.NoError(t, p.hear(s, Control{Kind: KindSkip, Length: 8}, nil))
		}
		require.LessOrEqual(t, shared, smallRuns)
		for i := range n {
			run, ok := s.Take()
			require.True(t, ok)
			d, ok := run.Next()
			require.True(t, ok)
			require.Equal(t, string(rune('a'+i%26)), string(d.Payload))
		}
	})
}

// Before a session has been resumed a RESUME without its proof finds it unknown: it may be what somebody made of a HELLO
// that he repeated, and the owner has to begin anew. Then it is nobody else's.
func TestProvedIsKept(t *testing.T) {
	again := func(p *pair, l *Session) *Session {
		v, err := l.Export(p.now)
		require.NoError(t, err)
		l, err = Restore(p.now, p.lcfg, v)
		require.NoError(t, err)
		return l
	}
	p := livePair(t)
	foreign := AppendResume(nil, &Resume{Version: 1, MaxPayload: 1 << 20, ID: p.l.ID(), Epoch: 7}, [32]byte{1}, nil)
	unknown := &RejectError{Reject: Reject{Reason: ReasonUnknown}}
	require.Equal(t, unknown, p.l.Verify(foreign, nil), "confirmed by an ACK, which whoever began it could send")
	require.Equal(t, unknown, again(p, p.l).Verify(foreign, nil))
	p.connect()
	p.run()
	unauthorised := &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
	require.Equal(t, unauthorised, p.l.Verify(foreign, nil))
	require.Equal(t, unauthorised, again(p, p.l).Verify(foreign, nil))
	p.l.Abort()
	require.Equal(t, unauthorised, p.l.Verify(foreign, nil))
}

// An age limit costs nothing when other frames are written or acknowledged, however many there are.
func TestMarksCostNothing(t *testing.T) {
	const few, many, factor = 1000, 200_000, 20
	least := func(f func()) time.Duration {
		d := time.Duration(math.MaxInt64)
		for range 100 {
			start := time.Now()
			f()
			d = min(d, time.Since(start))
		}
		return max(d, time.Microsecond)
	}
	cost := func(n int) (pull, ack time.Duration) {
		p := livePairOf(t, func(d, _ *Config) { d.SendBuffer = 64 << 20 })
		for range n {
			require.NoError(t, p.d.Append(p.now, datagram.Datagram{}, p.now+time.Hour))
		}
		p.d.credit = p.d.log.base.B + 1000 // for 125 of them
		var out Out
		for p.d.Pull(p.now, &out) {
			p.d.Wrote()
		}
		require.Len(t, p.d.log.marks, n)
		ping := (&Control{Kind: KindPing, Token: 1, Status: honest(p.d)}).Append(nil)
		pull = least(func() {
			if p.d.Control(p.now, ping) != nil || !p.d.Pull(p.now, &out) {
				t.Error("no PONG")
			}
			p.d.Wrote()
		})
		st := honest(p.d)
		ack = least(func() {
			st.Received = st.Received.add(Position{1, datagram.HeaderSize})
			if p.d.Control(p.now, (&Control{Kind: KindAck, Status: st}).Append(nil)) != nil {
				t.Error("the ACK was not taken")
			}
		})
		require.Len(t, p.d.log.marks, n-100)
		p.check()
		return pull, ack
	}
	pull1, ack1 := cost(few)
	pull2, ack2 := cost(many)
	require.Less(t, pull2, factor*pull1, "a PONG")
	require.Less(t, ack2, factor*ack1, "an ACK")
}

// Marks that the credit keeps back, or that are far behind, still take effect when it is their turn.
func TestMarksBeyondOnePull(t *testing.T) {
	p := livePairOf(t, func(d, l *Config) { d.SendBuffer, l.MinWindow, l.MaxWindow = 8<<20, 8<<20, 8<<20 })
	const n, every = 4000, 97 // 4 MB
	for i := range n {
		deadline := time.Duration(0)
		if i%every == every-1 {
			deadline = p.now + time.Second
		}
		d := datagram.Datagram{Recipient: uint16(i), Payload: make([]byte, 1000)}
		require.NoError(t, p.d.Append(p.now, d, deadline))
	}
	p.now += 2 * time.Second
	p.run()
	require.EqualValues(t, n/every, p.d.Stats().Expired)
	require.EqualValues(t, n/every, p.l.Stats().Skipped)
	require.Len(t, p.gotL, n-n/every)
}

// An age limit that has no end is none, in a session that was restored too.
func TestMarkForEver(t *testing.T) {
	p := livePair(t)
	p.now = time.Hour
	require.NoError(t, p.d.Append(p.now, runDatagram("x"), math.MaxInt64))
	v, err := p.d.Export(p.now)
	require.NoError(t, err)
	p.now += time.Hour
	p.d, err = Restore(p.now, p.d.cfg, v)
	require.NoError(t, err)
	p.connect()
	p.run()
	require.Zero(t, p.d.Stats().Expired)
	require.Equal(t, [][]byte{[]byte("x")}, p.gotL)
}

// Who takes and does not finish is sent no more than the largest window and the window beyond what it has finished with.
func TestConsumedBoundsCredit(t *testing.T) {
	const w, m = 64 << 10, 256 << 10
	p := livePairOf(t, func(d, l *Config) {
		l.Consumed, l.MinWindow, l.MaxWindow = true, w, m
		d.SendBuffer = 16 << 20
	})
	done := 0
	for round := range 5 {
		for i := 0; p.d.Pending() == 0; i++ {
			require.Less(t, i, 1000, "the peer is never held up")
			p.send(p.d, string(bytes.Repeat([]byte{'x'}, 8000)))
			p.run()
			r := &p.l.recv
			require.LessOrEqual(t, r.credit, r.done.B+m+r.window)
		}
		require.Empty(t, p.l.recv.queue, "all was taken")
		got := len(p.gotL)
		require.Greater(t, got, done, "round %d", round)
		require.False(t, p.l.Consume(p.now, got-done+1))
		require.True(t, p.l.Consume(p.now, got-done))
		done = got
		p.settle()
		require.Greater(t, len(p.gotL), got, "it goes on")
	}
}

// CLOSE with a reason acknowledges what had arrived: it need not count as unconfirmed, nor be sent again.
func TestR126AbortAcknowledges(t *testing.T) {
	p := livePair(t)
	p.send(p.d, "x")
	p.forth()
	p.l.Abort()
	p.back()
	require.Equal(t, Ended, p.d.State())
	require.ErrorAs(t, p.d.Err(), new(*ClosedError))
	require.Zero(t, p.d.Stats().Unacked)
}
