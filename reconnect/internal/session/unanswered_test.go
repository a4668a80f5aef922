package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A RESUME that got no answer is followed by one with nothing behind it, until one is answered: connections that live for
// less than what goes with the question would never bring the answer.
func TestR118UnansweredResume(t *testing.T) {
	p := livePair(t)
	p.send(p.d, "one")
	p.connect()
	require.Equal(t, []Kind{KindResume, kindData}, kindsOf(p.pull(p.d)), "at first the replay comes along")
	for range 2 {
		p.connect()
		require.Equal(t, []Kind{KindResume}, kindsOf(p.pull(p.d)))
		p.send(p.d, "more")
		require.Empty(t, p.pull(p.d), "nor does it come later")
	}
	p.d.Finish(p.now)
	p.connect()
	p.run()
	require.Equal(t, Live, p.d.State())
	require.Len(t, p.gotL, 3)
	require.True(t, p.d.Finished())
}

func TestR118AnsweredResume(t *testing.T) {
	p := livePair(t)
	p.send(p.d, "one")
	p.connect()
	p.pull(p.d)
	p.connect()
	p.run() // this one is answered
	require.Len(t, p.gotL, 1)
	p.settle()
	p.send(p.d, "two")
	p.connect()
	require.Equal(t, []Kind{KindResume, kindData}, kindsOf(p.pull(p.d)))
}
