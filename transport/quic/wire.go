package quic

import (
	"crypto/tls"
	"strings"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// alpn is the application protocol of both sides unless their tls.Config names others.
const alpn = "towline/1"

// preface is what the dialer sends first: a stream shows at its peer only once something was sent on it, and the
// listener's user may want to speak first. The second byte is the version of the close protocol.
var preface = [2]byte{'T', 0x01}

// Application codes of a closed connection.
const (
	codeClosed  quicgo.ApplicationErrorCode = 0
	codeAborted quicgo.ApplicationErrorCode = 1
	codePreface quicgo.ApplicationErrorCode = 2
	codeSlow    quicgo.ApplicationErrorCode = 3
	codeBusy    quicgo.ApplicationErrorCode = 4
)

// Defaults of the settings that Dialer and Config share.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultIdleTimeout      = 30 * time.Second
	defaultKeepAlive        = 10 * time.Second
	defaultLinger           = 5 * time.Second
)

// Receive windows. The window of the one stream is what bounds memory: it starts small enough for thousands of
// connections and doubles, while the reader keeps up, to 16 MiB: 1 Gbit/s at 130 ms. The connection's window stays
// half as large again, so that it never holds back the stream.
const (
	initialWindow = 512 << 10
	maxWindow     = 16 << 20
)

// timing holds the durations that Dialer and Config share, with their defaults filled in.
type timing struct {
	handshake, idle, keepAlive time.Duration
}

func newTiming(handshake, idle, keepAlive time.Duration) timing {
	t := timing{handshake: handshake, idle: idle, keepAlive: keepAlive}
	if t.handshake <= 0 {
		t.handshake = defaultHandshakeTimeout
	}
	if t.idle <= 0 {
		t.idle = defaultIdleTimeout
	}
	switch {
	case t.keepAlive == 0:
		t.keepAlive = defaultKeepAlive
	case t.keepAlive < 0:
		t.keepAlive = 0
	}
	return t
}

// config returns the settings of a QUIC connection. Only the dialer opens a bidirectional stream, and only one; each
// side opens one unidirectional stream when it has the other's half.
func (t timing) config(dialer bool) *quicgo.Config {
	c := &quicgo.Config{
		HandshakeIdleTimeout:           t.handshake,
		MaxIdleTimeout:                 t.idle,
		KeepAlivePeriod:                t.keepAlive,
		InitialStreamReceiveWindow:     initialWindow,
		MaxStreamReceiveWindow:         maxWindow,
		InitialConnectionReceiveWindow: initialWindow * 3 / 2,
		MaxConnectionReceiveWindow:     maxWindow * 3 / 2,
		MaxIncomingStreams:             1,
		MaxIncomingUniStreams:          1,
	}
	if dialer {
		c.MaxIncomingStreams = -1 // a context bounds the whole handshake
	} else {
		c.HandshakeIdleTimeout = t.handshake / 2 // quic-go bounds the whole handshake by twice this
	}
	return c
}

// dialerTLS returns conf as a dialer of host needs it. conf is not changed.
func dialerTLS(conf *tls.Config, host string) *tls.Config {
	if conf == nil {
		conf = &tls.Config{}
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName, _, _ = strings.Cut(host, "%") // a zone is of this machine alone
	}
	fillTLS(conf)
	return conf
}

// listenerTLS returns conf as a listener needs it. conf is not changed.
func listenerTLS(conf *tls.Config) *tls.Config {
	conf = conf.Clone()
	fillTLS(conf)
	if choose := conf.GetConfigForClient; choose != nil {
		conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := choose(hello)
			if c == nil || err != nil {
				return c, err
			}
			c = c.Clone()
			fillTLS(c)
			return c, nil
		}
	}
	return conf
}

func fillTLS(conf *tls.Config) {
	conf.MinVersion = max(conf.MinVersion, tls.VersionTLS13)
	if len(conf.NextProtos) == 0 {
		conf.NextProtos = []string{alpn}
	}
}
