package redial_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/redial"
)

// The function's verdict decides, and its connection is closed when it returns.
func TestRunVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		verdicts []error
		policy   redial.Policy
		want     error // that Run's matches; nil: none
		took     time.Duration
	}{
		"nil ends":               {[]error{nil}, redial.Policy{}, nil, 0},
		"again":                  {[]error{redial.Again, redial.Again, nil}, redial.Policy{MaxDelay: -1, MaxAttempts: 1}, nil, 0},
		"again, wrapped":         {[]error{fmt.Errorf("moved: %w", redial.Again), nil}, redial.Policy{MaxDelay: -1, MaxAttempts: 1}, nil, 0},
		"fatal":                  {[]error{redial.Again, redial.Fatal(errOwn)}, redial.Policy{MaxDelay: -1}, errOwn, 0},
		"fatal beats again":      {[]error{redial.Fatal(redial.Again)}, redial.Policy{}, redial.Again, 0},
		"what can pass":          {[]error{reset, io.EOF, nil}, redial.Policy{}, nil, 2 * time.Second},
		"closed by the function": {[]error{net.ErrClosed, nil}, redial.Policy{}, nil, time.Second},
		"what cannot":            {[]error{syscall.EAFNOSUPPORT}, redial.Policy{}, syscall.EAFNOSUPPORT, 0},
		"by the policy":          {[]error{reset}, redial.Policy{IsFatal: func(error) bool { return true }}, syscall.ECONNRESET, 0},
		"no attempts are left":   {[]error{reset, reset}, redial.Policy{MaxAttempts: 2}, redial.ErrGaveUp, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeers(t)
				c.policy.Backoff = every(time.Second)
				calls := 0
				start := time.Now()
				var last net.Conn
				err := redial.Run(t.Context(), p, &c.policy, func(_ context.Context, conn net.Conn) error {
					if last != nil {
						_, err := last.Read(make([]byte, 1))
						require.ErrorIs(t, err, net.ErrClosed)
					}
					last = conn
					calls++
					return c.verdicts[calls-1]
				})
				if c.want == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.want)
				}
				require.Equal(t, len(c.verdicts), calls)
				require.Equal(t, c.took, time.Since(start))
				_, err = last.Write([]byte("x"))
				require.ErrorIs(t, err, net.ErrClosed)
			})
		})
	}
}

// The end of ctx is a kill switch, wherever Run is.
func TestRunEnds(t *testing.T) {
	for name, c := range map[string]struct {
		dial func(*peers) func(context.Context) (net.Conn, error)
		want error
	}{
		"while dialling": {func(*peers) func(context.Context) (net.Conn, error) { return hangs }, context.Canceled},
		"while waiting":  {func(*peers) func(context.Context) (net.Conn, error) { return refuses }, syscall.ECONNREFUSED},
		"while reading":  {func(p *peers) func(context.Context) (net.Conn, error) { return p.DialContext }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, kill := context.WithCancelCause(t.Context())
				done := make(chan error)
				go func() {
					done <- redial.Run(ctx, steps(c.dial(newPeers(t))), &redial.Policy{Backoff: every(time.Hour)},
						func(_ context.Context, conn net.Conn) error {
							_, err := conn.Read(make([]byte, 1)) // looks at no context
							return err
						})
				}()
				synctest.Wait()
				start := time.Now()
				kill(errOwn)
				err := <-done
				require.Zero(t, time.Since(start))
				require.ErrorIs(t, err, context.Canceled)
				require.ErrorIs(t, err, errOwn)
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, err, redial.ErrGaveUp)
				require.NotErrorIs(t, err, io.EOF)
			})
		})
	}
}

// A function that says Again at once does not make it dial as fast as it can.
func TestRunIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		calls := 0
		err := redial.Run(ctx, steps(connects), &redial.Policy{MaxAttempts: 1}, func(context.Context, net.Conn) error {
			calls++
			return redial.Again
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Greater(t, calls, 600)
		require.Less(t, calls, 1600)
	})
}

// A session of a minute was of use, whatever it returns.
func TestRunStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		start := time.Now()
		err := redial.Run(t.Context(), steps(connects), &redial.Policy{MaxAttempts: 1, Backoff: every(time.Hour)}, func(context.Context, net.Conn) error {
			<-time.After(time.Minute)
			if calls++; calls == 10 {
				return nil
			}
			return errors.New("cut off")
		})
		require.NoError(t, err)
		require.Equal(t, 10*time.Minute, time.Since(start))
	})
}
