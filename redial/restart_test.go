package redial_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// restarting is a TCP server on one port that can be stopped, its connections with it, and started again.
type restarting struct {
	t    testing.TB
	addr string
	each func(net.Conn) // serves one connection

	mu    sync.Mutex
	ln    net.Listener
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// restartable starts a server on a port below those that the system gives to clients, so that none of them can take it
// while it is down.
func restartable(t testing.TB, each func(net.Conn)) *restarting {
	s := &restarting{t: t, each: each}
	for range 1000 {
		s.addr = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if ln, err := net.Listen("tcp", s.addr); err == nil {
			s.serve(ln)
			t.Cleanup(s.stop)
			return s
		}
	}
	require.FailNow(t, "there is no port")
	return nil
}

func (s *restarting) serve(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln, s.conns = ln, make(map[net.Conn]bool)
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.ln != ln {
				s.mu.Unlock()
				_ = c.Close()
				return
			}
			s.conns[c] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.each(c); _ = c.Close() })
		}
	})
}

func (s *restarting) start() {
	ln, err := net.Listen("tcp", s.addr)
	require.NoError(s.t, err)
	s.serve(ln)
}

func (s *restarting) stop() {
	s.mu.Lock()
	if s.ln != nil {
		_ = s.ln.Close()
		s.ln = nil
	}
	for c := range s.conns {
		if rand.IntN(2) == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset, and not the end of the stream
		}
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

const messageSize = 16

// message is the nth of a sender: what it says can be checked.
func message(sender, n uint32) []byte {
	p := make([]byte, messageSize)
	binary.BigEndian.PutUint32(p, sender)
	binary.BigEndian.PutUint32(p[4:], n)
	binary.BigEndian.PutUint64(p[8:], ^binary.BigEndian.Uint64(p))
	return p
}

func isMessage(p []byte) bool {
	return binary.BigEndian.Uint64(p[8:]) == ^binary.BigEndian.Uint64(p)
}

// A hundred goroutines write, or read, while the server is stopped and started again ten times, each time after some
// traffic and some refused dials. None sees an error, until the server stays away and the policy gives up.
func TestTenRestarts(t *testing.T) {
	for _, conns := range []int{1, 100} {
		for _, half := range []string{"write", "read"} {
			t.Run(fmt.Sprintf("%s, 100 goroutines on %d", half, conns), func(t *testing.T) {
				var traffic, broken, refused atomic.Int64
				pace := time.NewTicker(50 * time.Microsecond) // of what is sent to 100 readers by two cores
				defer pace.Stop()
				s := restartable(t, func(c net.Conn) {
					p := make([]byte, messageSize)
					for n := uint32(0); ; n++ {
						var err error
						if half == "write" {
							if _, err = io.ReadFull(c, p); err == nil && !isMessage(p) {
								broken.Add(1)
							}
						} else {
							<-pace.C
							_, err = c.Write(message(0, n))
						}
						if err != nil {
							return
						}
						traffic.Add(1)
					}
				})
				d := redial.Dialer{
					Endpoints: []transport.Dialer{tcp.Dialer{Addr: s.addr}},
					Policy: &redial.Policy{
						Backoff:   func() redial.Backoff { return &redial.Jitter{First: time.Millisecond, Max: 5 * time.Millisecond} },
						OnFailure: hears(func(redial.Failure) { refused.Add(1) }),
					},
				}
				var all []*redial.Conn
				for range conns {
					c, err := d.Dial(t.Context())
					require.NoError(t, err)
					defer c.Close()
					all = append(all, c)
				}
				errs := make(chan error, 100)
				for g := range 100 {
					c := all[g%conns]
					go func() {
						buf := make([]byte, 4096)
						for n := uint32(0); ; n++ {
							var size int
							var err error
							if half == "write" {
								size, err = c.Write(message(uint32(g), n))
								if err == nil && size != messageSize {
									err = fmt.Errorf("wrote %d", size)
								}
							} else {
								size, err = c.Read(buf)
								if err == nil && (size < 1 || size > len(buf)) {
									err = fmt.Errorf("read %d", size)
								}
							}
							if err != nil {
								errs <- err
								return
							}
							runtime.Gosched()
						}
					}()
				}
				reach := func(count *atomic.Int64, more int64) {
					t.Helper()
					want := count.Load() + more
					require.Eventually(t, func() bool { return count.Load() >= want }, time.Minute, time.Millisecond)
				}
				for range 10 {
					reach(&traffic, 1+rand.Int64N(300))
					s.stop()
					reach(&refused, rand.Int64N(5))
					s.start()
				}
				reach(&traffic, 300)
				require.Empty(t, errs)
				for _, c := range all {
					p := c.Policy()
					p.MaxAttempts = 3
					c.SetPolicy(&p)
				}
				s.stop()
				for range 100 {
					require.ErrorIs(t, <-errs, redial.ErrGaveUp)
				}
				require.Zero(t, broken.Load(), "each Write came whole")
			})
		}
	}
}

// The Write after a server was restarted finds out before it is lost, though the system would take it.
func TestWriteAfterARestart(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no way to look")
	}
	got := make(chan string, 100)
	s := restartable(t, func(c net.Conn) {
		p := make([]byte, 100)
		for {
			n, err := c.Read(p)
			if err != nil {
				return
			}
			got <- string(p[:n])
		}
	})
	var raw net.Conn // of the newest connection; set while the Write waits
	c, err := (&redial.Dialer{
		Endpoints: []transport.Dialer{tcp.Dialer{Addr: s.addr}},
		Policy: &redial.Policy{
			Backoff: every(time.Millisecond),
			OnConnected: func(_ context.Context, c redial.Connection) error {
				raw = c.Conn
				return nil
			},
		},
	}).Dial(t.Context())
	require.NoError(t, err)
	defer c.Close()
	for i := range 20 {
		s.stop()
		s.start()
		// Wait until this system has heard of it. Read says so, on a connection that nobody else reads from.
		require.NoError(t, raw.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err := raw.Read(make([]byte, 1))
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
		want := fmt.Sprint("message ", i)
		tells(t, c, want)
		require.Equal(t, want, <-got)
	}
}

// A program as it stands beside net.Dial, with the import and the check of the error changed.
func TestDialAsNetDial(t *testing.T) {
	var received, refusals atomic.Int64
	s := restartable(t, func(c net.Conn) {
		p := make([]byte, 4096)
		for {
			n, err := c.Read(p)
			received.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	program := func() error {
		conn, err := redial.Dial("tcp", s.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		p := conn.(*redial.Conn).Policy()
		p.Backoff = func() redial.Backoff { return &redial.Jitter{First: time.Millisecond, Max: 5 * time.Millisecond} }
		p.OnFailure = func(context.Context, redial.Failure) redial.Decision {
			if refusals.Add(1) < 100 {
				return redial.Decision{}
			}
			return redial.Decision{Do: redial.Stop}
		}
		conn.(*redial.Conn).SetPolicy(&p)
		for {
			if _, err := conn.Write([]byte("Hello, World!\n")); err != nil {
				return err
			}
		}
	}
	done := make(chan error)
	go func() { done <- program() }()
	for range 3 {
		had := received.Load()
		require.Eventually(t, func() bool { return received.Load() > had }, time.Minute, time.Millisecond)
		s.stop()
		s.start()
	}
	s.stop()
	require.ErrorIs(t, <-done, redial.ErrGaveUp)
	require.ErrorIs(t, program(), redial.ErrGaveUp, "the first dial is tried once")
}
