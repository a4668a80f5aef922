package redial_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

// One ReadFull of 12 bytes is filled from two connections of 6, by default.
func TestReadAcrossConnections(t *testing.T) {
	for name, cut := range map[string]func(*peers, net.Conn){
		"end of file": func(_ *peers, far net.Conn) { _ = far.Close() },
		"reset":       func(p *peers, _ net.Conn) { p.faults.Cut(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeers(t)
				c, far := p.conn(redial.Dialer{})
				tells(t, far, "foobar")
				done := make(chan string)
				go func() {
					buf := make([]byte, 12)
					n, err := io.ReadFull(c, buf)
					done <- fmt.Sprintf("%d %v %s", n, err, buf)
				}()
				synctest.Wait()
				cut(p, far)
				tells(t, p.next(), "foobar")
				require.Equal(t, "12 <nil> foobarfoobar", <-done)
				require.Equal(t, 2, p.count())
			})
		})
	}
}

// With ReportRead each break is told once, when there is a new connection, and not as the end of a stream.
func TestReportRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{ReportRead: true})
		buf := make([]byte, 12)
		for range 3 {
			tells(t, far, "foobar")
			_ = far.Close()
			n, err := io.ReadFull(c, buf)
			require.Equal(t, 6, n)
			require.ErrorIs(t, err, redial.ErrDisconnected)
			require.NotErrorIs(t, err, io.EOF)
			require.NotErrorIs(t, err, redial.ErrGaveUp)
			require.EqualError(t, err, "redial: disconnected: EOF")
			far = p.next()
		}
		// Nobody read when this one broke: it is told all the same.
		p.faults.Cut(nil)
		p.setDown(false)
		require.Equal(t, 5, (<-writing(c, "hello")).n)
		far = p.next()
		gets(t, far, "hello")
		tells(t, far, "foobar")
		n, err := c.Read(buf)
		require.Zero(t, n)
		require.ErrorIs(t, err, redial.ErrDisconnected)
		require.ErrorIs(t, err, syscall.ECONNRESET)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		n, err = c.Read(buf)
		require.NoError(t, err)
		require.Equal(t, "foobar", string(buf[:n]))
	})
}

func TestEndOnEOF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{EndOnEOF: true})
		tells(t, far, "bye")
		require.NoError(t, far.(*mem.Conn).CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "bye", string(got))
		_, err = c.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "bare, as of any connection")
		tells(t, c, "I heard")
		gets(t, far, "I heard")
		require.Equal(t, redial.Connected, c.State())
		require.Equal(t, 1, p.count())

		// A failure is a disconnect all the same.
		r := reading(c, 6)
		require.Equal(t, io.EOF, (<-r).err)
		p.faults.Cut(nil)
		w := writing(c, "hello")
		far = p.next()
		gets(t, far, "hello")
		require.NoError(t, (<-w).err)
	})
}

// Bytes that come together with an error are the caller's, and counts that no Read may return are not believed.
func TestReadCounts(t *testing.T) {
	for name, c := range map[string]struct {
		n    int
		err  error
		want string
	}{
		"bytes and an error":         {3, reset, "abcnext"},
		"bytes and the end":          {3, io.EOF, "abcnext"},
		"less than nothing":          {-1, reset, "next"},
		"more than there was room":   {1 << 20, reset, "abcdefghnext"},
		"nothing, and nothing wrong": {0, nil, "next"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, _ := mem.Pipe(nil)
				second, far := mem.Pipe(nil)
				reads := 0
				d := redial.Dialer{Endpoints: []transport.Dialer{steps(
					func(context.Context) (net.Conn, error) {
						return odd{Conn: first, read: func(p []byte) (int, error) {
							if reads++; reads > 1 {
								return 0, reset
							}
							copy(p, "abcdefgh")
							return c.n, c.err
						}}, nil
					},
					func(context.Context) (net.Conn, error) { return second, nil },
				)}}
				conn, err := d.Dial(t.Context())
				require.NoError(t, err)
				defer conn.Close()
				tells(t, far, "next")
				var got strings.Builder
				for !strings.HasSuffix(got.String(), "next") {
					p := make([]byte, 8)
					n, err := conn.Read(p)
					require.NoError(t, err)
					require.LessOrEqual(t, n, len(p))
					got.Write(p[:n])
				}
				require.Equal(t, c.want, got.String())
			})
		})
	}
}

// An error that an old connection brings when the new one serves already changes nothing.
func TestStaleErrorChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan struct{})
		oldNear, oldFar := mem.Pipe(nil)
		near, far := mem.Pipe(nil)
		d := steps(
			func(context.Context) (net.Conn, error) {
				return odd{
					Conn:  oldNear,
					read:  func([]byte) (int, error) { <-late; return 0, reset }, // minds no Close
					write: func([]byte) (int, error) { return 0, reset },
				}, nil
			},
			func(context.Context) (net.Conn, error) { return near, nil },
			says(errOwn),
		)
		told := 0
		c, err := (&redial.Dialer{
			Endpoints: []transport.Dialer{d},
			OnDisconnected: func(context.Context, redial.Disconnect) redial.Decision {
				told++
				return redial.Decision{}
			},
		}).Dial(t.Context())
		require.NoError(t, err)
		defer c.Close()
		r := reading(c, 5)
		synctest.Wait()
		require.NoError(t, (<-writing(c, "hello")).err) // the write half notices
		gets(t, far, "hello")
		_, err = oldFar.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "the old connection is closed")
		close(late)
		synctest.Wait()
		require.Equal(t, redial.Connected, c.State())
		tells(t, far, "world")
		require.Equal(t, result{5, "world", nil}, <-r)
		require.Len(t, d.at, 2)
		require.Equal(t, 1, told)
	})
}

// Deadlines end a wait for a connection at once, hold for later connections, and leave the redial alone.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeers(t)
		c, far := p.conn(redial.Dialer{Policy: &redial.Policy{Backoff: every(time.Hour)}})
		start := time.Now()
		require.NoError(t, c.SetDeadline(start.Add(3*time.Second)))
		p.setDown(true)
		_ = far.Close()
		r := reading(c, 1)
		synctest.Wait()
		w := writing(c, "x")
		isTimeout(t, (<-r).err)
		res := <-w
		isTimeout(t, res.err)
		require.Zero(t, res.n)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.ErrorContains(t, res.err, "write")
		require.Equal(t, redial.Redialling, c.State(), "the redial goes on")
		isTimeout(t, (<-reading(c, 1)).err)
		require.Equal(t, 3*time.Second, time.Since(start))

		// One that is set while somebody waits, and one that is taken away.
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		r = reading(c, 1)
		synctest.Wait()
		require.NoError(t, c.SetReadDeadline(time.Now().Add(-time.Second)))
		isTimeout(t, (<-r).err)
		require.Equal(t, 3*time.Second, time.Since(start))
		require.NoError(t, c.SetDeadline(time.Time{}))
		r = reading(c, 4)
		p.setDown(false)
		far = p.next()
		require.Equal(t, time.Hour, time.Since(start).Truncate(time.Minute))
		tells(t, far, "back")
		require.Equal(t, result{4, "back", nil}, <-r)

		// A deadline that was set on one connection is that of the next.
		now := time.Now()
		require.NoError(t, c.SetReadDeadline(now.Add(time.Minute)))
		_ = far.Close()
		_, err := c.Read(make([]byte, 1))
		isTimeout(t, err)
		require.Equal(t, time.Minute, time.Since(now))
		require.Equal(t, redial.Connected, c.State())
		_, err = c.Read(make([]byte, 1))
		isTimeout(t, err)
		require.NoError(t, c.SetWriteDeadline(now))
		n, err := c.Write([]byte("x"))
		require.Zero(t, n)
		isTimeout(t, err)
		require.NotErrorIs(t, err, os.ErrClosed)
	})
}
