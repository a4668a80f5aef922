package session

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

// These targets guard D6 of docs/delivery.md, and D4 where it says so: whatever a peer sends, nothing panics, what is
// kept stays bounded, and the error says what was wrong. go test runs their seeds, and what ever failed. For more:
//
//	go test -run '^$' -fuzz '^FuzzMachine$' -fuzztime 5m ./reconnect/internal/session

// saysWhy requires an error of a type that is promised, which can be shown to people: one line of text, not too long.
func saysWhy(t *testing.T, err error) {
	var (
		protocol *ProtocolError
		control  *ControlError
		version  *VersionError
		rejected *RejectError
		closed   *ClosedError
		lost     *LostError
		frame    *datagram.FrameError
	)
	typed := errors.As(err, &protocol) || errors.As(err, &control) || errors.As(err, &version) || errors.As(err, &rejected) ||
		errors.As(err, &closed) || errors.As(err, &lost) || errors.As(err, &frame) || errors.Is(err, ErrAborted) ||
		errors.Is(err, ErrExhausted)
	require.True(t, typed, "%T: %v", err, err)
	text := err.Error()
	require.NotEmpty(t, text)
	require.Less(t, len(text), 1000)
	for _, c := range text {
		require.True(t, c >= ' ' && c != 0x7f && c != 0xfffd, "%q", text)
	}
}

// program reads the steps of a fuzzed story.
type program []byte

func (p *program) next() byte {
	if len(*p) == 0 {
		return 0
	}
	b := (*p)[0]
	*p = (*p)[1:]
	return b
}

// size is mostly small.
func (p *program) size() int {
	b := int(p.next())
	if b < 224 {
		return b
	}
	return (b - 223) * 7001
}

// off is a number by which something may be wrong: mostly not at all.
func (p *program) off() uint64 {
	switch b := p.next(); {
	case b < 160:
		return 0
	case b < 200:
		return uint64(b - 159)
	case b < 240:
		return -uint64(b - 199)
	case b == 255:
		return 1 << 63
	default:
		return 1 << (b - 220)
	}
}

// FuzzMachine plays a program to a session that is live: what its application does, frames that a peer could send or
// nearly so, bytes, time, and new connections. Whatever it is, the invariants hold, memory is bounded (D4), and errors
// are typed.
func FuzzMachine(f *testing.F) {
	for op := range byte(14) {
		f.Add([]byte{op, op, 3, 0, 0, 0, 0, 9, op, 1, 200, 0, 0})
		f.Add([]byte{1, 2, 5, 10, 0, 9, op, 4, 0, 0, 0, 0, 7, 20, 5, 6, 12, 2, 3, 4})
	}
	for _, v := range loadVectors(f).Valid {
		f.Add(append([]byte{byte(len(v.Frame)), 4, byte(min(len(v.Frame), 255))}, v.Frame...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		x := program(in[:min(len(in), 2000)])
		role, consumed := Role(x.next()&1), x.next()&1 == 1
		p := livePairOf(t, func(d, l *Config) {
			d.Consumed, l.Consumed = consumed, consumed
			d.MaxWindow, l.MaxWindow = 256<<10, 256<<10
			d.SendBuffer, l.SendBuffer = 100<<10, 100<<10
			d.MaxPayload, l.MaxPayload = 300<<10, 300<<10
		})
		s, peer := p.side(role), p.side(1-role)
		step := func(err error) {
			if err != nil {
				saysWhy(t, err)
			}
		}
		for len(x) > 0 {
			switch x.next() % 14 {
			case 0, 1: // the application sends
				if s.Accepting() == nil && s.Room() {
					var deadline time.Duration
					if x.next()&3 == 0 {
						deadline = p.now + time.Duration(x.next())*time.Millisecond
					}
					step(s.Append(p.now, datagram.Datagram{Payload: make([]byte, x.size())}, deadline))
				}
			case 2, 3: // data
				run := datagram.Run{Version: datagram.Version, N: 1 + int(x.next()&7)}
				for range run.N {
					run.Raw, _ = datagram.Append(run.Raw, datagram.Datagram{Payload: make([]byte, x.size()&0x3fff)})
				}
				if attached(s) {
					s.Read(p.now, true)
					step(s.Data(p.now, run))
				}
			case 4: // a control frame of any bytes
				n := min(int(x.next()), len(x))
				if attached(s) && n >= datagram.HeaderSize {
					s.Read(p.now, true)
					step(s.Control(p.now, bytes.Clone(x[:n])))
				}
				x = x[n:]
			case 5, 6, 7: // a control frame that is right, or nearly so
				c := Control{Kind: controls[int(x.next())%len(controls)], Status: honest(s)}
				c.Sent.N += x.off()
				c.Sent.B += x.off()
				c.Received.N += x.off()
				c.Received.B += x.off()
				c.Credit += x.off()
				c.Reason, c.Length = CloseReason(x.next()%8), uint32(x.size())
				if x.next()&1 == 1 { // acknowledges all
					c.Received = s.log.sent.sub(s.log.origin)
				}
				if attached(s) {
					frame := c.Append(nil)
					s.Read(p.now, true)
					step(s.Control(p.now, frame))
				}
			case 8: // the peer's machine says what it has to say, as it is
				var b bytes.Buffer
				if attached(peer) && peer.Pulls() {
					p.write(peer, &b)
				}
				for _, fr := range frames(b.Bytes()) {
					if !attached(s) {
						break
					}
					s.Read(p.now, true)
					if fr.kind == kindData {
						step(s.Data(p.now, datagram.Run{Raw: fr.raw, N: 1, Version: datagram.Version}))
					} else {
						step(s.Control(p.now, fr.raw))
					}
				}
			case 9: // the application receives
				if run, ok := s.Take(); ok && consumed {
					s.Consume(p.now, int(x.next())%(run.N+1))
				}
			case 10: // it writes
				var out Out
				if attached(s) && s.Pull(p.now, &out) {
					n := 0
					for _, b := range out.Vec {
						n += len(b)
					}
					require.Less(t, n, chunk+400<<10, "D4: a write")
				}
				s.Wrote()
			case 11: // time passes
				p.now += time.Duration(x.next()) * 50 * time.Millisecond
				if s.Tick(p.now) {
					s.Detach()
				}
			case 12: // a new connection
				s.Detach()
				peer.Detach()
				step(resume(p))
			case 13:
				switch x.next() % 8 {
				case 0:
					s.Finish(p.now)
				case 1:
					s.Stop()
				case 2:
					s.Flush()
				case 3:
					s.Abort()
				case 4:
					s.Detach()
				}
			}
			require.NoError(t, s.check())
			s.Events()
			st := s.Stats()
			require.LessOrEqual(t, st.Window, s.cfg.MaxWindow, "D4")
			require.LessOrEqual(t, st.Waiting, s.cfg.MaxWindow+300<<10+8, "D4")
			require.LessOrEqual(t, st.UnackedSize, uint64(100<<10+300<<10+8), "D4")
			if s.State() == Ended {
				step(s.Err())
			}
		}
	})
}

// controls are the kinds of frames that a session takes while it lives.
var controls = []Kind{KindAck, KindAck, KindAck, KindPing, KindPong, KindFin, KindGoaway, KindClose, KindSkip, KindSkip, KindStop}

func attached(s *Session) bool {
	return s.State() == Live || s.State() == Greeting || s.State() == Resuming
}

// resume puts both machines of a pair on a new connection, if they still agree.
func resume(p *pair) error {
	if p.d.State() == Ended || p.l.State() == Ended {
		return nil
	}
	p.d.Dial(p.now, p.exporter, nil)
	var b bytes.Buffer
	p.write(p.d, &b)
	all := frames(b.Bytes())
	r, err := ParseResume(all[0].raw)
	if err != nil {
		return err
	}
	if err := p.l.Verify(all[0].raw, p.exporter); err != nil {
		return err
	}
	if err := p.l.Check(&r); err != nil {
		return err
	}
	p.l.Fence(r.Epoch, [32]byte{})
	return p.l.Resume(p.now, &r, all[0].raw, p.exporter)
}

// FuzzAnswer gives a dialer, new or with a session, bytes for the answer to its first frame. Only a listener that has the
// keys makes it live.
func FuzzAnswer(f *testing.F) {
	for _, resuming := range []bool{false, true} {
		f.Add(resuming, answerTo(f, resuming))
		for _, v := range loadVectors(f).Valid {
			f.Add(resuming, []byte(v.Frame))
		}
		for _, v := range loadVectors(f).Invalid {
			f.Add(resuming, []byte(v.Frame))
		}
	}
	f.Fuzz(func(t *testing.T, resuming bool, in []byte) {
		p := greeting(t, resuming)
		genuine := answerTo(t, resuming)
		r := datagram.NewReader(bytes.NewReader(in), &datagram.Options{Control: true, MaxPayload: 1 << 20})
		for p.d.State() != Ended {
			run, err := r.Frames()
			if err == nil && run.N == 0 {
				if r.Fill() != nil {
					break
				}
				continue
			}
			if err != nil {
				saysWhy(t, p.d.Bad(err))
				break
			}
			p.d.Read(p.now, true)
			if run.Version == datagram.Version {
				err = p.d.Data(p.now, run)
			} else {
				err = p.d.Control(p.now, run.Raw)
			}
			require.NoError(t, p.d.check())
			if err != nil {
				saysWhy(t, err)
				break
			}
			if p.d.State() == Live {
				require.True(t, bytes.HasPrefix(in, genuine), "somebody without the keys was believed")
			}
		}
		require.NoError(t, p.d.check())
	})
}

// greeting is a pair of which the dialer waits for an answer; the same each time.
func greeting(tb testing.TB, resuming bool) *pair {
	t, ok := tb.(*testing.T)
	if !ok {
		t = new(testing.T)
	}
	var p *pair
	if resuming {
		p = livePair(t)
	} else {
		p = newPair(t)
	}
	p.connect()
	p.write(p.d, &p.toL)
	return p
}

// answerTo is what the listener would say.
func answerTo(tb testing.TB, resuming bool) []byte {
	p := greeting(tb, resuming)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	p.write(p.l, &p.toD)
	raw := p.toD.Bytes()
	return bytes.Clone(raw[:datagram.ParseHeader(raw).Size+4])
}

// FuzzFirstFrame gives a listener, which has a session in its table, bytes for the first frame of a connection. It begins
// sessions with who says HELLO rightly; the one it has it lets nobody resume who lacks the key.
func FuzzFirstFrame(f *testing.F) {
	for _, resuming := range []bool{false, true} {
		p := greeting(f, resuming)
		raw := p.toL.Bytes()
		f.Add(bytes.Clone(raw[:datagram.ParseHeader(raw).Size+4]))
	}
	for _, v := range loadVectors(f).Valid {
		f.Add([]byte(v.Frame))
	}
	for _, v := range loadVectors(f).Invalid {
		f.Add([]byte(v.Frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < datagram.HeaderSize {
			return
		}
		p := greeting(t, true)
		raw := p.toL.Bytes()
		genuine := raw[:datagram.ParseHeader(raw).Size+4]
		table := NewTable[*Session](TableConfig{MaxSessions: 2, MaxDetached: 2, MaxTombstones: 2, Expiry: time.Minute})
		require.Zero(t, table.Add(p.l.ID(), p.l))
		before := *p.l
		switch KindOf(frame) {
		case KindHello:
			h, err := ParseHello(frame)
			if err != nil {
				saysWhy(t, err)
				return
			}
			if known, ok := table.Get(h.ID); ok {
				if err := known.Again(&h); err != nil {
					saysWhy(t, err)
					return
				}
				require.Fail(t, "a confirmed session was taken over by a HELLO")
			}
			s, err := NewListener(p.lcfg, p.rand, &h, p.instance)
			if err != nil {
				saysWhy(t, err)
				return
			}
			require.Zero(t, table.Add(h.ID, s))
			s.Welcome(p.now, frame, p.exporter)
			require.NoError(t, s.check())
			var out Out
			require.True(t, s.Pull(p.now, &out))
			n := 0
			for _, b := range out.Vec {
				n += len(b)
			}
			require.LessOrEqual(t, n, 1<<10, "the answer is short")
		case KindResume:
			r, err := ParseResume(frame)
			if err != nil {
				saysWhy(t, err)
				return
			}
			s, ok := table.Get(r.ID)
			if !ok {
				return
			}
			if err := s.Verify(frame, p.exporter); err != nil {
				saysWhy(t, err)
				require.Equal(t, before.epoch, s.epoch, "a RESUME that is refused changes nothing")
				require.Equal(t, before.state, s.state)
				return
			}
			require.Equal(t, genuine, frame, "a RESUME that the dialer did not make was believed")
			require.NoError(t, s.Check(&r))
		}
		require.NoError(t, p.l.check())
	})
}

// FuzzErrors renders what a peer can make us say: every reason, state and number gives one line of text.
func FuzzErrors(f *testing.F) {
	f.Add(byte(0), byte(0), byte(0), uint32(0), []byte{0, 0, 0, 3})
	f.Add(byte(1), byte(3), byte(10), uint32(1<<31), []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(byte(1), byte(4), byte(255), uint32(1<<31), []byte{0x16, 3, 1, 0, 0xff, 1, 0, 0})
	f.Fuzz(func(t *testing.T, role, state, reason byte, delay uint32, raw []byte) {
		for _, err := range []error{
			&RejectError{Reject: Reject{Reason: Reason(reason), Delay: delay}, Restarted: role > 1},
			&ClosedError{Reason: CloseReason(reason)},
			&LostError{Reason: Reason(reason)},
			&ProtocolError{Role: Role(role), State: State(state), What: Kind(reason).String(), Got: "x", Expected: "y"},
		} {
			saysWhy(t, err)
		}
		if len(raw) >= datagram.HeaderSize {
			if _, err := ParseControl(raw); err != nil {
				saysWhy(t, err)
			}
		}
		r := datagram.NewReader(bytes.NewReader(raw), &datagram.Options{MaxPayload: 1000})
		if _, err := r.Read(); errors.As(err, new(*datagram.FrameError)) {
			saysWhy(t, err)
		}
	})
}
