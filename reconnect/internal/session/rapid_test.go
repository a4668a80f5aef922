package session

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/towline-mq/towline/datagram"
)

// The parts of the machine as state machines of pgregory.net/rapid, each against a model that is as simple as can be:
// the send log and the receive side guard D1, D2 and D4 of docs/delivery.md, the pair D1 and D6. (The session table's is
// TestTableModel, the budget's TestBudgetModel.) A failure prints the steps that led to it, as few as rapid can find,
// and the -rapid.seed that repeats it. As many stories are told as -rapid.checks says, of -rapid.steps steps each.

// starts are where counts begin.
var starts = []Position{{}, {}, {1<<32 - 3, 1<<32 - 40}, {math.MaxUint64 - 1<<20, math.MaxUint64 - 1<<32}}

// sizes of payloads: mostly short ones, and all that matter at the edges of segments.
var sizes = rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 40), rapid.IntRange(0, 40), rapid.IntRange(0, 5000),
	rapid.IntRange(SmallSegment-20, SmallSegment+4), rapid.IntRange(LargeSegment-20, LargeSegment+4), rapid.IntRange(0, 150_000))

// numberedBytes is a payload that no other is like.
func numberedBytes(n, size int) []byte {
	p := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, (size+2)/3)
	return p[:size]
}

// A send log gives out what was appended, in order, whole frames from the cursor on; frees what is acknowledged and
// nothing that a write still reads; and gives all memory back.
func TestRapidSendLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			mem         heap
			start       = rapid.SampledFrom(starts).Draw(t, "start")
			l           = sendLog{mem: &mem, base: start, unsent: start, sent: start, max: start, end: start}
			frames      [][]byte
			ends        = []Position{start} // ends[n] is where frame n begins
			base, next  int
			far         int      // the furthest that was given
			held, first [][]byte // a write under way, and what it looked like
		)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				d := datagram.Datagram{Recipient: uint16(len(frames)), Payload: numberedBytes(len(frames), sizes.Draw(t, "size"))}
				frame, err := datagram.Append(nil, d)
				require.NoError(t, err)
				l.append(d)
				clear(d.Payload) // it is the caller's again
				frames = append(frames, frame)
				ends = append(ends, ends[len(frames)-1].add(Position{1, uint64(len(frame))}))
			},
			"give": func(t *rapid.T) {
				if next == len(frames) {
					t.Skip("there is nothing")
				}
				upTo := rapid.IntRange(next+1, len(frames)).Draw(t, "up to")
				credit := plus(ends[next].B+1, rapid.OneOf(rapid.Uint64Range(0, 200), rapid.Just(uint64(math.MaxUint64))).Draw(t, "credit"))
				size := rapid.Uint64Range(1, 300_000).Draw(t, "size")
				got := l.give(nil, credit, size, ends[upTo])
				to := next
				for n := bytesIn(got); n > 0; to++ {
					require.GreaterOrEqual(t, n, len(frames[to]), "whole frames")
					require.Less(t, ends[to].B, credit, "frames that begin below the credit")
					n -= len(frames[to])
				}
				require.Greater(t, to, next, "at least one")
				require.LessOrEqual(t, to, upTo)
				require.True(t, bytes.Equal(bytes.Join(frames[next:to], nil), bytes.Join(got, nil)))
				require.Equal(t, ends[to], l.unsent)
				next, far = to, max(far, to)
				for _, b := range got {
					held, first = append(held, b), append(first, bytes.Clone(b))
				}
			},
			"written":  func(*rapid.T) { l.unpin(); held, first = nil, nil },
			"new line": func(*rapid.T) { l.rewind(); held, first, next = nil, nil, base },
			"acknowledge": func(t *rapid.T) {
				base = rapid.IntRange(base, far).Draw(t, "up to")
				l.acknowledge(ends[base])
				if next < base {
					next = base
					l.advance(ends[base])
				}
			},
			"": func(t *rapid.T) {
				require.NoError(t, l.check())
				for i := range held {
					require.True(t, bytes.Equal(first[i], held[i]), "a write that is under way has changed")
				}
				require.Equal(t, ends[len(frames)].B-ends[base].B, l.size())
				for _, n := range []int{base, next, len(frames)} {
					require.True(t, l.edge(ends[n]))
				}
				var got [][]byte
				for d := range l.unconfirmed {
					frame, _ := datagram.Append(nil, d)
					got = append(got, frame)
				}
				require.True(t, slices.EqualFunc(frames[base:], got, bytes.Equal), "what is unconfirmed")
			},
		})
		l.unpin()
		l.drop()
		require.Zero(t, mem.out)
	})
}

func bytesIn(vec [][]byte) (n int) {
	for _, b := range vec {
		n += len(b)
	}
	return n
}

// A receive side hands out what came, in order and once, whatever was replayed or skipped; takes what begins below the
// credit that it gave and nothing else; and acknowledges what has arrived, or what was consumed.
func TestRapidReceive(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		consumed := rapid.Bool().Draw(t, "consumed")
		p := livePairOf(outer, func(d, l *Config) {
			l.Consumed, l.MaxWindow = consumed, rapid.SampledFrom([]uint64{64 << 10, 200 << 10, 1 << 20}).Draw(t, "window")
			l.Start = rapid.SampledFrom(starts[:3]).Draw(t, "start")
			d.Start = l.Start
		})
		s := p.l
		var (
			waits    [][]byte // that were not taken
			arrived  uint64   // also counts skipped ones
			taken    uint64   // of what is not skipped
			finished uint64   // by Consume
			n        int
			ended    bool
		)
		credit := func() uint64 { return s.recv.credit - min(s.recv.credit, s.recv.here.B) } // from here on
		control := func(c Control) error {                                                   // from the peer, with its true status
			c.Status = honest(s)
			s.Read(p.now, true)
			return s.Control(p.now, c.Append(nil))
		}
		t.Repeat(map[string]func(*rapid.T){
			"data": func(t *rapid.T) {
				if ended {
					t.Skip("it has ended")
				}
				run := datagram.Run{Version: datagram.Version}
				var payloads [][]byte
				left := credit()
				for range rapid.IntRange(1, 8).Draw(t, "frames") {
					if uint64(len(run.Raw)) >= left {
						break // the next would begin at or above the credit
					}
					size := sizes.Draw(t, "size")
					if len(run.Raw) > 0 && size >= 16<<10-8 {
						break // large frames come alone
					}
					n++
					payloads = append(payloads, numberedBytes(n, size))
					run.Raw, _ = datagram.Append(run.Raw, datagram.Datagram{Recipient: 1, Payload: payloads[len(payloads)-1]})
					run.N++
					if size >= 16<<10-8 {
						break
					}
				}
				if run.N == 0 {
					t.Skip("no credit")
				}
				s.Read(p.now, true)
				require.NoError(t, s.Data(p.now, run))
				waits = append(waits, payloads...)
				arrived += uint64(run.N)
			},
			"skip": func(t *rapid.T) {
				if ended || credit() == 0 {
					t.Skip("it has ended, or there is no credit")
				}
				require.NoError(t, control(Control{Kind: KindSkip, Length: uint32(8 + sizes.Draw(t, "size"))}))
				arrived++
			},
			"take": func(t *rapid.T) {
				run, ok := s.Take()
				require.Equal(t, len(waits) > 0, ok)
				for range run.N {
					d, ok := run.Next()
					require.True(t, ok)
					require.True(t, bytes.Equal(waits[0], d.Payload), "not what came next")
					waits = waits[1:]
					taken++
				}
			},
			"consume": func(t *rapid.T) {
				if !consumed {
					t.Skip("it is not asked for")
				}
				k := rapid.IntRange(0, int(taken-finished)+1).Draw(t, "n")
				ok := s.Consume(p.now, k)
				require.Equal(t, uint64(k) <= taken-finished, ok)
				if ok {
					finished += uint64(k)
				}
			},
			"status": func(t *rapid.T) {
				p.now += 30 * time.Millisecond
				_ = s.Tick(p.now)
				for _, f := range p.pull(s) {
					if c := f.control(outer); c.Kind == KindAck {
						all := arrived
						if ended {
							all++ // FIN counts one
						}
						require.LessOrEqual(t, c.Received.N-s.cfg.Start.N, all)
						if !consumed {
							require.Equal(t, all, c.Received.N-s.cfg.Start.N)
						}
					}
				}
			},
			"peer speaks": func(t *rapid.T) { // so that nobody is taken for dead
				if !ended {
					require.NoError(t, control(Control{Kind: KindAck}))
				}
			},
			"fin": func(t *rapid.T) {
				if ended || rapid.IntRange(0, 9).Draw(t, "really") > 0 {
					t.Skip("not now")
				}
				require.NoError(t, control(Control{Kind: KindFin}))
				ended = true
			},
			"": func(t *rapid.T) {
				require.NoError(t, s.check())
				waiting := 0
				for _, w := range waits {
					waiting += len(w) + datagram.HeaderSize
				}
				st := s.Stats()
				require.GreaterOrEqual(t, st.Waiting, uint64(waiting))
				require.LessOrEqual(t, st.Window, s.cfg.MaxWindow, "D4")
				require.Equal(t, arrived, st.Arrived)
				require.Equal(t, ended && len(s.recv.queue) == 0, s.EOF())
			},
		})
		// What begins at or above the credit is a protocol error.
		if !ended {
			for credit() > 0 {
				size := int(min(credit(), 1<<20)) - 8
				s.Read(p.now, true)
				require.NoError(t, s.Data(p.now, runOf(string(make([]byte, max(size, 0))))))
			}
			var e *ProtocolError
			s.Read(p.now, true)
			require.ErrorAs(t, s.Data(p.now, runOf("x")), &e)
			require.Equal(t, "R-108", e.Rule)
		}
	})
}

// lineEnd is one direction of a connection: what was written arrives when, and in what pieces, the story says.
type lineEnd struct {
	buf  []byte // under way
	here []byte // has arrived
}

var errNothing = errors.New("nothing has arrived")

func (l *lineEnd) Read(p []byte) (int, error) {
	n := copy(p, l.here)
	if l.here = l.here[n:]; n == 0 {
		return 0, errNothing
	}
	return n, nil
}

// rapidPair is two machines and a connection between them.
type rapidPair struct {
	now       time.Duration
	mem       heap
	rand      *rand.ChaCha8
	s         [2]*Session // by Role
	lcfg      Config
	up        bool
	greeted   bool // the listener has had the first frame of this connection
	to        [2]*lineEnd
	dec       [2]*datagram.Reader
	sent, got [2][][]byte // by who sent it
	fin       [2]bool
	closed    bool
}

func (p *rapidPair) cut() {
	p.up = false
	for _, s := range p.s {
		if s != nil {
			s.Detach()
		}
	}
}

func (p *rapidPair) connect() {
	p.cut()
	p.up, p.greeted = true, false
	for i := range p.to {
		p.to[i] = new(lineEnd)
		p.dec[i] = datagram.NewReader(p.to[i], &datagram.Options{Control: true, MaxPayload: 1 << 20})
	}
	p.s[Dialer].Dial(p.now, nil, nil)
}

// write lets a side write once.
func (p *rapidPair) write(role Role) bool {
	s := p.s[role]
	if s == nil || !p.up || role == Listener && !p.greeted {
		return false
	}
	var out Out
	ok := s.Pull(p.now, &out)
	for _, b := range out.Vec {
		p.to[1-role].buf = append(p.to[1-role].buf, b...)
	}
	s.Wrote()
	return ok
}

// arrive lets n bytes arrive at a side.
func (p *rapidPair) arrive(t require.TestingT, role Role, n int) {
	if !p.up {
		return
	}
	l := p.to[role]
	n = min(n, len(l.buf))
	l.here, l.buf = append(l.here, l.buf[:n]...), l.buf[n:]
	for {
		run, err := p.dec[role].Frames()
		require.NoError(t, err)
		if run.N > 0 {
			p.frame(t, role, run)
			if !p.up {
				return
			}
			continue
		}
		switch err := p.dec[role].Fill(); {
		case errors.Is(err, errNothing):
			return
		case err != nil:
			require.ErrorIs(t, err, io.ErrNoProgress)
			return
		}
	}
}

func (p *rapidPair) frame(t require.TestingT, role Role, run datagram.Run) {
	if role == Listener && !p.greeted {
		p.greeted = true
		p.greet(t, run.Raw)
		return
	}
	s := p.s[role]
	if s.State() == Ended {
		return
	}
	s.Read(p.now, true)
	if run.Version == datagram.Version {
		require.NoError(t, s.Data(p.now, run))
		return
	}
	err := s.Control(p.now, run.Raw)
	require.NoError(t, err, "%v", KindOf(run.Raw))
}

// greet takes the first frame of a connection.
func (p *rapidPair) greet(t require.TestingT, frame []byte) {
	l := p.s[Listener]
	switch KindOf(frame) {
	case KindHello:
		h, err := ParseHello(frame)
		require.NoError(t, err)
		if l == nil {
			l, err = NewListener(p.lcfg, p.rand, &h, [16]byte{1})
			require.NoError(t, err)
			p.s[Listener] = l
		} else {
			require.NoError(t, l.Again(&h))
			l.Fence(h.Epoch, h.Link)
		}
		l.Welcome(p.now, frame, nil)
	case KindResume:
		r, err := ParseResume(frame)
		require.NoError(t, err)
		require.NoError(t, l.Verify(frame, nil))
		if l.State() == Ended {
			p.cut() // it would be rejected as closed: enough is known
			p.closed = true
			return
		}
		require.NoError(t, l.Check(&r))
		l.Fence(r.Epoch, [32]byte{})
		require.NoError(t, l.Resume(p.now, &r, frame, nil))
	default:
		require.Fail(t, "a connection begins with", "%v", KindOf(frame))
	}
}

func (p *rapidPair) take(role Role) {
	s := p.s[role]
	if s == nil {
		return
	}
	run, ok := s.Take()
	for ok {
		for d, more := run.Next(); more; d, more = run.Next() {
			p.got[1-role] = append(p.got[1-role], bytes.Clone(d.Payload))
		}
		run, ok = s.Take()
	}
}

// Two machines and connections that are cut at any byte: each receives a prefix of what the other accepted, and in the
// end, over one connection that holds, all of it.
func TestRapidPair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Byte().Draw(t, "keys")
		p := &rapidPair{rand: rand.NewChaCha8([32]byte{seed})}
		window := rapid.SampledFrom([]uint64{64 << 10, 1 << 20})
		start := rapid.SampledFrom(starts[:3]).Draw(t, "start")
		cfg := testConfig(&p.mem)
		cfg.MaxWindow, cfg.Start, cfg.SendBuffer = window.Draw(t, "dialer's window"), start, 300<<10
		p.lcfg = cfg
		p.lcfg.MaxWindow = window.Draw(t, "listener's window")
		d, err := NewDialer(cfg, p.rand)
		require.NoError(t, err)
		p.s[Dialer] = d
		roles := rapid.SampledFrom([]Role{Dialer, Listener})
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				role := roles.Draw(t, "side")
				s := p.s[role]
				if s == nil || p.fin[role] || !s.Room() || s.Accepting() != nil {
					t.Skip("nothing is accepted")
				}
				payload := numberedBytes(len(p.sent[role])+1, sizes.Draw(t, "size"))
				require.NoError(t, s.Append(p.now, datagram.Datagram{Payload: payload}, 0))
				p.sent[role] = append(p.sent[role], payload)
			},
			"connect": func(*rapid.T) {
				if d.State() != Ended {
					p.connect()
				}
			},
			"cut":   func(*rapid.T) { p.cut() },
			"write": func(t *rapid.T) { p.write(roles.Draw(t, "side")) },
			"arrive": func(t *rapid.T) {
				p.arrive(t, roles.Draw(t, "at"), rapid.OneOf(rapid.IntRange(1, 100), rapid.IntRange(1, 300_000)).Draw(t, "bytes"))
			},
			"take": func(t *rapid.T) { p.take(roles.Draw(t, "side")) },
			"time": func(t *rapid.T) {
				p.now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "by"))
				for _, s := range p.s {
					if s != nil && s.Tick(p.now) {
						p.cut()
					}
				}
			},
			"finish": func(t *rapid.T) {
				role := roles.Draw(t, "side")
				if s := p.s[role]; s != nil && rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					s.Finish(p.now)
					p.fin[role] = true
				}
			},
			"": func(t *rapid.T) { p.agree(t) },
		})
		if d.State() != Ended && !p.closed {
			p.connect()
		}
		for again := true; again; {
			again = false
			for _, role := range []Role{Dialer, Listener} {
				again = p.write(role) || again
			}
			for _, role := range []Role{Dialer, Listener} {
				again = again || p.up && len(p.to[role].buf) > 0
				p.arrive(t, role, math.MaxInt)
				p.take(role)
			}
			p.agree(t)
		}
		for role := range p.sent {
			require.Len(t, p.got[role], len(p.sent[role]), "all arrives in the end")
		}
	})
}

// agree compares with the model: lists of what was accepted, of which what was received is a prefix.
func (p *rapidPair) agree(t require.TestingT) {
	for role, s := range p.s {
		if s == nil {
			continue
		}
		require.NoError(t, s.check())
		require.LessOrEqual(t, len(p.got[role]), len(p.sent[role]))
		for i := len(p.got[role]) - 1; i >= 0 && i >= len(p.got[role])-20; i-- {
			require.True(t, bytes.Equal(p.sent[role][i], p.got[role][i]), "not what was sent as number %d", i)
		}
		st := s.Stats()
		require.Equal(t, uint64(len(p.sent[role])), st.Accepted)
		if other := p.s[1-role]; other != nil {
			require.LessOrEqual(t, s.Acked(), other.Arrived(), "acknowledged before it arrived")
		}
		require.LessOrEqual(t, st.UnackedSize, uint64(300<<10+150_008), "D4")
		require.LessOrEqual(t, st.Waiting, s.cfg.MaxWindow+150_008, "D4")
	}
}
