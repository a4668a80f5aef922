package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What the simulation has found, each as short as it can be told.

// takeMarks takes everything that s has, and returns for each datagram whether it is marked as Redelivered.
func takeMarks(s *Session) (marks []bool) {
	for run, ok := s.Take(); ok; run, ok = s.Take() {
		for i := range run.N {
			marks = append(marks, i < run.Redelivered)
		}
	}
	return marks
}

// A listener takes HELLO and delivers what follows, and is killed before its WELCOME arrives. The dialer does not know
// that there was a session, and the next listener does not either.
func TestFoundHelloToTwoListeners(t *testing.T) {
	p := newPair(t)
	p.dontTake = true
	p.send(p.d, "one")
	p.connect()
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	require.Equal(t, []bool{false}, takeMarks(p.l))

	p.l = nil // killed
	p.send(p.d, "two")
	p.connect()
	p.run()
	require.Equal(t, []bool{true, false}, takeMarks(p.l), "the first may have been delivered, the second was never sent")
}

// The same, but the first listener lives and gets the third HELLO, while another one took the second.
func TestFoundHelloToTwoListenersAndBack(t *testing.T) {
	p := newPair(t)
	p.dontTake = true
	p.send(p.d, "one")
	p.connect()
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	first := p.l

	p.l = nil
	p.send(p.d, "two")
	p.connect()
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	require.Equal(t, []bool{true, false}, takeMarks(p.l))

	p.l = first
	p.connect()
	p.run()
	require.Equal(t, []bool{true, true}, takeMarks(p.l))
}

// A HELLO that follows at once on the one that was taken can have been to no other listener, and what is behind one
// that was rejected was delivered by none: nothing is marked.
func TestFoundNothingRedelivered(t *testing.T) {
	p := newPair(t)
	p.dontTake = true
	p.send(p.d, "one")
	p.connect()
	p.write(p.d, &p.toL)
	reject := Reject{Reason: ReasonBusy}
	require.Error(t, p.d.Control(p.now, reject.Append(nil)))
	p.connect()
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	p.connect()
	p.run()
	require.Equal(t, Live, p.d.State())
	require.Equal(t, []bool{false}, takeMarks(p.l))
}

// consumingPair is one whose sides acknowledge what their applications have finished with.
func consumingPair(t *testing.T) *pair {
	p := newPair(t)
	p.dontTake = true
	p.lcfg.Consumed = true
	p.d.cfg.Consumed = true
	return p
}

// The peer's stream has ended, but is not acknowledged, because the application has not finished with it, and never
// will: the peer has to be told to stop, or it learns from CLOSE that it is not done.
func TestFoundStopBehindFin(t *testing.T) {
	p := consumingPair(t)
	p.send(p.d, "one")
	p.connect()
	p.run()
	p.l.Finish(p.now)
	p.d.Finish(p.now)
	p.run()
	p.l.Stop()
	p.run()
	require.True(t, p.d.Stopped())
	require.Equal(t, Ended, p.l.State())
	require.NoError(t, p.l.Err())
	require.Equal(t, Ended, p.d.State())
}

// What a tombstone says is what is acknowledged, whatever the dialer knows of the listener's flags.
func TestFoundTombstoneOfConsumed(t *testing.T) {
	p := consumingPair(t)
	p.send(p.d, "one")
	p.send(p.d, "two")
	p.connect()
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	require.Equal(t, []bool{false, false}, takeMarks(p.l))
	require.True(t, p.l.Consume(p.now, 1))
	p.l.Detach()
	p.l.Drop(ReasonExpired)

	p.connect()
	reject := Reject{Reason: ReasonExpired, Flags: FlagReceivedKnown, Received: p.l.ArrivedOnWire()}
	require.Error(t, p.d.Control(p.now, reject.Append(nil)))
	require.EqualValues(t, 1, p.d.Acked(), "only the first is done with")
	ok, err := p.d.Renew(p.rand)
	require.True(t, ok)
	require.NoError(t, err)
	p.check()
	p.l = nil
	p.connect()
	p.run()
	require.Equal(t, []bool{true}, takeMarks(p.l))
}
