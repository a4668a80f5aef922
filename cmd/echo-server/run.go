package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/transport/endpoint"
)

// run is the whole program; ctx ends with the first signal. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(code int, format string, args ...any) int {
		fmt.Fprintf(stderr, "echo-server: %s\n", program.OneLine(fmt.Sprintf(format, args...)))
		return code
	}
	o, err := parse(args)
	switch {
	case err != nil:
		return fail(program.Usage, "%v (see echo-server --help)", err)
	case o.help != "":
		fmt.Fprint(stdout, o.help)
		return program.OK
	case o.versionOnly:
		fmt.Fprintln(stdout, program.Version("echo-server"))
		return program.OK
	}

	log := newLogger(stderr, o.logJSON, o.verbose)
	s := newServer(log, o.maxSize)
	tlsConfig, fingerprint, err := o.certificate(log)
	if err != nil {
		return fail(program.Usage, "%s", program.OneLine(err.Error()))
	}
	cfg := &endpoint.Config{
		TLS: tlsConfig,
		// A peer that does not read for a while, because a person pages through the output, is not gone.
		UserTimeout: -1,
		HandshakeError: func(remote net.Addr, err error) {
			s.complaints.warn("handshake failed", "peer", fmt.Sprint(remote), "error", program.OneLine(err.Error()))
		},
	}
	var listeners []net.Listener
	for _, u := range o.listen {
		ln, err := u.Listen(ctx, cfg)
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close() // leaving
			}
			return fail(program.NoConnection, "cannot listen on %s: %s", u, listenReason(err))
		}
		listeners = append(listeners, ln)
	}
	for i, ln := range listeners {
		u := o.listen[i].At(ln.Addr())
		s.serve(ln, u)
		fmt.Fprintf(stdout, "listening %s\n", u)
	}
	if fingerprint != "" {
		fmt.Fprintf(stdout, "certificate %s\n", fingerprint)
		for i, ln := range listeners {
			if !o.listen[i].Secure() {
				continue
			}
			command := clientCommand(o.listen[i].At(ln.Addr()), fingerprint)
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
