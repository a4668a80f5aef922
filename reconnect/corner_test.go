package reconnect_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
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

// hooked is a connection whose calls a test can replace.
type hooked struct {
	*mem.Conn
	read     func(p []byte) (int, error)
	tryWrite func(p []byte) (int, error)
	close    func() error
	closeNow func() error
}

func (h *hooked) Read(p []byte) (int, error) {
	if h.read != nil {
		return h.read(p)
	}
	return h.Conn.Read(p)
}

func (h *hooked) TryWrite(p []byte) (int, error) {
	if h.tryWrite != nil {
		return h.tryWrite(p)
	}
	return h.Conn.TryWrite(p)
}

func (h *hooked) Close() error {
	if h.close != nil {
		return h.close()
	}
	return h.Conn.Close()
}

func (h *hooked) CloseNow() error {
	if h.closeNow != nil {
		return h.closeNow()
	}
	return h.Conn.Close()
}

func hook(t *testing.T) (*hooked, *reconnect.Conn, *mem.Conn) {
	nc, peer := mem.Pipe(nil)
	h := &hooked{Conn: nc}
	c := reconnect.NewPlain(h, nil)
	t.Cleanup(func() { c.CloseNow(); nc.Close(); peer.Close() })
	return h, c, peer
}

// ETIMEDOUT is a timeout as well, and means that the peer is gone: that a context ended at the same time does not make it go
// away, or the end of the stream behind it would look like the peer's own.
func TestDeadPeerIsNotTakenForAnEndedContext(t *testing.T) {
	h, c, _ := hook(t)
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	h.read = func([]byte) (int, error) {
		reads++
		if reads > 1 {
			return 0, io.EOF
		}
		cancel()
		return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	}
	_, err := c.Reader().Receive(ctx)
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	_, err = c.Reader().Receive(t.Context())
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	require.Equal(t, 1, reads)
}

func TestCloseEndsAReceiveThatWaits(t *testing.T) {
	overPairs(t, nil, func(t *testing.T, a, b *reconnect.Conn) {
		ctx := bounded(t)
		received := make(chan error, 1)
		began := make(chan struct{})
		go func() {
			close(began)
			_, err := a.Reader().Receive(context.Background())
			received <- err
		}()
		<-began
		go func() { // the peer ends its side when it sees this one's end
			for range b.Reader().All(ctx) {
			}
			assert.NoError(t, b.CloseSend(ctx))
		}()
		require.NoError(t, a.Close(ctx))
		require.ErrorIs(t, <-received, reconnect.ErrClosed)
	})
}

// Close takes over the reading from a Receive that its context had interrupted before, and sees the peer's end.
func TestCloseAfterInterruptedReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, nil, nil)
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := a.Reader().Receive(short)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		go func() { _, _ = a.Reader().Receive(context.Background()) }()
		synctest.Wait()
		time.AfterFunc(2*time.Second, func() { assert.NoError(t, b.CloseSend(context.Background())) })
		start := time.Now()
		require.NoError(t, a.Close(context.Background()))
		assert.Equal(t, 2*time.Second, time.Since(start), "neither at once nor after the whole linger time")
	})
}

func TestFullChannelDoesNotOutliveClose(t *testing.T) {
	for name, end := range map[string]func(*reconnect.Conn){
		"CloseNow": func(c *reconnect.Conn) { c.CloseNow() },
		"Close":    func(c *reconnect.Conn) { c.Close(canceled(context.Background())) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // it fails if a goroutine is left
				a, b := memPair(t, nil, nil)
				for range 100 {
					require.NoError(t, a.Writer().Send(context.Background(), text(1, "nobody takes it")))
				}
				got := b.Reader().C()
				synctest.Wait()
				end(b)
				taken := 0
				for range got {
					taken++
				}
				assert.LessOrEqual(t, taken, 64)
			})
		})
	}
}

func TestFlushCoversTheChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, &reconnect.PlainOptions{SendBuffer: 2 << 10})
		d := datagram.Datagram{Payload: make([]byte, 3<<10)}
		out := a.Writer().C()
		for range 3 { // the last one has no room in the queue
			out <- d
		}
		flushed := make(chan error, 1)
		go func() { flushed <- a.Writer().Flush(context.Background()) }()
		synctest.Wait()
		assert.Empty(t, flushed)
		for range 3 {
			_, err := b.Reader().Receive(context.Background())
			require.NoError(t, err)
		}
		require.NoError(t, <-flushed)
		assert.Zero(t, a.Stats().Queued)
	})
}

// Flush is about what came before it: others who send on and on do not hold it up.
func TestFlushDoesNotWaitForLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, nil)
		require.NoError(t, a.Writer().Send(context.Background(), datagram.Datagram{Payload: make([]byte, 2<<10)}))
		flushed := make(chan error, 1)
		go func() { flushed <- a.Writer().Flush(context.Background()) }()
		synctest.Wait()
		require.NoError(t, a.Writer().Send(context.Background(), datagram.Datagram{Payload: make([]byte, 4<<10)}))
		_, err := b.Reader().Receive(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, <-flushed)
		assert.EqualValues(t, 1, a.Stats().Queued)
	})
}

// After CloseSend, also one whose context ended, the channel takes nothing, and Done says so.
func TestChannelTakesNothingAfterCloseSend(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, &reconnect.PlainOptions{SendBuffer: 2 << 10})
			out := a.Writer().C()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			sent := 1
			out <- text(1, "first")
			if ended {
				for full := false; !full; {
					synctest.Wait()
					select {
					case out <- datagram.Datagram{Payload: make([]byte, 3<<10)}:
						sent++
					default:
						full = true
					}
				}
				var unsent *reconnect.CloseError
				require.ErrorAs(t, a.CloseSend(ctx), &unsent)
				assert.Equal(t, a.Stats().Queued+1, unsent.Unsent, "one waits in the channel's goroutine")
			} else {
				require.NoError(t, a.CloseSend(ctx))
			}
			<-a.Writer().Done()
			synctest.Wait()
			select {
			case out <- text(1, "too late"):
				t.Error("taken")
			default:
			}
			got := 0
			for _, err := range b.Reader().All(context.Background()) {
				require.NoError(t, err)
				got++
			}
			if ended {
				sent-- // what the channel's goroutine held when its connection stopped accepting
			}
			assert.Equal(t, sent, got)
			require.NoError(t, a.Err(), "receiving goes on")
		})
	}
}

// CloseSend while a sender writes by itself: the end still comes, after all else.
func TestCloseSendDuringALoneWrite(t *testing.T) {
	h, c, peer := hook(t)
	writing, goOn := make(chan struct{}), make(chan struct{})
	h.tryWrite = func(p []byte) (int, error) {
		close(writing)
		<-goOn
		return h.Conn.TryWrite(p)
	}
	ctx := bounded(t)
	sent := make(chan error, 1)
	go func() { sent <- c.Writer().Send(ctx, text(1, "x")) }()
	<-writing
	closed := make(chan error, 1)
	go func() { closed <- c.CloseSend(ctx) }()
	<-c.Writer().Done()
	close(goOn)
	require.NoError(t, <-sent)
	require.NoError(t, <-closed)
	got, err := io.ReadAll(peer)
	require.NoError(t, err)
	assert.Len(t, got, 9)
}

// A transport may wait in its Close: neither the context of Close nor CloseNow waits with it.
func TestTransportThatWaitsInClose(t *testing.T) {
	for _, by := range []string{"context", "CloseNow", "second Close"} {
		t.Run(by, func(t *testing.T) {
			h, c, peer := hook(t)
			inClose, released := make(chan struct{}), make(chan struct{})
			first := true
			h.close = func() error {
				if first {
					first = false
					close(inClose)
					<-released
				}
				return h.Conn.Close()
			}
			cut := false
			h.closeNow = func() error {
				if !cut {
					cut = true
					close(released)
				}
				return nil
			}
			require.NoError(t, peer.CloseWrite()) // no need to linger
			ctx, cancel := context.WithCancel(bounded(t))
			defer cancel()
			closed := make(chan error, 1)
			go func() { closed <- c.Close(ctx) }()
			<-inClose
			switch by {
			case "context":
				cancel()
			case "CloseNow":
				require.NoError(t, c.CloseNow())
			case "second Close":
				require.NoError(t, c.Close(canceled(ctx)))
			}
			require.NoError(t, <-closed, "everything had been written")
			<-released
		})
	}
}

// Senders that wait are woken as soon as there is room, not when all is written.
func TestSendersWakeBeforeTheQueueIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memPair(t, &mem.Config{Buffer: 1 << 10}, &reconnect.PlainOptions{SendBuffer: 4 << 10})
		d := datagram.Datagram{Payload: make([]byte, 3<<10)}
		for range 2 {
			require.NoError(t, a.Writer().Send(context.Background(), d))
		}
		third := make(chan error, 1)
		go func() { third <- a.Writer().Send(context.Background(), d) }()
		synctest.Wait()
		require.Empty(t, third)
		_, err := b.Reader().Receive(context.Background())
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, <-third)
		assert.NotZero(t, a.Stats().Queued)
	})
}

func TestFramingThatMakesNothing(t *testing.T) {
	a, _ := mem.Pipe(nil)
	c := reconnect.NewPlain(a, &reconnect.PlainOptions{Framing: nothing{}})
	defer c.CloseNow()
	require.ErrorIs(t, c.Writer().Send(t.Context(), text(1, "x")), datagram.ErrFraming)
	require.NoError(t, c.Writer().Flush(bounded(t)))
}

type nothing struct{}

func (nothing) Append(dst []byte, _ datagram.Datagram) ([]byte, error) { return dst, nil }
func (nothing) Next([]byte, int) (d datagram.Datagram, n, need int, err error) {
	return d, 0, 0, errors.ErrUnsupported
}
