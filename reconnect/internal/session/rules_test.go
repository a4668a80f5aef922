package session

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
)

const huge = math.MaxUint64

func TestR105SentMustAgree(t *testing.T) {
	for name, change := range map[string]func(st *Status){
		"a datagram too many": func(st *Status) { st.Sent.N++ },
		"one too few":         func(st *Status) { st.Sent.N-- },
		"a byte too many":     func(st *Status) { st.Sent.B++ },
		"one too few bytes":   func(st *Status) { st.Sent.B-- },
		"the largest":         func(st *Status) { st.Sent = Position{huge, huge} },
		"nothing":             func(st *Status) { st.Sent = Position{} },
	} {
		for kind := KindAck; kind <= KindStop; kind++ {
			t.Run(name+"/"+kind.String(), func(t *testing.T) {
				p := livePair(t)
				require.NoError(t, p.data(p.d, "x", "y"))
				p.broken(p.d, p.hear(p.d, Control{Kind: kind, Length: 8}, change), "R-105")
			})
		}
	}
}

func TestR106Acknowledgements(t *testing.T) {
	// Of three datagrams of 9 bytes two were sent, and one is acknowledged.
	for name, c := range map[string]struct {
		received Position
		ok       bool
	}{
		"again":                  {Position{1, 9}, true},
		"one less":               {Position{0, 0}, true},
		"what was sent":          {Position{2, 18}, true},
		"no edge":                {Position{2, 17}, false},
		"no edge, above":         {Position{2, 19}, false},
		"no edge, again":         {Position{1, 10}, false},
		"no edge, below":         {Position{1, 8}, false},
		"not sent":               {Position{3, 27}, false},
		"never accepted":         {Position{4, 36}, false},
		"the largest":            {Position{huge, huge}, false},
		"the largest number":     {Position{huge, 18}, false},
		"the largest byte count": {Position{2, huge}, false},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p *pair, s *Session) {
				for range 3 {
					p.send(s, "x")
				}
				s.credit = 10
				p.pull(s)
				s.log.acknowledge(Position{1, 9})
				err := p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = c.received })
				if !c.ok {
					p.broken(s, err, "R-106")
					return
				}
				require.NoError(t, err)
				require.Equal(t, max(1, c.received.N), s.Acked())
			})
		})
	}
}

func TestR106FinNotSent(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.send(s, "x")
		s.Finish(p.now)
		s.credit = 0
		p.broken(s, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = Position{2, 9} }), "R-106")
	})
}

func TestR108CreditIsAbsolute(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		was := s.credit
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Credit-- }))
		require.Equal(t, was, s.credit, "less is ignored")
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Credit += 9 }))
		require.Equal(t, was+9, s.credit)
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Credit = huge }))
		require.Equal(t, uint64(huge), s.credit)
	})
}

func TestR108SendsBelowCredit(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		for range 4 {
			p.send(s, "x")
		}
		s.credit = 0
		require.Empty(t, p.pull(s))
		s.credit = 9 // where the second begins
		require.Len(t, p.pull(s), 1)
		s.credit = 10
		require.Len(t, p.pull(s), 1, "it begins below")
		require.Empty(t, p.pull(s))
		require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
		s.Stop()
		require.Equal(t, []Kind{KindPong, KindStop}, kindsOf(p.pull(s)), "control frames are not held back")
		s.credit = huge
		require.Len(t, p.pull(s), 2)
	})
}

func TestR108CreditOfOthers(t *testing.T) {
	// The window is 65536: what begins below it is taken, however long it is, what begins at it is not.
	frame := func(n int) string { return string(make([]byte, n-8)) }
	const w = 64 << 10
	for name, c := range map[string]struct {
		runs [][]string
		ok   bool
	}{
		"up to it":                  {[][]string{{frame(w)}}, true},
		"one that is longer":        {[][]string{{frame(3 * w)}}, true},
		"at it":                     {[][]string{{frame(w)}, {""}}, false},
		"at it, in the same run":    {[][]string{{frame(w), ""}}, false},
		"just below":                {[][]string{{frame(w - 1)}, {"x"}}, true},
		"just below, long":          {[][]string{{frame(w - 1), frame(w)}}, true},
		"behind one that is longer": {[][]string{{frame(w + 1)}, {""}}, false},
		"not only the last":         {[][]string{{frame(w), "", ""}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, p *pair, s *Session) {
				var err error
				for _, run := range c.runs {
					require.NoError(t, err)
					err = p.data(s, run...)
				}
				if c.ok {
					require.NoError(t, err)
				} else {
					p.broken(s, err, "R-108")
				}
			})
		})
	}
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.NoError(t, p.data(s, frame(w)))
		p.broken(s, p.hear(s, Control{Kind: KindSkip, Length: 8}, nil), "R-131")
	})
}

func TestR110Counts(t *testing.T) {
	at := func(start Position) *pair {
		return livePairOf(t, func(d, l *Config) { d.Start, l.Start = start, start })
	}
	t.Run("numbers", func(t *testing.T) {
		p := at(Position{huge - 3, 100})
		p.send(p.d, "x")
		require.Equal(t, ErrExhausted, p.d.Append(p.now, runDatagram("y"), 0))
		p.d.Finish(p.now)
		p.settle()
		require.True(t, p.d.Finished())
		require.True(t, p.l.EOF())
		require.Equal(t, uint64(huge-1), p.d.Acked())
	})
	t.Run("bytes", func(t *testing.T) {
		p := at(Position{5, huge - 20})
		require.Equal(t, ErrExhausted, p.d.Append(p.now, runDatagram("0123456789abc"), 0))
		p.send(p.d, "0123456789ab")
		require.Equal(t, ErrExhausted, p.d.Append(p.now, runDatagram(""), 0))
		p.settle()
		require.True(t, p.d.Idle())
		require.Len(t, p.gotL, 1)
	})
	for name, say := range map[string]func(p *pair) error{
		"data, number": func(p *pair) error { return p.data(p.d, "", "", "", "") },
		"SKIP, number": func(p *pair) error {
			p.data(p.d, "", "", "")
			return p.hear(p.d, Control{Kind: KindSkip, Length: 8}, nil)
		},
		"FIN, number": func(p *pair) error {
			p.data(p.d, "", "", "")
			return p.hear(p.d, Control{Kind: KindFin}, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(Position{huge - 3, 100})
			p.broken(p.d, say(p), "R-110")
		})
	}
	for name, say := range map[string]func(p *pair) error{
		"data, bytes": func(p *pair) error { return p.data(p.d, string(make([]byte, 100))) },
		"SKIP, bytes": func(p *pair) error { return p.hear(p.d, Control{Kind: KindSkip, Length: 100}, nil) },
		"replay, bytes": func(p *pair) error {
			p.data(p.d, "x")
			p.d.recv.here = Position{5, huge - 20}
			return p.data(p.d, string(make([]byte, 100)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(Position{5, huge - 20})
			p.broken(p.d, say(p), "R-110")
		})
	}
}

func TestR111BeforeTheAnswer(t *testing.T) {
	// Data, SKIP, STOP and FIN come at once behind HELLO and RESUME; nothing else does, whatever is due.
	for name, p := range map[string]*pair{"HELLO": newPair(t), "RESUME": livePair(t)} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			require.NoError(t, p.d.Append(0, runDatagram("late"), 1))
			p.send(p.d, "x")
			p.d.Stop()
			p.d.Finish(p.now)
			p.d.Flush()
			p.now = 2
			p.connect()
			p.d.Goaway(0, 0)
			p.d.ackDue, p.d.pingDue, p.d.pongDue = true, true, true
			first := map[string]Kind{"HELLO": KindHello, "RESUME": KindResume}[name]
			require.Equal(t, []Kind{first, KindStop, KindSkip, kindData, KindFin}, kindsOf(p.pull(p.d)))
			require.False(t, p.d.Pulls())
		})
	}
	p := newPair(t)
	for range 20 {
		p.send(p.d, string(make([]byte, 1000)))
	}
	p.connect()
	require.Len(t, p.pull(p.d), 1+17, "the initial credit is 16384")
}

func TestR112Links(t *testing.T) {
	hello := func(t *testing.T, s *Session) *Hello {
		h, err := ParseHello(s.greeting)
		require.NoError(t, err)
		return &h
	}
	for name, c := range map[string]struct {
		change func(h *Hello)
		reason Reason
	}{
		"the next":          {func(_ *Hello) {}, 0},
		"the same epoch":    {func(h *Hello) { h.Epoch = 1 }, ReasonUnauthorised},
		"another epoch":     {func(h *Hello) { h.Epoch = 3 }, ReasonUnauthorised},
		"epoch 257":         {func(h *Hello) { h.Epoch = MaxHellos + 1 }, ReasonUnauthorised},
		"a wrong link":      {func(h *Hello) { h.Link[3]++ }, ReasonUnauthorised},
		"another key":       {func(h *Hello) { h.PublicKey[0]++ }, ReasonUnauthorised},
		"another limit":     {func(h *Hello) { h.MaxPayload++ }, ReasonMismatch},
		"other flags":       {func(h *Hello) { h.Flags ^= FlagConsumed }, ReasonMismatch},
		"other redelivered": {func(h *Hello) { h.Redelivered++ }, 0},
		"another credit":    {func(h *Hello) { h.Credit++ }, 0},
		"another token":     {func(h *Hello) { h.Token = []byte("t") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.connect()
			p.forth()
			p.connect()
			h := hello(t, p.d)
			c.change(h)
			err := p.l.Again(h)
			if c.reason == 0 {
				require.NoError(t, err)
				return
			}
			require.Equal(t, &RejectError{Reject: Reject{Reason: c.reason}}, err)
		})
	}
	t.Run("after it was confirmed", func(t *testing.T) {
		p := newPair(t)
		p.connect()
		p.forth()
		h := hello(t, p.d)
		p.run()
		require.Equal(t, &RejectError{Reject: Reject{Reason: ReasonMismatch}}, p.l.Again(h))
		p.l.Abort()
		require.Error(t, p.l.Again(h))
	})
	t.Run("no answer to 256", func(t *testing.T) {
		p := newPair(t)
		for range MaxHellos {
			p.connect()
			require.Equal(t, Greeting, p.d.State())
		}
		p.connect()
		require.Equal(t, Ended, p.d.State())
		require.Equal(t, &LostError{ReasonUnknown}, p.d.Err())
		require.EqualError(t, p.d.Err(), "the session is lost: the session is not known")
	})
	for _, epoch := range []uint64{0, MaxHellos + 1} {
		_, err := NewListener(testConfig(&heap{}), newPair(t).rand, &Hello{Epoch: epoch, PublicKey: [32]byte{9}}, [16]byte{})
		require.ErrorAs(t, err, new(*ProtocolError))
	}
}

func TestR113BadKeys(t *testing.T) {
	p := newPair(t)
	_, err := NewListener(p.lcfg, p.rand, &Hello{Epoch: 1}, [16]byte{})
	require.ErrorAs(t, err, new(*ProtocolError), "an all-zero secret")
	p.connect()
	err = p.d.Control(p.now, (&Welcome{Version: 1, Epoch: 1}).Append(nil))
	require.ErrorAs(t, err, new(*ProtocolError))
	require.Equal(t, Greeting, p.d.State(), "anybody may have sent it")

	for n := range 79 { // randomness that ends early
		_, err := NewDialer(testConfig(&p.mem), bytes.NewReader(make([]byte, n)))
		require.Error(t, err)
	}
	_, err = NewListener(p.lcfg, bytes.NewReader(nil), &Hello{Epoch: 1}, [16]byte{})
	require.Error(t, err)
	p = livePair(t)
	p.lose()
	_, err = p.d.Renew(bytes.NewReader(nil))
	require.Error(t, err)
}

func TestR114Proofs(t *testing.T) {
	// greet makes the answer to a HELLO or RESUME; change is what is wrong about it.
	for name, make := range map[string]func(t *testing.T) *pair{"WELCOME": newPair, "RESUMED": livePair} {
		for wrong, change := range map[string]func(p *pair, answer []byte){
			"":                  func(_ *pair, _ []byte) {},
			"a bit":             func(_ *pair, a []byte) { a[len(a)-3] ^= 1 },
			"another exporter":  func(p *pair, _ []byte) { p.d.exporter = []byte("other") },
			"another question":  func(p *pair, _ []byte) { p.d.greeting[len(p.d.greeting)-1] ^= 1 },
			"a changed status":  func(_ *pair, a []byte) { a[len(a)-35] ^= 1 },
			"another key":       func(p *pair, _ []byte) { p.d.keys.Listener[0] ^= 1; p.d.id[0] ^= 1 },
			"an earlier answer": nil,
			"another epoch":     nil,
		} {
			t.Run(name+"/"+wrong, func(t *testing.T) {
				p := make(t)
				p.connect()
				p.forth()
				answer := p.pull(p.l)[0].raw
				rule := "R-114"
				if change != nil {
					change(p, answer)
				} else {
					p.connect()
					p.forth()
					rule = map[string]string{"WELCOME": "R-115", "RESUMED": "R-119"}[name]
					if wrong == "an earlier answer" { // for the epoch of now
						answer[map[string]int{"WELCOME": 8 + 15, "RESUMED": 8 + 7}[name]]++
						rule = "R-114"
					}
				}
				p.d.Read(p.now, true)
				err := p.d.Control(p.now, answer)
				if wrong == "" {
					require.NoError(t, err)
					require.Equal(t, Live, p.d.State())
					return
				}
				p.broken(p.d, err, rule)
			})
		}
	}
	t.Run("RESUME", func(t *testing.T) {
		p := livePair(t)
		p.connect()
		frame := p.pull(p.d)[0].raw
		p.connect()
		p.run()
		unauthorised := &RejectError{Reject: Reject{Reason: ReasonUnauthorised}}
		unknown := &RejectError{Reject: Reject{Reason: ReasonUnknown}}
		require.NoError(t, p.l.Verify(frame, p.exporter))
		q := livePair(t)
		require.Equal(t, unknown, q.l.Verify(frame, nil), "it may be somebody's HELLO that was repeated")
		require.Equal(t, unauthorised, p.l.Verify(frame, nil))
		for i := 8; i < len(frame); i++ {
			frame[i] ^= 4
			require.Equal(t, unauthorised, p.l.Verify(frame, p.exporter), "byte %d", i)
			frame[i] ^= 4
		}
		p.l.Abort()
		require.Equal(t, unauthorised, p.l.Verify(frame, p.exporter))
	})
}

func TestR115LostWelcome(t *testing.T) {
	p := newPair(t)
	p.send(p.d, "one")
	p.d.Finish(p.now)
	for range 3 {
		p.connect()
		p.forth()
		p.take(p.l, &p.gotL)
		p.pull(p.l) // and lost
	}
	require.Equal(t, Greeting, p.l.State())
	require.False(t, p.l.Confirmed())
	p.connect()
	p.run()
	require.Equal(t, Live, p.l.State())
	require.True(t, p.l.Confirmed())
	require.Equal(t, [][]byte{[]byte("one")}, p.gotL)
	require.EqualValues(t, 3, p.l.Stats().Duplicates)
	require.True(t, p.d.Finished())
	require.EqualValues(t, 4, p.l.Epoch())
	require.Equal(t, p.d.ID(), p.l.ID())
	require.Equal(t, p.instance, p.d.Instance())
	require.Equal(t, time.Minute, p.d.Expiry())
	require.Equal(t, time.Minute, p.l.Expiry())
}

func TestR115ResumeConfirms(t *testing.T) {
	p := newPair(t)
	p.connect()
	p.forth()
	p.back() // WELCOME has arrived, but the ACK is lost
	require.Equal(t, Live, p.d.State())
	require.Equal(t, Greeting, p.l.State())
	p.connect()
	p.run()
	require.Equal(t, Live, p.l.State())
	require.Equal(t, Event{Kind: EventLive, Resumed: true}, p.l.Events()[0])
}

func TestR117Limits(t *testing.T) {
	p := livePairOf(t, func(d, l *Config) { d.MaxPayload, l.MaxPayload = 100, 50 })
	require.ErrorIs(t, p.d.Append(0, datagram.Datagram{Payload: make([]byte, 51)}, 0), datagram.ErrTooLarge)
	require.NoError(t, p.d.Append(0, datagram.Datagram{Payload: make([]byte, 50)}, 0))
	require.ErrorIs(t, p.l.Append(0, datagram.Datagram{Payload: make([]byte, 51)}, 0), datagram.ErrTooLarge, "its own")

	p = newPairOf(t, func(d, l *Config) { d.MaxPayload, l.MaxPayload = 100, 50 })
	require.ErrorIs(t, p.d.Append(0, datagram.Datagram{Payload: make([]byte, 101)}, 0), datagram.ErrTooLarge)
	require.NoError(t, p.d.Append(0, datagram.Datagram{Payload: make([]byte, 51)}, 0))
	p.connect()
	p.write(p.d, &p.toL)
	p.toL.Truncate(8 + 112 + 2)
	p.read(p.l, p.lr, &p.toL, &p.errL)
	p.back()
	require.ErrorIs(t, p.errD, datagram.ErrTooLarge, "accepted before anybody knew")
	require.Equal(t, p.errD, p.d.Err())
	require.Empty(t, p.pull(p.d))
	var left int
	for range p.d.Unconfirmed {
		left++
	}
	require.Equal(t, 1, left)
}

func TestR119Check(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *Resume)
		reason Reason
	}{
		"right":          {func(_ *Resume) {}, 0},
		"another limit":  {func(r *Resume) { r.MaxPayload-- }, ReasonMismatch},
		"other flags":    {func(r *Resume) { r.Flags ^= 1 }, ReasonMismatch},
		"the same epoch": {func(r *Resume) { r.Epoch-- }, ReasonTakenOver},
		"an older one":   {func(r *Resume) { r.Epoch = 0 }, ReasonTakenOver},
		"the limit first": {func(r *Resume) {
			r.Epoch = 0
			r.MaxPayload--
		}, ReasonMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			p := livePair(t)
			p.d.Detach()
			p.d.Dial(p.now, p.exporter, nil)
			r, err := ParseResume(p.pull(p.d)[0].raw)
			require.NoError(t, err)
			c.change(&r)
			err = p.l.Check(&r)
			require.Equal(t, Live, p.l.State(), "it changes nothing")
			if c.reason == 0 {
				require.NoError(t, err)
				return
			}
			require.Equal(t, &RejectError{Reject: Reject{Reason: c.reason}}, err)
		})
	}
}

func TestR122Positions(t *testing.T) {
	// The listener has got 2 datagrams and sent 2, of which 1 is acknowledged.
	for name, c := range map[string]struct {
		change func(r *Resume)
		rule   string
	}{
		"right":                 {func(_ *Resume) {}, ""},
		"sent less":             {func(r *Resume) { r.Sent = Position{1, 9} }, ""},
		"received all":          {func(r *Resume) { r.Received = Position{2, 18} }, ""},
		"sent too much":         {func(r *Resume) { r.Sent.N++ }, "R-122"},
		"sent too many bytes":   {func(r *Resume) { r.Sent.B++ }, "R-122"},
		"sent the largest":      {func(r *Resume) { r.Sent = Position{huge, huge} }, "R-122"},
		"received too little":   {func(r *Resume) { r.Received = Position{} }, "R-122"},
		"received too much":     {func(r *Resume) { r.Received = Position{3, 27} }, "R-106"},
		"received no edge":      {func(r *Resume) { r.Received = Position{2, 17} }, "R-106"},
		"received no edge here": {func(r *Resume) { r.Received = Position{1, 10} }, "R-106"},
	} {
		t.Run(name, func(t *testing.T) {
			p := livePair(t)
			p.send(p.d, "x")
			p.send(p.d, "x")
			p.send(p.l, "x")
			p.settle()
			p.send(p.l, "x")
			p.write(p.l, &p.toD) // and lost
			p.d.Detach()
			p.d.Dial(p.now, p.exporter, nil)
			raw := p.pull(p.d)[0].raw
			r, err := ParseResume(raw)
			require.NoError(t, err)
			c.change(&r)
			p.l.Fence(r.Epoch, [32]byte{})
			require.Equal(t, Detached, p.l.State())
			err = p.l.Resume(p.now, &r, raw, p.exporter)
			p.check()
			if c.rule == "" {
				require.NoError(t, err)
				require.Equal(t, Live, p.l.State())
				answer, err := ParseResumed(p.pull(p.l)[0].raw)
				require.NoError(t, err)
				require.Equal(t, r.Received, answer.Sent)
				require.Equal(t, Position{2, 18}, answer.Received)
				return
			}
			require.Equal(t, &RejectError{Reject: Reject{Reason: ReasonMismatch}}, err)
			var pe *ProtocolError
			require.ErrorAs(t, p.l.Err(), &pe)
			require.Equal(t, c.rule, pe.Rule)
			require.Empty(t, p.pull(p.l))
		})
	}
}

func TestR122Answers(t *testing.T) {
	// The dialer has sent 2 datagrams of which 1 is acknowledged, and RESUME; what does the answer say?
	for name, c := range map[string]struct {
		change func(a *Resumed)
		rule   string
	}{
		"right":               {func(_ *Resumed) {}, ""},
		"sent more":           {func(a *Resumed) { a.Sent = Position{1, 9} }, "R-122"},
		"received too little": {func(a *Resumed) { a.Received = Position{} }, "R-122"},
		"received too much":   {func(a *Resumed) { a.Received = Position{3, 27} }, "R-106"},
		"received no edge":    {func(a *Resumed) { a.Received = Position{2, 11} }, "R-106"},
	} {
		t.Run(name, func(t *testing.T) {
			p := livePair(t)
			p.send(p.d, "x")
			p.settle()
			p.send(p.d, "y")
			p.pull(p.d)
			p.connect()
			question := p.pull(p.d)[0].raw
			a := Resumed{Epoch: p.d.Epoch(), Status: honest(p.d)}
			c.change(&a)
			p.d.Read(p.now, true)
			err := p.d.Control(p.now, AppendResumed(nil, &a, question, p.l.keys.Listener, p.exporter))
			if c.rule == "" {
				require.NoError(t, err)
				require.Equal(t, Live, p.d.State())
				return
			}
			p.broken(p.d, err, c.rule)
		})
	}
}

func TestR123ReplayGoesOnFurtherUp(t *testing.T) {
	// The dialer learns from RESUMED that all but the last have arrived, while it replays.
	p := livePair(t)
	big := string(make([]byte, 150_000))
	for range 6 {
		p.send(p.d, big)
		p.d.credit = huge
		p.l.recv.credit = huge
		p.forth()
	}
	require.EqualValues(t, 0, p.d.Acked())
	p.send(p.d, "last")
	p.connect()
	p.forth() // RESUME, and some of the replay
	begun := p.d.log.unsent.N
	require.Less(t, begun, uint64(5))
	p.back()
	fs := p.pull(p.d)
	require.Equal(t, []Kind{KindAck, kindData}, kindsOf(fs))
	require.EqualValues(t, 6, fs[0].control(t).Sent.N)
	require.Equal(t, "last", string(fs[1].payload()))
	require.Equal(t, begun, p.d.Stats().Replayed)
	require.NoError(t, p.l.Control(p.now, fs[0].raw))
	require.NoError(t, p.l.Data(p.now, datagram.Run{Raw: fs[1].raw, N: 1, Version: 1}))
	require.EqualValues(t, 7, p.l.Arrived())
}

func TestR125Stop(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		peer := p.side(1 - s.Role())
		p.dontTake = true
		p.send(peer, "unread")
		p.settle()
		p.send(peer, "under way")
		p.pull(peer)
		s.Stop()
		s.Stop()
		require.False(t, s.Readable())
		require.NoError(t, p.data(s, "under way"), "is dropped")
		require.False(t, s.Readable())
		require.EqualValues(t, 1, s.Arrived(), "and not acknowledged")
		require.NoError(t, p.hear(s, Control{Kind: KindSkip, Length: 8}, nil))
		require.NoError(t, p.hear(s, Control{Kind: KindFin}, nil))
		require.EqualValues(t, 1, s.Arrived())
		require.Contains(t, kindsOf(p.pull(s)), KindStop)
		require.False(t, s.Pulls())

		p.connect() // STOP was lost
		p.run()
		require.Equal(t, ErrStopped, peer.Accepting())
		require.Equal(t, ErrStopped, peer.Append(0, runDatagram("more"), 0))
		require.True(t, peer.Finished())
		require.Len(t, peer.unconfirmedText(), 1)
		require.Empty(t, kindsOf(p.pull(peer)))
	})
}

func (s *Session) unconfirmedText() (texts []string) {
	for d := range s.Unconfirmed {
		texts = append(texts, string(d.Payload))
	}
	return texts
}

func TestR126Closing(t *testing.T) {
	t.Run("both with unread data", func(t *testing.T) {
		p := livePair(t)
		p.dontTake = true
		for _, s := range []*Session{p.d, p.l} {
			for range 10 {
				p.send(s, string(make([]byte, 10_000)))
			}
			s.Finish(p.now)
			s.Finish(p.now)
			require.Equal(t, ErrFinished, s.Append(0, runDatagram(""), 0))
		}
		p.settle()
		require.Equal(t, Live, p.d.State(), "credit is missing, not more")
		p.dontTake = false
		p.settle()
		for _, s := range []*Session{p.d, p.l} {
			require.Equal(t, Ended, s.State())
			require.NoError(t, s.Err())
			require.Equal(t, ErrFinished, s.Accepting())
			require.True(t, s.EOF())
		}
		require.Len(t, p.gotD, 10)
		require.Len(t, p.gotL, 10)
		require.Zero(t, p.mem.out)
	})
	for reason := CloseProtocol; reason <= CloseShutdown; reason++ {
		both(t, func(t *testing.T, p *pair, s *Session) {
			p.send(s, "x")
			err := p.hear(s, Control{Kind: KindClose, Reason: reason}, nil)
			require.Equal(t, &ClosedError{reason}, err)
			require.EqualError(t, err, "the peer closed the session: "+reason.String())
			require.Equal(t, Ended, s.State())
			require.Empty(t, p.pull(s))
			require.Equal(t, err, s.Accepting())
			require.Equal(t, []string{"x"}, s.unconfirmedText())
		})
	}
	both(t, func(t *testing.T, p *pair, s *Session) {
		peer := p.side(1 - s.Role())
		s.Finish(p.now)
		peer.Finish(p.now)
		for !s.closeDue || !peer.closeDue { // until both are about to say it
			for _, x := range []*Session{s, peer} {
				for _, f := range p.pull(x) {
					p.side(1-x.Role()).Read(p.now, true)
					require.NoError(t, p.side(1-x.Role()).Control(p.now, f.raw))
				}
			}
			if s.state == Ended || peer.state == Ended {
				break
			}
		}
		p.run()
		require.NoError(t, s.Err())
		require.NoError(t, peer.Err())
	})
}

// closing returns a pair whose dialer has said CLOSE and got no answer.
func closingPair(t *testing.T) *pair {
	p := livePair(t)
	p.d.Finish(p.now)
	p.l.Finish(p.now)
	for range 5 {
		p.forth()
		if p.d.closeSent {
			break
		}
		p.write(p.l, &p.toD)
		for _, f := range frames(bytes.Clone(p.toD.Bytes())) {
			if f.kind != KindClose {
				p.d.Read(p.now, true)
				require.NoError(t, p.d.Control(p.now, f.raw))
			}
		}
		p.toD.Reset()
	}
	require.True(t, p.d.Done())
	require.NotEqual(t, Ended, p.d.State())
	return p
}

func TestR126LostClose(t *testing.T) {
	for _, reason := range []Reason{ReasonClosed, ReasonUnknown, ReasonExpired} {
		p := closingPair(t)
		p.connect()
		p.d.Read(p.now, true)
		err := p.d.Control(p.now, (&Reject{Reason: reason, Instance: p.instance}).Append(nil))
		require.NoError(t, err, reason)
		require.Equal(t, Ended, p.d.State())
		require.NoError(t, p.d.Err())
	}
	p := closingPair(t)
	if p.l.State() != Ended { // the listener waits for the dialer's word, which never comes
		p.l.Detach()
		p.l.Drop(ReasonExpired)
		require.Equal(t, Ended, p.l.State())
	}
	require.NoError(t, p.l.Err())
}

func TestR128Reasons(t *testing.T) {
	for name, make := range map[string]func(t *testing.T) *pair{"HELLO": newPair, "RESUME": livePair} {
		for reason := ReasonUnknown; reason <= ReasonMismatch; reason++ {
			t.Run(name+"/"+reason.String(), func(t *testing.T) {
				p := make(t)
				p.send(p.d, "x")
				p.send(p.d, "y")
				p.connect()
				p.pull(p.d)
				p.d.Read(p.now, true)
				err := p.d.Control(p.now, (&Reject{
					Reason: reason, Delay: 5, Spread: 6, Flags: FlagReceivedKnown, Received: Position{1, 9}, Instance: [16]byte{1},
				}).Append(nil))
				var re *RejectError
				require.ErrorAs(t, err, &re)
				require.Equal(t, reason, re.Reason)
				require.Equal(t, name == "RESUME", re.Restarted)
				require.Contains(t, err.Error(), reason.String())
				lost := map[Reason]bool{
					ReasonUnknown: true, ReasonExpired: true, ReasonEvicted: true, ReasonMismatch: true,
				}
				require.Equal(t, lost[reason], reason.Lost())
				if reason == ReasonDraining || reason == ReasonBusy {
					require.True(t, reason.Again())
					require.NoError(t, p.d.Err())
					require.NotEqual(t, Ended, p.d.State())
					require.EqualValues(t, 5, re.Delay)
					require.Len(t, p.d.unconfirmedText(), 2)
					return
				}
				require.False(t, reason.Again())
				require.Equal(t, err, p.d.Err())
				require.Equal(t, []string{"y"}, p.d.unconfirmedText(), "what is known to have arrived is not lost")
			})
		}
		t.Run(name+"/forged", func(t *testing.T) {
			p := make(t)
			p.send(p.d, "x")
			p.connect()
			p.d.Control(p.now, (&Reject{Reason: ReasonExpired, Flags: FlagReceivedKnown, Received: Position{9, 9}}).Append(nil))
			require.Equal(t, []string{"x"}, p.d.unconfirmedText())
		})
		t.Run(name+"/unknown", func(t *testing.T) {
			p := make(t)
			p.connect()
			p.pull(p.d)
			p.broken(p.d, p.d.Control(p.now, (&Reject{Reason: 99}).Append(nil)), "R-128")
		})
	}
}

func TestR130Goaway(t *testing.T) {
	p := livePair(t)
	p.l.Detach()
	p.l.Goaway(3*time.Second, 100*time.Millisecond) // waits for a connection
	p.connect()
	p.run()
	require.Equal(t, Event{Kind: EventGoaway, Delay: 3 * time.Second, Spread: 100 * time.Millisecond}, p.d.Events()[1])
	require.Equal(t, Live, p.d.State())
	require.Equal(t, uint32(math.MaxUint32), millis(math.MaxInt64))
	require.Zero(t, millis(-1))
}

func TestR131Skip(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		peer := p.side(1 - s.Role())
		late := func(text string, deadline time.Duration) {
			require.NoError(t, s.Append(p.now, runDatagram(text), deadline))
		}
		late("sent", 5)
		p.pull(s)
		p.now = 10
		late("late", 5)
		late("late too", 5)
		p.send(s, "always")
		late("in time", 11)
		late("late at last", 5)
		s.credit = s.log.unsent.B
		require.Empty(t, p.pull(s), "SKIP obeys the credit")
		s.credit = huge
		s.pull2(t, p)
		require.Equal(t, []Event{
			{Kind: EventExpired, Number: 2}, {Kind: EventExpired, Number: 3}, {Kind: EventExpired, Number: 6},
		}, s.Events())
		require.EqualValues(t, 3, s.Stats().Expired)
		require.Equal(t, []string{"sent", "always", "in time"}, s.unconfirmedText())

		p.now = 0 // the clock of the replay does not matter
		p.connect()
		p.settle()
		require.True(t, s.Idle())
		got := map[Role][][]byte{Dialer: p.gotD, Listener: p.gotL}[peer.Role()]
		require.Equal(t, "sent always in time", string(bytes.Join(got, []byte(" "))))
		require.EqualValues(t, 3, peer.Stats().Skipped)
		require.EqualValues(t, 6, peer.Stats().Arrived)
		require.EqualValues(t, 3, peer.Stats().Taken)
	})
}

// pull2 pulls until nothing comes: SKIP and data, SKIP.
func (s *Session) pull2(t *testing.T, p *pair) {
	require.Equal(t, []Kind{KindSkip, KindSkip, kindData, kindData}, kindsOf(p.pull(s)))
	require.Equal(t, []Kind{KindSkip}, kindsOf(p.pull(s)))
	require.Empty(t, p.pull(s))
}

func TestManySkips(t *testing.T) {
	// They come in portions. Without checks of all invariants, which would take too long here.
	p := livePair(t)
	for range 6000 {
		require.NoError(t, p.d.Append(0, runDatagram(""), 1))
	}
	p.d.Finish(p.now)
	var portions []int
	for out := (Out{}); p.d.Pull(2, &out); p.d.Wrote() {
		fs := frames(bytes.Join(out.Vec, nil))
		portions = append(portions, len(fs))
		for _, f := range fs {
			require.NoError(t, p.l.Control(2, f.raw))
		}
	}
	require.Len(t, portions, 2)
	require.Equal(t, 6001, portions[0]+portions[1])
	_, ok := p.l.Take()
	require.False(t, ok)
	require.True(t, p.l.EOF())
	require.EqualValues(t, 6000, p.l.Stats().Skipped)
}

func TestErrors(t *testing.T) {
	inner := errors.New("inner")
	e := &ProtocolError{Role: Listener, State: Live, Err: inner}
	require.ErrorIs(t, e, inner)
	require.EqualError(t, e, "the peer broke the session protocol (listener, live): inner")
	e = &ProtocolError{Role: Dialer, State: Live, What: "FIN", Got: "two", Expected: "one", Rule: "R-124"}
	require.EqualError(t, e, "the peer broke the session protocol (dialer, live): FIN: got two, expected one [R-124]")
	r := &RejectError{Reject: Reject{Reason: ReasonUnknown}, Restarted: true}
	require.EqualError(t, r, "rejected by the listener, which is another process than before: the session is not known")
	both(t, func(t *testing.T, p *pair, s *Session) {
		err := s.Bad(datagram.ErrVersion)
		require.ErrorIs(t, err, datagram.ErrVersion)
		require.ErrorAs(t, err, new(*ProtocolError))
		require.Equal(t, []Kind{KindClose}, kindsOf(p.pull(s)))
	})
}

func TestR102BadBodies(t *testing.T) {
	for name, p := range map[string]*pair{"WELCOME": newPair(t), "RESUMED": livePair(t)} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.connect()
			p.forth()
			answer := p.pull(p.l)[0].raw
			answer[len(answer)-1] = 1 // extensions that are not there
			p.broken(p.d, p.d.Control(p.now, answer), "R-102")
		})
	}
	both(t, func(t *testing.T, p *pair, s *Session) {
		ack := (&Control{Kind: KindAck}).Append(nil)
		ack[len(ack)-1] = 1
		p.broken(s, s.Control(p.now, ack), "R-102")
	})
}

func TestDropOfWhatIsDone(t *testing.T) {
	p := livePair(t)
	p.l.Finish(p.now)
	p.d.Finish(p.now)
	p.forth()
	p.back()
	p.forth()
	p.l.Detach()
	require.True(t, p.l.Done())
	p.l.Drop(ReasonExpired)
	require.NoError(t, p.l.Err(), "only the dialer's last word is missing")
}
