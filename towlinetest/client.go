package towlinetest

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// ClientOptions say what is known of the client under test. nil, and the zero value, are the defaults.
type ClientOptions struct {
	// Strict: in place of a lost session the program itself begins another, which knows nothing of the one before and
	// says nothing of redelivery.
	Strict bool
	// Impatient: it ends with an error if the first answer that it gets is none, as programs that call reconnect.Dial do.
	Impatient bool
	// Timeout bounds each case, beside what a case has to wait for. 0: 20 s.
	Timeout time.Duration
}

// messages is how many datagrams a client under test sends.
const messages = 20

// Client checks a client that keeps to docs/protocol.md in the role of the dialer, with raw bytes and no code of package
// reconnect. listen makes a listener for one case. start runs the client until its end: it begins a session with the
// listener at addr, sends 20 datagrams of its choice, expects each back in order, ends its stream and then the session,
// and returns nil; or it returns why it could not. It dials again by itself after a connection is gone, and begins
// another session in place of a lost one. When ctx ends it gives up.
func Client(t *testing.T, listen func(tb testing.TB) net.Listener, start func(ctx context.Context, addr net.Addr) error, o *ClientOptions) Result {
	t.Helper()
	if o == nil {
		o = new(ClientOptions)
	}
	timeout := defaultTimeout
	if o.Timeout > 0 {
		timeout = o.Timeout
	}
	return runCases(t, clientCases(), timeout, func(t *testing.T) func(c *check) {
		var lns []net.Listener // one for each try
		for range tries {
			lns = append(lns, listen(t))
		}
		t.Cleanup(func() {
			for _, ln := range lns { // those of tries that there was no need for
				_ = ln.Close()
			}
		})
		return func(c *check) {
			c.listener, c.start, c.strict, c.impatient, lns = lns[0], start, o.Strict, o.Impatient, lns[1:]
		}
	})
}

// listener is a session of the suite's, in the role of the listener, with the client under test at its other end.
type listener struct {
	stream
	private  *ecdh.PrivateKey
	instance [16]byte
	hello    *frame
	helloRaw []byte
	keys     keys
	epoch    uint64
	echoed   int // how many of the client's datagrams were sent back
	replay   [][]byte
	result   <-chan error // of the client
}

// client starts the client under test.
func (c *check) client() *listener {
	l := &listener{stream: stream{c: c}}
	var err error
	if l.private, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		c.failf("R-113", "making a key: %v", err)
	}
	random(l.instance[:])
	l.reset()
	l.granted = initialCredit
	ctx, cancel := context.WithCancel(c.ctx)
	ended := make(chan struct{})
	result := make(chan error, 1)
	go func() {
		defer close(ended)
		result <- c.start(ctx, c.listener.Addr())
	}()
	l.result = result
	c.cleanup(func() { cancel(); _ = c.listener.Close(); <-ended })
	return l
}

// accept takes the client's next connection, and its first frame.
func (l *listener) accept(ref string, kind uint16) *frame {
	type accepted struct {
		nc  net.Conn
		err error
	}
	got := make(chan accepted, 1)
	go func() {
		nc, err := l.c.listener.Accept()
		got <- accepted{nc, err}
	}()
	select {
	case a := <-got:
		if a.err != nil {
			l.c.failf(ref, "accepting: %v", a.err)
		}
		l.k = l.c.take(a.nc)
	case err := <-l.result:
		_ = l.c.listener.Close()
		l.c.failf(ref, "expected another dial, and the client has ended with: %v", err)
	case <-l.c.ctx.Done():
		_ = l.c.listener.Close()
		l.c.failf(ref, "expected a dial, and none comes")
	}
	b := l.k.next(ref, kindName(kind))
	if len(b) < headerSize || binary.BigEndian.Uint16(b[4:]) != 2 {
		l.c.failf(ref, "expected %s, came %s", kindName(kind), what(b))
	}
	f, err := parse(b)
	if err != nil {
		l.c.failf("R-102", "the first frame is wrong: %v", err)
	}
	if f.kind != kind {
		l.c.failf(ref, "expected %s, came %s", kindName(kind), kindName(f.kind))
	}
	if kind == kHello {
		l.hello, l.helloRaw, l.epoch, l.flags = f, b, f.epoch, f.flags
		l.credit = max(l.credit, f.credit)
	} else {
		l.judge(f, b)
	}
	return f
}

// judge looks at a RESUME.
func (l *listener) judge(f *frame, b []byte) {
	e, err := exporter(l.k.nc)
	if err != nil {
		l.c.failf("R-114", "the exporter value: %v", err)
	}
	switch {
	case f.id != l.hello.id:
		l.c.failf("R-118", "RESUME of session %x, expected %x", f.id, l.hello.id)
	case f.epoch <= l.epoch:
		l.c.failf("R-119", "epoch %d behind %d", f.epoch, l.epoch)
	case f.maxPayload != l.hello.maxPayload || f.flags != l.hello.flags:
		l.c.failf("R-117", "largest payload %d and flags %d, and HELLO had %d and %d", f.maxPayload, f.flags, l.hello.maxPayload, l.hello.flags)
	case prove(l.keys.dialer, b, nil, e) != f.proof:
		l.c.failf("R-114", "the proof of RESUME is not right")
	}
	l.epoch = f.epoch
	n := f.status.sent.n
	if n >= uint64(len(l.gotEnds)) || l.gotEnds[n] != f.status.sent.b {
		l.c.failf("R-118", "the replay begins at %v, and %v has come", f.status.sent, l.have())
	}
	l.got, l.jump = f.status.sent, true
	l.checkReceived("RESUME", f.status.received)
	l.credit = max(l.credit, f.status.credit)
}

func (l *listener) have() position {
	n := uint64(len(l.gotEnds) - 1)
	return position{n, l.gotEnds[n]}
}

// welcome answers HELLO.
func (l *listener) welcomeFrame(change func(f *frame)) []byte {
	l.granted = max(l.granted, 1<<20)
	f := &frame{
		kind: kWelcome, version: 1, maxPayload: 1 << 20, epoch: l.epoch, instance: l.instance,
		key: [32]byte(l.private.PublicKey().Bytes()), expiry: 60_000, status: status{received: l.have(), credit: l.granted},
	}
	if change != nil {
		change(f)
	}
	z, err := sharedSecret(l.private, l.hello.key)
	if err != nil {
		l.c.failf("R-113", "HELLO with a key that is none: %v", err)
	}
	if l.keys, err = deriveKeys(z, l.hello.id, l.hello.key, f.key, f.instance); err != nil {
		l.c.failf("R-113", "deriving keys: %v", err)
	}
	return l.proved(f, l.helloRaw)
}

// proved is a frame with the listener's proof.
func (l *listener) proved(f *frame, answers []byte) []byte {
	e, err := exporter(l.k.nc)
	if err != nil {
		l.c.failf("R-114", "the exporter value: %v", err)
	}
	b := f.bytes()
	proof := prove(l.keys.listener, b, answers, e)
	copy(b[headerSize+len(f.fixed())-32:], proof[:])
	return b
}

// greet takes HELLO and answers it; the dialer's ACK has come when it returns.
func (l *listener) greet(change func(f *frame)) {
	l.accept("R-111", kHello)
	l.k.write(l.welcomeFrame(change))
	l.confirmed()
}

func (l *listener) confirmed() {
	for {
		f := l.handle(l.k.next("R-115", "ACK"))
		if f == nil {
			continue
		}
		switch f.kind {
		case kAck:
			return
		case kSkip, kFin:
		default:
			l.c.failf("R-115", "expected ACK behind WELCOME, came %s", kindName(f.kind))
		}
	}
}

// resume takes RESUME and answers it, and sends again what the client had not received.
func (l *listener) resume() *frame {
	r := l.accept("R-118", kResume)
	raw := r.bytes()
	f := &frame{kind: kResumed, epoch: r.epoch, expiry: 60_000, status: status{r.status.received, l.have(), l.granted}}
	l.k.write(l.proved(f, raw))
	for _, b := range l.replay[r.status.received.n:] {
		l.k.try(b)
	}
	return r
}

// back sends echoes of what has come and was not sent back: up to n in all.
func (l *listener) back(n int) {
	for ; l.echoed < n && l.echoed < len(l.arrived); l.echoed++ {
		b := l.arrived[l.echoed]
		if b == nil {
			continue // SKIP
		}
		l.count(uint64(len(b)))
		l.replay = append(l.replay, b)
		l.k.try(b)
	}
}

// serve echoes until the client ends the session in good order, and the client is content.
func (l *listener) serve() {
	fin := false
	for {
		f := l.handle(l.k.next("R-126", "the client's end"))
		l.back(1 << 20)
		if l.finGot && !fin {
			fin = true
			end := l.endFrame()
			l.replay = append(l.replay, end)
			l.k.try(end)
		}
		if f == nil {
			continue
		}
		if f.kind == kClose {
			if f.reason != 0 {
				l.c.failf("R-126", "expected CLOSE with reason 0, came reason %d", f.reason)
			}
			l.k.try(l.frame(kClose, nil))
			break
		}
	}
	l.content()
	if n := len(l.arrived); n != messages {
		l.c.failf("D1", "%d datagrams have come, expected %d", n, messages)
	}
}

// content expects that the client says that all is well.
func (l *listener) content() {
	if err := l.c.outcome("the client", l.result); err != nil {
		l.c.failf("D1", "the client ended with: %v", err)
	}
}

// discontent expects that the client says that it is not.
func (l *listener) discontent(ref string) {
	if err := l.c.outcome("the client", l.result); err == nil {
		l.c.failf(ref, "the client is content")
	}
}
