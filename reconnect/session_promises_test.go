package reconnect_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// A first frame that is too long is refused from its header: nothing more is waited for, read, or made room for.
func TestFirstFrameIsRefusedFromItsHeader(t *testing.T) {
	for size, refused := range map[uint32]bool{
		0: true, 3: true, 4: false, datagram.MaxControl - 4: false, datagram.MaxControl - 3: true,
		datagram.MaxControl: true, 16 << 20: true, 1<<32 - 1: true,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := new(mem.Network)
				l := reconnect.NewListener(listenMem(t, n, "s"), nil)
				defer l.Close()
				nc, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(t.Context())
				require.NoError(t, err)
				defer nc.Close()
				h := binary.BigEndian.AppendUint32(nil, size)
				h = append(h, 0, 2, 0, 1)
				begin := time.Now()
				_, err = nc.Write(h)
				require.NoError(t, err)
				back, _ := io.Copy(io.Discard, nc)
				if size == 4 {
					return // whole
				}
				if refused {
					assert.Zero(t, time.Since(begin))
				} else {
					assert.Equal(t, reconnect.DefaultHandshakeTimeout, time.Since(begin))
				}
				assert.Zero(t, back)
			})
		})
	}
}

// A session that is to expire sooner than those that wait already does.
func TestSoonerExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		a := p.dial(nil)
		defer a.CloseNow()
		b := p.accept()
		defer b.CloseNow()
		exchange(t, a, b, 10, func() {})
		p.net.Faults().HangDials(-1, 0)
		p.net.Faults().Cut(nil)
		synctest.Wait()
		<-time.After(time.Second)
		require.Equal(t, reconnect.Disconnected, b.State()) // for two minutes
		p.net.Faults().HangDials(0, 0)
		g, nc := newGreeter(t), p.raw()
		g.welcome(g.say(nc, g.hello(1)))
		c := p.accept()
		defer c.CloseNow()
		nc.Close()
		begin := time.Now()
		<-c.Done()
		assert.InDelta(t, 30*time.Second, time.Since(begin), float64(time.Second))
	})
}

// wanting is a net.Listener that never has a descriptor.
type wanting struct {
	once sync.Once
	end  chan struct{}
}

func (w *wanting) Accept() (net.Conn, error) {
	select {
	case <-w.end:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
}
func (w *wanting) Close() error   { w.once.Do(func() { close(w.end) }); return nil }
func (w *wanting) Addr() net.Addr { return &net.TCPAddr{} }

// Close does not wait until another Accept is due.
func TestCloseDuringAcceptWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := reconnect.NewListener(&wanting{end: make(chan struct{})}, nil)
		<-time.After(time.Minute + 500*time.Millisecond)
		start := time.Now()
		require.NoError(t, l.Close())
		assert.Zero(t, time.Since(start))
	})
}

// CloseNow cuts the farewell to a peer short that does not read it.
func TestCloseNowCutsTheGoodbyeShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, nil)
		defer p.Close()
		g, nc := newGreeter(t), p.raw()
		defer nc.Close()
		g.welcome(g.say(nc, g.hello(1)))
		b := p.accept()
		require.NoError(t, b.Writer().Send(t.Context(), datagram.Datagram{Payload: make([]byte, 200_000)}))
		synctest.Wait()
		_, err := nc.Write([]byte{0, 0, 0, 4, 0, 2, 0, 99})
		require.NoError(t, err)
		_, err = b.Reader().Receive(t.Context())
		require.ErrorIs(t, err, reconnect.ErrProtocol)
		synctest.Wait()
		start := time.Now()
		require.NoError(t, b.CloseNow())
		<-b.Done()
		assert.LessOrEqual(t, time.Since(start), 20*time.Millisecond)
	})
}

// A connection that has taken much and then stands still: the buffer is filled all the same.
func TestBufferIsFilledBehindAFrozenLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memSession(t, nil, nil)
		defer s.end()
		exchange(t, s.a, s.b, 100, func() {})
		s.line.newest().(*mem.Conn).Faults().Freeze(mem.Both)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // far less than it takes to notice
		defer cancel()
		for range 64 {
			require.NoError(t, s.a.Writer().Send(ctx, datagram.Datagram{Payload: make([]byte, 64<<10)}))
		}
		assert.GreaterOrEqual(t, s.a.Stats().UnconfirmedBytes, 4<<20)
	})
}

// Flush covers what the channel took before it, however lately.
func TestFlushCoversTheNewest(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *reconnect.Conn) {
		for i := range 200 {
			a.Writer().C() <- text(0, "x")
			require.NoError(t, a.Writer().Flush(t.Context()))
			require.EqualValues(t, i+1, a.Stats().Sent)
			require.Zero(t, a.Stats().Queued)
			_, err := b.Reader().Receive(t.Context())
			require.NoError(t, err)
		}
	})
}
