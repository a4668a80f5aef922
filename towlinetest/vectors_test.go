package towlinetest

import (
	"crypto/ecdh"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type jsonPosition struct{ N, B string }

func (p jsonPosition) position(t *testing.T) position {
	return position{number(t, p.N), number(t, p.B)}
}

func number(t *testing.T, s string) uint64 {
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	require.NoError(t, err)
	return n
}

func unhex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func unhex32(t *testing.T, s string) (b [32]byte) { copy(b[:], unhex(t, s)); return b }
func unhex16(t *testing.T, s string) (b [16]byte) { copy(b[:], unhex(t, s)); return b }

type controlVectors struct {
	Valid []struct {
		Name, Kind, Frame, Written string
		Fields                     struct {
			Version, Flags, Reason            uint16
			MaxPayload                        uint32 `json:"max_payload"`
			Expiry, Delay, Spread, Length     uint32
			SessionID                         string `json:"session_id"`
			PublicKey                         string `json:"public_key"`
			ApplicationToken                  string `json:"application_token"`
			Epoch, Redelivered, Credit, Token string
			Link, Instance, Proof             string
			Sent, Received                    jsonPosition
		}
	}
	Invalid []struct{ Name, Frame, Error, Rule, Reason string }
	Keys    []struct {
		Name, Shared, Instance, Error string
		DialerPrivate                 string `json:"dialer_private"`
		ListenerPrivate               string `json:"listener_private"`
		DialerPublic                  string `json:"dialer_public"`
		ListenerPublic                string `json:"listener_public"`
		SessionID                     string `json:"session_id"`
		DialerKey                     string `json:"dialer_key"`
		ListenerKey                   string `json:"listener_key"`
	}
	Links []struct{ Name, Secret, Epoch, Link string }
	Steps []struct {
		Name, Last, Next, Epoch string
		LastEpoch               string `json:"last_epoch"`
		Valid                   bool
	}
	Proofs []struct {
		Name, Key, Exporter, Answers, Frame string
		Valid                               bool
	}
}

// TestOwnReading holds the suite's own encoder, keys and proofs against the published vectors: the suite is only worth
// something if it reads the protocol as the vectors do.
func TestOwnReading(t *testing.T) {
	raw, err := os.ReadFile("../testdata/control.json")
	require.NoError(t, err)
	var v controlVectors
	require.NoError(t, json.Unmarshal(raw, &v))
	require.NotEmpty(t, v.Valid)
	require.NotEmpty(t, v.Invalid)
	require.NotEmpty(t, v.Keys)
	require.NotEmpty(t, v.Links)
	require.NotEmpty(t, v.Steps)
	require.NotEmpty(t, v.Proofs)

	for _, c := range v.Valid {
		x := c.Fields
		b := unhex(t, c.Frame)
		got, err := parse(b)
		require.NoError(t, err, c.Name)
		require.Equal(t, c.Kind, kindName(got.kind), c.Name)
		want := frame{
			kind: got.kind, version: x.Version, flags: x.Flags, maxPayload: x.MaxPayload, id: unhex16(t, x.SessionID),
			epoch: number(t, x.Epoch), key: unhex32(t, x.PublicKey), link: unhex32(t, x.Link), redelivered: number(t, x.Redelivered),
			instance: unhex16(t, x.Instance), expiry: x.Expiry, proof: unhex32(t, x.Proof), reason: x.Reason,
			delay: x.Delay, spread: x.Spread, token: number(t, x.Token), length: x.Length,
		}
		switch got.kind {
		case kHello:
			want.credit = number(t, x.Credit)
		case kReject:
			want.received = x.Received.position(t)
		default:
			want.status = status{x.Sent.position(t), x.Received.position(t), number(t, x.Credit)}
		}
		if x.ApplicationToken != "" {
			want.ext = []extension{{extToken, unhex(t, x.ApplicationToken)}}
		}
		if c.Written != "" {
			assert.Equal(t, c.Written, hex.EncodeToString(want.bytes()), c.Name)
			want.ext = got.ext
		} else {
			assert.Equal(t, c.Frame, hex.EncodeToString(want.bytes()), c.Name)
		}
		assert.Equal(t, &want, got, c.Name)
	}
	for _, c := range v.Invalid {
		_, err := parse(unhex(t, c.Frame))
		if assert.Error(t, err, c.Name) && c.Error == "version" {
			assert.ErrorIs(t, err, errVersion, c.Name)
		}
	}
	for _, c := range v.Keys {
		for _, side := range [][2]string{{c.DialerPrivate, c.ListenerPublic}, {c.ListenerPrivate, c.DialerPublic}} {
			if side[0] == "" {
				continue
			}
			mine, err := ecdh.X25519().NewPrivateKey(unhex(t, side[0]))
			require.NoError(t, err, c.Name)
			z, err := sharedSecret(mine, unhex32(t, side[1]))
			if c.Error != "" {
				assert.Error(t, err, c.Name)
				continue
			}
			require.NoError(t, err, c.Name)
			assert.Equal(t, c.Shared, hex.EncodeToString(z), c.Name)
			k, err := deriveKeys(z, unhex16(t, c.SessionID), unhex32(t, c.DialerPublic), unhex32(t, c.ListenerPublic), unhex16(t, c.Instance))
			require.NoError(t, err, c.Name)
			assert.Equal(t, c.DialerKey, hex.EncodeToString(k.dialer), c.Name)
			assert.Equal(t, c.ListenerKey, hex.EncodeToString(k.listener), c.Name)
		}
	}
	for _, c := range v.Links {
		link := chain(unhex32(t, c.Secret), number(t, c.Epoch))
		assert.Equal(t, c.Link, hex.EncodeToString(link[:]), c.Name)
	}
	for _, c := range v.Steps {
		assert.Equal(t, c.Valid, follows(unhex32(t, c.Last), number(t, c.LastEpoch), unhex32(t, c.Next), number(t, c.Epoch)), c.Name)
	}
	for _, c := range v.Proofs {
		b := unhex(t, c.Frame)
		var answers []byte
		if binary.BigEndian.Uint16(b[6:]) != kResume {
			answers = unhex(t, c.Answers)
		}
		got, err := parse(b)
		require.NoError(t, err, c.Name)
		assert.Equal(t, c.Valid, prove(unhex(t, c.Key), b, answers, unhex(t, c.Exporter)) == got.proof, c.Name)
	}
}
