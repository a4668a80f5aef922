package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
)

// dialTime bounds the dial.
const dialTime = 10 * time.Second

// run is the whole program; ctx ends with the first Ctrl-C. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	console := program.Console{Name: "echo-client", Stdout: stdout, Stderr: stderr}
	o, err := parse(args)
	switch {
	case err != nil:
		return console.Fail(program.Usage, "%v (see echo-client --help)", err)
	case o.help != "":
		return console.Print(o.help)
	case o.versionOnly:
		return console.Print(program.Version("echo-client") + "\n")
	}

	input := stdin
	if o.file != "-" {
		f, err := os.Open(o.file)
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
	dialer, err := o.connect.Dialer(&endpoint.Config{TLS: tlsConfig})
	if err != nil {
		return console.Fail(program.Usage, "%s", program.OneLine(err.Error()))
	}
	if o.tls.insecure {
		fmt.Fprintln(stderr, "echo-client: warning: --insecure trusts any server, even an impostor; --tls-fingerprint is the safe way")
	}

	dialCtx, cancel := context.WithTimeout(ctx, dialTime)
	conn, err := reconnect.DialPlain(dialCtx, dialer, &reconnect.PlainOptions{MaxPayload: o.maxPayload()})
	cancel()
	switch {
	case err != nil && ctx.Err() != nil:
		return console.Fail(program.NoConnection, "interrupted before %s answered", o.name())
	case err != nil:
		return console.Fail(program.NoConnection, "cannot connect to %s: %s", o.name(), o.connectReason(err))
	}

	c := newClient(o, conn, input, stdout)
	stopProgress := c.showProgress(input, stdout, stderr)
	err = c.run(ctx)
	stopProgress()

	s := c.summary()
	if err != nil {
		if refusal := new(refusedError); errors.As(err, &refusal) {
			return console.Fail(program.NoConnection, "cannot connect to %s: %s", o.name(), program.Reason(err))
		}
		console.Fail(program.Failed, "%v", err)
	}
	fmt.Fprintf(stderr, "echo-client: %s\n", s)
	if o.json {
		if jsonErr := s.writeJSON(stdout, c.lastByte); jsonErr != nil && err == nil {
			err = jsonErr
			console.Fail(program.Failed, "cannot write the output: %s", program.Reason(err))
		}
	}
	if err != nil || !s.clean() {
		return program.Failed
	}
	return program.OK
}
