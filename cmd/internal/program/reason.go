package program

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

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
	return OneLine(err.Error())
}

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
