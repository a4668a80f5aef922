package reconnect_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// Both applications send, and neither receives: both are held up, nobody is taken for dead, and then all arrives.
func TestSessionNeitherEndReceives(t *testing.T) {
	for _, buffer := range []int{4 << 10, 64 << 10} {
		t.Run(fmt.Sprint(buffer), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(mem.Network)
				ln, err := mem.Listen(context.Background(), "s", &mem.Config{Network: n, Buffer: buffer})
				require.NoError(t, err)
				so := reconnect.SessionOptions{SendBuffer: 200 << 10, MaxWindow: 64 << 10}
				s := begin(t, ln, mem.Dialer{Network: n, Addr: "s"}, &reconnect.ListenOptions{SessionOptions: so},
					&reconnect.DialOptions{SessionOptions: so})
				defer s.end()
				ctx := context.Background()
				const total = 1000
				message := func(i int) datagram.Datagram {
					return datagram.Datagram{Recipient: uint16(i), Payload: make([]byte, 1<<10)}
				}
				var sending sync.WaitGroup
				for _, c := range []*reconnect.Conn{s.a, s.b} {
					sending.Go(func() {
						for i := range total {
							assert.NoError(t, c.Writer().Send(ctx, message(i)))
						}
					})
				}
				<-time.After(60 * time.Second)
				for _, c := range []*reconnect.Conn{s.a, s.b} {
					st := c.Stats()
					assert.Less(t, st.Sent, uint64(total))
					assert.GreaterOrEqual(t, st.UnconfirmedBytes, 200<<10)
					assert.LessOrEqual(t, st.Waiting, 66<<10)
					assert.EqualValues(t, 1, st.Epoch)
					assert.Zero(t, st.Resumes)
					assert.Equal(t, reconnect.Connected, c.State())
				}
				var wg sync.WaitGroup
				for _, c := range []*reconnect.Conn{s.a, s.b} {
					wg.Go(func() {
						for i := range total {
							d, err := c.Reader().Receive(ctx)
							if !assert.NoError(t, err) || !assert.Equal(t, message(i), d) {
								return
							}
						}
					})
				}
				sending.Wait()
				wg.Wait()
				assert.EqualValues(t, 1, s.a.Stats().Epoch)
			})
		})
	}
}

// A connection that swallows everything is noticed, and replaced.
func TestSessionBlackHole(t *testing.T) {
	for name, dir := range map[string]mem.Direction{"both": mem.Both, "up": mem.Up, "down": mem.Down} {
		for _, sends := range []string{"nobody", "dialer", "listener", "both"} {
			t.Run(name+", sends: "+sends, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, ofA, _ := watched(t, nil, nil)
					defer s.end()
					exchange(t, s.a, s.b, 100, func() {})
					<-time.After(time.Minute)
					s.line.newest().(*mem.Conn).Faults().Freeze(dir)
					start := time.Now()
					ctx := context.Background()
					limit := 10 * time.Second
					if sends != "nobody" {
						limit = 5 * time.Second
					}
					if sends == "dialer" || sends == "both" {
						require.NoError(t, s.a.Writer().Send(ctx, text(1, "x")))
					}
					if sends == "listener" || sends == "both" {
						require.NoError(t, s.b.Writer().Send(ctx, text(1, "y")))
					}
					ofA.await(t, reconnect.EventResumed, 1)
					if sends == "listener" {
						limit = 10 * time.Second // only the listener knows that something is unconfirmed
					}
					assert.LessOrEqual(t, time.Since(start), limit+100*time.Millisecond)
					if sends == "dialer" || sends == "both" {
						d, err := s.b.Reader().Receive(ctx)
						require.NoError(t, err)
						require.Equal(t, text(1, "x"), d)
					}
					if sends == "listener" || sends == "both" {
						d, err := s.a.Reader().Receive(ctx)
						require.NoError(t, err)
						require.Equal(t, text(1, "y"), d)
					}
					exchange(t, s.a, s.b, 100, func() {})
				})
			})
		}
	}
}

// A pause of three seconds kills nothing, whatever is under way.
func TestSessionPause(t *testing.T) {
	for name, dir := range map[string]mem.Direction{"both": mem.Both, "up": mem.Up, "down": mem.Down} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memSession(t, nil, nil)
				defer s.end()
				faults := s.line.newest().(*mem.Conn).Faults()
				for range 10 {
					exchange(t, s.a, s.b, 20, func() {})
					faults.Freeze(dir)
					time.AfterFunc(3*time.Second, func() { faults.Thaw(dir) })
					exchange(t, s.a, s.b, 20, func() {})
				}
				assert.EqualValues(t, 1, s.a.Stats().Epoch)
			})
		})
	}
}

// A quiet session stays connected, and costs one PING and its answer, 116 bytes together, each 5 s.
func TestSessionIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, ofA, _ := watched(t, nil, nil)
		defer s.end()
		<-time.After(time.Hour)
		st := s.line.newest().(*mem.Conn).Faults().Stats()
		assert.EqualValues(t, 1, s.a.Stats().Epoch)
		assert.Equal(t, []reconnect.EventKind{reconnect.EventConnected}, ofA.kinds())
		assert.Less(t, st.UpWritten+st.DownWritten, int64(88<<10))
	})
}

// stamped notes when something is written to a connection.
type stamped struct {
	*mem.Conn
	note func()
}

func (c stamped) Write(p []byte) (int, error) {
	c.note()
	return c.Conn.Write(p)
}

func (c stamped) TryWrite(p []byte) (int, error) {
	c.note()
	return c.Conn.TryWrite(p)
}

// Idle sessions of one process ask together, and each in time.
func TestSessionsAskTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions = 200
		ctx := context.Background()
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		go func() {
			for {
				if _, err := l.Accept(ctx); err != nil {
					return
				}
			}
		}()
		var (
			mu      sync.Mutex
			asked   = make([][]time.Time, sessions)
			moments = map[time.Time]bool{}
		)
		begin := time.Now()
		var conns []*reconnect.Conn
		for i := range sessions {
			note := func() {
				mu.Lock()
				defer mu.Unlock()
				if now := time.Now(); now.Sub(begin) > 10*time.Second {
					asked[i] = append(asked[i], now)
					moments[now] = true
				}
			}
			c, err := reconnect.Dial(ctx, transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
				nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
				if err != nil {
					return nil, err
				}
				return stamped{nc.(*mem.Conn), note}, nil
			}), nil)
			require.NoError(t, err)
			conns = append(conns, c)
			<-time.After(7 * time.Millisecond)
		}
		<-time.After(time.Minute)
		mu.Lock()
		for i, times := range asked {
			require.GreaterOrEqual(t, len(times), 9, "session %d", i)
			for k := 1; k < len(times); k++ {
				require.InDelta(t, 5+5./128, times[k].Sub(times[k-1]).Seconds(), 5.01/128, "session %d", i)
			}
		}
		all := len(moments)
		mu.Unlock()
		assert.LessOrEqual(t, all, 55*64/5, "moments in which somebody asked, one each 78 ms at most")
		for _, c := range conns {
			require.NoError(t, c.Close(ctx))
		}
		require.NoError(t, l.Close())
	})
}

// A slow line with one long message, in either direction or both, is not taken for a dead one.
func TestSessionSlowLine(t *testing.T) {
	for name, both := range map[string]bool{"up": false, "both": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memSession(t, nil, nil)
				defer s.end()
				s.net.Faults().SetShape(mem.Both, mem.Shape{Rate: 5000, Latency: 50 * time.Millisecond})
				ctx := context.Background()
				d := datagram.Datagram{Payload: make([]byte, 1<<20)}
				require.NoError(t, s.a.Writer().Send(ctx, d))
				if both {
					require.NoError(t, s.b.Writer().Send(ctx, d))
					got, err := s.a.Reader().Receive(ctx)
					require.NoError(t, err)
					require.Len(t, got.Payload, 1<<20)
				}
				got, err := s.b.Reader().Receive(ctx)
				require.NoError(t, err)
				require.Len(t, got.Payload, 1<<20)
				require.NoError(t, s.a.Writer().Flush(ctx))
				assert.EqualValues(t, 1, s.a.Stats().Epoch)
			})
		})
	}
}

// The goroutines of a session that has nothing to do: one reads at each end, none is there for a session without a
// connection.
func TestSessionGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		ctx := context.Background()
		const sessions = 50
		var dialled, accepted []*reconnect.Conn
		more := func() {
			a, err := reconnect.Dial(ctx, mem.Dialer{Network: n, Addr: "s"}, nil)
			require.NoError(t, err)
			b, err := l.Accept(ctx)
			require.NoError(t, err)
			exchange(t, a, b, 10, func() {})
			dialled, accepted = append(dialled, a), append(accepted, b)
		}
		synctest.Wait()
		before := goroutines()
		require.Equal(t, 1, before, "the one that accepts")
		for range sessions {
			more()
		}
		defer func() {
			for _, c := range slices.Concat(dialled, accepted) {
				c.CloseNow()
			}
		}()
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, 2*sessions, goroutines()-before)
		n.Faults().HangDials(-1, 0)
		n.Faults().Cut(nil)
		synctest.Wait()
		assert.Equal(t, sessions, goroutines()-before, "the dialers'")
		for _, a := range dialled {
			a.CloseNow()
		}
		synctest.Wait()
		assert.Zero(t, goroutines()-before)
		assert.Equal(t, reconnect.Disconnected, accepted[0].State())
	})
}
