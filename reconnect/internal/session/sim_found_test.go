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
