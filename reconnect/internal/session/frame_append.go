package session

import (
	"encoding/binary"
	"fmt"

	"github.com/towline-mq/towline/datagram"
)

// The Append functions append one whole frame to dst, header and extension area included, and return the longer slice.
// They write what they are given: that reasons, flags and lengths are valid is up to the caller. They allocate only if
// dst has no room, for which datagram.MaxControl bytes are always enough.

// Append appends the frame of h. It panics if the token is longer than MaxToken.
func (h *Hello) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindHello, h.Token)
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = binary.BigEndian.AppendUint16(dst, h.Flags)
	dst = binary.BigEndian.AppendUint32(dst, h.MaxPayload)
	dst = append(dst, h.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, h.Epoch)
	dst = append(dst, h.PublicKey[:]...)
	dst = append(dst, h.Link[:]...)
	dst = binary.BigEndian.AppendUint64(dst, h.Redelivered)
	dst = binary.BigEndian.AppendUint64(dst, h.Credit)
	return appendExtensions(dst, h.Token)
}

// Append appends the frame of w with the proof that it has. AppendWelcome makes the proof.
func (w *Welcome) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindWelcome, nil)
	dst = binary.BigEndian.AppendUint16(dst, w.Version)
	dst = binary.BigEndian.AppendUint16(dst, w.Flags)
	dst = binary.BigEndian.AppendUint32(dst, w.MaxPayload)
	dst = binary.BigEndian.AppendUint64(dst, w.Epoch)
	dst = append(dst, w.Instance[:]...)
	dst = append(dst, w.PublicKey[:]...)
	dst = binary.BigEndian.AppendUint32(dst, w.Expiry)
	dst = appendStatus(dst, &w.Status)
	dst = append(dst, w.Proof[:]...)
	return appendExtensions(dst, nil)
}

// Append appends the frame of r with the proof that it has. AppendResume makes the proof. It panics if the token is
// longer than MaxToken.
func (r *Resume) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindResume, r.Token)
	dst = binary.BigEndian.AppendUint16(dst, r.Version)
	dst = binary.BigEndian.AppendUint16(dst, r.Flags)
	dst = binary.BigEndian.AppendUint32(dst, r.MaxPayload)
	dst = append(dst, r.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, r.Epoch)
	dst = appendStatus(dst, &r.Status)
	dst = append(dst, r.Proof[:]...)
	return appendExtensions(dst, r.Token)
}

// Append appends the frame of r with the proof that it has. AppendResumed makes the proof.
func (r *Resumed) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindResumed, nil)
	dst = binary.BigEndian.AppendUint64(dst, r.Epoch)
	dst = binary.BigEndian.AppendUint32(dst, r.Expiry)
	dst = appendStatus(dst, &r.Status)
	dst = append(dst, r.Proof[:]...)
	return appendExtensions(dst, nil)
}

// Append appends the frame of r.
func (r *Reject) Append(dst []byte) []byte {
	dst = appendHeader(dst, KindReject, nil)
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Reason))
	dst = binary.BigEndian.AppendUint16(dst, r.Flags)
	dst = binary.BigEndian.AppendUint64(dst, r.Received.N)
	dst = binary.BigEndian.AppendUint64(dst, r.Received.B)
	dst = binary.BigEndian.AppendUint32(dst, r.Delay)
	dst = binary.BigEndian.AppendUint32(dst, r.Spread)
	dst = append(dst, r.Instance[:]...)
	return appendExtensions(dst, nil)
}

// Append appends the frame of c. It panics if c.Kind is none from KindAck to KindStop.
func (c *Control) Append(dst []byte) []byte {
	if c.Kind < KindAck || c.Kind > KindStop {
		panic(fmt.Sprintf("session: %v is not the kind of a Control", c.Kind))
	}
	dst = appendHeader(dst, c.Kind, nil)
	dst = appendStatus(dst, &c.Status)
	switch c.Kind {
	case KindPing, KindPong:
		dst = binary.BigEndian.AppendUint64(dst, c.Token)
	case KindGoaway:
		dst = binary.BigEndian.AppendUint32(dst, c.Delay)
		dst = binary.BigEndian.AppendUint32(dst, c.Spread)
	case KindClose:
		dst = binary.BigEndian.AppendUint16(dst, uint16(c.Reason))
	case KindSkip:
		dst = binary.BigEndian.AppendUint32(dst, c.Length)
	}
	return appendExtensions(dst, nil)
}

func appendStatus(dst []byte, s *Status) []byte {
	dst = binary.BigEndian.AppendUint64(dst, s.Sent.N)
	dst = binary.BigEndian.AppendUint64(dst, s.Sent.B)
	dst = binary.BigEndian.AppendUint64(dst, s.Received.N)
	dst = binary.BigEndian.AppendUint64(dst, s.Received.B)
	return binary.BigEndian.AppendUint64(dst, s.Credit)
}

func appendHeader(dst []byte, kind Kind, token []byte) []byte {
	// The size field counts version and kind, and the body: the fixed part, L, and the extensions.
	size := 4 + kinds[kind].fixed + 2 + extensionsLen(token)
	return datagram.Header{Size: uint32(size), Version: datagram.ControlVersion, Recipient: uint16(kind)}.Append(dst)
}

// appendExtensions appends L and the extensions.
func appendExtensions(dst, token []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(extensionsLen(token)))
	if len(token) == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, extensionToken)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(token)))
	return append(dst, token...)
}

func extensionsLen(token []byte) int {
	if len(token) == 0 {
		return 0
	}
	if len(token) > MaxToken {
		panic(fmt.Sprintf("session: a token of %d bytes, at most %d are allowed", len(token), MaxToken))
	}
	return 4 + len(token)
}
