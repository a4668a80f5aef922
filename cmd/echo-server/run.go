package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/transport/endpoint"
)

// run is the whole program; ctx ends with the first signal. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	console := program.Console{Name: "echo-server", Stdout: stdout, Stderr: stderr}
	o, err := parse(args)
	switch {
	case err != nil:
		return console.Fail(program.Usage, "%v (see echo-server --help)", err)
	case o.help != "":
		return console.Print(o.help)
	case o.versionOnly:
		return console.Print(program.Version("echo-server") + "\n")
	}

	log := newLogger(stderr, o.logJSON, o.verbose)
	complaints := newComplaints(log)
	tlsConfig, fingerprint, err := o.certificate(log)
	if err != nil {
		return console.Fail(program.Usage, "%s", program.OneLine(err.Error()))
	}
	cfg := &endpoint.Config{
		TLS: tlsConfig,
		HandshakeError: func(remote net.Addr, err error) {
			complaints.warn("handshake failed", "peer", fmt.Sprint(remote), "error", program.OneLine(err.Error()))
		},
	}
	cfg.AcceptError = func(err error) {
		complaints.warn("accept failed, and is tried again", "error", program.Reason(err))
	}
	if o.noPlain { // a bare connection that waits for its peer to read is left alone
		cfg.UserTimeout = program.UserTimeout
	}
	var listeners []net.Listener
	for _, u := range o.listen {
		ln, err := u.Listen(ctx, cfg)
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close() // leaving
			}
			return console.Fail(program.NoConnection, "cannot listen on %s: %s", u, listenReason(err))
		}
		listeners = append(listeners, ln)
	}
	var lines strings.Builder
	for i, ln := range listeners {
		fmt.Fprintf(&lines, "listening %s\n", o.listen[i].At(ln.Addr()))
	}
	s := newServer(complaints, o.sessions(complaints), listeners...)
	if fingerprint != "" {
		fmt.Fprintf(&lines, "certificate %s\n", fingerprint)
	}
	if code := console.Print(lines.String()); code != program.OK {
		s.shutdown(0) // who started it would wait for these lines for ever
		return code
	}
	if fingerprint != "" {
		for i, ln := range listeners {
			if !o.listen[i].Secure() {
				continue
			}
			command := o.clientCommand(o.listen[i].At(ln.Addr()), fingerprint)
			if o.logJSON {
				log.Info("certificate made", "client_command", command)
			} else {
				fmt.Fprintf(stderr, "the certificate was made just now; to connect:\n  %s\n", command)
			}
		}
	}

	<-ctx.Done()
	log.Info("draining", "connections", s.live(), "at_most", o.drain)
	if cut := s.shutdown(o.drain); cut > 0 {
		log.Warn("connections cut before all was sent back", "connections", cut)
	}
	return program.OK
}
