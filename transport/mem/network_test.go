package mem_test

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

	"github.com/towline-mq/towline/transport/mem"
)

func TestNamesAreTakenAndFreed(t *testing.T) {
	var n, other mem.Network
	cfg := &mem.Config{Network: &n}
	l, err := mem.Listen(t.Context(), "x", cfg)
	require.NoError(t, err)
	require.Equal(t, mem.Addr("x"), l.Addr())
	require.Equal(t, "mem", l.Addr().Network())

	_, err = mem.Listen(t.Context(), "x", cfg)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "listen", op.Op)
	require.Equal(t, "mem", op.Net)

	elsewhere, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &other})
	require.NoError(t, err, "networks share no names")
	require.NoError(t, elsewhere.Close())

	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), net.ErrClosed)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
	again, err := mem.Listen(t.Context(), "x", cfg)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestFreshNamesAreUnique(t *testing.T) {
	var n mem.Network
	seen := map[string]bool{}
	for _, name := range []string{"mem:2", "", "", "", "a:0", "a:0", ":0"} {
		l, err := mem.Listen(t.Context(), name, &mem.Config{Network: &n})
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		got := l.Addr().String()
		require.NotEmpty(t, got)
		require.NotContains(t, seen, got)
		require.NotRegexp(t, ":0$", got)
		seen[got] = true
	}
}

func TestListenAndDialErrors(t *testing.T) {
	var n mem.Network
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := mem.Listen(t.Context(), "x", nil)
	require.ErrorIs(t, err, mem.ErrNoNetwork)
	_, err = mem.Dialer{Addr: "x"}.DialContext(t.Context())
	require.ErrorIs(t, err, mem.ErrNoNetwork)
	_, err = mem.Listen(ended, "x", &mem.Config{Network: &n})
	require.ErrorIs(t, err, context.Canceled)
	_, err = mem.Dialer{Network: &n, Addr: "x"}.DialContext(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, err = mem.Dialer{Network: &n, Addr: "x"}.DialContext(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "dial", op.Op)
	require.Equal(t, mem.Addr("x"), op.Addr)
}

func TestAddresses(t *testing.T) {
	var n mem.Network
	c, s := dialed(t, &n, mem.Config{})
	c2, _ := dialed(t, &n, mem.Config{})
	require.Equal(t, c.LocalAddr(), s.RemoteAddr())
	require.Equal(t, c.RemoteAddr(), s.LocalAddr())
	require.NotEqual(t, c.LocalAddr(), c.RemoteAddr())
	require.NotEqual(t, c.LocalAddr(), c2.LocalAddr())
	a, b := pipe(t, nil)
	require.NotEqual(t, a.LocalAddr(), b.LocalAddr())
	require.Equal(t, a.LocalAddr(), b.RemoteAddr())
}

func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n mem.Network
		l, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &n, Backlog: 2})
		require.NoError(t, err)
		d := mem.Dialer{Network: &n, Addr: "x"}
		first, err := d.DialContext(t.Context())
		require.NoError(t, err)
		second, err := d.DialContext(t.Context())
		require.NoError(t, err, "a dial completes without Accept")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = d.DialContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, isTimeout(err))

		third := make(chan net.Conn)
		go func() {
			c, err := d.DialContext(t.Context())
			assert.NoError(t, err)
			third <- c
		}()
		synctest.Wait()
		select {
		case <-third:
			t.Error("dialled beyond the backlog")
		default:
		}
		s, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, first.LocalAddr(), s.RemoteAddr(), "first come, first accepted")
		c := <-third

		fourth := make(chan error)
		go func() {
			_, err := d.DialContext(t.Context())
			fourth <- err
		}()
		synctest.Wait()
		require.NoError(t, l.Close())
		require.ErrorIs(t, <-fourth, syscall.ECONNREFUSED)
		for _, queued := range []net.Conn{second, c} {
			_, err = queued.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET, "nobody will accept it")
			require.NoError(t, queued.Close())
		}
		_, err = io.WriteString(s, "the accepted one lives")
		require.NoError(t, err)
		_, _ = s.Close(), first.Close()
		require.Zero(t, n.Faults().Stats().Live)
		require.Equal(t, 3, n.Faults().Stats().Conns)
	})
}

func TestRefuseDials(t *testing.T) {
	var n mem.Network
	var listening, dialing mem.Faults
	l, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &n, Faults: &listening})
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	d := mem.Dialer{Network: &n, Addr: "x", Faults: &dialing}
	dial := func() error {
		c, err := d.DialContext(t.Context())
		if err == nil {
			_ = c.Close()
		}
		return err
	}

	boom := errors.New("boom")
	for name, f := range map[string]*mem.Faults{"network": n.Faults(), "listener": &listening, "dialer": &dialing} {
		f.RefuseDials(2, nil)
		require.ErrorIs(t, dial(), syscall.ECONNREFUSED, name)
		require.ErrorIs(t, dial(), syscall.ECONNREFUSED, name)
		require.NoError(t, dial(), name)
		f.RefuseDials(-1, boom)
		for range 3 {
			require.ErrorIs(t, dial(), boom, name)
		}
		f.RefuseDials(0, nil)
		require.NoError(t, dial(), name)
		require.Equal(t, 5, f.Stats().Refused, name)
	}
	require.Equal(t, 21, dialing.Stats().Dials)
	require.Equal(t, 6, dialing.Stats().Conns)
}

func TestHangDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n mem.Network
		l, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &n})
		require.NoError(t, err)
		defer func() { _ = l.Close() }()
		d := mem.Dialer{Network: &n, Addr: "x"}

		n.Faults().HangDials(1, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		_, err = d.DialContext(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(start))

		// A slow dial is overtaken by the next one.
		n.Faults().HangDials(1, time.Minute)
		slow := make(chan net.Conn)
		go func() {
			c, err := d.DialContext(t.Context())
			assert.NoError(t, err)
			slow <- c
		}()
		synctest.Wait()
		start = time.Now()
		quick, err := d.DialContext(t.Context())
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		late := <-slow
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 2, n.Faults().Stats().Held)
		_, _ = quick.Close(), late.Close()
	})
}

func TestOneControlInTwoPlacesCountsOnce(t *testing.T) {
	var n mem.Network
	f := n.Faults()
	l, err := mem.Listen(t.Context(), "x", &mem.Config{Network: &n, Faults: f})
	require.NoError(t, err)
	f.RefuseDials(1, nil)
	d := mem.Dialer{Network: &n, Addr: "x", Faults: f}
	_, err = d.DialContext(t.Context())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	c, err := d.DialContext(t.Context())
	require.NoError(t, err)
	require.Equal(t, mem.Stats{Dials: 2, Refused: 1, Conns: 1, Live: 1}, f.Stats())
	_, _ = c.Close(), l.Close()
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout() && !errors.Is(err, os.ErrClosed)
}
