package main

import (
	"flag"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/endpoint"
)

const (
	defaultInflight = 4096
	defaultSize     = 64
	maxInflight     = 1 << 24
)

// options are the command line.
type options struct {
	connect     []endpoint.URL // in order of preference
	recipient   uint16
	file        string // "-": standard input
	chunk       int    // 0: lines
	load        bool
	count       uint64 // 0: until duration
	size        int
	duration    time.Duration // 0: until count
	inflight    int
	rate        float64 // 0: as fast as it goes
	wait        time.Duration
	plain       bool
	strict      bool
	token       string        // "": none
	cut         time.Duration // 0: never
	demo        bool
	verbose     bool
	json        bool
	tls         tlsFlags
	help        string // not empty: print it and exit
	versionOnly bool
}

// maxPayload is the limit for both directions.
func (o *options) maxPayload() int { return max(datagram.DefaultMaxPayload, o.chunk, o.size) }

// help is --help; the flags follow it.
const help = `Usage: echo-client [flags] [FILE]

Sends FILE, or standard input, to an echo server, one datagram a line, writes
what comes back to standard output as it arrives, and checks that everything came
back once, in order. With --chunk the input is cut in pieces of bytes instead of
lines. With --count or --duration there is no input: numbered datagrams are made,
and checked when they come back.

  echo-client --demo
  seq 1 1000 | echo-client >/dev/null
  echo-client --chunk 65536 /bin/sh >back && cmp /bin/sh back
  echo-client --count 100000 --size 64 --json

The first needs nothing. It starts a server in the same process and a line to it that
is reset, frozen and slowed at random for ten seconds (--duration), and shows what
comes of the traffic. The others need a server: "echo-server", without any flags.

The client keeps a session, which outlives its connections: when one breaks it connects
again, to the first --connect that answers, and what was on its way is sent again, once
and in order (replayed). A server that was started again has lost the session and with it
what it had not echoed: the client begins a new session and sends that again (redelivered),
or ends, with --strict. It goes on trying until nothing has come back for --wait; to get
the first connection, for 10 s at most for each --connect. With
--plain there is no session, and the end of the connection is the end of the program.

A summary goes to standard error; with --json also to standard output, as one
JSON object on the last line. Round trips are counted in microseconds, from the
moment a datagram is handed to the connection. Bytes are those of payloads; a
megabyte has 1,000,000.

Exit status: 0 if every datagram came back once, in order; 1 if not, or if Ctrl-C
came before the end of the input, or before --count was sent; 2 for wrong usage; 3
if there was no connection.
Ctrl-C ends the sending and waits a second for what is on its way; a second
Ctrl-C ends the program at once.

Flags:
`

// parse reads the command line. Errors are *program.UsageError.
func parse(args []string) (*options, error) {
	o := new(options)
	fs := flag.NewFlagSet("echo-client", flag.ContinueOnError)
	fs.Func("connect", "`URL` of the server: tcp://, tls://, quic:// or unix://; may be repeated: further ones are for when those before do not answer (default tcp://127.0.0.1:7000)", func(s string) error {
		u, err := endpoint.Parse(s)
		o.connect = append(o.connect, u)
		return err
	})
	recipient := program.Uint16(fs, "recipient", 0, "the tag `N` on each datagram, 0 to 65535")
	fs.IntVar(&o.chunk, "chunk", 0, "cut the input in chunks of `BYTES` instead of lines")
	fs.Uint64Var(&o.count, "count", 0, "load mode: send `N` datagrams")
	fs.DurationVar(&o.duration, "duration", 0, "load mode: send for this `time`, such as 10s; with --count, until the first of the two is reached")
	fs.IntVar(&o.size, "size", defaultSize, "load mode: `BYTES` in each payload")
	fs.IntVar(&o.inflight, "inflight", defaultInflight, "at most `K` datagrams on their way at once; also at most 32 MB, but for one that is larger")
	fs.Float64Var(&o.rate, "rate", 0, "send `R` datagrams a second; 0: as fast as they come back")
	fs.DurationVar(&o.wait, "wait", 30*time.Second, "give up when nothing comes back for this `time`, and, while connected, a second more for each 64 KiB on its way")
	fs.BoolVar(&o.json, "json", false, "print the summary as JSON, too, as the last line of standard output")
	fs.BoolVar(&o.plain, "plain", false, "no session: bare version-1 datagrams over one connection")
	fs.BoolVar(&o.strict, "strict", false, "end when the server has lost the session, and say how much is unconfirmed")
	var token program.TokenFlags
	token.Register(fs, "show this `TEXT` to the server; over tcp:// it can be read on the way")
	fs.DurationVar(&o.cut, "cut", 0, "kill the own connection `EVERY` so often, such as 200ms, by a reset where there is such a thing")
	fs.BoolVar(&o.demo, "demo", false, "show what sessions are for, without a server")
	fs.BoolVar(&o.verbose, "verbose", false, "log what happens to the session")
	fs.BoolVar(&o.verbose, "v", false, "the same as --verbose")
	fs.BoolVar(&o.versionOnly, "version", false, "print the version")
	o.tls.register(fs)

	files, err := program.Parse(fs, args)
	if err == flag.ErrHelp {
		o.help = help + program.Flags(fs)
		return o, nil
	}
	if err != nil || o.versionOnly {
		return o, err
	}

	given := program.Given(fs)
	if o.token, err = token.Token(given); err != nil {
		return nil, err
	}
	o.load = given["count"] || given["duration"] || o.demo
	o.recipient = *recipient
	if len(o.connect) == 0 {
		o.connect = []endpoint.URL{{Scheme: endpoint.TCP, Addr: "127.0.0.1:7000"}}
	}
	for _, u := range o.connect {
		if u.Scheme == endpoint.Mem {
			return nil, program.Usagef("mem:// lives inside one process and no server of another can be reached there; use tcp://127.0.0.1:7000 or unix:///path")
		}
	}
	if o.demo {
		if err := o.setDemo(given, files); err != nil {
			return nil, err
		}
	}
	switch {
	case o.plain && (o.strict || o.token != "" || given["cut"]):
		return nil, program.Usagef("--strict, --token, --token-file and --cut are about sessions, and --plain has none")
	case o.plain && len(o.connect) > 1:
		return nil, program.Usagef("--plain makes one connection, to one --connect")
	case given["cut"] && o.cut <= 0:
		return nil, program.Usagef("--cut is %v and must be more than 0", o.cut)
	case len(files) > 1:
		return nil, program.Usagef("one FILE at most, not %q and %q", files[0], files[1])
	case given["chunk"] && o.chunk < 1:
		return nil, program.Usagef("--chunk is %d and must be 1 or more", o.chunk)
	case o.chunk > maxPayload:
		return nil, program.Usagef("--chunk is %d, and a datagram carries at most %d bytes", o.chunk, maxPayload)
	case o.size < 0 || o.size > maxSize:
		return nil, program.Usagef("--size is %d and must be 0 to %d", o.size, maxSize)
	case o.load && (given["chunk"] || len(files) > 0):
		return nil, program.Usagef("--count and --duration make their own datagrams: leave FILE and --chunk out")
	case given["size"] && !o.load:
		return nil, program.Usagef("--size is for load mode: say how many with --count, or how long with --duration")
	case given["count"] && o.count == 0:
		return nil, program.Usagef("--count must be 1 or more; for no limit leave it out and give --duration")
	case given["duration"] && o.duration <= 0:
		return nil, program.Usagef("--duration is %v and must be more than 0", o.duration)
	case o.inflight < 1 || o.inflight > maxInflight:
		return nil, program.Usagef("--inflight is %d and must be 1 to %d", o.inflight, maxInflight)
	case o.rate < 0 || math.IsNaN(o.rate) || math.IsInf(o.rate, 0):
		return nil, program.Usagef("--rate is %v and must be 0 or more", o.rate)
	case o.wait <= 0:
		return nil, program.Usagef("--wait is %v and must be more than 0", o.wait)
	}
	if !o.load {
		o.size = 0
	}
	o.file = "-"
	if len(files) == 1 {
		o.file = files[0]
	}
	return o, o.tls.check(o)
}

// maxPayload is what the size field can express, and an int hold.
const maxPayload = min(math.MaxUint32-4, math.MaxInt32-8)

// maxSize is the largest payload of load mode, whose pattern is a little longer: that, too, is to fit an int.
const maxSize = min(maxPayload, math.MaxInt-shifts)

// name is what errors and the summary call the server.
func (o *options) name() string {
	names := make([]string, len(o.connect))
	for i, u := range o.connect {
		names[i] = u.String()
	}
	return strings.Join(names, " or ")
}

// secure reports whether any address is one for TLS.
func (o *options) secure() bool { return slices.ContainsFunc(o.connect, endpoint.URL.Secure) }

// dialers are those of the addresses.
func (o *options) dialers(cfg *endpoint.Config) ([]transport.Dialer, error) {
	var all []transport.Dialer
	for _, u := range o.connect {
		d, err := u.Dialer(cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
