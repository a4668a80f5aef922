package session

import (
	"encoding/binary"
	"fmt"

	"github.com/towline-mq/towline/datagram"
)

// The Parse functions take one whole control frame, header included, as a datagram.Reader hands it out. What breaks a
// rule of protocol.md §8 is a *ControlError, and a version that is not known a *VersionError. Rules that need more
// than the frame, such as that positions agree, are not theirs. They do not allocate but for an error; what they
// return with one is of no use.

// ParseHello parses a HELLO. The token is a slice of frame.
func ParseHello(frame []byte) (Hello, error) {
	b, token, err := split(frame, KindHello)
	if err != nil {
		return Hello{}, err
	}
	h := Hello{
		Version:     binary.BigEndian.Uint16(b),
		Flags:       binary.BigEndian.Uint16(b[2:]),
		MaxPayload:  binary.BigEndian.Uint32(b[4:]),
		ID:          [16]byte(b[8:]),
		Epoch:       binary.BigEndian.Uint64(b[24:]),
		PublicKey:   [32]byte(b[32:]),
		Link:        [32]byte(b[64:]),
		Redelivered: binary.BigEndian.Uint64(b[96:]),
		Credit:      binary.BigEndian.Uint64(b[104:]),
		Token:       token,
	}
	if h.Epoch == 0 || h.Epoch > MaxHellos {
		return h, &ControlError{KindHello, "epoch", fmt.Sprintf("1 to %d", MaxHellos), fmt.Sprint(h.Epoch), "R-112"}
	}
	return h, checkFlags(KindHello, h.Flags)
}

// ParseWelcome parses a WELCOME. VerifyWelcome checks its proof.
func ParseWelcome(frame []byte) (Welcome, error) {
	b, _, err := split(frame, KindWelcome)
	if err != nil {
		return Welcome{}, err
	}
	w := Welcome{
		Version:    binary.BigEndian.Uint16(b),
		Flags:      binary.BigEndian.Uint16(b[2:]),
		MaxPayload: binary.BigEndian.Uint32(b[4:]),
		Epoch:      binary.BigEndian.Uint64(b[8:]),
		Instance:   [16]byte(b[16:]),
		PublicKey:  [32]byte(b[32:]),
		Expiry:     binary.BigEndian.Uint32(b[64:]),
		Status:     parseStatus(b[68:]),
		Proof:      [32]byte(b[108:]),
	}
	return w, checkFlags(KindWelcome, w.Flags)
}

// ParseResume parses a RESUME. VerifyResume checks its proof. The token is a slice of frame.
func ParseResume(frame []byte) (Resume, error) {
	b, token, err := split(frame, KindResume)
	if err != nil {
		return Resume{}, err
	}
	r := Resume{
		Version:    binary.BigEndian.Uint16(b),
		Flags:      binary.BigEndian.Uint16(b[2:]),
		MaxPayload: binary.BigEndian.Uint32(b[4:]),
		ID:         [16]byte(b[8:]),
		Epoch:      binary.BigEndian.Uint64(b[24:]),
		Status:     parseStatus(b[32:]),
		Proof:      [32]byte(b[72:]),
		Token:      token,
	}
	return r, checkFlags(KindResume, r.Flags)
}

// ParseResumed parses a RESUMED. VerifyResumed checks its proof.
func ParseResumed(frame []byte) (Resumed, error) {
	b, _, err := split(frame, KindResumed)
	if err != nil {
		return Resumed{}, err
	}
	return Resumed{
		Epoch:  binary.BigEndian.Uint64(b),
		Expiry: binary.BigEndian.Uint32(b[8:]),
		Status: parseStatus(b[12:]),
		Proof:  [32]byte(b[52:]),
	}, nil
}

// ParseReject parses a REJECT.
func ParseReject(frame []byte) (Reject, error) {
	b, _, err := split(frame, KindReject)
	if err != nil {
		return Reject{}, err
	}
	r := Reject{
		Reason:   Reason(binary.BigEndian.Uint16(b)),
		Flags:    binary.BigEndian.Uint16(b[2:]),
		Received: Position{binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])},
		Delay:    binary.BigEndian.Uint32(b[20:]),
		Spread:   binary.BigEndian.Uint32(b[24:]),
		Instance: [16]byte(b[28:]),
	}
	if r.Reason == 0 || int(r.Reason) >= len(reasons) {
		return r, &ControlError{KindReject, "reason", "1 to 10", fmt.Sprint(uint16(r.Reason)), "R-128"}
	}
	return r, checkFlags(KindReject, r.Flags)
}

// ParseControl parses a frame of any kind from KindAck to KindStop. Another kind, known or not, is a *ControlError.
func ParseControl(frame []byte) (c Control, err error) {
	c.Kind = KindOf(frame)
	if c.Kind < KindAck || c.Kind > KindStop {
		return Control{}, &ControlError{c.Kind, "kind", "ACK to STOP", c.Kind.String(), "R-104"}
	}
	b, _, err := split(frame, c.Kind)
	if err != nil {
		return Control{}, err
	}
	c.Status = parseStatus(b)
	switch b = b[40:]; c.Kind {
	case KindPing, KindPong:
		c.Token = binary.BigEndian.Uint64(b)
	case KindGoaway:
		c.Delay, c.Spread = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	case KindClose:
		c.Reason = CloseReason(binary.BigEndian.Uint16(b))
		if int(c.Reason) >= len(closeReasons) {
			return c, &ControlError{KindClose, "reason", "0 to 4", fmt.Sprint(uint16(c.Reason)), "R-126"}
		}
	case KindSkip:
		c.Length = binary.BigEndian.Uint32(b)
		if c.Length < datagram.HeaderSize {
			return c, &ControlError{KindSkip, "length", "8 or more", fmt.Sprint(c.Length), "R-131"}
		}
	}
	return c, nil
}

func parseStatus(b []byte) Status {
	b = b[:40]
	return Status{
		Sent:     Position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])},
		Received: Position{binary.BigEndian.Uint64(b[16:]), binary.BigEndian.Uint64(b[24:])},
		Credit:   binary.BigEndian.Uint64(b[32:]),
	}
}

// checkFlags takes 0 and the one flag that HELLO, WELCOME, RESUME and REJECT have.
func checkFlags(kind Kind, flags uint16) error {
	if flags&^1 == 0 {
		return nil
	}
	return &ControlError{kind, "flags", "0x0000 or 0x0001", fmt.Sprintf("0x%04x", flags), "R-104"}
}

// split checks the parts of a frame that all kinds have, and returns the fixed part of its body, and the application's
// token if it has one. The version is judged before anything that it may have changed.
func split(frame []byte, kind Kind) (fixed, token []byte, err error) {
	if err := checkHeader(frame, kind); err != nil {
		return nil, nil, err
	}
	body := frame[datagram.HeaderSize:]
	if kind <= KindResume && len(body) >= 2 && binary.BigEndian.Uint16(body) != ProtocolVersion {
		return nil, nil, &VersionError{Kind: kind, Version: binary.BigEndian.Uint16(body)}
	}
	n := kinds[kind].fixed
	if len(body) < n+2 {
		return nil, nil, &ControlError{kind, "body", fmt.Sprintf("%d bytes or more", n+2), bytesText(len(body)), "R-102"}
	}
	area := body[n+2:]
	if l := binary.BigEndian.Uint16(body[n:]); int(l) != len(area) {
		return nil, nil, &ControlError{kind, "L", fmt.Sprint(len(area)), fmt.Sprint(l), "R-102"}
	}
	if len(area) > 0 {
		token, err = parseExtensions(kind, area)
	}
	return body[:n], token, err
}

// checkHeader sees that frame is one control frame of that kind, of no more and no fewer bytes than it says.
func checkHeader(frame []byte, kind Kind) error {
	if len(frame) < datagram.HeaderSize {
		return &ControlError{0, "header", bytesText(datagram.HeaderSize), bytesText(len(frame)), "R-1"}
	}
	h := datagram.ParseHeader(frame)
	got := Kind(h.Recipient)
	switch {
	case len(frame) > datagram.MaxControl:
		return &ControlError{got, "size", "at most " + bytesText(datagram.MaxControl), bytesText(len(frame)), "R-102"}
	case h.Version != datagram.ControlVersion || uint64(h.Size)+4 != uint64(len(frame)):
		return &ControlError{got, "header", fmt.Sprintf("size %d, version %d", len(frame)-4, datagram.ControlVersion),
			fmt.Sprintf("size %d, version %d", h.Size, h.Version), "R-1"}
	case got != kind:
		return &ControlError{got, "kind", kind.String(), got.String(), "R-104"}
	}
	return nil
}

// parseExtensions walks over the extension area and returns the token, or nil if there is none.
func parseExtensions(kind Kind, area []byte) (token []byte, err error) {
	var seen [criticalExtension / 64]uint64 // one bit for each type that may be here
	for len(area) > 0 {
		if len(area) < 4 {
			return nil, &ControlError{kind, "extension", "type and length in 4 bytes", bytesText(len(area)), "R-103"}
		}
		typ, n := binary.BigEndian.Uint16(area), int(binary.BigEndian.Uint16(area[2:]))
		if typ >= criticalExtension {
			return nil, &ControlError{kind, "extension", "one that is known", fmt.Sprintf("type 0x%04x", typ), "R-103"}
		}
		area = area[4:]
		if n > len(area) {
			return nil, &ControlError{kind, "extension", fmt.Sprintf("at most %d bytes", len(area)), bytesText(n), "R-103"}
		}
		if seen[typ/64]&(1<<(typ%64)) != 0 {
			return nil, &ControlError{kind, "extension", "each type once", fmt.Sprintf("type 0x%04x twice", typ), "R-103"}
		}
		seen[typ/64] |= 1 << (typ % 64)
		if typ == extensionToken && (kind == KindHello || kind == KindResume) {
			if n == 0 || n > MaxToken {
				return nil, &ControlError{kind, "token", fmt.Sprintf("1 to %d bytes", MaxToken), bytesText(n), "R-103"}
			}
			token = area[:n:n]
		}
		area = area[n:]
	}
	return token, nil
}

func bytesText(n int) string { return fmt.Sprintf("%d bytes", n) }
