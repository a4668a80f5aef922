// Package tls dials and listens on TLS 1.3, over TCP or over any other byte stream.
//
//	cert, err := tls.SelfSigned()
//	ln, err := tls.Listen(ctx, "127.0.0.1:7000", &tls.Config{TLS: &cryptotls.Config{
//		Certificates: []cryptotls.Certificate{cert},
//	}})
//	conn, err := tls.Dialer{Addr: "127.0.0.1:7000", Config: clientConfig}.DialContext(ctx)
//
// Settings are crypto/tls's own, of which this package changes two: versions before TLS 1.3 are off, and the protocol
// [ALPN] is spoken unless the caller names others. A connection is ready when it is handed out: its handshake is done,
// and the peer's certificate has been verified and can be had from [Conn.ConnectionState].
//
// A listener makes its handshakes beside each other, each with a deadline and all with a cap, so that peers which
// connect and say nothing delay nobody. See [Config].
//
// Certificates come from files that are read again when they change ([Files]), from memory ([SelfSigned]), or from
// anywhere that crypto/tls can take them from. A client trusts the system's authorities, those of a file, or a
// certificate whose [Fingerprint] it was given ([PinFingerprint]).
//
// Errors say what to do about them and keep their cause: a certificate that does not verify is a
// *crypto/tls.CertificateVerificationError around an x509.HostnameError, x509.UnknownAuthorityError or
// x509.CertificateInvalidError, a peer that does not speak TLS a crypto/tls.RecordHeaderError, and an alert of the peer
// a crypto/tls.AlertError. Note that TLS 1.3 lets a client finish before the server has looked at its certificate: a
// server's refusal of it arrives with the client's first Read.
//
// A stream ends with io.EOF only if the peer said so, by close_notify. One that is cut, even between two records, where
// crypto/tls sees no difference, is io.ErrUnexpectedEOF.
package tls
