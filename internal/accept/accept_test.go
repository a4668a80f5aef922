package accept

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// passingError is what accept returns when the process has no descriptor left.
func passingError() error {
	return &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", passingErrnos[0])}
}

func TestRetryWaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		var told []error
		start := time.Now()
		got, err := Retry(nil, func(err error) { told = append(told, err) }, func() (int, error) {
			at = append(at, time.Since(start))
			if len(at) < 11 {
				return 0, passingError()
			}
			return 42, nil
		})
		require.NoError(t, err)
		require.Equal(t, 42, got)
		require.Len(t, told, 10)
		for i := 1; i < len(at); i++ {
			require.Equal(t, min(5*time.Millisecond<<(i-1), time.Second), at[i]-at[i-1])
		}
	})
}

func TestRetryEndsWithClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		result := make(chan error)
		go func() {
			_, err := Retry(done, nil, func() (int, error) {
				select {
				case <-done:
					return 0, net.ErrClosed
				default:
					return 0, passingError()
				}
			})
			result <- err
		}()
		synctest.Wait() // Retry is in a wait now
		start := time.Now()
		close(done)
		require.ErrorIs(t, <-result, net.ErrClosed)
		require.Zero(t, time.Since(start))
	})
}

func TestRetryPassesOnWhatIsFinal(t *testing.T) {
	for _, final := range []error{net.ErrClosed, os.ErrDeadlineExceeded, errors.New("other")} {
		_, err := Retry(nil, nil, func() (int, error) { return 0, final })
		require.ErrorIs(t, err, final)
	}
}
