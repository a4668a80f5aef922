package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"

	"github.com/towline-mq/towline/transport/endpoint"
	ttls "github.com/towline-mq/towline/transport/tls"
)

// certificate makes the TLS configuration for all listeners. The fingerprint is that of a certificate made here, else
// "".
func (o *options) certificate(log *slog.Logger) (cfg *tls.Config, fingerprint string, err error) {
	if !o.secure() {
		return nil, "", nil
	}
	if o.tlsCert != "" {
		files := &ttls.Files{Cert: o.tlsCert, Key: o.tlsKey, CA: o.tlsClient, OnError: func(err error) {
			log.Warn("certificate files could not be read again; what was read before stays in use", "error", err)
		}}
		cfg, err = files.Server()
		return cfg, "", err
	}
	cert, err := ttls.SelfSigned()
	if err != nil {
		return nil, "", err
	}
	cfg = &tls.Config{Certificates: []tls.Certificate{cert}}
	if o.tlsClient != "" {
		pem, err := os.ReadFile(o.tlsClient)
		if err != nil {
			return nil, "", err
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("%s contains no certificate in PEM", o.tlsClient)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, ttls.Fingerprint(cert.Leaf), nil
}

// clientCommand is what reaches a listener with a certificate made here.
func clientCommand(u endpoint.URL, fingerprint string) string {
	if host, port, err := net.SplitHostPort(u.Addr); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			u.Addr = net.JoinHostPort("localhost", port)
		}
	}
	return fmt.Sprintf("echo-client --connect %s --tls-fingerprint %s", u, fingerprint)
}
