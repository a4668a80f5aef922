package main

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"syscall"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

// connectReason says why there is no connection, and what might help.
func (o *options) connectReason(err error) string {
	all, ok := err.(interface{ Unwrap() []error }) // one of each address?
	if ok && len(o.connect) > 1 && len(all.Unwrap()) == len(o.connect) && err.Error() == errors.Join(all.Unwrap()...).Error() {
		var each []string
		for i, err := range all.Unwrap() {
			each = append(each, o.connect[i].String()+": "+o.oneReason(o.connect[i], err))
		}
		return strings.Join(each, "; ")
	}
	return o.oneReason(o.connect[0], err)
}

func (o *options) oneReason(u endpoint.URL, err error) string {
	var frame *datagram.FrameError
	var alert tls.AlertError
	switch {
	case errors.As(err, &alert) && alert == certificateRequired && o.tls.cert != "":
		return "the server does not trust the authority of --tls-cert"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return reason(err) + "; is echo-server running there?"
	case u.Scheme == endpoint.QUIC && (errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, context.DeadlineExceeded)):
		return "no answer; is echo-server running there, and does the network let UDP through?"
	case errors.Is(err, reconnect.ErrRefused):
		return refusal(err)
	case errors.Is(err, reconnect.ErrNoSessions):
		return "it hung up at the first word; if it has no sessions, give --plain" + tlsHint(u)
	case errors.As(err, &frame):
		return "it answers with something else: " + program.OneLine(err.Error()) + tlsHint(u)
	}
	return reason(err)
}

// certificateRequired is the alert of a server that got no certificate that it asked for: of other authorities none is sent.
const certificateRequired tls.AlertError = 116

// tlsHint is for servers that do not understand.
func tlsHint(u endpoint.URL) string {
	if u.Scheme != endpoint.TCP {
		return ""
	}
	return "; if it speaks TLS, connect to tls://" + u.Addr
}

// refusal puts the listener's refusal in words.
func refusal(err error) string {
	return strings.TrimPrefix(program.OneLine(err.Error()), "refused by the listener: ") + "; see --token"
}
