package tls_test

import (
	"context"
	cryptotls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/towline-mq/towline/transport/tls"
)

// greet serves one connection of ln.
func greet(ln net.Listener) {
	conn, err := ln.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "welcome")
}

// A client that was told the fingerprint of a server's certificate needs no authority.
func ExampleDialer() {
	ctx := context.Background()
	cert, err := tls.SelfSigned()
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := tls.Listen(ctx, "127.0.0.1:0", &tls.Config{TLS: &cryptotls.Config{
		Certificates: []cryptotls.Certificate{cert},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()
	go greet(ln)

	cfg := &cryptotls.Config{}
	if err := tls.PinFingerprint(cfg, tls.Fingerprint(cert.Leaf)); err != nil {
		fmt.Println(err)
		return
	}
	conn, err := tls.Dialer{Addr: ln.Addr().String(), Config: cfg}.DialContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	greeting, err := io.ReadAll(conn)
	fmt.Println(string(greeting), err)
	fmt.Println(conn.(*tls.Conn).ConnectionState().NegotiatedProtocol)
	// Output:
	// welcome <nil>
	// towline/1
}

// A client that does not know the server's certificate is told so, before it has sent a byte of its own.
func ExampleListen() {
	ctx := context.Background()
	cert, err := tls.SelfSigned("example.org")
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := tls.Listen(ctx, "127.0.0.1:0", &tls.Config{TLS: &cryptotls.Config{
		Certificates: []cryptotls.Certificate{cert},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()

	_, err = tls.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
	refused, ok := errors.AsType[*cryptotls.CertificateVerificationError](err)
	fmt.Println(ok, len(refused.UnverifiedCertificates))

	_, err = tls.Listen(ctx, "127.0.0.1:0", nil)
	fmt.Println(err)
	// Output:
	// true 1
	// tls: a listener needs a certificate in Config.TLS: Files reads one, SelfSigned makes one
}

// Any listener can lie under TLS: one of the PROXY protocol, or, as here, one of Unix sockets.
func ExampleNewListener() {
	dir, err := os.MkdirTemp("", "towline")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	inner, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		fmt.Println(err)
		return
	}
	cert, err := tls.SelfSigned()
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := tls.NewListener(inner, &tls.Config{TLS: &cryptotls.Config{
		Certificates: []cryptotls.Certificate{cert},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr().Network(), ln.Close())
	// Output: unix <nil>
}

// Mutual TLS, with all certificates in files that may be renewed at any time.
func ExampleFiles() {
	server := &tls.Files{
		Cert:    "/etc/towline/server.pem",
		Key:     "/etc/towline/server.key",
		CA:      "/etc/towline/clients.pem",
		OnError: func(err error) { fmt.Println("still using the old certificate:", err) },
	}
	cfg, err := server.Server()
	if err != nil {
		fmt.Println("no such file:", errors.Is(err, os.ErrNotExist))
		return
	}
	ln, err := tls.Listen(context.Background(), ":7000", &tls.Config{TLS: cfg})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer ln.Close()

	client := &tls.Files{Cert: "client.pem", Key: "client.key", CA: "servers.pem"}
	conn, err := tls.Dialer{Addr: "example.org:7000", GetConfig: client.Client}.DialContext(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	// Output: no such file: true
}

func ExampleSelfSigned() {
	cert, err := tls.SelfSigned("example.org", "192.0.2.1")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(cert.Leaf.DNSNames, cert.Leaf.IPAddresses)
	fmt.Println(strings.HasPrefix(tls.Fingerprint(cert.Leaf), "sha256:"))
	// Output:
	// [example.org] [192.0.2.1]
	// true
}

func ExamplePinFingerprint() {
	cfg := &cryptotls.Config{}
	fmt.Println(tls.PinFingerprint(cfg, "sha256:42"))
	fmt.Println(tls.PinFingerprint(cfg, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
	// Output:
	// tls: bad fingerprint "sha256:42": write "sha256:" and 64 hexadecimal digits, such as "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	// <nil>
}
