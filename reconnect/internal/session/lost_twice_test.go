package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestR116LostTwice(t *testing.T) {
	// What the first of two lost sessions sent, and the second did not come to send again, may have been delivered, too.
	p := livePair(t)
	p.dontTake = true
	p.send(p.d, "one")
	p.send(p.d, "two")
	p.pull(p.d)
	p.renew()
	p.connect()
	p.d.credit = p.d.log.base.B + 1 // for the first alone
	p.pull(p.d)
	p.renew()
	p.send(p.d, "three")
	p.connect()
	p.run()
	require.Equal(t, []bool{true, true, false}, takeMarks(p.l))
}
