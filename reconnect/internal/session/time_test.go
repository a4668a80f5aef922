package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// next returns when s wants to be called, from now on.
func (p *pair) next(s *Session) time.Duration {
	at, _, ok := s.Deadline()
	require.True(p.t, ok)
	return at - p.now
}

// tick goes on by d, and calls s. After that s must not want to be called at once: a driver would spin.
func (p *pair) tick(s *Session, d time.Duration) (dead bool) {
	p.now += d
	dead = s.Tick(p.now)
	p.check()
	if !dead {
		require.Positive(p.t, p.next(s), "the deadline has passed after Tick")
	}
	return dead
}

// asks is when s asks a peer that has been silent, if a dialer asks after that long.
func asks(s *Session, dialer time.Duration) time.Duration {
	if s.role == Listener {
		return dialer + dialer/4
	}
	return dialer
}

func TestR132Idle(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		ask := asks(s, 5*time.Second)
		require.Equal(t, ask, p.next(s))
		require.False(t, p.tick(s, ask-1))
		require.False(t, s.Pulls())
		require.False(t, p.tick(s, 1))
		require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)))
		require.Equal(t, 10*time.Second-ask, p.next(s))
		require.False(t, p.tick(s, 10*time.Second-ask-1))
		require.True(t, p.tick(s, 1))
	})
}

// On a quiet connection only the dialer asks, and both hear.
func TestR132OneQuestion(t *testing.T) {
	p := livePair(t)
	for range 100 {
		require.False(t, p.tick(p.d, 5*time.Second))
		require.False(t, p.l.Tick(p.now))
		require.False(t, p.l.Pulls())
		p.forth()
		p.back()
		require.Equal(t, 5*time.Second, p.next(p.d))
		require.Equal(t, 6250*time.Millisecond, p.next(p.l))
	}
}

func TestR132Unconfirmed(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.now += 4 * time.Second // of silence do not count against what is sent now
		p.send(s, "x")
		p.pull(s)
		ask := asks(s, 2500*time.Millisecond)
		require.Equal(t, ask, p.next(s))
		require.False(t, p.tick(s, ask))
		require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)))
		require.Equal(t, 5*time.Second-ask, p.next(s))
		require.True(t, p.tick(s, 5*time.Second-ask))
	})
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.now += 4 * time.Second
		s.Finish(p.now) // waits for its acknowledgement too
		require.Equal(t, asks(s, 2500*time.Millisecond), p.next(s))
	})
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.send(s, "x")
		p.send(s, "y")
		p.pull(s)
		p.now += 2 * time.Second
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = Position{1, 9} }))
		require.Equal(t, asks(s, 2500*time.Millisecond), p.next(s), "an acknowledgement is progress")
		p.now += time.Second
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = Position{2, 18} }))
		require.Equal(t, asks(s, 5*time.Second), p.next(s), "nothing is unconfirmed")
	})
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.send(s, "x")
		require.NoError(t, p.hear(s, Control{Kind: KindStop}, nil))
		require.Equal(t, asks(s, 5*time.Second), p.next(s), "nothing will be confirmed")
	})
}

func TestR132AnyByte(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		ask := asks(s, 5*time.Second)
		require.False(t, p.tick(s, ask))
		p.pull(s)
		p.now += 10*time.Second - ask - 1
		require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
		p.pull(s)
		require.False(t, p.tick(s, 1))
		require.Equal(t, ask-1, p.next(s))
		s.Read(p.now, false) // a part of a frame
		p.tick(s, time.Second)
		p.pull(s)
		require.Equal(t, ask-time.Second, p.next(s))
	})
}

// Who asks has heard nothing: a PING says no good of a direction in which something is unconfirmed.
func TestR132PingIsNoSign(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.send(s, "x")
		p.pull(s)
		p.now += 2 * time.Second
		require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
		p.pull(s)
		ask := asks(s, 2500*time.Millisecond)
		require.False(t, p.tick(s, ask-2*time.Second))
		require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)))
		require.True(t, p.tick(s, 5*time.Second-ask))
	})
}

func TestR132LateTimer(t *testing.T) {
	for _, c := range []struct {
		late time.Duration
		dead bool
	}{{time.Second, true}, {time.Second + 1, false}, {time.Hour, false}} {
		both(t, func(t *testing.T, p *pair, s *Session) {
			ask := asks(s, 5*time.Second)
			p.tick(s, ask)
			p.pull(s)
			require.Equal(t, c.dead, p.tick(s, 10*time.Second-ask+c.late))
			if c.dead {
				return
			}
			require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)))
			require.Equal(t, 10*time.Second, p.next(s))
			require.True(t, p.tick(s, 10*time.Second))
		})
	}
	t.Run("the one for PING", func(t *testing.T) {
		// It fires when the connection would be dead, had the peer been asked. The peer gets all of its time.
		for _, late := range []time.Duration{time.Second + 1, 2400 * time.Millisecond, 2500 * time.Millisecond, time.Hour} {
			both(t, func(t *testing.T, p *pair, s *Session) {
				p.send(s, "x")
				p.pull(s)
				require.False(t, p.tick(s, asks(s, 2500*time.Millisecond)+late))
				require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)))
				require.Equal(t, 5*time.Second, p.next(s))
			})
		}
	})
	t.Run("short intervals", func(t *testing.T) {
		p := livePairOf(t, func(d, _ *Config) { d.PingAfter = 10 * time.Millisecond })
		require.False(t, p.tick(p.d, 30*time.Millisecond), "never dead without a PING")
		require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(p.d)))
		require.True(t, p.tick(p.d, 20*time.Millisecond))
	})
}

func TestAnswerTimeout(t *testing.T) {
	for name, p := range map[string]*pair{"HELLO": newPair(t), "RESUME": livePair(t)} {
		t.Run(name, func(t *testing.T) {
			p.t = t
			p.connect()
			p.send(p.d, "x") // does not make it shorter
			p.pull(p.d)
			require.Equal(t, 5*time.Second, p.next(p.d))
			p.now += 4 * time.Second
			p.d.Read(p.now, false) // a byte is no answer
			require.Equal(t, time.Second, p.next(p.d))
			require.True(t, p.tick(p.d, time.Second))
			require.Empty(t, p.pull(p.d), "no PING before the answer")
		})
	}
	t.Run("late", func(t *testing.T) {
		p := newPair(t)
		p.connect()
		p.pull(p.d)
		require.False(t, p.tick(p.d, 5*time.Second+lateTimer+1))
		require.Empty(t, p.pull(p.d))
		require.True(t, p.tick(p.d, 5*time.Second))
	})
}

func TestR133PartialFrames(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		for range 20 { // a frame that takes 20 s
			p.now += time.Millisecond
			s.Read(p.now, false)
			require.Equal(t, time.Second, p.next(s))
			p.now += 500 * time.Millisecond
			s.Read(p.now, false)
			require.Equal(t, 500*time.Millisecond, p.next(s), "measured from the first part")
			require.False(t, p.tick(s, 500*time.Millisecond))
			require.Equal(t, []Kind{KindAck}, kindsOf(p.pull(s)))
		}
		require.Equal(t, asks(s, 5*time.Second)-500*time.Millisecond, p.next(s), "no part, no ACK")

		// What is sent anyway says the same.
		s.Read(p.now, false)
		p.now += 900 * time.Millisecond
		p.send(s, "x")
		p.pull(s)
		require.Equal(t, asks(s, 2500*time.Millisecond), p.next(s), "the next is PING")
		s.Read(p.now, false)
		require.Equal(t, time.Second, p.next(s))
	})
}

func TestR109AckDelay(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.NoError(t, p.data(s, "x"))
		require.Equal(t, 25*time.Millisecond, p.next(s))
		p.now += 10 * time.Millisecond
		require.NoError(t, p.data(s, "y"))
		require.Equal(t, 15*time.Millisecond, p.next(s), "measured from the first")
		require.Empty(t, p.pull(s))
		require.False(t, p.tick(s, 15*time.Millisecond))
		fs := p.pull(s)
		require.Equal(t, []Kind{KindAck}, kindsOf(fs))
		require.Equal(t, Position{2, 18}, fs[0].control(t).Received)
		require.Greater(t, p.next(s), time.Second, "said once")
		require.Empty(t, p.pull(s))

		// A quarter of the window is acknowledged at once.
		quarter := int(s.cfg.MinWindow / 4)
		require.NoError(t, p.data(s, string(make([]byte, quarter-9))))
		require.Empty(t, p.pull(s))
		require.NoError(t, p.data(s, ""))
		require.Equal(t, []Kind{KindAck}, kindsOf(p.pull(s)))

		// Any status acknowledges.
		require.NoError(t, p.data(s, "x"))
		require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
		require.Equal(t, []Kind{KindPong}, kindsOf(p.pull(s)))
		require.Greater(t, p.next(s), time.Second)
	})
}

func TestR134Ping(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.Zero(t, s.Stats().RTT)
		p.send(s, string(make([]byte, 100_000)))
		for _, token := range []uint64{5, 6} {
			require.NoError(t, p.hear(s, Control{Kind: KindPing, Token: token}, nil))
		}
		fs := p.pull(s)
		require.Equal(t, []Kind{KindPong, kindData}, kindsOf(fs), "before the data")
		require.EqualValues(t, 6, fs[0].control(t).Token, "the last")

		p.tick(s, asks(s, 2500*time.Millisecond))
		ping := p.pull(s)[0].control(t)
		require.Equal(t, KindPing, ping.Kind)
		pong := func(token uint64) { require.NoError(t, p.hear(s, Control{Kind: KindPong, Token: token}, nil)) }
		p.now += 8 * time.Millisecond
		pong(ping.Token + 1)
		require.Zero(t, s.Stats().RTT, "another token")
		pong(ping.Token)
		require.Equal(t, 8*time.Millisecond, s.Stats().RTT)
		p.now += time.Second
		pong(ping.Token)
		require.Equal(t, 8*time.Millisecond, s.Stats().RTT, "answered already")

		s.Flush()
		ping = p.pull(s)[0].control(t)
		p.now += 16 * time.Millisecond
		pong(ping.Token)
		require.Equal(t, 9*time.Millisecond, s.Stats().RTT, "an eighth of the difference")
	})
}

func TestFlush(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		require.Zero(t, s.Flush())
		require.Empty(t, p.pull(s), "nothing to wait for")
		p.send(s, "x")
		p.send(s, "y")
		require.EqualValues(t, 2, s.Flush())
		s.credit = 1
		require.Equal(t, []Kind{kindData}, kindsOf(p.pull(s)), "not all is sent")
		s.credit = 100
		require.Equal(t, []Kind{kindData, KindPing}, kindsOf(p.pull(s)), "behind the data")
		require.Empty(t, p.pull(s))
		require.EqualValues(t, 2, s.Flush(), "again: the PING may have been for less")
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = Position{2, 18} }))
		require.Empty(t, p.pull(s), "there is nothing to wait for any more")
		require.EqualValues(t, 2, s.Acked())

		p.send(s, "z")
		s.Finish(p.now)
		require.EqualValues(t, 4, s.Flush(), "the end of the stream counts")
		require.Equal(t, []Kind{kindData, KindFin, KindPing}, kindsOf(p.pull(s)))
	})
	t.Run("on the next connection", func(t *testing.T) {
		p := livePair(t)
		p.send(p.d, "x")
		p.d.Flush()
		p.pull(p.d) // and lost
		p.connect()
		p.run()
		require.True(t, p.d.Idle())
	})
	both(t, func(t *testing.T, p *pair, s *Session) {
		p.send(s, "x")
		s.Flush()
		s.stopped = true
		require.Equal(t, []Kind{KindPing}, kindsOf(p.pull(s)), "the peer takes no more, but answers")
	})
}

func TestIdleShrinks(t *testing.T) {
	wide := func(s *Session) { s.recv.window, s.recv.reserved = s.cfg.MaxWindow, s.cfg.MaxWindow }
	narrow := func(t *testing.T, s *Session) {
		require.Equal(t, s.cfg.MinWindow, s.recv.window)
		require.Equal(t, max(s.recv.window, s.recv.credit), s.recv.reserved)
	}
	t.Run("that asks", func(t *testing.T) {
		both(t, func(t *testing.T, p *pair, s *Session) {
			wide(s)
			p.tick(s, asks(s, 5*time.Second))
			narrow(t, s)
		})
	})
	t.Run("that is asked", func(t *testing.T) {
		both(t, func(t *testing.T, p *pair, s *Session) {
			wide(s)
			p.now += 3 * time.Second
			require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
			require.Equal(t, s.cfg.MaxWindow, s.recv.window, "Flush asks as well")
			p.now += 5 * time.Second
			require.NoError(t, p.hear(s, Control{Kind: KindPing}, nil))
			narrow(t, s)
		})
	})
}

// TestNoSpin does anything at random, and Tick whenever it is asked for, early, late and in time.
func TestNoSpin(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			p := newPair(t)
			p.connect()
			for range 300 {
				s := p.d
				if p.l != nil && r.IntN(2) == 0 {
					s = p.l
				}
				switch r.IntN(9) {
				case 0:
					p.send(s, string(make([]byte, r.IntN(3000))))
				case 1:
					p.forth()
				case 2:
					if p.l != nil {
						p.back()
					}
				case 3:
					s.Flush()
				case 4:
					s.Read(p.now, r.IntN(2) == 0)
				case 5:
					p.take(s, &p.gotD)
				case 6:
					p.now += time.Duration(r.Int64N(int64(6 * time.Second)))
				case 7:
					if s.state.attached() {
						p.now += max(0, p.next(s))
					}
				}
				if s.state.attached() && p.tick(s, 0) {
					p.connect()
				}
			}
		})
	}
}

// Only a question to a peer of whom nothing is wanted may wait a little for others.
func TestSlack(t *testing.T) {
	both(t, func(t *testing.T, p *pair, s *Session) {
		slack := func() time.Duration {
			_, slack, _ := s.Deadline()
			return slack
		}
		require.Equal(t, 5*time.Second/64, slack())
		require.NoError(t, p.data(s, "x"))
		require.Zero(t, slack(), "an acknowledgement is due")
		p.tick(s, 25*time.Millisecond)
		p.pull(s)
		require.Positive(t, slack())
		s.Read(p.now, false)
		require.Zero(t, slack(), "an ACK for a part of a frame is due")
		p.tick(s, time.Second)
		p.pull(s)
		p.tick(s, asks(s, 5*time.Second))
		require.Zero(t, slack(), "death is due")
		p.pull(s)
		require.NoError(t, p.hear(s, Control{Kind: KindPong}, nil))
		require.Positive(t, slack())
		p.send(s, "x")
		require.Zero(t, slack(), "something is unconfirmed")
		p.pull(s)
		s.cfg.PingAfter = time.Hour
		require.NoError(t, p.hear(s, Control{Kind: KindAck}, func(st *Status) { st.Received = Position{1, 9} }))
		require.Equal(t, lateTimer/8, slack())
	})
}
