package towlinetest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/towlinetest"
	"github.com/towline-mq/towline/transport/mem"
)

func TestPair(t *testing.T) {
	s := towlinetest.Pair(t, nil)
	passes(t, s.Dialer, s.Listener, "up")
	passes(t, s.Listener, s.Dialer, "down")
	s.Close() // and again at the end
}

// The examples, with an end that is looked at.
func TestPairInABubble(t *testing.T) {
	t.Run("cut", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, nil)
			first, err := s.Faults.WaitConn(t.Context(), 1) // the connection that is there
			require.NoError(t, err)
			first.CutAfter(mem.Up, 40, nil)
			for i := range 10 {
				passes(t, s.Dialer, s.Listener, fmt.Sprintf("order %d", i))
			}
			assert.Equal(t, 2, s.Faults.Stats().Conns)
		})
	})
	t.Run("black hole", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, &towlinetest.PairOptions{
				Listen: &reconnect.ListenOptions{Expiry: 2 * time.Hour},
				Dial:   &reconnect.DialOptions{Strict: true},
			})
			passes(t, s.Dialer, s.Listener, "confirmed") // else the listener keeps it for 30 s
			begin := time.Now()
			s.Faults.Freeze(mem.Both)
			time.AfterFunc(time.Hour, func() { s.Faults.Thaw(mem.Both) })
			passes(t, s.Dialer, s.Listener, "late")
			assert.GreaterOrEqual(t, time.Since(begin), time.Hour)
		})
	})
	t.Run("overtaken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := towlinetest.Pair(t, nil)
			release := s.Faults.HoldConns(1)
			s.Dialer.Redial(nil)
			passes(t, s.Dialer, s.Listener, "once")
			conns := s.Faults.Stats().Conns
			assert.Equal(t, 3, conns, "the first, the held one, and one more")
			release()
			synctest.Wait()
			st := s.Listener.Stats()
			assert.EqualValues(t, 1, st.Received)
			assert.Zero(t, st.Waiting)
			passes(t, s.Dialer, s.Listener, "unharmed")
			assert.Equal(t, conns, s.Faults.Stats().Conns)
		})
	})
}

func passes(t *testing.T, from, to *reconnect.Conn, text string) {
	require.NoError(t, from.Writer().Send(t.Context(), datagram.Datagram{Recipient: 1, Payload: []byte(text)}))
	d, err := to.Reader().Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, text, string(d.Payload))
}
