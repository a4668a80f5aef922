package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/transport/endpoint"
	ttls "github.com/towline-mq/towline/transport/tls"
)

// certificate makes the TLS configuration for all listeners. The fingerprint is that of a certificate made here, else
// "".
func (o *options) certificate(log *slog.Logger) (cfg *tls.Config, fingerprint string, err error) {
	if !o.secure() {
		return nil, "", nil
	}
	files := &ttls.Files{Cert: o.tlsCert, Key: o.tlsKey, CA: o.tlsClient, OnError: func(err error) {
		log.Warn("certificate files could not be read again", "error", program.OneLine(err.Error()))
	}}
	if o.tlsCert != "" {
		cfg, err = files.Server()
		if pair, loadErr := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey); loadErr == nil && pair.Leaf != nil {
			if now := time.Now(); now.After(pair.Leaf.NotAfter) || now.Before(pair.Leaf.NotBefore) {
				log.Warn("no client will accept the certificate of --tls-cert now: renew it, or check the clock",
					"not_before", pair.Leaf.NotBefore, "not_after", pair.Leaf.NotAfter)
			}
		}
		return cfg, "", err
	}
	cert, err := ttls.SelfSigned()
	if err != nil {
		return nil, "", err
	}
	cfg = &tls.Config{Certificates: []tls.Certificate{cert}}
	if o.tlsClient != "" {
		if err := follow(cfg, files); err != nil {
			return nil, "", err
		}
	}
	return cfg, ttls.Fingerprint(cert.Leaf), nil
}

// follow makes cfg demand certificates of clients, from the authorities that files name at each time. Files.Server does
// it, too, but takes its own certificate from files as well; Files.Client reads authorities the same way without one.
func follow(cfg *tls.Config, files *ttls.Files) error {
	authorities, err := files.Client()
	if err != nil {
		return err
	}
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, authorities.RootCAs
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		authorities, err := files.Client()
		if err != nil {
			return nil, err
		}
		now := cfg.Clone()
		now.GetConfigForClient = nil
		now.ClientCAs = authorities.RootCAs
		return now, nil
	}
	return nil
}

// clientCommand is what reaches a listener with a certificate made here; what only its user knows stands in capitals.
func (o *options) clientCommand(u endpoint.URL, fingerprint string) string {
	if host, port, err := net.SplitHostPort(u.Addr); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			u.Addr = net.JoinHostPort("localhost", port)
		}
	}
	command := fmt.Sprintf("echo-client --connect %s --tls-fingerprint %s", u, fingerprint)
	if o.tlsClient != "" {
		command += " --tls-cert FILE --tls-key FILE"
	}
	if o.token != "" { // not the token itself: this may go to a log
		command += " --token-file FILE"
	}
	return command
}
