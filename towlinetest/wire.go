package towlinetest

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
)

// What follows is a second reading of docs/protocol.md: it shares nothing with package reconnect, so that a mistake in
// one of them shows as a difference.

// Kinds of control frames, section 8.
const (
	kHello uint16 = iota + 1
	kWelcome
	kResume
	kResumed
	kReject
	kAck
	kPing
	kPong
	kFin
	kGoaway
	kClose
	kSkip
	kStop
)

var kindNames = [...]string{
	kHello: "HELLO", kWelcome: "WELCOME", kResume: "RESUME", kResumed: "RESUMED", kReject: "REJECT", kAck: "ACK",
	kPing: "PING", kPong: "PONG", kFin: "FIN", kGoaway: "GOAWAY", kClose: "CLOSE", kSkip: "SKIP", kStop: "STOP",
}

func kindName(k uint16) string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", k)
	}
	return kindNames[k]
}

const (
	headerSize     = 8
	maxControlSize = 1024
	initialCredit  = 16384
	maxEpochHello  = 256
	flagKnown      = 1 // of REJECT; of the others: ack-consumed
	extToken       = 1
	extCritical    = 0x8000
)

// position is (n, b) of section 7.
type position struct{ n, b uint64 }

func (p position) String() string { return fmt.Sprintf("(%d, %d)", p.n, p.b) }

// status is the 40 bytes of section 8.
type status struct {
	sent, received position
	credit         uint64
}

// extension is one of R-103.
type extension struct {
	typ   uint16
	value []byte
}

// frame is a control frame of any kind; each kind uses some of the fields.
type frame struct {
	kind        uint16
	version     uint16
	flags       uint16
	maxPayload  uint32
	id          [16]byte
	epoch       uint64
	key         [32]byte
	link        [32]byte
	redelivered uint64
	credit      uint64
	instance    [16]byte
	expiry      uint32
	status      status
	proof       [32]byte
	reason      uint16
	received    position
	delay       uint32
	spread      uint32
	token       uint64
	length      uint32
	ext         []extension
}

// fields lists the fixed part of a kind, in the order of the table of section 8. nil: there is no such kind.
func (f *frame) fields() []any {
	switch f.kind {
	case kHello:
		return []any{&f.version, &f.flags, &f.maxPayload, f.id[:], &f.epoch, f.key[:], f.link[:], &f.redelivered, &f.credit}
	case kWelcome:
		return []any{&f.version, &f.flags, &f.maxPayload, &f.epoch, f.instance[:], f.key[:], &f.expiry, &f.status, f.proof[:]}
	case kResume:
		return []any{&f.version, &f.flags, &f.maxPayload, f.id[:], &f.epoch, &f.status, f.proof[:]}
	case kResumed:
		return []any{&f.epoch, &f.expiry, &f.status, f.proof[:]}
	case kReject:
		return []any{&f.reason, &f.flags, &f.received, &f.delay, &f.spread, f.instance[:]}
	case kAck, kFin, kStop:
		return []any{&f.status}
	case kPing, kPong:
		return []any{&f.status, &f.token}
	case kGoaway:
		return []any{&f.status, &f.delay, &f.spread}
	case kClose:
		return []any{&f.status, &f.reason}
	case kSkip:
		return []any{&f.status, &f.length}
	}
	return nil
}

func putField(b []byte, field any) []byte {
	switch v := field.(type) {
	case *uint16:
		return binary.BigEndian.AppendUint16(b, *v)
	case *uint32:
		return binary.BigEndian.AppendUint32(b, *v)
	case *uint64:
		return binary.BigEndian.AppendUint64(b, *v)
	case []byte:
		return append(b, v...)
	case *position:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, v.n), v.b)
	case *status:
		b = putField(b, &v.sent)
		b = putField(b, &v.received)
		return binary.BigEndian.AppendUint64(b, v.credit)
	}
	panic(fmt.Sprintf("a field of type %T", field))
}

// getField takes a field off b, which is long enough.
func getField(b []byte, field any) []byte {
	switch v := field.(type) {
	case *uint16:
		*v = binary.BigEndian.Uint16(b)
		return b[2:]
	case *uint32:
		*v = binary.BigEndian.Uint32(b)
		return b[4:]
	case *uint64:
		*v = binary.BigEndian.Uint64(b)
		return b[8:]
	case []byte:
		return b[copy(v, b):]
	case *position:
		return getField(getField(b, &v.n), &v.b)
	case *status:
		return getField(getField(getField(b, &v.sent), &v.received), &v.credit)
	}
	panic(fmt.Sprintf("a field of type %T", field))
}

// header begins every frame, R-1.
func header(size uint32, version, recipient uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, size)
	b = binary.BigEndian.AppendUint16(b, version)
	return binary.BigEndian.AppendUint16(b, recipient)
}

// control is a version-2 frame with any body.
func control(kind uint16, body []byte) []byte {
	return append(header(uint32(4+len(body)), 2, kind), body...)
}

// datagramFrame is a version-1 frame.
func datagramFrame(recipient uint16, payload []byte) []byte {
	return append(header(uint32(4+len(payload)), 1, recipient), payload...)
}

// fixed is the fixed part of f.
func (f *frame) fixed() []byte {
	var b []byte
	for _, field := range f.fields() {
		b = putField(b, field)
	}
	return b
}

// bytes is f on the wire.
func (f *frame) bytes() []byte {
	var area []byte
	for _, e := range f.ext {
		area = binary.BigEndian.AppendUint16(area, e.typ)
		area = binary.BigEndian.AppendUint16(area, uint16(len(e.value)))
		area = append(area, e.value...)
	}
	b := f.fixed()
	b = binary.BigEndian.AppendUint16(b, uint16(len(area)))
	return control(f.kind, append(b, area...))
}

// errVersion is a version of the session protocol that is not 1.
var errVersion = errors.New("another version of the session protocol, R-104")

// parse takes a whole frame of version 2 apart, and judges it by itself: what needs no knowledge of the session.
func parse(b []byte) (*frame, error) {
	if len(b) > maxControlSize {
		return nil, fmt.Errorf("a control frame of %d bytes, R-102", len(b))
	}
	f := &frame{kind: binary.BigEndian.Uint16(b[6:])}
	all := f.fields()
	if all == nil {
		return nil, fmt.Errorf("kind %d, R-104", f.kind)
	}
	body := b[headerSize:]
	if f.kind == kHello || f.kind == kWelcome || f.kind == kResume {
		if len(body) >= 2 && binary.BigEndian.Uint16(body) != 1 {
			return nil, errVersion
		}
	}
	if len(body) < len(f.fixed())+2 {
		return nil, fmt.Errorf("a body of %d bytes, R-102", len(body))
	}
	for _, field := range all {
		body = getField(body, field)
	}
	area := body[2:]
	if int(binary.BigEndian.Uint16(body)) != len(area) {
		return nil, fmt.Errorf("an L of %d for %d bytes, R-102", binary.BigEndian.Uint16(body), len(area))
	}
	for len(area) > 0 {
		if len(area) < 4 || len(area) < 4+int(binary.BigEndian.Uint16(area[2:])) {
			return nil, errors.New("an extension that does not end within the area, R-103")
		}
		e := extension{typ: binary.BigEndian.Uint16(area)}
		end := 4 + int(binary.BigEndian.Uint16(area[2:]))
		e.value, area = slices.Clone(area[4:end]), area[end:]
		tokenFrame := f.kind == kHello || f.kind == kResume
		switch {
		case slices.ContainsFunc(f.ext, func(o extension) bool { return o.typ == e.typ }):
			return nil, fmt.Errorf("extension %d twice, R-103", e.typ)
		case e.typ >= extCritical:
			return nil, fmt.Errorf("extension %d, which is not known, R-103", e.typ)
		case e.typ == extToken && tokenFrame && (len(e.value) == 0 || len(e.value) > 768):
			return nil, fmt.Errorf("a token of %d bytes, R-103", len(e.value))
		}
		f.ext = append(f.ext, e)
	}
	switch {
	case f.flags > 1:
		return nil, fmt.Errorf("flags %#x, R-104", f.flags)
	case f.kind == kHello && (f.epoch == 0 || f.epoch > maxEpochHello):
		return nil, fmt.Errorf("epoch %d, R-112", f.epoch)
	case f.kind == kReject && (f.reason == 0 || f.reason > 10):
		return nil, fmt.Errorf("reason %d, R-128", f.reason)
	case f.kind == kClose && f.reason > 4:
		return nil, fmt.Errorf("reason %d, R-126", f.reason)
	case f.kind == kSkip && f.length < 8:
		return nil, fmt.Errorf("length %d, R-131", f.length)
	}
	return f, nil
}

// chain is the link of the HELLO with epoch e, R-112.
func chain(secret [32]byte, e uint64) [32]byte {
	for range maxEpochHello - e {
		secret = sha256.Sum256(secret[:])
	}
	return secret
}

// keys are those of a session, R-113.
type keys struct{ dialer, listener []byte }

func deriveKeys(z []byte, id [16]byte, dialerKey, listenerKey [32]byte, instance [16]byte) (keys, error) {
	prk, err := hkdf.Extract(sha256.New, z, id[:])
	if err != nil {
		return keys{}, err
	}
	expand := func(who string) ([]byte, error) {
		return hkdf.Expand(sha256.New, prk, who+string(dialerKey[:])+string(listenerKey[:])+string(instance[:]), 32)
	}
	var k keys
	if k.dialer, err = expand("towline 1 dialer"); err != nil {
		return keys{}, err
	}
	k.listener, err = expand("towline 1 listener")
	return k, err
}

// sharedSecret is Z of R-113; an error if it is all zeros.
func sharedSecret(mine *ecdh.PrivateKey, theirs [32]byte) ([]byte, error) {
	pub, err := ecdh.X25519().NewPublicKey(theirs[:])
	if err != nil {
		return nil, err
	}
	return mine.ECDH(pub)
}

// prove computes the proof of a whole frame, R-114. answers is the frame that it answers; nil for RESUME.
func prove(key, whole, answers, exporter []byte) [32]byte {
	kind := binary.BigEndian.Uint16(whole[6:])
	f := &frame{kind: kind}
	at := headerSize + len(f.fixed()) - 32 // the proof is the last field of each kind that has one
	var digest [32]byte
	if answers != nil {
		digest = sha256.Sum256(answers)
	}
	blank := slices.Clone(whole)
	clear(blank[at : at+32])
	m := hmac.New(sha256.New, key)
	m.Write([]byte(kindName(kind) + "\x00"))
	m.Write(digest[:])
	m.Write(blank)
	m.Write(exporter)
	return [32]byte(m.Sum(nil))
}

// exporter is the channel's exporter value, R-114; nil where there is none.
func exporter(nc net.Conn) ([]byte, error) {
	c, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil
	}
	state := c.ConnectionState()
	return state.ExportKeyingMaterial("EXPERIMENTAL-towline", nil, 32)
}

func random(b []byte) { _, _ = rand.Read(b) } // crypto/rand does not fail

// follows reports whether the link of a later HELLO comes before the last one in the dialer's chain, R-112.
func follows(last [32]byte, lastEpoch uint64, next [32]byte, epoch uint64) bool {
	if lastEpoch == 0 || epoch <= lastEpoch || epoch > maxEpochHello {
		return false
	}
	for range epoch - lastEpoch {
		next = sha256.Sum256(next[:])
	}
	return next == last
}
