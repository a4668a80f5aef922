package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// newPairOf is newPair with other configurations.
func newPairOf(t *testing.T, set func(d, l *Config)) *pair {
	p := newPair(t)
	dcfg := testConfig(&p.mem)
	set(&dcfg, &p.lcfg)
	var err error
	p.d, err = NewDialer(dcfg, p.rand)
	require.NoError(t, err)
	return p
}

// livePair is a pair that is Live on both sides, with nothing to say.
func livePair(t *testing.T) *pair { return livePairOf(t, func(_, _ *Config) {}) }

func livePairOf(t *testing.T, set func(d, l *Config)) *pair {
	p := newPairOf(t, set)
	p.connect()
	p.run()
	require.Equal(t, Live, p.d.State())
	require.Equal(t, Live, p.l.State())
	p.d.Events()
	p.l.Events()
	return p
}

// both runs f for each side of a live pair, as a subtest.
func both(t *testing.T, f func(t *testing.T, p *pair, s *Session)) {
	for _, role := range []Role{Dialer, Listener} {
		t.Run(role.String(), func(t *testing.T) {
			p := livePair(t)
			f(t, p, p.side(role))
		})
	}
}

func (p *pair) side(role Role) *Session {
	if role == Dialer {
		return p.d
	}
	return p.l
}

// forth moves what the dialer says to the listener, and back what that says to the dialer, each once.
func (p *pair) forth() {
	p.write(p.d, &p.toL)
	p.read(p.l, p.lr, &p.toL, &p.errL)
}

func (p *pair) back() {
	p.write(p.l, &p.toD)
	p.read(p.d, p.dr, &p.toD, &p.errD)
}

// settle runs until everything is acknowledged that will be.
func (p *pair) settle() {
	p.run()
	p.now += p.d.cfg.AckDelay
	require.False(p.t, p.d.Tick(p.now))
	require.False(p.t, p.l.Tick(p.now))
	p.run()
}

// frame is a frame that was pulled. The kind of a data frame is kindData.
type frame struct {
	kind Kind
	raw  []byte
}

func (f frame) control(t *testing.T) Control {
	c, err := ParseControl(f.raw)
	require.NoError(t, err)
	return c
}

func (f frame) payload() []byte { return f.raw[datagram.HeaderSize:] }

// pull pulls once, and takes apart what comes.
func (p *pair) pull(s *Session) (fs []frame) {
	var b bytes.Buffer
	p.write(s, &b)
	return frames(b.Bytes())
}

func frames(raw []byte) (fs []frame) {
	for len(raw) > 0 {
		h := datagram.ParseHeader(raw)
		f := frame{kind: kindData, raw: raw[:h.Size+4]}
		if h.Version == datagram.ControlVersion {
			f.kind = Kind(h.Recipient)
		}
		fs = append(fs, f)
		raw = raw[h.Size+4:]
	}
	return fs
}

func kindsOf(fs []frame) (ks []Kind) {
	for _, f := range fs {
		ks = append(ks, f.kind)
	}
	return ks
}

// honest is the status that the peer of s would send, had it got everything that it acknowledged, and no more.
func honest(s *Session) Status {
	return Status{
		Sent:     s.recv.here.sub(s.recv.origin),
		Received: s.log.base.sub(s.log.origin),
		Credit:   s.credit - s.log.origin.B,
	}
}

// hear lets s read a control frame. Its status is an honest one unless change says otherwise.
func (p *pair) hear(s *Session, c Control, change func(st *Status)) error {
	c.Status = honest(s)
	if change != nil {
		change(&c.Status)
	}
	s.Read(p.now, true)
	err := s.Control(p.now, c.Append(nil))
	p.check()
	return err
}

// data lets s read data frames.
func (p *pair) data(s *Session, payloads ...string) error {
	s.Read(p.now, true)
	err := s.Data(p.now, runOf(payloads...))
	p.check()
	return err
}

func runOf(payloads ...string) datagram.Run {
	run := datagram.Run{N: len(payloads), Version: datagram.Version}
	for _, x := range payloads {
		run.Raw, _ = datagram.Append(run.Raw, datagram.Datagram{Recipient: 3, Payload: []byte(x)})
	}
	return run
}

// broken requires that s ended with a ProtocolError by that rule, and that it tells its peer if that can be told; or, if
// the peer had not proved itself, that the session is as it was.
func (p *pair) broken(s *Session, err error, rule string) {
	p.t.Helper()
	var pe *ProtocolError
	require.ErrorAs(p.t, err, &pe)
	if ce := (*ControlError)(nil); errors.As(err, &ce) {
		require.Equal(p.t, rule, ce.Rule, err)
	} else {
		require.Equal(p.t, rule, pe.Rule, err)
	}
	require.Equal(p.t, s.Role(), pe.Role)
	if pe.Role == Dialer && pe.State != Live && rule != "R-122" && rule != "R-106" {
		require.Equal(p.t, pe.State, s.State())
		require.NoError(p.t, s.Err())
		return
	}
	require.Equal(p.t, Ended, s.State())
	require.Equal(p.t, err, s.Err())
	tells := pe.State == Live || pe.State == Greeting && pe.Role == Listener
	fs := p.pull(s)
	if !tells {
		require.Empty(p.t, fs)
		return
	}
	require.NotEmpty(p.t, fs, "no CLOSE")
	c := fs[len(fs)-1].control(p.t)
	require.Equal(p.t, KindClose, c.Kind)
	require.Equal(p.t, CloseProtocol, c.Reason)
	require.Empty(p.t, p.pull(s), "CLOSE is said once")
}

func runDatagram(payload string) datagram.Datagram {
	return datagram.Datagram{Recipient: 1, Payload: []byte(payload)}
}
