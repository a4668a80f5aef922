package redial_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"

	"github.com/towline-mq/towline/redial"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/mem"
	"github.com/towline-mq/towline/transport/tcp"
	"github.com/towline-mq/towline/transport/unix"
)

var _ transport.Dialer = (*redial.Dialer)(nil)

// pairs are ways to get two ends of a connection, one of them a Conn.
func pairs(t *testing.T) map[string]func() (*redial.Conn, net.Conn, func(), error) {
	listened := func(ln net.Listener, err error, d transport.Dialer) (*redial.Conn, net.Conn, func(), error) {
		if err != nil {
			return nil, nil, nil, err
		}
		c, err := (&redial.Dialer{Endpoints: []transport.Dialer{d}, EndOnEOF: true}).Dial(context.Background())
		if err != nil {
			return nil, nil, nil, err
		}
		far, err := ln.Accept()
		return c, far, func() { _ = c.Close(); _ = far.Close(); _ = ln.Close() }, err
	}
	return map[string]func() (*redial.Conn, net.Conn, func(), error){
		"tcp": func() (*redial.Conn, net.Conn, func(), error) {
			ln, err := tcp.Listen(t.Context(), "127.0.0.1:0", nil)
			return listened(ln, err, tcp.Dialer{Addr: ln.Addr().String()})
		},
		"unix": func() (*redial.Conn, net.Conn, func(), error) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := unix.Listen(t.Context(), path, nil)
			return listened(ln, err, unix.Dialer{Path: path})
		},
		"mem": func() (*redial.Conn, net.Conn, func(), error) {
			var network mem.Network
			ln, err := mem.Listen(t.Context(), "s", &mem.Config{Network: &network})
			return listened(ln, err, mem.Dialer{Network: &network, Addr: "s"})
		},
		"wrapped": func() (*redial.Conn, net.Conn, func(), error) {
			near, far := net.Pipe()
			c := (&redial.Dialer{EndOnEOF: true}).Wrap(near)
			return c, far, func() { _ = c.Close(); _ = far.Close() }, nil
		},
	}
}

// A Conn is what package net's own tests want of a net.Conn, on either side.
func TestNettest(t *testing.T) {
	for name, pair := range pairs(t) {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, far, stop, err := pair()
				return c, far, stop, err
			})
		})
		t.Run(name+", the other side", func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				c, far, stop, err := pair()
				return far, c, stop, err
			})
		})
	}
}

// A Conn has what is listed here and nothing that would go past it to the connection below.
func TestNothingIsPromoted(t *testing.T) {
	var c any = new(redial.Conn)
	_, isConn := c.(syscall.Conn)
	require.False(t, isConn, "a descriptor is that of one connection")
	_, halfCloses := c.(interface{ CloseWrite() error })
	require.False(t, halfCloses)
	_, readsFrom := c.(io.ReaderFrom)
	_, writesTo := c.(io.WriterTo)
	require.True(t, readsFrom && writesTo)
}

func TestDial(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr().String()
	for _, network := range []string{"tcp", "tcp4"} {
		c, err := redial.Dial(network, addr)
		require.NoError(t, err)
		require.Equal(t, addr, c.RemoteAddr().String())
		require.NoError(t, c.Close())
	}
	_ = ln.Close()
	_, err = redial.Dial("tcp", addr)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.ErrorIs(t, err, redial.ErrGaveUp)
	_, err = redial.Dial("udp", addr)
	var unknown net.UnknownNetworkError
	require.ErrorAs(t, err, &unknown)
	_, err = redial.Dial("tcp", "nowhere")
	var bad *net.AddrError
	require.ErrorAs(t, err, &bad)
	require.True(t, redial.IsFatal(err))
	require.NotErrorIs(t, err, io.EOF)

	ul, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer ul.Close()
	c, err := redial.Dial("unix", ul.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.Close())
}
