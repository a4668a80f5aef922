package mem

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Controls remember ended links, so these must not hold on to buffers, not even to what nobody will read.
func TestEndedLinkHoldsNoBuffers(t *testing.T) {
	a, b := Pipe(nil)
	_, err := a.Write(make([]byte, 1000))
	require.NoError(t, err)
	_, err = b.Write(make([]byte, 1000))
	require.NoError(t, err)
	a.Faults().Freeze(Both)
	require.NoError(t, a.Close())
	_, err = b.Write(make([]byte, 1000))
	require.NoError(t, err, "nobody knows yet")
	require.NoError(t, b.Close())
	require.Nil(t, a.link.up.ring.buf)
	require.Nil(t, a.link.down.ring.buf)
}

// A schedule that never empties neither grows nor moves its marks more often than needed.
func TestScheduleIsBounded(t *testing.T) {
	var s schedule
	s.push(mark{pos: 0})
	for i := range 10_000 {
		s.push(mark{pos: int64(i + 1)})
		s.head++
	}
	require.LessOrEqual(t, cap(s.marks), 8)
	require.EqualValues(t, 10_000, s.marks[s.head].pos)
}

func TestRingReadsWhatWasPut(t *testing.T) {
	r := ring{limit: 10}
	buf := make([]byte, 10)
	next, want := byte(0), byte(0)
	for i := range 1000 {
		p := make([]byte, (i*7)%(r.room()+1))
		for j := range p {
			p[j], next = next, next+1
		}
		r.put(p)
		if r.n > 0 {
			require.Equal(t, want, *r.at(0))
			require.Equal(t, next-1, *r.at(r.n - 1))
		}
		for _, got := range buf[:r.take(buf[:(i*3)%11])] {
			require.Equal(t, want, got)
			want++
		}
	}
	require.Len(t, r.buf, 10)
}
