package redial_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
)

var (
	_ transport.Dialer = (*redial.Redialer)(nil)
	_ redial.Backoff   = (*redial.Jitter)(nil)
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a peer that listens under names in a network of its own, and takes whoever comes.
type site struct {
	t       testing.TB
	network mem.Network
	faults  map[string]*mem.Faults
}

// newSite listens under each name, with a control each.
func newSite(t testing.TB, names ...string) *site {
	s := &site{t: t, faults: make(map[string]*mem.Faults)}
	for _, name := range names {
		s.faults[name] = new(mem.Faults)
		s.listen(name)
	}
	return s
}

func (s *site) listen(name string) {
	s.t.Helper()
	ln, err := mem.Listen(context.Background(), name, &mem.Config{Network: &s.network, Faults: s.faults[name]})
	require.NoError(s.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	s.t.Cleanup(func() { _ = ln.Close(); <-done })
}

// dialers returns one for each name, whether it is listened on or not.
func (s *site) dialers(names ...string) (all []transport.Dialer) {
	for _, name := range names {
		all = append(all, mem.Dialer{Network: &s.network, Addr: name})
	}
	return all
}

// script is a dialer that does at its nth dial what the nth step says, and goes on with the last one. It notes when it
// was dialled.
type script struct {
	steps []func(ctx context.Context) (net.Conn, error)
	at    []time.Time
}

func (s *script) DialContext(ctx context.Context) (net.Conn, error) {
	n := min(len(s.at), len(s.steps)-1)
	s.at = append(s.at, time.Now())
	return s.steps[n](ctx)
}

func says(err error) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) { return nil, err }
}

func connects(context.Context) (net.Conn, error) {
	a, b := mem.Pipe(nil)
	_ = b.Close()
	return a, nil
}

func hangs(ctx context.Context) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

var refuses = says(&net.OpError{Op: "dial", Net: "mem", Err: syscall.ECONNREFUSED})

func steps(s ...func(context.Context) (net.Conn, error)) *script { return &script{steps: s} }

// waits is a Backoff of fixed waits, that goes on with the last one.
type waits struct {
	each   []time.Duration
	n      int
	resets int
}

func (w *waits) NextBackOff() time.Duration {
	d := w.each[min(w.n, len(w.each)-1)]
	w.n++
	return d
}

func (w *waits) Reset() { w.n = 0; w.resets++ }

// every makes a policy's Backoff of fixed waits.
func every(d ...time.Duration) func() redial.Backoff {
	return func() redial.Backoff { return &waits{each: d} }
}

func isError(t require.TestingT, err error) *redial.Error {
	var e *redial.Error
	require.ErrorAs(t, err, &e)
	return e
}

// hears makes an OnFailure that decides nothing.
func hears(f func(redial.Failure)) func(context.Context, redial.Failure) redial.Decision {
	return func(_ context.Context, failure redial.Failure) redial.Decision {
		f(failure)
		return redial.Decision{}
	}
}
