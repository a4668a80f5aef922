package towlinetest

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// dialer is a session of the suite's, in the role of the dialer.
type dialer struct {
	stream
	private  *ecdh.PrivateKey
	secret   [32]byte
	hello    frame
	helloRaw []byte
	welcome  *frame
	keys     keys
	epoch    uint64
}

// newDialer makes what a session begins with.
func (c *check) newDialer() *dialer {
	d := &dialer{stream: stream{c: c}}
	var err error
	if d.private, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		c.failf("R-111", "making a key: %v", err)
	}
	random(d.secret[:])
	d.reset()
	d.epoch = 1
	d.granted = 1 << 20
	d.hello = frame{kind: kHello, version: 1, maxPayload: 16 << 20, key: [32]byte(d.private.PublicKey().Bytes())}
	random(d.hello.id[:])
	if c.server != nil && len(c.server.Token) > 0 {
		d.hello.ext = []extension{{extToken, c.server.Token}}
	}
	return d
}

// helloFrame is HELLO with the epoch of now, changed as wanted.
func (d *dialer) helloFrame(change func(f *frame)) []byte {
	d.hello.epoch, d.hello.credit = d.epoch, d.granted
	if d.epoch <= maxEpochHello {
		d.hello.link = chain(d.secret, d.epoch)
	}
	if change != nil {
		change(&d.hello)
	}
	d.helloRaw = d.hello.bytes()
	return d.helloRaw
}

// greet sends HELLO with what follows it, on a new connection, and takes WELCOME.
func (d *dialer) greet(change func(f *frame), behind ...[]byte) {
	d.k = d.c.dial()
	d.maxIn = d.hello.maxPayload
	d.k.write(append(d.helloFrame(change), bytes.Join(behind, nil)...))
	d.takeWelcome()
}

func (d *dialer) takeWelcome() {
	b := d.k.next("R-113", "WELCOME")
	if f, err := parse(b); err == nil && f.kind == kReject {
		d.c.failf("R-113", "expected WELCOME, came REJECT with reason %d", f.reason)
	}
	w := d.handle(b)
	if w == nil || w.kind != kWelcome {
		d.c.failf("R-113", "expected WELCOME, came %s", what(b))
	}
	if w.epoch != d.hello.epoch {
		d.c.failf("R-113", "WELCOME for epoch %d, and HELLO had %d", w.epoch, d.hello.epoch)
	}
	z, err := sharedSecret(d.private, w.key)
	if err != nil {
		d.c.failf("R-113", "WELCOME with a key that is none: %v", err)
	}
	if d.keys, err = deriveKeys(z, d.hello.id, d.hello.key, w.key, w.instance); err != nil {
		d.c.failf("R-113", "deriving keys: %v", err)
	}
	if prove(d.keys.listener, b, d.helloRaw, d.exporter()) != w.proof {
		d.c.failf("R-114", "the proof of WELCOME is not right")
	}
	d.flags = w.flags
	d.got = position{} // all that this connection has brought
	if w.status.sent != d.got {
		d.c.failf("R-105", "WELCOME says that %v was sent", w.status.sent)
	}
	d.checkReceived("WELCOME", w.status.received)
	d.credit = max(d.credit, w.status.credit)
	d.welcome = w
}

func (d *dialer) exporter() []byte {
	e, err := exporter(d.k.nc)
	if err != nil {
		d.c.failf("R-114", "the exporter value of the channel: %v", err)
	}
	return e
}

// ack sends an ACK; the first confirms the session.
func (d *dialer) ack() { d.k.write(d.frame(kAck, nil)) }

// begin makes a session, and confirms it.
func (c *check) begin(change func(f *frame)) *dialer {
	d := c.newDialer()
	d.start(change)
	return d
}

func (d *dialer) start(change func(f *frame)) {
	d.greet(change)
	d.ack()
}

// echo sends payloads, and expects them back. Then both sides have acknowledged everything.
func (d *dialer) echo(recipient uint16, payloads ...[]byte) {
	d.there(recipient, payloads...)
	d.pong()
	d.awaitAck("R-109")
}

// there is echo that acknowledges nothing.
func (d *dialer) there(recipient uint16, payloads ...[]byte) {
	from := len(d.arrived)
	var all []byte
	for _, p := range payloads {
		all = append(all, d.data(recipient, p)...)
	}
	d.k.write(all)
	d.expectEchoes(from, recipient, payloads...)
}

func (d *dialer) expectEchoes(from int, recipient uint16, payloads ...[]byte) {
	d.awaitData(from + len(payloads))
	for i, p := range payloads {
		if want := datagramFrame(recipient, p); !bytes.Equal(d.arrived[from+i], want) {
			d.c.failf("R-4", "expected %s, came %s", brief(want), brief(d.arrived[from+i]))
		}
	}
}

func brief(b []byte) string {
	if len(b) <= 64 {
		return hex.EncodeToString(b)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%x… (%d bytes, SHA-256 %x)", b[:32], len(b), sum[:8])
}

// resumeFrame is RESUME with the next epoch, whose replay begins where the peer is known to be.
func (d *dialer) resumeFrame(change func(f *frame)) []byte {
	d.epoch++
	f := &frame{
		kind: kResume, version: 1, flags: d.hello.flags, maxPayload: d.hello.maxPayload, id: d.hello.id, epoch: d.epoch,
		status: status{d.acked, d.have(), d.granted}, ext: nil,
	}
	if d.c.server != nil && len(d.c.server.Token) > 0 {
		f.ext = []extension{{extToken, d.c.server.Token}}
	}
	if change != nil {
		change(f)
	}
	b := f.bytes()
	proof := prove(d.keys.dialer, b, nil, d.exporter())
	at := headerSize + len(f.fixed()) - 32
	copy(b[at:], proof[:])
	return b
}

// have is all that has come of the peer's stream, on whichever connection.
func (d *dialer) have() position {
	n := uint64(len(d.gotEnds) - 1)
	return position{n, d.gotEnds[n]}
}

// resume sends RESUME and what follows it on a new connection, and takes RESUMED.
func (d *dialer) resume(change func(f *frame), behind ...[]byte) *frame {
	d.k = d.c.dial()
	return d.takeResumed(d.sendResume(change, behind...))
}

func (d *dialer) sendResume(change func(f *frame), behind ...[]byte) []byte {
	b := d.resumeFrame(change)
	d.k.write(append(append([]byte(nil), b...), bytes.Join(behind, nil)...))
	return b
}

func (d *dialer) takeResumed(resume []byte) *frame {
	b := d.k.next("R-119", "RESUMED")
	if f, err := parse(b); err == nil && f.kind == kReject {
		d.c.failf("R-119", "expected RESUMED, came REJECT with reason %d", f.reason)
	}
	f := d.handle(b)
	if f == nil || f.kind != kResumed {
		d.c.failf("R-119", "expected RESUMED, came %s", what(b))
	}
	sent, err := parse(resume)
	if err != nil {
		d.c.failf("R-119", "RESUMED for a RESUME that was wrong: %v", err)
	}
	switch {
	case f.epoch != sent.epoch:
		d.c.failf("R-119", "RESUMED for epoch %d, and RESUME had %d", f.epoch, sent.epoch)
	case prove(d.keys.listener, b, resume, d.exporter()) != f.proof:
		d.c.failf("R-114", "the proof of RESUMED is not right")
	case f.status.sent != sent.status.received:
		d.c.failf("R-122", "RESUMED begins the replay at %v, and RESUME had received %v", f.status.sent, sent.status.received)
	}
	d.got = f.status.sent
	d.checkReceived("RESUMED", f.status.received)
	d.credit = max(d.credit, f.status.credit)
	return f
}

// rejected expects REJECT with a reason, and then the end.
func (k *conn) rejected(ref string, reason uint16) *frame {
	b, err := k.read()
	if err != nil {
		k.c.overtaken = !isTimeout(err)
		k.c.failf(ref, "expected REJECT with reason %d, came %s", reason, why(err))
	}
	f, err := parse(b)
	switch {
	case binary.BigEndian.Uint16(b[4:]) != 2 || err != nil || f.kind != kReject:
		k.c.failf(ref, "expected REJECT with reason %d, came %s (%v)", reason, what(b), err)
	case f.reason != reason:
		k.c.failf(ref, "expected REJECT with reason %d, came reason %d", reason, f.reason)
	}
	k.ends(ref, false)
	return f
}

// refused expects the end of a connection that asked for what nobody has: at most CLOSE or REJECT come before it.
func (k *conn) refused(ref string) {
	b, err := k.read()
	if err == nil {
		f, perr := parse(b)
		if binary.BigEndian.Uint16(b[4:]) != 2 || perr != nil || f.kind != kClose && f.kind != kReject {
			k.c.failf(ref, "expected the end of the connection, came %s", what(b))
		}
		k.ends(ref, false)
		return
	}
	if isTimeout(err) {
		k.c.failf(ref, "expected the end of the connection, and it is still open")
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, io.EOF)
}

// gone expects that the session has ended at the listener, and that it says how much it had.
func (d *dialer) gone(ref string) {
	d.k = d.c.dial()
	d.k.write(d.resumeFrame(nil))
	f := d.k.rejected(ref, 9)
	if f.flags&flagKnown == 0 {
		d.c.failf("R-127", "REJECT of a session that has ended does not say what was received")
	}
}
