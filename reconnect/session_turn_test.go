package reconnect_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// echoes lets b send back all that it receives, until the session ends.
func echoes(s *ends) {
	go func() {
		for d, err := range s.b.Reader().All(context.Background()) {
			if err != nil || s.b.Writer().Send(context.Background(), d) != nil {
				return
			}
		}
	}()
}

func ask(t *testing.T, s *ends, n int) {
	ctx := context.Background()
	for range n {
		require.NoError(t, s.a.Writer().Send(ctx, datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}))
		_, err := s.a.Reader().Receive(ctx)
		require.NoError(t, err)
	}
}

// handed counts the writes that were handed over to a goroutine: those that may wait.
type handed struct {
	*mem.Conn
	writes *atomic.Int64
}

func (h *handed) Write(p []byte) (int, error) {
	h.writes.Add(1)
	return h.Conn.Write(p)
}

// Acknowledgements of answers go with the next questions: a goroutine for one of them costs the round trips beside it their
// time.
func TestQuestionsNeedNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Int64
		s := wrappedSession(t, func(nc *mem.Conn) net.Conn { return &handed{nc, &writes} })
		defer s.end()
		echoes(s)
		ask(t, s, 10)
		before := writes.Load()
		ask(t, s, 3000)
		assert.Equal(t, before, writes.Load())
	})
}

// An acknowledgement that waits for an answer goes when the receiver comes for more instead, or when it is due by time.
func TestUnansweredIsAcknowledged(t *testing.T) {
	lone := func(t *testing.T, s *ends, n int, receive func()) {
		for range n {
			require.NoError(t, s.a.Writer().Send(context.Background(), datagram.Datagram{Recipient: 7, Payload: make([]byte, 64)}))
			receive()
			synctest.Wait()
		}
	}
	t.Run("comes for more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			go func() {
				for _, err := range s.b.Reader().All(context.Background()) {
					if err != nil {
						return
					}
				}
			}()
			lone(t, s, 1000, func() {})
			assert.Less(t, s.a.Stats().Unconfirmed, uint64(300))
			assert.NotZero(t, s.a.Stats().Unconfirmed, "no time has passed, and not each message is worth an acknowledgement")
		})
	})
	t.Run("by time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			lone(t, s, 250, func() {
				_, err := s.b.Reader().Receive(context.Background())
				require.NoError(t, err)
			})
			<-time.After(25 * time.Millisecond)
			synctest.Wait()
			assert.Zero(t, s.a.Stats().Unconfirmed)
		})
	})
	t.Run("at once, where no time is set", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := memSession(t, nil, nil)
			defer s.end()
			received := make(chan error, 1)
			go func() {
				_, err := s.b.Reader().Receive(context.Background())
				received <- err
			}()
			synctest.Wait()
			// A quarter of the window, and lone: it is worth an acknowledgement before one was put off.
			d := datagram.Datagram{Recipient: 7, Payload: make([]byte, 16<<10-datagram.HeaderSize)}
			require.NoError(t, s.a.Writer().Send(context.Background(), d))
			require.NoError(t, <-received)
			synctest.Wait()
			assert.Zero(t, s.a.Stats().Unconfirmed)
		})
	})
}

// Where receivers read by themselves a lost connection is noticed at once by one that waits. Where none does the reader
// notices, when it has the turn again: after two milliseconds, and a few tens of them behind busy receivers.
func TestTurnComesBack(t *testing.T) {
	const short, long = 2 * time.Millisecond, 32 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s, ofA, _ := watched(t, nil, nil)
		defer s.end()
		echoes(s)
		cut := func(n int) time.Duration {
			begin := time.Now()
			s.line.cut()
			took := ofA.await(t, reconnect.EventDisconnected, n).Time.Sub(begin)
			ofA.await(t, reconnect.EventResumed, n)
			return took
		}
		busy := func() {
			for range 200 {
				ask(t, s, 10)
				<-time.After(time.Millisecond / 2)
			}
		}
		synctest.Wait()
		assert.Zero(t, cut(1), "nothing was received: the reader has the turn")
		ask(t, s, 3)
		assert.LessOrEqual(t, cut(2), short)
		busy()
		took := cut(3)
		assert.Greater(t, took, short)
		assert.LessOrEqual(t, took, long)
		busy()
		<-time.After(long)
		assert.Zero(t, cut(4), "it has come back")
		busy()
		<-time.After(long)
		ask(t, s, 3)
		assert.LessOrEqual(t, cut(5), short, "how busy they were is forgotten")
	})
}
