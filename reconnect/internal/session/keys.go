package session

import (
	"cmp"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"

	"github.com/towline-mq/towline/datagram"
)

// GenerateKey makes an X25519 key pair of 32 bytes that it reads from rand. The same bytes make the same key.
// The only error is one of rand.
func GenerateKey(rand io.Reader) (*ecdh.PrivateKey, error) {
	var b [32]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("session: drawing a key: %w", err)
	}
	return ecdh.X25519().NewPrivateKey(b[:])
}

// PublicKey returns the public half of an X25519 key, as HELLO and WELCOME carry it.
func PublicKey(private *ecdh.PrivateKey) [32]byte { return [32]byte(private.PublicKey().Bytes()) }

// Keys are the keys of a session: each side proves with its own that it is the one that began the session.
type Keys struct{ Dialer, Listener [32]byte }

// DeriveKeys makes the keys of a session of one side's private key and the other's public key. Id is the
// session's, dialer and listener are the public keys of the two sides as they were sent, and instance is that of the
// WELCOME. The error is that of a public key whose shared secret is all zeros: its owner does not want a secret.
func DeriveKeys(
	private *ecdh.PrivateKey, peer [32]byte, id [16]byte, dialer, listener [32]byte, instance [16]byte,
) (Keys, error) {
	var shared []byte
	public, err := ecdh.X25519().NewPublicKey(peer[:])
	if err == nil {
		shared, err = private.ECDH(public)
	}
	if err != nil {
		return Keys{}, fmt.Errorf("session: the peer's public key: %w", err)
	}
	context := string(dialer[:]) + string(listener[:]) + string(instance[:])
	kd, errDialer := hkdf.Key(sha256.New, shared, id[:], "towline 1 dialer"+context, 32)
	kl, errListener := hkdf.Key(sha256.New, shared, id[:], "towline 1 listener"+context, 32)
	if err := cmp.Or(errDialer, errListener); err != nil { // not with these lengths
		return Keys{}, fmt.Errorf("session: deriving keys: %w", err)
	}
	return Keys{Dialer: [32]byte(kd), Listener: [32]byte(kl)}, nil
}

// Link returns the link of the HELLO with that epoch, from 1 to MaxHellos, in the chain that ends with secret.
// It panics for another epoch.
func Link(secret [32]byte, epoch uint64) [32]byte {
	if epoch == 0 || epoch > MaxHellos {
		panic(fmt.Sprintf("session: the link of epoch %d, there are 1 to %d", epoch, MaxHellos))
	}
	return hashTimes(secret, MaxHellos-epoch)
}

// VerifyLink reports whether who sent next, in a HELLO with that epoch, has the secret of the chain from which a HELLO
// with lastEpoch had last. The epoch must be the higher one, and both must be from 1 to MaxHellos: so it never
// hashes more than 255 times.
func VerifyLink(last [32]byte, lastEpoch uint64, next [32]byte, epoch uint64) bool {
	if lastEpoch == 0 || epoch <= lastEpoch || epoch > MaxHellos {
		return false
	}
	got := hashTimes(next, epoch-lastEpoch)
	return subtle.ConstantTimeCompare(got[:], last[:]) == 1
}

func hashTimes(b [32]byte, n uint64) [32]byte {
	for range n {
		b = sha256.Sum256(b[:])
	}
	return b
}

// The proofs. Key is the prover's: Keys.Listener for WELCOME and RESUMED, Keys.Dialer for RESUME. Exporter is
// the channel's exporter value of 32 bytes on TLS and QUIC, and empty elsewhere. The Verify functions take one whole
// frame, header included, and report whether its proof is right; they compare in constant time.

// AppendWelcome appends the frame of w with its proof in place of w.Proof. Hello is the whole frame that it answers.
func AppendWelcome(dst []byte, w *Welcome, hello []byte, key [32]byte, exporter []byte) []byte {
	n := len(dst)
	dst = w.Append(dst)
	sign(dst[n:], KindWelcome, sha256.Sum256(hello), key, exporter)
	return dst
}

// VerifyWelcome checks the proof of a WELCOME. Hello is the whole frame that it answers.
func VerifyWelcome(welcome, hello []byte, key [32]byte, exporter []byte) bool {
	return verify(welcome, KindWelcome, sha256.Sum256(hello), key, exporter)
}

// AppendResume appends the frame of r with its proof in place of r.Proof.
func AppendResume(dst []byte, r *Resume, key [32]byte, exporter []byte) []byte {
	n := len(dst)
	dst = r.Append(dst)
	sign(dst[n:], KindResume, [32]byte{}, key, exporter)
	return dst
}

// VerifyResume checks the proof of a RESUME.
func VerifyResume(resume []byte, key [32]byte, exporter []byte) bool {
	return verify(resume, KindResume, [32]byte{}, key, exporter)
}

// AppendResumed appends the frame of r with its proof in place of r.Proof. Resume is the whole frame that it answers.
func AppendResumed(dst []byte, r *Resumed, resume []byte, key [32]byte, exporter []byte) []byte {
	n := len(dst)
	dst = r.Append(dst)
	sign(dst[n:], KindResumed, sha256.Sum256(resume), key, exporter)
	return dst
}

// VerifyResumed checks the proof of a RESUMED. Resume is the whole frame that it answers.
func VerifyResumed(resumed, resume []byte, key [32]byte, exporter []byte) bool {
	return verify(resumed, KindResumed, sha256.Sum256(resume), key, exporter)
}

func sign(frame []byte, kind Kind, answered, key [32]byte, exporter []byte) {
	at := proofAt(kind)
	copy(frame[at:], proof(frame, kind, answered, key, exporter))
}

func verify(frame []byte, kind Kind, answered, key [32]byte, exporter []byte) bool {
	at := proofAt(kind)
	if KindOf(frame) != kind || len(frame) < at+proofSize {
		return false
	}
	return hmac.Equal(frame[at:at+proofSize], proof(frame, kind, answered, key, exporter))
}

const proofSize = sha256.Size

// proofAt is where the proof begins in a frame of that kind: it is the last field of the fixed part of its body.
func proofAt(kind Kind) int { return datagram.HeaderSize + kinds[kind].fixed - proofSize }

// proof computes the proof of frame. Answered is the hash of the frame that it answers.
func proof(frame []byte, kind Kind, answered, key [32]byte, exporter []byte) []byte {
	var zeros [proofSize]byte
	at := proofAt(kind)
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte(kind.String() + "\x00"))
	h.Write(answered[:])
	h.Write(frame[:at])
	h.Write(zeros[:])
	h.Write(frame[at+proofSize:])
	h.Write(exporter)
	return h.Sum(nil)
}
