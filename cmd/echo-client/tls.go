package main

import (
	"crypto/tls"
	"flag"

	"github.com/towline-mq/towline/cmd/internal/program"
	ttls "github.com/towline-mq/towline/transport/tls"
)

// tlsFlags are the flags that say whom to trust and who we are.
type tlsFlags struct {
	ca, fingerprint, cert, key string
	insecure                   bool
}

func (f *tlsFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.ca, "tls-ca", "", "trust the authorities in `FILE` (PEM) instead of the system's")
	fs.StringVar(&f.fingerprint, "tls-fingerprint", "", "trust only the server with this certificate: `sha256:HEX`, as echo-server prints it")
	fs.StringVar(&f.cert, "tls-cert", "", "this client's certificate, a `FILE` (PEM)")
	fs.StringVar(&f.key, "tls-key", "", "the key of --tls-cert, a `FILE` (PEM)")
	fs.BoolVar(&f.insecure, "insecure", false, "trust any server, even an impostor")
}

// check finds what does not go together.
func (f *tlsFlags) check(o *options) error {
	switch {
	case *f == tlsFlags{}:
		return nil
	case !o.secure():
		return program.Usagef("the --tls flags and --insecure are for tls:// and quic://, not for %s", o.name())
	case (f.cert == "") != (f.key == ""):
		return program.Usagef("--tls-cert and --tls-key go together")
	case f.insecure && (f.ca != "" || f.fingerprint != ""):
		return program.Usagef("--insecure trusts any server: leave it out beside --tls-ca and --tls-fingerprint")
	case f.ca != "" && f.fingerprint != "":
		return program.Usagef("--tls-fingerprint trusts one certificate, whoever signed it: leave --tls-ca out")
	}
	if f.fingerprint != "" {
		if err := ttls.PinFingerprint(new(tls.Config), f.fingerprint); err != nil {
			return program.Usagef("--tls-fingerprint: %s", program.OneLine(err.Error()))
		}
	}
	return nil
}

// config makes the TLS configuration. The error is about a file that the flags name.
func (f *tlsFlags) config() (*tls.Config, error) {
	files := &ttls.Files{Cert: f.cert, Key: f.key, CA: f.ca}
	cfg, err := files.Client()
	if err != nil {
		return nil, err
	}
	if f.fingerprint != "" {
		err = ttls.PinFingerprint(cfg, f.fingerprint)
	}
	if f.insecure {
		cfg.InsecureSkipVerify = true
	}
	return cfg, err
}
