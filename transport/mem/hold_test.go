package mem_test

import (
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

// A held connection is ready for its dialer, and is accepted after those that were dialled later.
func TestHoldConns(t *testing.T) {
	var network mem.Network
	l, err := mem.Listen(t.Context(), "s", &mem.Config{Network: &network})
	require.NoError(t, err)
	defer l.Close()
	dial := func(word string) net.Conn {
		c, err := mem.Dialer{Network: &network, Addr: "s"}.DialContext(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		_, err = io.WriteString(c, word)
		require.NoError(t, err)
		return c
	}
	accepted := func() string {
		c, err := l.Accept()
		require.NoError(t, err)
		defer c.Close()
		b := make([]byte, 1)
		_, err = io.ReadFull(c, b)
		require.NoError(t, err)
		return string(b)
	}
	release := network.Faults().HoldConns(2)
	dial("1")
	dial("2").Close() // what it said before is kept, too
	dial("3")
	assert.Equal(t, "3", accepted())
	release()
	dial("4")
	assert.Equal(t, "1", accepted())
	assert.Equal(t, "2", accepted())
	assert.Equal(t, "4", accepted())
	release()

	first := network.Faults().HoldConns(-1)
	dial("5")
	second := network.Faults().HoldConns(1)
	dial("6")
	first() // lets 5 go, and leaves the later order alone
	assert.Equal(t, "5", accepted())
	held := dial("7")
	assert.Equal(t, "7", accepted(), "one was to be held")
	second()
	assert.Equal(t, "6", accepted())
	held.Close()

	third := network.Faults().HoldConns(-1)
	held = dial("8")
	require.NoError(t, l.Close())
	_, err = held.Read(make([]byte, 1))
	assert.ErrorIs(t, err, syscall.ECONNRESET, "the listener closes what it has not accepted")
	third()
}
