package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// ALPN is the name of Towline's protocol in the TLS handshake. Both sides ask for it unless their configuration
// has NextProtos of its own.
const ALPN = "towline/1"

// clientConfig returns a copy of cfg, which may be nil, made fit for a dial to addr.
func clientConfig(cfg *tls.Config, addr string) (*tls.Config, error) {
	cfg, err := harden(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			// An address's zone is about this machine's interfaces; no certificate has one in it.
			cfg.ServerName, _, _ = strings.Cut(host, "%")
		}
	}
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		return nil, errors.New(`tls: no name to verify the peer's certificate by: set Dialer.Addr to a host and port such as "example.org:7000", or ServerName in Dialer.Config`)
	}
	return cfg, nil
}

// serverConfig returns a copy of cfg made fit for a listener.
func serverConfig(cfg *tls.Config) (*tls.Config, error) {
	if cfg == nil || len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		return nil, errors.New("tls: a listener needs a certificate in Config.TLS: Files reads one, SelfSigned makes one")
	}
	return harden(cfg)
}

// harden returns a copy of cfg that speaks TLS 1.3 and, unless told otherwise, towline/1.
func harden(cfg *tls.Config) (*tls.Config, error) {
	if cfg == nil {
		cfg = &tls.Config{}
	}
	if v := cfg.MaxVersion; v != 0 && v < tls.VersionTLS13 {
		return nil, fmt.Errorf("tls: MaxVersion is %s, and nothing below TLS 1.3 is spoken here: leave it 0", tls.VersionName(v))
	}
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS13)
	if cfg.NextProtos == nil {
		cfg.NextProtos = []string{ALPN}
	}
	return cfg, nil
}
