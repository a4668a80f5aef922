package reconnect_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// Of the sessions that share a limit no more dial at once, at the beginning and when all are cut; and all get through.
func TestDialLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const sessions, limit, slow = 20, 3, 100 * time.Millisecond
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		var now, most atomic.Int32
		d := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			if k := now.Add(1); k > most.Load() {
				most.Store(k)
			}
			defer now.Add(-1)
			<-time.After(slow)
			return mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
		})
		o := &reconnect.DialOptions{Limit: reconnect.NewDialLimit(limit)}
		var all []*reconnect.Conn
		begin := time.Now()
		for range sessions {
			c := reconnect.Open(d, o)
			defer c.CloseNow()
			all = append(all, c)
		}
		live := func() (n int) {
			for _, c := range all {
				if c.State() == reconnect.Connected {
					n++
				}
			}
			return n
		}
		<-time.After(slow + slow/2)
		synctest.Wait()
		assert.Equal(t, limit, live(), "an answered one gives its turn to the next at once")
		<-time.After((sessions - 1) / limit * slow)
		synctest.Wait()
		require.Equal(t, sessions, live(), time.Since(begin))
		assert.EqualValues(t, limit, most.Load())

		most.Store(0)
		for _, c := range all {
			c.NetConn().(*mem.Conn).Faults().Cut(nil)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		assert.Equal(t, sessions, live())
		assert.EqualValues(t, limit, most.Load())
	})
}

// A server that takes connections and does not answer holds a turn for a second, and one that cannot be reached gives it
// back when the attempt has failed.
func TestDialLimitOfTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		silent := listenMem(t, n, "silent")
		defer silent.Close()
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		limit := &reconnect.DialOptions{Limit: reconnect.NewDialLimit(1)}
		begin := time.Now()
		mute := reconnect.Open(mem.Dialer{Network: n, Addr: "silent"}, limit)
		defer mute.CloseNow()
		synctest.Wait()
		good, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, limit)
		require.NoError(t, err)
		defer good.CloseNow()
		assert.Equal(t, time.Second, time.Since(begin))

		limit = &reconnect.DialOptions{Limit: reconnect.NewDialLimit(1)}
		nobody := reconnect.Open(mem.Dialer{Network: n, Addr: "nobody"}, limit)
		defer nobody.CloseNow()
		begin = time.Now()
		again, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, limit)
		require.NoError(t, err)
		defer again.CloseNow()
		assert.Zero(t, time.Since(begin))
	})
}

// A queue that is longer than an attempt may take is no failure of those that stand in it; what the program's own hook says
// is asked first.
func TestDialLimitIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mutes = 30 // each a second
		n := new(mem.Network)
		silent := listenMem(t, n, "silent")
		defer silent.Close()
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		limit := reconnect.NewDialLimit(1)
		for range mutes {
			c := reconnect.Open(mem.Dialer{Network: n, Addr: "silent"}, &reconnect.DialOptions{Limit: limit})
			defer c.CloseNow()
		}
		synctest.Wait()
		asked := 0
		begin := time.Now()
		c, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
			Limit: limit,
			Redial: &redial.Policy{OnAttempt: func(context.Context) error {
				assert.Zero(t, time.Since(begin))
				asked++
				return nil
			}},
			SessionOptions: reconnect.SessionOptions{OnEvent: func(_ *reconnect.Conn, e reconnect.Event) {
				assert.NotEqual(t, reconnect.EventDialFailed, e.Kind, "%v", e.Err)
			}},
		})
		require.NoError(t, err)
		c.CloseNow()
		assert.Equal(t, 1, asked)
		assert.Equal(t, mutes*time.Second, time.Since(begin))

		errNot := errors.New("not today")
		_, err = reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{
			Limit: limit, Redial: &redial.Policy{OnAttempt: func(context.Context) error { return errNot }},
		})
		require.ErrorIs(t, err, errNot)
	})
}

// Who waits for a turn can be called off at once, and takes none with it.
func TestDialLimitCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		limit := &reconnect.DialOptions{Limit: reconnect.NewDialLimit(1)}
		hangs := reconnect.Open(transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}), limit)
		synctest.Wait()
		begin := time.Now()
		waits := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, limit)
		synctest.Wait()
		waits.CloseNow()
		synctest.Wait()
		assert.Equal(t, reconnect.Closed, waits.State())
		assert.Zero(t, time.Since(begin))
		hangs.CloseNow()
		c, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, limit)
		require.NoError(t, err)
		assert.Zero(t, time.Since(begin))
		c.CloseNow()
		c, err = reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, &reconnect.DialOptions{Limit: new(reconnect.DialLimit)})
		require.NoError(t, err)
		c.CloseNow()
	})
	assert.Panics(t, func() { reconnect.NewDialLimit(0) })
}

// A session that ends before its answer gives its turn back.
func TestDialLimitOfTheClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(mem.Network)
		silent := listenMem(t, n, "silent")
		defer silent.Close()
		l := reconnect.NewListener(listenMem(t, n, "s"), nil)
		defer l.Close()
		limit := &reconnect.DialOptions{Limit: reconnect.NewDialLimit(1)}
		mute := reconnect.Open(mem.Dialer{Network: n, Addr: "silent"}, limit)
		synctest.Wait()
		begin := time.Now()
		mute.CloseNow()
		synctest.Wait()
		good, err := reconnect.Dial(context.Background(), mem.Dialer{Network: n, Addr: "s"}, limit)
		require.NoError(t, err)
		defer good.CloseNow()
		assert.LessOrEqual(t, time.Since(begin), 20*time.Millisecond)
	})
}
