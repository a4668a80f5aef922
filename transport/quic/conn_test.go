package quic

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestListenerSpeaksFirst(t *testing.T) {
	dialed, accepted := listen(t, nil).pair(t)
	_, err := accepted.Write([]byte("220 welcome"))
	require.NoError(t, err)
	got := make([]byte, 11)
	_, err = io.ReadFull(dialed, got)
	require.NoError(t, err)
	require.Equal(t, "220 welcome", string(got))
}

func TestHalfClose(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		_, err := a.Write([]byte("request"))
		require.NoError(t, err)
		require.NoError(t, a.CloseWrite())
		require.NoError(t, a.CloseWrite(), "idempotent")
		_, err = a.Write([]byte("more"))
		require.ErrorIs(t, err, syscall.EPIPE)

		got, err := io.ReadAll(b)
		require.NoError(t, err)
		require.Equal(t, "request", string(got))

		_, err = b.Write([]byte("response"))
		require.NoError(t, err)
		require.NoError(t, b.CloseWrite())
		got, err = io.ReadAll(a)
		require.NoError(t, err)
		require.Equal(t, "response", string(got))
		for range 2 {
			_, err = a.Read(got)
			require.Equal(t, io.EOF, err)
		}
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}

// The end of the stream waits for its reader, whatever the peer does after its Close.
func TestReadLongAfterPeerClosed(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		want := randomBytes(initialWindow / 2)
		_, err := a.Write(want)
		require.NoError(t, err)
		head := make([]byte, 1000)
		_, err = io.ReadFull(b, head)
		require.NoError(t, err)
		require.NoError(t, a.Close())
		<-b.qc.Context().Done()

		rest, err := io.ReadAll(b)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, append(head, rest...)))
		require.NoError(t, b.Close())
	})
}

func TestPeerClosedWithUnreadData(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		_, err := a.Write([]byte("nobody reads this"))
		require.NoError(t, err)
		require.NoError(t, b.Close())
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(10*time.Second)))
		for err == nil {
			_, err = a.Write(make([]byte, 10_000))
		}
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.NotErrorIs(t, err, net.ErrClosed)
		_, err = a.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.NoError(t, a.Close(), "the peer wants no more")
	})
}

func TestAbort(t *testing.T) {
	eachWay(t, func(t *testing.T, a, b *Conn) {
		_, err := a.Write([]byte("x"))
		require.NoError(t, err)
		require.NoError(t, a.CloseNow())
		require.ErrorIs(t, a.CloseNow(), net.ErrClosed)
		for err == nil {
			_, err = b.Read(make([]byte, 1))
		}
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = b.Write([]byte("y"))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.ErrorIs(t, a.SetLinger(1), net.ErrClosed)
	})
}

// CloseNow also ends the wait of a Close that has begun.
func TestCloseNowDuringClose(t *testing.T) {
	a, b := listen(t, nil).pair(t)
	require.NoError(t, a.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	var err error
	for err == nil { // until the window of b, which nobody reads, is full
		_, err = a.Write(make([]byte, 1000))
	}
	require.NoError(t, a.SetLinger(3600))
	errs := make(chan error)
	go func() { errs <- a.Close() }()
	<-a.closed
	require.ErrorIs(t, a.CloseNow(), net.ErrClosed)
	require.ErrorIs(t, <-errs, net.ErrClosed, "cut short here")
	for err = nil; err == nil; {
		_, err = b.Read(make([]byte, 1<<20))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// A peer whose program never reads holds Close up for the linger time, and no longer.
func TestCloseGivesUp(t *testing.T) {
	a, b := listen(t, nil).pair(t)
	var err error
	for sent, stalls := 0, 0; sent < initialWindow || err == nil; { // more than the peer's machine takes, the preface included
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		var n int
		if n, err = a.Write(make([]byte, 1000)); err != nil {
			stalls++
			require.Less(t, stalls, 300, "after %d bytes", sent)
		}
		sent += n
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, a.SetLinger(1))
	err = a.Close()
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	require.NotErrorIs(t, err, net.ErrClosed)
	for err = nil; err == nil; {
		_, err = b.Read(make([]byte, 1<<20))
	}
	require.ErrorIs(t, err, syscall.ECONNRESET, "never a clean end")
}

func TestDeadlines(t *testing.T) {
	timedOut := func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
	}
	eachWay(t, func(t *testing.T, a, b *Conn) {
		require.NoError(t, a.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		_, err := a.Read(make([]byte, 1))
		timedOut(t, err)

		// A blocked Read is interrupted by a deadline that is set later.
		require.NoError(t, a.SetDeadline(time.Time{}))
		errs := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			errs <- err
		}()
		require.NoError(t, a.SetReadDeadline(time.Now().Add(-time.Second)))
		timedOut(t, <-errs)

		// So is a blocked Write, and the connection goes on.
		_, err = a.Write([]byte("x"))
		require.NoError(t, err)
		go func() {
			var err error
			for err == nil {
				_, err = a.Write(make([]byte, 1<<20))
			}
			errs <- err
		}()
		require.NoError(t, a.SetWriteDeadline(time.Now().Add(20*time.Millisecond)))
		timedOut(t, <-errs)
		require.NoError(t, a.SetDeadline(time.Time{}))
		_, err = b.Read(make([]byte, 1))
		require.NoError(t, err)

		require.NoError(t, a.SetLinger(0))
		require.NoError(t, a.Close())
		require.ErrorIs(t, a.SetDeadline(time.Time{}), net.ErrClosed)
	})
}

// Deadlines hold as well for the part of the stream that was taken in after the peer's FIN.
func TestDeadlineAfterPeerClosed(t *testing.T) {
	a, b := listen(t, nil).pair(t)
	require.NoError(t, a.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err := b.Write([]byte("late"))
	require.NoError(t, err)
	require.NoError(t, b.Close(), "confirmed although the reader's deadline has passed")
	_, err = a.Read(make([]byte, 4))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, a.SetReadDeadline(time.Time{}))
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "late", string(got))
}

func TestCloseWakesReadAndWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, a, _ *Conn) {
		errs := make(chan error, 2)
		go func() {
			_, err := a.Read(make([]byte, 1))
			errs <- err
		}()
		go func() {
			var err error
			for err == nil {
				_, err = a.Write(make([]byte, 1<<20))
			}
			errs <- err
		}()
		require.NoError(t, a.SetLinger(0))
		require.NoError(t, a.Close())
		for range 2 {
			err := <-errs
			require.ErrorIs(t, err, net.ErrClosed)
			require.NotErrorIs(t, err, syscall.ECONNRESET)
		}
	})
}

func TestAddresses(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		t.Run(addr, func(t *testing.T) {
			ca := newAuthority(t)
			cfg := &Config{TLS: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "localhost")}}}
			ln, err := Listen(t.Context(), addr, cfg)
			if addr != "127.0.0.1:0" && err != nil {
				t.Skip("no IPv6 here:", err)
			}
			require.NoError(t, err)
			t.Cleanup(func() { _ = ln.Close() })
			port := ln.Addr().(*net.UDPAddr).Port
			require.NotZero(t, port)

			e := &endpoints{ca, ln, cfg}
			d := e.dialer()
			if addr == ":0" {
				d.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			}
			dialed, accepted := e.connect(t, d)
			require.Equal(t, dialed.LocalAddr().String(), accepted.RemoteAddr().String())
			require.Equal(t, dialed.RemoteAddr().String(), accepted.LocalAddr().String())
			require.Equal(t, "udp", dialed.LocalAddr().Network())
		})
	}
}

func TestConnectionState(t *testing.T) {
	e := listen(t, nil)
	e.cfg.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	ca := e.ca
	ln, err := Listen(t.Context(), "127.0.0.1:0", &Config{TLS: &tls.Config{
		Certificates: e.cfg.TLS.Certificates,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    ca.pool(),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	mutual := &endpoints{ca, ln, e.cfg}
	d := mutual.dialer()
	d.Config.Certificates = []tls.Certificate{ca.issue(t, "client seven")}
	dialed, accepted := mutual.connect(t, d)

	require.Equal(t, "client seven", accepted.ConnectionState().VerifiedChains[0][0].Subject.CommonName)
	require.Equal(t, "localhost", dialed.ConnectionState().PeerCertificates[0].Subject.CommonName)
	require.Equal(t, "towline/1", dialed.ConnectionState().NegotiatedProtocol)
	state := dialed.ConnectionState()
	ours, err := state.ExportKeyingMaterial("towline test", nil, 32)
	require.NoError(t, err)
	state = accepted.ConnectionState()
	theirs, err := state.ExportKeyingMaterial("towline test", nil, 32)
	require.NoError(t, err)
	require.Equal(t, ours, theirs)
}

// Sizing the buffers ourselves must cost neither offloading nor ECN.
func TestSocketKeepsOffloading(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getenv("QUIC_GO_DISABLE_GSO") != "" {
		t.Skip("only Linux has GSO")
	}
	dialed, accepted := listen(t, nil).pair(t)
	require.True(t, dialed.qc.ConnectionState().GSO)
	require.True(t, accepted.qc.ConnectionState().GSO)
}
