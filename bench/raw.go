package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/quic-go/quic-go"

	towline "github.com/towline-mq/towline/transport/tls"
)

// transports are those that are measured.
var transports = []string{"tcp", "tls", "quic", "unix"}

// secrets are the certificate that all servers of a run have, and what its clients need.
type secrets struct {
	server, client *tls.Config
}

func newSecrets() (*secrets, error) {
	cert, err := towline.SelfSigned("127.0.0.1")
	if err != nil {
		return nil, err
	}
	s := &secrets{server: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, client: &tls.Config{MinVersion: tls.VersionTLS13}}
	return s, towline.PinFingerprint(s.client, towline.Fingerprint(cert.Leaf))
}

// rawPair is two ends of one bare stream, as the standard library or quic-go gives it.
func (s *secrets) rawPair(ctx context.Context, transport string) (dialled, accepted io.ReadWriteCloser, err error) {
	switch transport {
	case "quic":
		return s.rawQUIC(ctx)
	case "unix":
		dir, err := os.MkdirTemp("", "towline-bench")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory that stays does no harm
		return rawSockets(ctx, "unix", filepath.Join(dir, "socket"), nil)
	case "tls":
		return rawSockets(ctx, "tcp", "127.0.0.1:0", s)
	}
	return rawSockets(ctx, "tcp", "127.0.0.1:0", nil)
}

// rawSockets connects two sockets, with TLS on them if s is not nil.
func rawSockets(ctx context.Context, network, addr string, s *secrets) (dialled, accepted net.Conn, err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, network, addr)
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	acceptErr := make(chan error, 1)
	go func() {
		var err error
		if accepted, err = ln.Accept(); err == nil && s != nil {
			t := tls.Server(accepted, s.server)
			accepted, err = t, t.HandshakeContext(ctx)
		}
		acceptErr <- err
	}()
	dialled, err = new(net.Dialer).DialContext(ctx, network, ln.Addr().String())
	if err == nil && s != nil {
		t := tls.Client(dialled, s.client)
		dialled, err = t, t.HandshakeContext(ctx)
	}
	if err != nil {
		ln.Close()
	}
	return dialled, accepted, errors.Join(err, <-acceptErr)
}

// quicStream is a stream that is all that is wanted of its connection.
type quicStream struct {
	*quic.Stream
	conn  *quic.Conn
	after func() error
}

func (q quicStream) Close() error {
	return errors.Join(q.conn.CloseWithError(0, ""), q.after())
}

// rawQUIC connects two bare streams of quic-go, with the windows that Towline's transport has.
func (s *secrets) rawQUIC(ctx context.Context) (dialled, accepted io.ReadWriteCloser, err error) {
	const protocol = "floor"
	server, client := s.server.Clone(), s.client.Clone()
	server.NextProtos, client.NextProtos = []string{protocol}, []string{protocol}
	conf := &quic.Config{
		InitialStreamReceiveWindow:     512 << 10,
		MaxStreamReceiveWindow:         16 << 20,
		InitialConnectionReceiveWindow: 768 << 10,
		MaxConnectionReceiveWindow:     24 << 20,
		KeepAlivePeriod:                10 * time.Second,
	}
	ln, err := quic.ListenAddr("127.0.0.1:0", server, conf)
	if err != nil {
		return nil, nil, err
	}
	c, err := quic.DialAddr(ctx, ln.Addr().String(), client, conf)
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close())
	}
	d, err := c.OpenStreamSync(ctx)
	if err == nil {
		_, err = d.Write([]byte{0}) // the other side learns of a stream by what is written
	}
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close())
	}
	sc, err := ln.Accept(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, ln.Close())
	}
	a, err := sc.AcceptStream(ctx)
	if err == nil {
		_, err = io.ReadFull(a, make([]byte, 1))
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("accepting a stream: %w", err), ln.Close())
	}
	return quicStream{d, c, func() error { return nil }}, quicStream{a, sc, ln.Close}, nil
}
