package unix_test

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/unix"
)

func TestAbstractName(t *testing.T) {
	name := "@towline-test-" + filepath.Base(filepath.Dir(sock(t)))
	ln := listen(t, name, nil)
	require.Equal(t, name, ln.Addr().String())
	reach(t, ln, name)

	_, err := unix.Listen(t.Context(), name, nil)
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, ln.Close())
	reach(t, listen(t, name, nil), name)
}

// Permissions that cannot be had are not silently forgotten.
func TestAbstractNameHasNoMode(t *testing.T) {
	_, err := unix.Listen(t.Context(), "@towline-mode", &unix.Config{Mode: 0o600})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "any local process")
}
