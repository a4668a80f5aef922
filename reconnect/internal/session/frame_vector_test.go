package session

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// vectors is testdata/control.json. What its keys mean is written in testdata/README.md.
type vectors struct {
	Valid   []validVector   `json:"valid"`
	Invalid []invalidVector `json:"invalid"`
	Keys    []keyVector     `json:"keys"`
	Links   []linkVector    `json:"links"`
	Steps   []stepVector    `json:"steps"`
	Proofs  []proofVector   `json:"proofs"`
}

type validVector struct {
	Name    string       `json:"name"`
	Kind    string       `json:"kind"`
	Fields  vectorFields `json:"fields"`
	Frame   hexBytes     `json:"frame"`
	Written hexBytes     `json:"written"`
}

type invalidVector struct {
	Name    string   `json:"name"`
	Frame   hexBytes `json:"frame"`
	Error   string   `json:"error"`
	Rule    string   `json:"rule"`
	Version uint16   `json:"version"`
	Reason  string   `json:"reason"`
}

type keyVector struct {
	Name            string   `json:"name"`
	DialerPrivate   hexBytes `json:"dialer_private"`
	ListenerPrivate hexBytes `json:"listener_private"`
	DialerPublic    hexBytes `json:"dialer_public"`
	ListenerPublic  hexBytes `json:"listener_public"`
	SessionID       hexBytes `json:"session_id"`
	Instance        hexBytes `json:"instance"`
	Shared          hexBytes `json:"shared"`
	DialerKey       hexBytes `json:"dialer_key"`
	ListenerKey     hexBytes `json:"listener_key"`
	Error           string   `json:"error"`
}

type linkVector struct {
	Name   string   `json:"name"`
	Secret hexBytes `json:"secret"`
	Epoch  uint64   `json:"epoch,string"`
	Link   hexBytes `json:"link"`
}

type stepVector struct {
	Name      string   `json:"name"`
	Last      hexBytes `json:"last"`
	LastEpoch uint64   `json:"last_epoch,string"`
	Next      hexBytes `json:"next"`
	Epoch     uint64   `json:"epoch,string"`
	Valid     bool     `json:"valid"`
}

type proofVector struct {
	Name     string   `json:"name"`
	Kind     string   `json:"kind"`
	Key      hexBytes `json:"key"`
	Exporter hexBytes `json:"exporter"`
	Answers  hexBytes `json:"answers"`
	Frame    hexBytes `json:"frame"`
	Valid    bool     `json:"valid"`
}

// vectorFields are the fields of all kinds. Those that a kind does not have stay zero.
type vectorFields struct {
	Version          uint16         `json:"version"`
	Flags            uint16         `json:"flags"`
	MaxPayload       uint32         `json:"max_payload"`
	SessionID        hexBytes       `json:"session_id"`
	Epoch            uint64         `json:"epoch,string"`
	PublicKey        hexBytes       `json:"public_key"`
	Link             hexBytes       `json:"link"`
	Redelivered      uint64         `json:"redelivered,string"`
	Instance         hexBytes       `json:"instance"`
	Expiry           uint32         `json:"expiry"`
	Sent             vectorPosition `json:"sent"`
	Received         vectorPosition `json:"received"`
	Credit           uint64         `json:"credit,string"`
	Proof            hexBytes       `json:"proof"`
	Reason           uint16         `json:"reason"`
	Delay            uint32         `json:"delay"`
	Spread           uint32         `json:"spread"`
	Token            uint64         `json:"token,string"`
	Length           uint32         `json:"length"`
	ApplicationToken hexBytes       `json:"application_token"`
}

type vectorPosition struct {
	N uint64 `json:"n,string"`
	B uint64 `json:"b,string"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// appender is one of the frames of this package.
type appender interface{ Append(dst []byte) []byte }

// frameOf makes the frame that a vector describes.
func (f vectorFields) frameOf(kind string) appender {
	status := Status{Sent: Position(f.Sent), Received: Position(f.Received), Credit: f.Credit}
	switch kind {
	case "HELLO":
		return &Hello{Version: f.Version, Flags: f.Flags, MaxPayload: f.MaxPayload, ID: [16]byte(f.SessionID),
			Epoch: f.Epoch, PublicKey: [32]byte(f.PublicKey), Link: [32]byte(f.Link), Redelivered: f.Redelivered,
			Credit: f.Credit, Token: f.ApplicationToken}
	case "WELCOME":
		return &Welcome{Version: f.Version, Flags: f.Flags, MaxPayload: f.MaxPayload, Epoch: f.Epoch,
			Instance: [16]byte(f.Instance), PublicKey: [32]byte(f.PublicKey), Expiry: f.Expiry, Status: status,
			Proof: [32]byte(f.Proof)}
	case "RESUME":
		return &Resume{Version: f.Version, Flags: f.Flags, MaxPayload: f.MaxPayload, ID: [16]byte(f.SessionID),
			Epoch: f.Epoch, Status: status, Proof: [32]byte(f.Proof), Token: f.ApplicationToken}
	case "RESUMED":
		return &Resumed{Epoch: f.Epoch, Expiry: f.Expiry, Status: status, Proof: [32]byte(f.Proof)}
	case "REJECT":
		return &Reject{Reason: Reason(f.Reason), Flags: f.Flags, Received: Position(f.Received), Delay: f.Delay,
			Spread: f.Spread, Instance: [16]byte(f.Instance)}
	}
	c := &Control{Reason: CloseReason(f.Reason), Length: f.Length, Delay: f.Delay, Spread: f.Spread, Token: f.Token,
		Status: status}
	for k := KindAck; k <= KindStop; k++ {
		if k.String() == kind {
			c.Kind = k
		}
	}
	return c
}

// parse parses a frame of any kind.
func parse(frame []byte) (appender, error) {
	switch KindOf(frame) {
	case KindHello:
		f, err := ParseHello(frame)
		return &f, err
	case KindWelcome:
		f, err := ParseWelcome(frame)
		return &f, err
	case KindResume:
		f, err := ParseResume(frame)
		return &f, err
	case KindResumed:
		f, err := ParseResumed(frame)
		return &f, err
	case KindReject:
		f, err := ParseReject(frame)
		return &f, err
	}
	f, err := ParseControl(frame)
	return &f, err
}

func loadVectors(t testing.TB) (v vectors) {
	b, err := os.ReadFile("../../../testdata/control.json")
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&v))
	return v
}

func TestVectorsValid(t *testing.T) {
	vs := loadVectors(t).Valid
	require.Greater(t, len(vs), 150)
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			want := v.Fields.frameOf(v.Kind)
			require.Equal(t, v.Kind, KindOf(v.Frame).String())
			got, err := parse(v.Frame)
			require.NoError(t, err)
			require.Equal(t, normal(want), normal(got))

			written := v.Written
			if written == nil {
				written = v.Frame
			}
			require.Equal(t, []byte(written), want.Append(nil))
			prefix := []byte("before ")
			require.Equal(t, append(bytes.Clone(prefix), written...), got.Append(prefix))
		})
	}
}

// normal makes tokens comparable: a vector's has a type of its own, and none is nil.
func normal(f appender) appender {
	switch f := f.(type) {
	case *Hello:
		c := *f
		c.Token = append([]byte{}, f.Token...)
		return &c
	case *Resume:
		c := *f
		c.Token = append([]byte{}, f.Token...)
		return &c
	}
	return f
}

func TestVectorsInvalid(t *testing.T) {
	vs := loadVectors(t).Invalid
	require.Greater(t, len(vs), 250)
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			_, err := parse(v.Frame)
			require.Error(t, err, v.Reason)
			if v.Error == "version" {
				require.Equal(t, &VersionError{Kind: KindOf(v.Frame), Version: v.Version}, err)
				return
			}
			e, ok := err.(*ControlError)
			require.True(t, ok, "%T", err)
			require.Equal(t, []any{KindOf(v.Frame), v.Error, v.Rule}, []any{e.Kind, e.Field, e.Rule}, "%v", e)
			require.NotEmpty(t, e.Expected)
			require.NotEmpty(t, e.Got)
		})
	}
}

func TestVectorsKeys(t *testing.T) {
	vs := loadVectors(t).Keys
	require.NotEmpty(t, vs)
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			for _, side := range []struct{ private, public, peer hexBytes }{
				{v.DialerPrivate, v.DialerPublic, v.ListenerPublic},
				{v.ListenerPrivate, v.ListenerPublic, v.DialerPublic},
			} {
				if side.private == nil {
					continue
				}
				private, err := GenerateKey(bytes.NewReader(side.private))
				require.NoError(t, err)
				require.Equal(t, [32]byte(side.public), PublicKey(private))
				keys, err := DeriveKeys(private, [32]byte(side.peer), [16]byte(v.SessionID), [32]byte(v.DialerPublic),
					[32]byte(v.ListenerPublic), [16]byte(v.Instance))
				if v.Error == "zero" {
					require.ErrorContains(t, err, "session: the peer's public key: ")
					require.Zero(t, keys)
					continue
				}
				require.NoError(t, err)
				require.Equal(t, Keys{[32]byte(v.DialerKey), [32]byte(v.ListenerKey)}, keys)
			}
		})
	}
}

func TestVectorsLinks(t *testing.T) {
	vs := loadVectors(t)
	require.NotEmpty(t, vs.Links)
	require.NotEmpty(t, vs.Steps)
	for _, v := range vs.Links {
		require.Equal(t, [32]byte(v.Link), Link([32]byte(v.Secret), v.Epoch), v.Name)
	}
	for _, v := range vs.Steps {
		require.Equal(t, v.Valid, VerifyLink([32]byte(v.Last), v.LastEpoch, [32]byte(v.Next), v.Epoch), v.Name)
	}
}

func TestVectorsProofs(t *testing.T) {
	vs := loadVectors(t).Proofs
	require.NotEmpty(t, vs)
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			key := [32]byte(v.Key)
			before := bytes.Clone(v.Frame)
			f, err := parse(v.Frame)
			require.NoError(t, err)
			var ok bool
			var written []byte
			switch f := f.(type) {
			case *Welcome:
				ok = VerifyWelcome(v.Frame, v.Answers, key, v.Exporter)
				f.Proof = [32]byte{1}
				written = AppendWelcome([]byte("before "), f, v.Answers, key, v.Exporter)
			case *Resume:
				ok = VerifyResume(v.Frame, key, v.Exporter)
				f.Proof = [32]byte{1}
				written = AppendResume([]byte("before "), f, key, v.Exporter)
			case *Resumed:
				ok = VerifyResumed(v.Frame, v.Answers, key, v.Exporter)
				f.Proof = [32]byte{1}
				written = AppendResumed([]byte("before "), f, v.Answers, key, v.Exporter)
			}
			require.Equal(t, v.Valid, ok)
			require.Equal(t, before, []byte(v.Frame), "the frame is as it was")
			if v.Valid && len(written) == len("before ")+len(v.Frame) { // if nothing was skipped
				require.Equal(t, "before "+string(v.Frame), string(written))
			}
		})
	}
}
