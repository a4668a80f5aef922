package tls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const fingerprintPrefix = "sha256:"

// Fingerprint returns "sha256:" and the 64 hexadecimal digits of the hash over the certificate's DER bytes, by which
// [PinFingerprint] knows it again. Of a crypto/tls.Certificate, give the Leaf. Cert must not be nil.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return fingerprintPrefix + hex.EncodeToString(sum[:])
}

// PinFingerprint makes a client that uses cfg accept exactly the servers whose certificate has one of the fingerprints,
// in the form that [Fingerprint] returns; upper case, and colons between the digits, will do too. Several serve a
// change of certificates.
//
// Nothing else about the certificate is checked: not its name, its authority, nor its time. That the server holds the
// certificate's key is proved by the handshake all the same. A VerifyConnection that cfg already has still runs, after
// the check. A certificate with another fingerprint fails the handshake with a
// *crypto/tls.CertificateVerificationError.
//
// It works by InsecureSkipVerify and VerifyConnection, so cfg serves any package that takes a crypto/tls.Config. It
// returns an error, and leaves cfg as it was, if a fingerprint is malformed or none is given. Cfg must not be nil.
func PinFingerprint(cfg *tls.Config, fingerprints ...string) error {
	if len(fingerprints) == 0 {
		return errors.New("tls: no fingerprint to pin")
	}
	var pins []string
	for _, f := range fingerprints {
		pin, err := parseFingerprint(f)
		if err != nil {
			return err
		}
		pins = append(pins, pin)
	}
	next := cfg.VerifyConnection
	cfg.InsecureSkipVerify = true
	// Not VerifyPeerCertificate: that one is left out when a session is resumed.
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return &tls.CertificateVerificationError{Err: errors.New("the server sent no certificate")}
		}
		if got := Fingerprint(cs.PeerCertificates[0]); !slices.Contains(pins, got) {
			return &tls.CertificateVerificationError{
				UnverifiedCertificates: cs.PeerCertificates,
				Err:                    fmt.Errorf("its fingerprint is %s, expected %s", got, strings.Join(pins, " or ")),
			}
		}
		if next != nil {
			return next(cs)
		}
		return nil
	}
	return nil
}

func parseFingerprint(s string) (string, error) {
	digits, ok := strings.CutPrefix(strings.ToLower(strings.TrimSpace(s)), fingerprintPrefix)
	digits = strings.ReplaceAll(digits, ":", "")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf(`tls: bad fingerprint %q: write "sha256:" and 64 hexadecimal digits, such as "%s%x"`, s, fingerprintPrefix, sha256.Sum256(nil))
	}
	return fingerprintPrefix + digits, nil
}
