package tls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const defaultFilesInterval = time.Second

// Files reads certificates from files, and reads them again when the files change, so that a renewed certificate needs
// no restart. Fill in the fields, then call Server or Client; do not change or copy it afterwards. Several goroutines
// may use it at once. It runs none of its own: the files are looked at when a handshake needs them.
//
// If a file has become unreadable, or a certificate does not match its key (as when one of the two has been written and
// the other not yet), what was read before stays in use, OnError is told, and the next look tries again.
type Files struct {
	// Cert and Key are the paths of this side's certificate, with the chain above it, and of its private key, both in
	// PEM. They may be one file. A server needs them; on a client, both empty means that it has no certificate.
	Cert, Key string

	// CA is the path of the authorities, in PEM, that sign the other side's certificates. A server that has it demands
	// a certificate of each client; empty, it asks for none. A client trusts these authorities and no others; empty, it
	// trusts the system's.
	CA string

	// Interval is how long after one look at the files the next may follow. 0: 1 s. Negative: each handshake looks.
	Interval time.Duration

	// OnError, if not nil, is told of files that could not be read again; of the same error only once in a row. It
	// is called from within a handshake, under no lock.
	OnError func(error)

	live atomic.Pointer[material] // what is in use

	looking sync.Mutex // held by the one who looks at the files, and for:
	looked  time.Time
	failed  string // the error last reported
}

// material is what was read from the files at one time.
type material struct {
	cert  *tls.Certificate // nil if there is none
	cas   *x509.CertPool   // nil if there are none
	files []fs.FileInfo    // as they were just before they were read
	young bool             // a file had changed so lately that a further change might not show in its time
}

// Server reads the files and returns a configuration for a server, for Config.TLS of this package or for any other that
// takes one. Its certificate and its authorities follow the files by themselves. Change it as you like before it is
// used: ClientAuth, for one, to accept clients without a certificate too. It blocks only to read.
func (f *Files) Server() (*tls.Config, error) {
	if f.Cert == "" {
		return nil, errors.New("tls: a server needs Files.Cert and Files.Key")
	}
	m, err := f.current()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}}
	if m.cas != nil {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	m.serve(cfg)
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m, err := f.current()
		if err != nil {
			return nil, err
		}
		now := cfg.Clone() // of cfg itself, which its user may have changed since
		now.GetConfigForClient = nil
		m.serve(now)
		return now, nil
	}
	return cfg, nil
}

// Client returns a configuration for a client, with the certificate and the authorities that the files hold now. Call
// it for each dial, as [Dialer.GetConfig] does. Only the first call fails for what the files hold; it blocks only to
// read.
func (f *Files) Client() (*tls.Config, error) {
	m, err := f.current()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ALPN}, RootCAs: m.cas}
	if m.cert != nil {
		cfg.Certificates = []tls.Certificate{*m.cert}
	}
	return cfg, nil
}

func (m *material) serve(cfg *tls.Config) {
	cfg.Certificates = []tls.Certificate{*m.cert}
	if m.cas != nil {
		cfg.ClientCAs = m.cas
	}
}

// current returns what the files hold, or what they held when they were last good.
func (f *Files) current() (*material, error) {
	m := f.live.Load()
	if m == nil {
		f.looking.Lock()
		defer f.looking.Unlock()
		if m = f.live.Load(); m != nil {
			return m, nil
		}
		m, err := f.read()
		if err == nil {
			f.looked = time.Now()
			f.live.Store(m)
		}
		return m, err
	}
	if !f.looking.TryLock() {
		return m, nil // someone looks right now: a slow disk holds up one handshake, not all
	}
	err := f.look(m)
	f.looking.Unlock()
	if err != nil && f.OnError != nil {
		f.OnError(err)
	}
	return f.live.Load(), nil
}

// look reads the files again if they have changed since m. It returns an error that is to be reported.
func (f *Files) look(m *material) error {
	interval := f.Interval
	if interval == 0 {
		interval = defaultFilesInterval
	}
	if time.Since(f.looked) < interval {
		return nil
	}
	f.looked = time.Now()
	if !m.young && f.unchanged(m) {
		f.failed = ""
		return nil
	}
	fresh, err := f.read()
	if err == nil {
		f.failed = ""
		f.live.Store(fresh)
		return nil
	}
	if err.Error() == f.failed {
		return nil
	}
	f.failed = err.Error()
	return fmt.Errorf("%w; what was read before stays in use", err)
}

func (f *Files) paths() []string {
	var paths []string
	for _, p := range []string{f.Cert, f.Key, f.CA} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	return paths
}

func (f *Files) unchanged(m *material) bool {
	for i, p := range f.paths() {
		now, err := os.Stat(p)
		if err != nil || !os.SameFile(now, m.files[i]) || now.Size() != m.files[i].Size() || !now.ModTime().Equal(m.files[i].ModTime()) {
			return false
		}
	}
	return true
}

func (f *Files) read() (*material, error) {
	// Systems tell the time of a change only roughly: in steps of some milliseconds, or of two seconds at worst.
	const step = 2 * time.Second

	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("tls: Files.Cert and Files.Key go together: one of them is empty")
	}
	m := &material{}
	start := time.Now()
	for _, p := range f.paths() {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		m.files = append(m.files, info)
		m.young = m.young || start.Sub(info.ModTime()) < step
	}
	if f.Cert != "" {
		cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("tls: certificate %s with key %s: %w", f.Cert, f.Key, err)
		}
		m.cert = &cert
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		m.cas = x509.NewCertPool()
		if !m.cas.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: no certificate in PEM in %s", f.CA)
		}
	}
	return m, nil
}
