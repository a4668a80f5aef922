package tls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"
)

const (
	alertBadCertificate        tls.AlertError = 42
	alertCertificateExpired    tls.AlertError = 45
	alertUnknownCertificate    tls.AlertError = 46
	alertUnknownCA             tls.AlertError = 48
	alertProtocolVersion       tls.AlertError = 70
	alertCertificateRequired   tls.AlertError = 116
	alertNoApplicationProtocol tls.AlertError = 120
)

// failure is an error for people, with its causes for programs.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return "tls: " + f.text }
func (f *failure) Unwrap() []error { return f.causes }

// Timeout makes a failure a [net.Error].
func (f *failure) Timeout() bool {
	for _, c := range f.causes {
		if ne, ok := errors.AsType[net.Error](c); ok && ne.Timeout() {
			return true
		}
	}
	return false
}

// Temporary makes a failure a [net.Error].
func (f *failure) Temporary() bool { return f.Timeout() }

// party is the other side of a handshake that failed, and what this side asked of it.
type party struct {
	addr   string
	client bool // the other side is the client
	cfg    *tls.Config
}

func (p party) fail(cause error, format string, args ...any) error {
	return &failure{text: fmt.Sprintf(format, args...), causes: []error{cause}}
}

// checkALPN refuses a server that knows no ALPN, which crypto/tls lets pass. To programs it is the same error as an
// alert from a server that does.
func (p party) checkALPN(cs tls.ConnectionState) error {
	if len(p.cfg.NextProtos) == 0 || cs.NegotiatedProtocol != "" {
		return nil
	}
	return p.fail(alertNoApplicationProtocol, "%s speaks TLS but not %s (it chose no protocol by ALPN): is it a Towline server?", p.addr, strings.Join(p.cfg.NextProtos, ", "))
}

func (p party) tooSlow(d time.Duration) error {
	return p.fail(os.ErrDeadlineExceeded, "handshake with %s: not done within %v; if it does not speak TLS, dial it without", p.addr, d)
}

// explain turns an error of crypto/tls's handshake into one that says what to do.
func (p party) explain(err error) error {
	if cv, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return p.explainCertificate(cv, err)
	}
	if rh, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if p.client {
			return p.fail(err, "the client at %s does not speak TLS (first bytes %q): it should dial with TLS", p.addr, rh.RecordHeader[:])
		}
		what := "does not speak TLS"
		if strings.HasPrefix(string(rh.RecordHeader[:]), "HTTP") {
			what = "speaks HTTP without TLS"
		}
		return p.fail(err, "the peer at %s %s (first bytes %q): for a plain Towline server, dial tcp://%s", p.addr, what, rh.RecordHeader[:], p.addr)
	}
	if a, ok := peerAlert(err); ok {
		return &failure{text: fmt.Sprintf("handshake with %s: the peer refused: %s", p.addr, p.alertText(a)), causes: []error{a, err}}
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p.fail(err, "handshake with %s: not done in time", p.addr)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint := "; if it does not speak TLS, dial it without"
		if p.client {
			hint = ""
		}
		return p.fail(err, "%s closed the connection during the handshake%s: %v", p.addr, hint, err)
	}
	return p.fail(err, "handshake with %s: %s", p.addr, strings.TrimPrefix(err.Error(), "tls: "))
}

func (p party) explainCertificate(cv *tls.CertificateVerificationError, err error) error {
	if he, ok := errors.AsType[x509.HostnameError](err); ok {
		return p.fail(err, "the certificate of %s is for %s, not for %q: dial one of its names, or set ServerName to one", p.addr, names(he.Certificate), he.Host)
	}
	leaf := "(none)"
	if len(cv.UnverifiedCertificates) > 0 {
		leaf = Fingerprint(cv.UnverifiedCertificates[0])
	}
	if ua, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := "unknown"
		if ua.Cert != nil {
			issuer = fmt.Sprintf("%q", ua.Cert.Issuer)
		}
		if p.client {
			return p.fail(err, "the client certificate of %s is signed by an authority that is not trusted here (issuer %s): add it to Files.CA or ClientCAs", p.addr, issuer)
		}
		return p.fail(err, "the certificate of %s is signed by an authority that is not trusted here (issuer %s): give that authority in Files.CA or RootCAs, or, if this is the right server, pin its fingerprint %s", p.addr, issuer, leaf)
	}
	if ci, ok := errors.AsType[x509.CertificateInvalidError](err); ok && ci.Reason == x509.Expired && ci.Cert != nil {
		now := time.Now
		if p.cfg.Time != nil {
			now = p.cfg.Time
		}
		at := now().UTC()
		if at.Before(ci.Cert.NotBefore) {
			return p.fail(err, "the certificate of %s is not valid before %s, and this machine's clock says %s: check the clock", p.addr, stamp(ci.Cert.NotBefore), stamp(at))
		}
		return p.fail(err, "the certificate of %s expired at %s, and this machine's clock says %s: renew it, or check the clock", p.addr, stamp(ci.Cert.NotAfter), stamp(at))
	}
	return p.fail(err, "the certificate of %s was refused: %v", p.addr, cv.Err)
}

// alertText says what the peer meant by its alert, and what can be done on this side.
func (p party) alertText(a tls.AlertError) string {
	reason := strings.TrimPrefix(a.Error(), "tls: ")
	switch a {
	case alertNoApplicationProtocol:
		return fmt.Sprintf("it speaks none of %s (%s)", strings.Join(p.cfg.NextProtos, ", "), reason)
	case alertProtocolVersion:
		return fmt.Sprintf("it does not speak TLS 1.3 (%s)", reason)
	}
	return certificateAlertText(a, reason)
}

func certificateAlertText(a tls.AlertError, reason string) string {
	switch a {
	case alertCertificateRequired:
		return fmt.Sprintf("it wants a certificate from this side: set Files.Cert and Files.Key, or Certificates (%s)", reason)
	case alertBadCertificate, alertCertificateExpired, alertUnknownCertificate, alertUnknownCA:
		return fmt.Sprintf("it does not trust this side's certificate (%s)", reason)
	}
	return reason
}

// withAlert makes an alert that the peer sent after the handshake known to errors.As.
func withAlert(err error) error {
	a, ok := peerAlert(err)
	if !ok {
		return err
	}
	text := certificateAlertText(a, strings.TrimPrefix(a.Error(), "tls: "))
	return &failure{text: "the peer ended the connection: " + text, causes: []error{a, err}}
}

// peerAlert finds the peer's alert in an error. Crypto/tls reports it, other than over QUIC, as a *net.OpError around a
// byte of a type that it does not export; the exported AlertError has the same values.
func peerAlert(err error) (tls.AlertError, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return tls.AlertError(v.Uint()), true
}

// names lists what a certificate is for.
func names(c *x509.Certificate) string {
	const enough = 8
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	switch {
	case len(all) == 0:
		return fmt.Sprintf("no host (its subject is %q)", c.Subject)
	case len(all) > enough:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:enough], ", "), len(all)-enough)
	}
	return strings.Join(all, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
