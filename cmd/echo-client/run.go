package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

// dialTime bounds the dial.
const dialTime = 10 * time.Second

// run is the whole program; ctx ends with the first Ctrl-C. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	errs := &shared{w: stderr} // sessions tell of themselves as they please
	defer errs.close()
	console := program.Console{Name: "echo-client", Stdout: stdout, Stderr: errs}
	o, err := parse(args)
	switch {
	case err != nil:
		return console.Fail(program.Usage, "%v (see echo-client --help)", err)
	case o.help != "":
		return console.Print(o.help)
	case o.versionOnly:
		return console.Print(program.Version("echo-client") + "\n")
	case o.demo:
		return demo(ctx, o, console, isTerminal(stderr))
	}

	input := stdin
	if o.file != "-" {
		f, err := os.Open(o.file)
		if err != nil && strings.Contains(o.file, "://") {
			return console.Fail(program.Usage, "%[1]q is an address and no file: --connect %[1]q", o.file)
		}
		if err != nil {
			return console.Fail(program.Usage, "%s", program.OneLine(err.Error()))
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.IsDir() {
			return console.Fail(program.Usage, "%s is a directory", o.file)
		}
		input = f
	}
	tlsConfig, err := o.tls.config()
	if err != nil {
		return console.Fail(program.Usage, "%s", program.OneLine(err.Error()))
	}
	cfg := &endpoint.Config{TLS: tlsConfig}
	if !o.plain {
		cfg.UserTimeout = program.UserTimeout
	}
	dialers, err := o.dialers(cfg)
	if err != nil {
		return console.Fail(program.Usage, "%s", program.OneLine(err.Error()))
	}
	if o.tls.insecure {
		fmt.Fprintln(errs, "echo-client: warning: --insecure trusts any server, even an impostor; --tls-fingerprint is the safe way")
	}

	var s *session
	var conn *reconnect.Conn
	dialCtx, cancel := context.WithTimeout(ctx, dialTime*time.Duration(len(dialers)))
	if o.plain {
		conn, err = reconnect.DialPlain(dialCtx, dialers[0], &reconnect.PlainOptions{MaxPayload: o.maxPayload()})
	} else {
		s = newSession(o, dialers)
		s.log(errs, o.verbose, isTerminal(stderr))
		conn, err = s.dial(dialCtx)
	}
	cancel()
	switch {
	case err != nil && ctx.Err() != nil:
		return console.Fail(program.NoConnection, "interrupted before %s answered", o.name())
	case err != nil:
		return console.Fail(program.NoConnection, "cannot connect to %s: %s", o.name(), o.connectReason(err))
	}

	c := newClient(o, conn, s, input, stdout)
	stopProgress := func() {}
	if isTerminal(stderr) && !drawsOver(input, stdout, o.load, isTerminal) {
		stopProgress = c.showProgress(errs)
	}
	err = c.run(ctx)
	stopProgress()
	return c.conclude(console, err)
}

// conclude prints what came of a run, whose error is given, and returns the exit code.
func (c *client) conclude(console program.Console, err error) int {
	if refusal := new(refusedError); errors.As(err, &refusal) {
		return console.Fail(program.NoConnection, "cannot connect to %s: %s", c.o.name(), c.o.oneReason(c.o.connect[0], err))
	} else if err != nil {
		console.Fail(program.Failed, "%v", err)
	}
	s := c.summary()
	fmt.Fprintf(console.Stderr, "echo-client: %s\n", s)
	if c.o.json {
		if jsonErr := s.writeJSON(console.Stdout, c.lastByte); jsonErr != nil && err == nil {
			err = jsonErr
			console.Fail(program.Failed, "cannot write the output: %s", program.Reason(err))
		}
	}
	if err != nil || !s.clean() {
		return program.Failed
	}
	return program.OK
}
