package redial_test

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
)

// asked is a context that tells when it is asked whether it has ended.
type asked struct {
	context.Context
	tell func()
}

func (a asked) Err() error {
	a.tell()
	return a.Context.Err()
}

// A Close that comes at any moment before a dial, such as between the last look at whether there is to be one and the dial
// itself, prevents it.
func TestCloseJustBeforeADial(t *testing.T) {
	for n := 1; ; n++ { // Close comes when the context is asked for the n-th time
		dialled, closed, asks := false, false, 0
		r := redial.New([]transport.Dialer{transport.DialerFunc(func(context.Context) (net.Conn, error) {
			dialled = true
			a, b := net.Pipe()
			_ = b.Close()
			return a, nil
		})}, nil)
		link, err := r.Dial(asked{t.Context(), func() {
			if asks++; asks == n && !dialled {
				closed = true
				_ = r.Close()
			}
		}})
		if !closed { // no more than that was asked before the dial
			require.NoError(t, err)
			require.NoError(t, link.Conn.Close())
			require.Greater(t, n, 2)
			return
		}
		require.ErrorIs(t, err, net.ErrClosed, "closed at question %d", n)
		require.False(t, dialled, "closed at question %d", n)
	}
}
