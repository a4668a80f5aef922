package program

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	ttls "github.com/towline-mq/towline/transport/tls"
)

// Alerts of TLS that say what a client lacks.
const (
	alertBadCertificate      tls.AlertError = 42
	alertCertificateExpired  tls.AlertError = 45
	alertUnknownCertificate  tls.AlertError = 46
	alertUnknownCA           tls.AlertError = 48
	alertCertificateRequired tls.AlertError = 116
)

// Reason puts an error in words for one line of a program's output: its last cause rather than the chain that led
// there, and with the flags that help, of which echo-client has the names.
func Reason(err error) string {
	if text := certificate(err); text != "" {
		return text
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		switch alert {
		case alertCertificateRequired:
			return "the server wants a client certificate that its authorities signed; give --tls-cert and --tls-key"
		case alertBadCertificate, alertCertificateExpired, alertUnknownCertificate, alertUnknownCA:
			return "the server does not trust the certificate of --tls-cert"
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return "there is no host " + dns.Name
		}
		return OneLine(dns.Err)
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if ne, ok := errors.AsType[net.Error](err); errors.Is(err, context.DeadlineExceeded) || ok && ne.Timeout() {
		return "no answer in time"
	}
	return OneLine(err.Error())
}

// certificate explains why a peer's certificate was refused, or returns "".
func certificate(err error) string {
	refused, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok {
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && len(refused.UnverifiedCertificates) > 0 {
		return fmt.Sprintf("no authority trusted here has signed its certificate; give --tls-ca, or, if the server shows the same one, --tls-fingerprint %s",
			ttls.Fingerprint(refused.UnverifiedCertificates[0]))
	}
	if host, ok := errors.AsType[x509.HostnameError](err); ok && host.Certificate != nil {
		return fmt.Sprintf("its certificate is for %s, not for %q: connect to one of its names", names(host.Certificate), host.Host)
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Cert != nil {
		now := time.Now()
		switch {
		case invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore):
			return fmt.Sprintf("its certificate is not valid before %s, and this machine's clock says %s: check the clock", stamp(invalid.Cert.NotBefore), stamp(now))
		case invalid.Reason == x509.Expired:
			return fmt.Sprintf("its certificate expired at %s, and this machine's clock says %s: renew it, or check the clock", stamp(invalid.Cert.NotAfter), stamp(now))
		case invalid.Reason == x509.IncompatibleUsage:
			return "its certificate is not one for servers: it needs another"
		}
	}
	if text := refused.Err.Error(); strings.HasPrefix(text, "its fingerprint is ") {
		return "it is another server, or has another certificate by now: " + OneLine(text)
	}
	return OneLine(err.Error())
}

// names lists what a certificate is for.
func names(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no host"
	}
	return strings.Join(all[:min(len(all), 8)], ", ")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// OneLine returns text without line breaks and other control characters, and without the name of the package that an
// error is from.
func OneLine(text string) string {
	for _, name := range []string{"tls: ", "quic: ", "datagram: ", "reconnect: "} {
		text = strings.TrimPrefix(text, name)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(text))
}
