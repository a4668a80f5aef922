package session

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var allStates = []State{New, Greeting, Detached, Resuming, Live, Ended}

// inState returns a pair of which that side is in that state, having nothing to write; ok is false where there is no such
// state. answer is what the peer answers to HELLO or RESUME, if that is what is waited for.
func inState(t *testing.T, role Role, state State) (p *pair, s *Session, answer []byte, ok bool) {
	p = newPair(t)
	if state == Greeting || role == Listener && state == New {
		p.connect()
		p.forth()
	} else if state != New {
		p = livePair(t)
	}
	s = p.side(role)
	switch state {
	case Greeting:
		answer = p.pull(p.l)[0].raw
	case Detached:
		s.Detach()
	case Resuming:
		p.connect()
		p.forth()
		answer = p.pull(p.l)[0].raw
	case Ended:
		s.Abort()
		p.pull(s)
	case New:
		if role == Listener {
			s.Detach()
		}
	}
	p.check()
	return p, s, answer, s.State() == state
}

// say lets s read a frame of that kind, as right as can be.
func (p *pair) say(s *Session, kind Kind, answer []byte) error {
	switch kind {
	case kindData:
		return p.data(s, "x")
	case KindHello:
		return s.Control(p.now, (&Hello{Version: ProtocolVersion, Epoch: 9}).Append(nil))
	case KindResume:
		return s.Control(p.now, (&Resume{Version: ProtocolVersion, Epoch: 9}).Append(nil))
	case KindWelcome, KindResumed:
		s.Read(p.now, true)
		if KindOf(answer) == kind {
			return s.Control(p.now, answer)
		}
		if kind == KindWelcome {
			return s.Control(p.now, (&Welcome{Version: ProtocolVersion}).Append(nil))
		}
		return s.Control(p.now, (&Resumed{}).Append(nil))
	case KindReject:
		return s.Control(p.now, (&Reject{Reason: ReasonUnauthorised}).Append(nil))
	}
	return p.hear(s, Control{Kind: kind, Length: 8, Token: 77}, nil)
}

// taken says, for each state with a connection, what the frames that are taken do. Others are protocol errors.
var taken = map[Role]map[State]map[Kind]func(t *testing.T, p *pair, s *Session, err error){
	Dialer: {
		Greeting: {KindWelcome: becomesLive, KindReject: isRejected},
		Resuming: {KindResumed: becomesLive, KindReject: isRejected},
		Live: {
			kindData: hasDatagram, KindAck: staysLive, KindPing: answersPing, KindPong: staysLive, KindFin: hasEOF,
			KindGoaway: toldToGo, KindClose: closes, KindSkip: skips, KindStop: isStopped,
		},
	},
	Listener: {
		Greeting: {
			kindData: hasDatagram, KindAck: becomesLive, KindPing: answersPing, KindPong: staysGreeting, KindFin: hasEOF,
			KindClose: closes, KindSkip: skips, KindStop: isStopped,
		},
		Live: {
			kindData: hasDatagram, KindAck: staysLive, KindPing: answersPing, KindPong: staysLive, KindFin: hasEOF,
			KindClose: closes, KindSkip: skips, KindStop: isStopped,
		},
	},
}

func becomesLive(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.Equal(t, Live, s.State())
	events := s.Events()
	require.Len(t, events, 1)
	require.Equal(t, EventLive, events[0].Kind)
	if s.Role() == Dialer {
		require.Equal(t, KindAck, p.pull(s)[0].kind)
	}
}

func isRejected(t *testing.T, p *pair, s *Session, err error) {
	require.Equal(t, err, s.Err())
	require.ErrorAs(t, err, new(*RejectError))
	require.Equal(t, Ended, s.State())
	require.Empty(t, p.pull(s))
}

func staysLive(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.Equal(t, Live, s.State())
	require.Empty(t, s.Events())
	require.Empty(t, p.pull(s))
}

func staysGreeting(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.Equal(t, Greeting, s.State())
}

func hasDatagram(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	run, ok := s.Take()
	require.True(t, ok)
	d, ok := run.Next()
	require.True(t, ok)
	require.Equal(t, "x", string(d.Payload))
	require.EqualValues(t, 3, d.Recipient)
	require.EqualValues(t, 1, s.Arrived())
}

func answersPing(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	fs := p.pull(s)
	c := fs[len(fs)-1].control(t)
	require.Equal(t, KindPong, c.Kind)
	require.EqualValues(t, 77, c.Token)
}

func hasEOF(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.True(t, s.EOF())
	require.Equal(t, []Event{{Kind: EventFin}}, s.Events())
	fs := p.pull(s)
	c := fs[len(fs)-1].control(t)
	require.Equal(t, Position{1, 0}, c.Received, "acknowledged at once")
}

func toldToGo(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.Equal(t, []Event{{Kind: EventGoaway}}, s.Events())
	require.Equal(t, Live, s.State())
}

func closes(t *testing.T, p *pair, s *Session, err error) {
	require.Equal(t, &ClosedError{CloseDone}, err)
	require.Equal(t, err, s.Err())
	require.Equal(t, Ended, s.State())
	require.Equal(t, []Kind{KindClose}, kindsOf(p.pull(s)), "the answer")
	require.Empty(t, p.pull(s))
}

func skips(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.Equal(t, Position{1, 8}, s.ArrivedOnWire())
	_, ok := s.Take()
	require.False(t, ok)
	require.EqualValues(t, 1, s.Stats().Skipped)
}

func isStopped(t *testing.T, p *pair, s *Session, err error) {
	require.NoError(t, err)
	require.True(t, s.Stopped())
	require.Equal(t, ErrStopped, s.Accepting())
	require.Equal(t, []Event{{Kind: EventStopped}}, s.Events())
}

func TestEveryCell(t *testing.T) {
	const unknown = Kind(99)
	for _, role := range []Role{Dialer, Listener} {
		for _, state := range allStates {
			for _, kind := range []Kind{
				kindData, KindHello, KindWelcome, KindResume, KindResumed, KindReject, KindAck, KindPing, KindPong, KindFin,
				KindGoaway, KindClose, KindSkip, KindStop, unknown,
			} {
				name := kind.String()
				if kind == kindData {
					name = "data"
				}
				t.Run(fmt.Sprintf("%v/%v/%v", role, state, name), func(t *testing.T) {
					p, s, answer, ok := inState(t, role, state)
					if !ok {
						require.Equal(t, []any{Listener, Resuming}, []any{role, state})
						return
					}
					if kind == unknown {
						answer = (&Control{Kind: KindAck}).Append(nil)
						answer[7] = byte(unknown)
					}
					was := s.Err()
					before := *s
					var err error
					if kind == unknown {
						err = s.Control(p.now, answer)
					} else {
						err = p.say(s, kind, answer)
					}
					effect := taken[role][state][kind]
					switch {
					case !state.attached():
						require.Equal(t, was, err)
						require.Equal(t, before, *s, "nothing comes in without a connection")
						require.Equal(t, was, s.Bad(ErrFinished))
						s.Read(p.now, false)
						require.Equal(t, before, *s)
					case effect != nil:
						effect(t, p, s, err)
						p.check()
					default:
						p.broken(s, err, "R-104")
						if kind == kindData {
							name = "a datagram"
						}
						require.Contains(t, err.Error(), name, "names the frame")
						require.Contains(t, err.Error(), role.String())
						require.Contains(t, err.Error(), state.String())
						if s.State() == Ended {
							require.Equal(t, err, p.say(s, KindAck, nil), "nothing more is taken")
							require.Empty(t, p.pull(s))
						}
					}
				})
			}
		}
	}
}

// TestStateTable keeps section 13 of the protocol the table that the code has. With UPDATE=1 it writes it.
func TestStateTable(t *testing.T) {
	const file, begin, end = "../../../docs/protocol.md", "<!-- states -->\n", "<!-- /states -->"
	doc, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(doc), begin)
	require.True(t, ok)
	table, tail, ok := strings.Cut(rest, end)
	require.True(t, ok)
	want := StateTable()
	if os.Getenv("UPDATE") != "" {
		require.NoError(t, os.WriteFile(file, []byte(head+begin+want+end+tail), 0o644))
		return
	}
	require.Equal(t, want, table, "UPDATE=1 go test -run TestStateTable writes it")
}

func TestTransitions(t *testing.T) {
	for _, role := range []Role{Dialer, Listener} {
		for _, state := range allStates {
			_, s, _, ok := inState(t, role, state)
			if !ok {
				continue
			}
			s.Detach()
			want := map[State]State{Greeting: New, Resuming: Detached, Live: Detached}
			if to, ok := want[state]; ok {
				require.Equal(t, to, s.State())
			} else {
				require.Equal(t, state, s.State())
			}
			require.False(t, s.state.attached())
			_, _, ok = s.Deadline()
			require.False(t, ok)
			require.False(t, s.Tick(1e18))

			s.Abort()
			require.Equal(t, Ended, s.State())
			require.Equal(t, ErrAborted, s.Err())
			s.Shutdown()
			s.Drop(ReasonExpired)
			require.Equal(t, ErrAborted, s.Err(), "the first end counts")
		}
	}
}
