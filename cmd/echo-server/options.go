package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"flag"
	"log/slog"
	"math"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

// options are the command line.
type options struct {
	listen                     []endpoint.URL
	tlsCert, tlsKey, tlsClient string
	maxSize                    int
	drain                      time.Duration
	expiry                     time.Duration
	maxSessions                int
	token                      string // "": none
	noPlain                    bool
	verbose, logJSON           bool
	help                       string // not empty: print it and exit
	versionOnly                bool
}

// secure reports whether any address needs a certificate.
func (o *options) secure() bool {
	for _, u := range o.listen {
		if u.Secure() {
			return true
		}
	}
	return false
}

// help is --help; the flags follow it.
const help = `Usage: echo-server [flags]

Sends each datagram back to its sender, with the same recipient. Without flags it
listens on tcp://127.0.0.1:7000. On standard output it prints one line for each
address, in the order of the flags, once connections are accepted on all:
"listening tcp://127.0.0.1:7000". Logs go to standard error.

  echo-server
  echo-server --listen tcp://:7000 --listen unix:///tmp/echo.sock
  echo-server --listen tls://localhost:0 --listen quic://localhost:0 --verbose

For tls:// and quic:// without --tls-cert a certificate for localhost is made, kept
in memory alone, and its fingerprint printed behind the listening lines:
"certificate sha256:...". Standard error then shows the echo-client command to paste.
Certificates, keys and authorities in files are read again when they change.

Clients with sessions and bare version-1 clients are served at once on each address.
A session outlives its connections, and may move between the addresses: what a client
sent before its connection broke is echoed once, in order, on the next one. It is kept
for --expiry without a connection. With --token or --token-file only those are served
who show the same token, which bare clients cannot do. A token over tcp:// can be read
on the way, and one on the command line by other users of the machine.

A connection whose peer sends what is not a datagram, or more than --max-size, is
closed, after what came before was sent back, and a line is logged: at most 100
such lines, and then 10 a second.

A peer that does not read its echoes is not read from either. It keeps what it has,
a connection and the memory of the echoes that wait for it, until it reads or leaves:
there is no limit on the time, so do not leave the server open to strangers.

SIGINT (Ctrl-C) and SIGTERM drain: nobody new is served. Sessions are asked to go away
and served until all of them pause, and end then; bare connections until each of them
pauses. What never pauses is read for half of --drain, and closed when all was sent
back. A second signal ends the program at once.

Exit status: 0 after a signal; 1 if it failed or a second signal came; 2 for wrong
usage; 3 if it cannot listen.

Flags:
`

// parse reads the command line. Errors are *program.UsageError.
func parse(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("echo-server", flag.ContinueOnError)
	fs.Func("listen", "`URL` to listen on: tcp://, tls://, quic:// or unix://; may be repeated (default tcp://127.0.0.1:7000)", func(s string) error {
		u, err := endpoint.Parse(s)
		o.listen = append(o.listen, u)
		return err
	})
	fs.StringVar(&o.tlsCert, "tls-cert", "", "the server's certificate and those above it, a `FILE` (PEM)")
	fs.StringVar(&o.tlsKey, "tls-key", "", "the key of --tls-cert, a `FILE` (PEM)")
	fs.StringVar(&o.tlsClient, "tls-client-ca", "", "demand of clients a certificate that the authorities in `FILE` (PEM) signed")
	fs.IntVar(&o.maxSize, "max-size", datagram.DefaultMaxPayload, "the largest payload in `BYTES`")
	fs.DurationVar(&o.drain, "drain", 5*time.Second, "the `time` that connections get to end after a signal")
	fs.DurationVar(&o.expiry, "expiry", reconnect.DefaultExpiry, "keep a session without a connection for this `time`")
	fs.IntVar(&o.maxSessions, "max-sessions", reconnect.DefaultMaxSessions, "at most `N` sessions at once")
	var token program.TokenFlags
	token.Register(fs, "serve only clients that show this `TEXT`; implies --no-plain")
	fs.BoolVar(&o.noPlain, "no-plain", false, "refuse clients without sessions")
	fs.BoolVar(&o.verbose, "verbose", false, "log each connection and what happens to sessions, too")
	fs.BoolVar(&o.logJSON, "log-json", false, "log in JSON")
	fs.BoolVar(&o.versionOnly, "version", false, "print the version")

	others, err := program.Parse(fs, args)
	if err == flag.ErrHelp {
		o.help = help + program.Flags(fs)
		return o, nil
	}
	if err != nil || o.versionOnly {
		return o, err
	}
	if len(o.listen) == 0 {
		o.listen = []endpoint.URL{{Scheme: endpoint.TCP, Addr: "127.0.0.1:7000"}}
	}
	given := program.Given(fs)
	if o.token, err = token.Token(given); err != nil {
		return nil, err
	}
	tlsGiven := o.tlsCert != "" || o.tlsKey != "" || o.tlsClient != ""
	switch {
	case len(others) > 0:
		return nil, program.Usagef("there are no arguments beside flags, such as %q", others[0])
	case (o.tlsCert == "") != (o.tlsKey == ""):
		return nil, program.Usagef("--tls-cert and --tls-key go together")
	case tlsGiven && !o.secure():
		return nil, program.Usagef("the --tls flags are for tls:// and quic://, and no --listen is one of these")
	case o.maxSize < 1 || o.maxSize > maxPayload:
		return nil, program.Usagef("--max-size is %d and must be 1 to %d", o.maxSize, maxPayload)
	case o.drain < 0:
		return nil, program.Usagef("--drain is %v and must be 0 or more", o.drain)
	case o.expiry <= 0:
		return nil, program.Usagef("--expiry is %v and must be more than 0", o.expiry)
	case o.maxSessions < 1:
		return nil, program.Usagef("--max-sessions is %d and must be 1 or more", o.maxSessions)
	case o.token != "" && given["no-plain"] && !o.noPlain:
		return nil, program.Usagef("--token implies --no-plain: clients without sessions have no way to show one")
	}
	o.noPlain = o.noPlain || o.token != ""
	for _, u := range o.listen {
		if u.Scheme == endpoint.Mem {
			return nil, program.Usagef("mem:// lives inside one process and no client of another can reach it; use tcp://127.0.0.1:7000 or unix:///path")
		}
	}
	return o, nil
}

// maxPayload is what the size field can express, and an int hold.
const maxPayload = min(math.MaxUint32-4, math.MaxInt32-8)

// sessions are the options of the listener.
func (o *options) sessions(complaints *complaints) *reconnect.ListenOptions {
	l := &reconnect.ListenOptions{
		SessionOptions: reconnect.SessionOptions{MaxPayload: o.maxSize, Logger: slog.New(library{complaints: complaints})},
		Expiry:         o.expiry,
		MaxSessions:    o.maxSessions,
	}
	if o.noPlain {
		l.Plain = reconnect.RefusePlain
	}
	if o.token != "" {
		l.Authenticate = authenticator(o.token)
	}
	return l
}

// authenticator serves those who show the token. All of them are one principal.
func authenticator(token string) func(context.Context, *reconnect.Peer) (string, error) {
	want := sha256.Sum256([]byte(token)) // of equal length, whatever is shown
	principal := hex.EncodeToString(want[:])
	return func(_ context.Context, p *reconnect.Peer) (string, error) {
		got := sha256.Sum256(p.Token)
		switch {
		case subtle.ConstantTimeCompare(got[:], want[:]) == 1:
			return principal, nil
		case len(p.Token) == 0:
			return "", errors.New("it shows no token")
		}
		return "", errors.New("it shows another token")
	}
}
