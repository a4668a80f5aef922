package towlinetest

import (
	"testing"
	"time"

	"github.com/towline-mq/towline/transport"
)

// ServerOptions say what is known of the server under test. nil, and the zero value, suit an echo-server without flags.
type ServerOptions struct {
	// MaxPayload is the server's largest payload in bytes. 0: 16 MiB.
	MaxPayload int
	// NoPlain: it serves no plain connections. NoSessions: it serves nothing else.
	NoPlain, NoSessions bool
	// Token is what its Authenticate wants to see, if anything.
	Token []byte
	// Timeout bounds each case, beside what a case has to wait for. 0: 20 s.
	Timeout time.Duration
}

const defaultTimeout = 20 * time.Second

// Server checks that what d dials is an echo server that keeps to docs/protocol.md: one that sends each datagram back
// with the same recipient, over plain connections and over sessions, and that ends its stream when the peer has ended
// his. It speaks raw bytes, and shares no code with package reconnect.
//
// Each case is a subtest with connections of its own. A failure names the requirement, and shows what went over the wire.
// Cases that must wait, such as for a PING, are left out with -short. The Result is that of all cases.
func Server(t *testing.T, d transport.Dialer, o *ServerOptions) Result {
	t.Helper()
	opts := ServerOptions{}
	if o != nil {
		opts = *o
	}
	if opts.MaxPayload == 0 {
		opts.MaxPayload = 16 << 20
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	var cases []testCase
	if !opts.NoPlain {
		cases = append(cases, plainCases()...)
	}
	if !opts.NoSessions {
		cases = append(cases, firstCases()...)
		cases = append(cases, helloCases()...)
		cases = append(cases, resumeCases()...)
		cases = append(cases, ackCases()...)
		cases = append(cases, controlCases()...)
		cases = append(cases, endCases()...)
		cases = append(cases, aliveCases()...)
	}
	return runCases(t, cases, opts.Timeout, func(*testing.T) func(c *check) {
		return func(c *check) { c.server, c.dialTo = &opts, d.DialContext }
	})
}
