package quic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http/httptest"

	"github.com/towline-mq/towline/transport/quic"
)

// certificates borrows the certificate for example.com that net/http/httptest carries, and the roots to check it with.
func certificates() (server, client *tls.Config) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{RootCAs: roots, ServerName: "example.com"}
}

func Example() {
	ctx := context.Background()
	serverTLS, clientTLS := certificates()
	ln, err := quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: serverTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = fmt.Fprint(conn, "hello from the listener\n")
	}()

	conn, err := quic.Dialer{Addr: ln.Addr().String(), Config: clientTLS}.DialContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	fmt.Print(string(text), err)
	// Output:
	// hello from the listener
	// <nil>
}

// Half-close: the request ends where CloseWrite says, and the answer comes the other way.
func ExampleConn_CloseWrite() {
	ctx := context.Background()
	serverTLS, clientTLS := certificates()
	ln, err := quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: serverTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		request, _ := io.ReadAll(conn)
		_, _ = fmt.Fprintf(conn, "%d bytes", len(request))
	}()

	conn, err := quic.Dialer{Addr: ln.Addr().String(), Config: clientTLS}.DialContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprint(conn, "how long is this?")
	if err := conn.(*quic.Conn).CloseWrite(); err != nil {
		log.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	fmt.Printf("%s\n", answer)
	// Output: 17 bytes
}

// The secret that ExportKeyingMaterial gives is the same at both ends, and at no others.
func ExampleConn_ConnectionState() {
	ctx := context.Background()
	serverTLS, clientTLS := certificates()
	ln, err := quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: serverTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()

	conn, err := quic.Dialer{Addr: ln.Addr().String(), Config: clientTLS}.DialContext(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	state := conn.(*quic.Conn).ConnectionState()
	secret, err := state.ExportKeyingMaterial("EXPORTER-example", nil, 32)
	fmt.Println(state.NegotiatedProtocol, state.PeerCertificates[0].DNSNames[0], len(secret), err)
	// Output: towline/1 example.com 32 <nil>
}

// Many connections share one UDP port.
func ExampleNewSocket() {
	ctx := context.Background()
	serverTLS, clientTLS := certificates()
	ln, err := quic.Listen(ctx, "127.0.0.1:0", &quic.Config{TLS: serverTLS})
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()

	socket, err := quic.NewSocket("127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer socket.Close()
	dialer := quic.Dialer{Addr: ln.Addr().String(), Config: clientTLS, Socket: socket}
	for range 2 {
		conn, err := dialer.DialContext(ctx)
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		fmt.Println(conn.LocalAddr().String() == socket.LocalAddr().String())
	}
	// Output:
	// true
	// true
}
