package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	towtls "github.com/towline-mq/towline/transport/tls"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// identity writes a certificate and its key into files.
func identity(t *testing.T) (cert, key string) {
	pair, err := towtls.SelfSigned()
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	return write("cert.pem", "CERTIFICATE", pair.Leaf.Raw), write("key.pem", "PRIVATE KEY", der)
}

// begin runs the program in the background.
func begin(ctx context.Context, out io.Writer, args ...string) <-chan error {
	done := make(chan error, 1)
	go func() { done <- run(ctx, args, out) }()
	return done
}

// A queue, workers that come and go, and 300 jobs, over TLS on loopback: each is done, and reported once.
func TestJobQueue(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cert, key := identity(t)
	pr, pw := io.Pipe()
	serving, stopServing := context.WithCancel(ctx)
	served := begin(serving, pw, "serve", "-addr", "127.0.0.1:0", "-cert", cert, "-key", key)
	var addr string
	_, err := fmt.Fscanln(pr, &addr)
	require.NoError(t, err)

	args := []string{"submit", "-addr", addr, "-ca", cert}
	var want []string
	for i := range 300 {
		args = append(args, fmt.Sprintf("job-%d", i))
		want = append(want, fmt.Sprintf("%d JOB-%d", i, i))
	}
	var out bytes.Buffer
	submitted := begin(ctx, &out, args...)
	var last <-chan error
	var stopLast context.CancelFunc
	for range 5 { // one after the other goes, whatever it has
		working, stop := context.WithCancel(ctx)
		worked := begin(working, io.Discard, "work", "-addr", addr, "-ca", cert)
		if last != nil {
			stopLast()
			require.NoError(t, <-last)
		}
		last, stopLast = worked, stop
	}
	require.NoError(t, <-submitted)
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	slices.Sort(got)
	slices.Sort(want)
	assert.Equal(t, want, got)
	stopLast()
	require.NoError(t, <-last)
	stopServing()
	require.NoError(t, <-served)
}

// What is wrong with the command line is said.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"dance", "-ca", os.DevNull}, {"work", "-ca", "no-such-file"}, {"serve"}, {"submit", "-ca", os.DevNull, "-addr", "127.0.0.1:1"}} {
		assert.Error(t, run(t.Context(), args, io.Discard), "%v", args)
	}
}

// A worker goes on with a queue that was started again in place of the one before.
func TestQueueStartedAgain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cert, key := identity(t)
	start := func(addr string) (string, func()) {
		pr, pw := io.Pipe()
		serving, stop := context.WithCancel(ctx)
		served := begin(serving, pw, "serve", "-addr", addr, "-cert", cert, "-key", key)
		var at string
		_, err := fmt.Fscanln(pr, &at)
		require.NoError(t, err)
		return at, func() { stop(); require.NoError(t, <-served) }
	}
	addr, stop := start("127.0.0.1:0")
	working, stopWork := context.WithCancel(ctx)
	worked := begin(working, io.Discard, "work", "-addr", addr, "-ca", cert)
	var out bytes.Buffer
	for i, job := range []string{"one", "two", "three"} {
		if i > 0 {
			stop()
			_, stop = start(addr)
		}
		require.NoError(t, <-begin(ctx, &out, "submit", "-addr", addr, "-ca", cert, job))
	}
	assert.Equal(t, "0 ONE\n0 TWO\n0 THREE\n", out.String())
	stopWork()
	require.NoError(t, <-worked)
	stop()
}
