package redial_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// A Write that broke in the middle is sent again from its first byte, and n says what the caller asked for.
func TestWriteIsSentAgainWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{})
		p.control(1).FailWrite(mem.Up, 1, 3, syscall.ECONNRESET)
		w := writing(c, "foobar")
		next := p.next()
		require.Equal(t, result{n: 6}, <-w)
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		require.Equal(t, "foo", string(got))
		gets(t, next, "foobar")
		require.Equal(t, 2, p.count())
	})
}

func TestReportWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{ReportWrite: true})
		p.control(1).FailWrite(mem.Up, 1, 3, syscall.ECONNRESET)
		n, err := c.Write([]byte("foobar"))
		require.Equal(t, 3, n)
		require.ErrorIs(t, err, redial.ErrDisconnected)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.NotErrorIs(t, err, redial.ErrGaveUp)
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		require.Equal(t, "foo", string(got))
		far = p.next()
		require.Equal(t, result{n: 5}, <-writing(c, "again"))
		gets(t, far, "again")
	})
}

// What a Write returns beside an error is never more than a connection took that is still there.
func TestWriteCounts(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		err  error
		sent bool // again
		want int
	}{
		"part and an error":        {3, reset, true, 6},
		"less than nothing":        {-1, reset, true, 6},
		"more than there is":       {100, nil, false, 6},
		"part and nothing wrong":   {3, nil, true, 6},
		"part, and the time is up": {3, &net.OpError{Op: "write", Err: timeout{}}, false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, _ := mem.Pipe(nil)
				second, far := mem.Pipe(nil)
				d := redial.Dialer{Endpoints: []transport.Dialer{steps(
					func(context.Context) (net.Conn, error) {
						return odd{Conn: first, write: func([]byte) (int, error) { return c.n, c.err }}, nil
					},
					func(context.Context) (net.Conn, error) { return second, nil },
				)}}
				conn, err := d.Dial(t.Context())
				require.NoError(t, err)
				defer conn.Close()
				n, err := conn.Write([]byte("foobar"))
				require.Equal(t, c.want, n)
				require.Equal(t, c.want == 6, err == nil, "%v", err)
				if c.sent {
					gets(t, far, "foobar")
				}
			})
		})
	}
}

// timeout is the error of a deadline.
type timeout struct{}

func (timeout) Error() string        { return "time is up" }
func (timeout) Timeout() bool        { return true }
func (timeout) Temporary() bool      { return true }
func (timeout) Is(target error) bool { return target.Error() == "i/o timeout" }

// While one redial runs, all others wait for it, and none fails or dials for itself.
func TestAllWaitForOneRedial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{Policy: &redial.Policy{Backoff: every(time.Minute)}})
		p.setDown(true)
		_ = far.Close()
		first := reading(c, 1) // notices
		synctest.Wait()

		var wg sync.WaitGroup
		results := make(chan result, 101)
		for range 50 {
			wg.Go(func() { results <- <-writing(c, "w") })
			wg.Go(func() { results <- <-reading(c, 1) })
		}
		synctest.Wait()
		require.Equal(t, redial.Redialling, c.State())
		require.Equal(t, 1, p.count(), "it was of no use, so there is a wait")
		p.setDown(false)
		far = p.next()
		gets(t, far, strings.Repeat("w", 50))
		tells(t, far, strings.Repeat("r", 51))
		wg.Wait()
		results <- <-first
		for range 101 {
			r := <-results
			require.NoError(t, r.err)
			require.Equal(t, 1, r.n)
		}
		require.Equal(t, 2, p.count())
	})
}

// ReadFrom loses nothing that it has read, and WriteTo gives all that comes; both count right.
func TestReadFromAndWriteTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{})
		source, sink := mem.Pipe(nil)
		done := make(chan result, 1)
		go func() {
			n, err := io.Copy(c, sink) // ReadFrom
			done <- result{n: int(n), err: err}
		}()
		tells(t, source, "foo")
		gets(t, far, "foo")
		p.control(1).FailWrite(mem.Up, 1, 1, syscall.ECONNRESET)
		tells(t, source, "bar")
		far = p.next()
		gets(t, far, "bar")
		_ = source.Close()
		require.Equal(t, result{n: 6}, <-done)

		var got strings.Builder
		go func() {
			n, err := io.Copy(&got, c) // WriteTo
			done <- result{n: int(n), err: err}
		}()
		tells(t, far, "foo")
		_ = far.Close()
		far = p.next()
		tells(t, far, "bar")
		synctest.Wait()
		_ = c.Close()
		res := <-done
		require.Equal(t, 6, res.n)
		require.ErrorIs(t, res.err, net.ErrClosed)
		require.Equal(t, "foobar", got.String())
	})
}
