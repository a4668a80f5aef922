package mutants

// mutant is a bug, as a replacement of a piece of source text.
type mutant struct {
	name   string
	file   string // from the root of the project
	old    string // occurs there exactly once
	new    string
	bug    string // what it is, in one sentence
	breaks string // the claim, the requirement, and the trap or kind
	in     string // the package whose tests find it; "" is the session machine
	test   string // that finds it; "" is TestSim
}

const (
	attach = machine + "/attach.go"
	end    = machine + "/end.go"
	input  = machine + "/input.go"
	log    = machine + "/log.go"
	pull   = machine + "/pull.go"
	send   = machine + "/send.go"
	sess   = machine + "/session.go"
	table  = machine + "/table.go"
	take   = machine + "/take.go"
	alive  = machine + "/time.go"
	value  = machine + "/value.go"
)

var mutants = []mutant{
	// Counting.
	{
		name: "send-skips-a-count", file: log, breaks: "D1, R-105: counters drift",
		bug: "The sender does not count datagrams without a payload.",
		old: "	l.end.N++\n	l.end.B += length\n",
		new: "	if len(d.Payload) > 0 {\n		l.end.N++\n	}\n	l.end.B += length\n",
	},
	{
		name: "receive-skips-a-count", file: input, breaks: "D1, R-105: counters drift",
		bug: "The receiver counts what came in one read as one datagram.",
		old: "	r.here = r.here.add(Position{n, length})\n	if r.stopped {",
		new: "	r.here = r.here.add(Position{1, length})\n	if r.stopped {",
	},
	{
		name: "replay-counted-twice", file: input, breaks: "D1, R-123: counters drift",
		bug: "What a replay brings again moves the count by one too many when it passes what has arrived.",
		old: "		r.here = to\n		n -= again\n",
		new: "		if r.here = to; n > again {\n			r.here.N++\n		}\n		n -= again\n",
	},
	{
		name: "fin-uses-no-number", file: input, breaks: "D1, R-124: a number used again",
		bug: "The receiver does not count the end of the stream, so that the last datagram and it have one number.",
		old: "	default:\n		r.here.N++\n		r.arrived = r.here\n",
		new: "	default:\n		r.arrived = r.here\n",
	},
	{
		name: "skip-uses-no-number", file: pull, breaks: "D1, R-131: a number used again",
		bug: "What is sent behind a SKIP has the number of the datagram that was skipped.",
		old: "		l.advance(Position{m.at.N + 1, m.at.B + uint64(m.length)})\n",
		new: "		l.advance(Position{m.at.N, m.at.B + uint64(m.length)})\n",
	},
	{
		name: "expired-leaves-no-trace", file: pull, breaks: "D1, R-131: expired in the middle of the log",
		bug: "An expired datagram is left out, and no SKIP takes its place.",
		old: "		head = s.control(head, Control{Kind: KindSkip, Length: m.length})\n",
		new: "",
	},
	{
		name: "skip-not-queued", file: input, breaks: "D1, R-131: expired in the middle of the log",
		bug: "The receiver counts a SKIP as arrived, and the application's count does not move.",
		old: "	r.pushSkip(length)\n",
		new: "",
	},

	// Wrap.
	{
		name: "wrap-at-2^32", file: input, breaks: "D1, R-106: wrap",
		bug: "Acknowledgements are compared by their lower 32 bits.",
		old: "	if p.N <= l.base.N {\n		return nil\n	}\n	l.acknowledge(p)",
		new: "	if uint32(p.N) <= uint32(l.base.N) {\n		return nil\n	}\n	l.acknowledge(p)",
	},
	{
		name: "wrap-of-the-cursor", file: log, breaks: "D1, R-106: wrap",
		bug: "Positions are compared by their lower 32 bits when the cursor moves.",
		old: "	if l.sent.N < to.N {\n",
		new: "	if uint32(l.sent.N) < uint32(to.N) {\n",
	},
	{
		name: "wrap-of-the-credit", file: attach, breaks: "D2, R-110: wrap",
		bug: "A credit that would pass 2^64 - 1 begins again at 0.",
		old: "	if a > math.MaxUint64-b {\n		return math.MaxUint64\n	}\n	return a + b\n",
		new: "	_ = uint64(math.MaxUint64)\n	return a + b\n",
	},
	{
		name: "wrap-of-the-numbers", file: send, breaks: "D1, R-110: wrap",
		bug: "Send goes on when the numbers are used up, and leaves none for the end of the stream.",
		old: "	if l.end.N >= math.MaxUint64-2 || l.end.B > math.MaxUint64-n {",
		new: "	if l.end.N == math.MaxUint64 || l.end.B > math.MaxUint64-n {",
	},

	// Acknowledging.
	{
		name: "ack-before-stop-drops", file: input, test: "TestR125Stop", breaks: "D1, R-125: ack early",
		bug: "What comes after STOP is acknowledged, and dropped.",
		old: "	if r.stopped {\n		run.Release()\n		return nil\n	}\n	r.arrived = r.here\n",
		new: "	r.arrived = r.here\n	if r.stopped {\n		run.Release()\n		return nil\n	}\n",
	},
	{
		name: "ack-before-consumed", file: pull, breaks: "D3, R-107: ack early",
		bug: "With Consumed, what has arrived is acknowledged before the application has finished with it.",
		old: "	if s.cfg.Consumed {\n		return s.recv.done\n	}\n	return s.recv.arrived\n",
		new: "	return s.recv.arrived\n",
	},
	{
		name: "ack-when-taken", file: pull, breaks: "D3, R-107: ack early",
		bug: "With Consumed, what the application was given is acknowledged before it has finished with it.",
		old: "	if s.cfg.Consumed {\n		return s.recv.done\n	}\n",
		new: "	if s.cfg.Consumed && s.recv.done != s.recv.arrived {\n		return s.recv.taken\n	}\n",
	},
	{
		name: "ack-one-too-many", file: take, breaks: "D3, R-107: ack of what was not sent",
		bug: "When the application has finished with all that it has, one more is acknowledged.",
		old: "	r.done = r.done.add(Position{uint64(n), length})\n",
		new: "	if r.done = r.done.add(Position{uint64(n), length}); r.open == 0 && len(r.queue) > 0 && len(r.sizes) == 0 {\n		r.done.N++\n	}\n",
	},
	{
		name: "ack-of-the-fin-early", file: input, breaks: "D1, R-124: FIN confirmed without its data",
		bug: "The end of the stream counts as acknowledged when the last datagram is.",
		old: "	if l.fin && p.N == l.final().N {\n",
		new: "	if l.fin && p.N >= l.end.N {\n",
	},
	{
		name: "close-before-consumed", file: send, breaks: "D3, R-126: FIN confirmed without its data",
		bug: "A session closes in good order while its application has not finished with what it was given.",
		old: "	return s.Finished() && (s.recv.stopped || s.recv.fin && s.acking() == s.recv.arrived)\n",
		new: "	return s.Finished() && (s.recv.stopped || s.recv.fin)\n",
	},
	{
		name: "resume-states-what-is-consumed", file: attach, breaks: "D1, R-107: ack not restated on resume",
		bug: "RESUME says what the application has finished with, and not what has arrived.",
		old: "		r.Received = s.recv.arrived.sub(s.recv.origin)\n		s.greeting = AppendResume",
		new: "		s.greeting = AppendResume",
	},
	{
		name: "resume-acknowledges-what-is-not-consumed", file: attach, breaks: "D3, R-107: ack early",
		bug: "What RESUME says to have arrived counts as acknowledged, though the application has not finished with it.",
		old: "	if s.peerFlags&FlagConsumed != 0 {\n		check =",
		new: "	if s.peerFlags&FlagConsumed > 1 {\n		check =",
	},

	// The epoch.
	{
		name: "epoch-equal-is-taken", file: attach, breaks: "D1, R-119: stale epoch",
		bug: "A RESUME with the epoch of the connection that the session has is taken.",
		old: "	case r.Epoch <= s.epoch:\n",
		new: "	case r.Epoch < s.epoch:\n",
	},
	{
		name: "epoch-older-is-taken", file: attach, breaks: "D1, R-119: stale epoch",
		bug: "A RESUME with any epoch but the current one is taken, so that a slow dial takes over a newer one.",
		old: "	case r.Epoch <= s.epoch:\n",
		new: "	case r.Epoch == s.epoch:\n",
	},
	{
		name: "epoch-not-raised", file: attach, breaks: "D2, R-119: epochs",
		bug: "The dialer does not raise the epoch of a session that is confirmed.",
		old: "	s.epoch++\n	s.reset(now)\n",
		new: "	if s.state != Detached {\n		s.epoch++\n	}\n	s.reset(now)\n",
	},
	{
		name: "epoch-not-noted", file: attach, breaks: "D1, R-119: stale epoch",
		bug: "The listener does not take note of the epoch of a connection that takes over.",
		old: "	s.epoch = epoch\n	if !s.Confirmed() {",
		new: "	if !s.Confirmed() {\n		s.epoch = epoch\n	}\n	if !s.Confirmed() {",
	},
	{
		name: "fence-forgotten", file: machine + "/sim_driver_test.go", breaks: "D1, R-120: late bytes of the fenced connection",
		bug: "The driver feeds the machine what comes late on a connection that was taken over.",
		old: "		if ce.closed || ce.e != nil && ce.e.cur != ce {\n",
		new: "		if ce.closed && ce.e != nil && ce.e.cur == nil {\n",
	},

	// Replaying.
	{
		name: "replay-forgotten", file: log, breaks: "D1, R-118: replay",
		bug: "After a new dial the sender goes on where the last connection was, and not at what the peer has.",
		old: "	l.unsent, l.pinned = l.base, false\n",
		new: "	l.unsent, l.pinned = l.sent, false\n",
	},
	{
		name: "replay-too-early", file: attach, breaks: "D1, R-122: replay",
		bug: "The listener begins its replay at what was acknowledged, and not at what RESUME says to have arrived.",
		old: "	s.log.unsent = has\n	s.raise(r.Credit)\n",
		new: "	s.raise(r.Credit)\n",
	},
	{
		name: "replay-not-dropped", file: input, breaks: "D1, R-123: duplicates",
		bug: "Datagrams that a replay brings again are delivered again.",
		old: "	if r.here.N < r.arrived.N {\n		again :=",
		new: "	if r.here.N < r.arrived.N && r.stopped {\n		again :=",
	},
	{
		name: "replay-drops-a-run", file: input, breaks: "D1, R-123: a gap",
		bug: "A read in which a replay passes what has arrived is dropped whole.",
		old: "		again := min(n, r.arrived.N-r.here.N)\n",
		new: "		again := n\n		r.arrived.N = max(r.arrived.N, r.here.N+n)\n",
	},
	{
		name: "hello-again-counts-on", file: attach, breaks: "D1, R-115: lost WELCOME",
		bug: "A listener that takes a repeated HELLO counts from what has arrived, while the dialer sends everything again.",
		old: "	s.recv.here = s.recv.origin.add(s.cfg.Start)\n",
		new: "",
	},
	{
		name: "hello-again-is-refused", file: attach, breaks: "D3, R-115: lost WELCOME",
		bug: "A repeated HELLO to a session that its dialer has not confirmed is rejected, and the session lost.",
		old: "	case s.state == Ended || s.Confirmed():\n",
		new: "	case s.state == Ended || s.Confirmed() || s.recv.arrived.N > s.cfg.Start.N:\n",
	},
	{
		name: "skip-forgotten", file: pull, breaks: "D1, R-131: expired in the middle of the log",
		bug: "A datagram that was reported as expired, and whose SKIP was lost, is sent after a new dial.",
		old: "			m.skipped = true\n",
		new: "",
	},
	{
		name: "skip-of-what-was-sent", file: log, breaks: "D1, R-131: expired in the middle of the log",
		bug: "A datagram that was sent once, and perhaps delivered, expires before it is sent again.",
		old: "	return m.skipped || m.at.N >= l.max.N && now >= m.deadline\n",
		new: "	return m.skipped || now >= m.deadline\n",
	},
	{
		name: "stop-not-said-again", file: attach, breaks: "D2, R-125: half-close",
		bug: "A STOP that was lost with its connection is not said again.",
		old: "	s.stopDue, s.flushDue = s.recv.stopped, s.flushTo > s.log.base.N\n",
		new: "	s.stopDue, s.flushDue = false, s.flushTo > s.log.base.N\n",
	},

	// Memory and credit.
	{
		name: "freed-when-pulled", file: log, breaks: "D1, R-118: replay",
		bug: "The log gives its memory back when it has been pulled, and not when it is acknowledged.",
		old: "	upTo := l.base.B\n	if l.gone {",
		new: "	upTo := l.unsent.B\n	if l.gone {",
	},
	{
		name: "freed-while-written", file: log, breaks: "D1, R-105: aliasing",
		bug: "An acknowledgement frees memory that a write on the old connection still reads.",
		old: "	if l.pinned {\n		upTo = min(upTo, l.pin)\n	}\n",
		new: "",
	},
	{
		name: "pin-forgotten-by-rewind", file: log, breaks: "D1, R-105: aliasing",
		bug: "When a write takes up more than one Pull only what the last gave is kept from being freed.",
		old: "	if !l.pinned {\n		l.pinned, l.pin = true, l.unsent.B\n	}\n",
		new: "	l.pinned, l.pin = true, to.B\n",
	},
	{
		name: "credit-ignored", file: pull, breaks: "D4, R-108: credit",
		bug: "The sender does not look at the credit.",
		old: "		return min(s.credit, plus(s.log.base.B, InitialCredit))\n	}\n	return s.credit\n",
		new: "		return min(s.credit, plus(s.log.base.B, InitialCredit))\n	}\n	return 1<<64 - 1\n",
	},
	{
		name: "credit-taken-back", file: take, breaks: "D2, R-108: credit",
		bug: "A window that becomes smaller takes credit back which the peer has.",
		old: "	r.credit = max(r.credit, s.mayGrant())\n",
		new: "	r.credit = s.mayGrant()\n",
	},
	{
		name: "credit-for-what-waits", file: take, breaks: "D4, R-108: credit",
		bug: "Credit is granted for what has arrived, whether or not the application takes it.",
		old: "	taken := r.taken.B\n	if s.cfg.Consumed {",
		new: "	taken := r.arrived.B\n	if s.cfg.Consumed {",
	},
	{
		name: "credit-never-restated", file: take, test: "TestWindow", breaks: "D2, R-109: lost credit",
		bug: "That the application has made room is not told to a peer that waits for it.",
		old: "	if want := s.mayGrant(); want > r.credit && (want-r.credit >= r.window/4 || want == math.MaxUint64) {\n		s.ackDue = true\n	}\n",
		new: "	_ = uint64(math.MaxUint64)\n",
	},

	// Lost sessions.
	{
		name: "renewed-without-mark", file: end, breaks: "D3, R-116: silent duplicates",
		bug: "A new session in place of a lost one does not say what may be redelivered.",
		old: "	s.redelivered = l.max.N - l.base.N\n",
		new: "	s.redelivered = 0\n",
	},
	{
		name: "mark-too-short", file: take, breaks: "D3, R-116: silent duplicates",
		bug: "The receiver does not mark the last of the datagrams that may be redelivered.",
		old: "run.Redelivered = int(min(uint64(q.N), s.redelivered-(first-s.cfg.Start.N)))",
		new: "run.Redelivered = int(min(uint64(q.N), s.redelivered-(first-s.cfg.Start.N)-1))",
	},
	{
		name: "mark-forgets-the-hello", file: attach, breaks: "D3, R-116: silent duplicates",
		bug: "What was sent behind a HELLO without an answer is not marked when another listener gets it.",
		old: "	return max(s.redelivered, min(s.log.sent.N, s.log.end.N)-s.log.base.N)\n",
		new: "	return s.redelivered\n",
	},
	{
		name: "renewed-forgets-what-was-sent", file: end, test: "TestR116LostTwice", breaks: "D3, R-116: silent duplicates",
		bug: "A session that is lost twice marks only what was sent in the second.",
		old: "	s.redelivered = l.max.N - l.base.N\n",
		new: "	s.redelivered = l.sent.N - l.base.N\n",
	},
	{
		name: "tombstone-forgets-how-far", file: table, test: "TestTableModel", breaks: "D3, R-127: how much got through",
		bug: "The tombstone of a session does not say what had arrived.",
		old: "	dead := &tombstone{id: id, arrived: arrived, since: now, why: why}\n",
		new: "	dead := &tombstone{id: id, since: now, why: why}\n",
	},
	{
		name: "tombstone-not-believed", file: input, test: "TestR128Reasons", breaks: "D3, R-127: how much got through",
		bug: "The dialer does not take what REJECT acknowledges.",
		old: "	if r.Flags&FlagReceivedKnown != 0 {\n",
		new: "	if r.Flags&FlagReceivedKnown > 1 {\n",
	},
	{
		name: "expiry-never-comes", file: table, breaks: "D2, R-129: expiry",
		bug: "A session without a connection is kept for ever.",
		old: "	return t.config.Expiry\n}",
		new: "	return 1 << 60\n}",
	},
	{
		name: "restored-forgets-what-was-sent", file: value, breaks: "D1, R-106: state is a value",
		bug: "A session that is restored takes what was sent before for unsent, and the acknowledgement of it for a lie.",
		old: "	l.end, l.sent, l.max, l.fin = v.End, v.Sent, v.Max, v.Fin\n",
		new: "	l.end, l.sent, l.max, l.fin = v.End, v.Base, v.Max, v.Fin\n",
	},

	// Being alive, ending.
	{
		name: "death-not-noticed", file: alive, breaks: "D2, R-132: missed death",
		bug: "A connection that was asked for a sign of life and stays silent is waited for.",
		old: "		ask = dead\n",
		new: "		if s.answered() {\n			dead = last + 1e6*ping\n		}\n		ask = dead\n",
	},
	{
		name: "ping-never-sent", file: alive, breaks: "D2, R-132: false death",
		bug: "PING is not sent when it is due, so that an idle connection is taken for dead.",
		old: "	case ask < end:\n		s.pingDue, s.pinged = true, true\n",
		new: "	case ask < end:\n		s.pinged = true\n",
	},
	{
		name: "pong-never-sent", file: input, breaks: "D2, R-134: false death",
		bug: "PING is not answered.",
		old: "		s.pongDue, s.pongToken = true, c.Token\n",
		new: "		s.pongToken = c.Token\n",
	},
	{
		name: "given-up-too-early", file: alive, breaks: "D2, R-132: false death",
		bug: "A connection is given up soon after the PING, not at the end of the second interval.",
		old: "		ask = dead\n",
		new: "		dead = last + ping + ping/2\n		ask = dead\n",
	},
	{
		name: "parts-are-no-life", file: input, breaks: "D2, R-132: false death",
		bug: "While a long frame comes in, its parts are no sign of life.",
		old: "	if s.answered() { // a dialer waits for the whole answer\n		s.sign(now)\n	}\n",
		new: "",
	},
	{
		name: "parts-are-not-acknowledged", file: alive, test: "TestR133PartialFrames", breaks: "D2, R-133: false death",
		bug: "Who has read a part of a long frame says nothing until it is whole.",
		old: "		s.partialAt = 0\n		s.ackDue = true\n",
		new: "		s.partialAt = 0\n",
	},
	{
		name: "close-not-answered", file: input, test: "TestR126Closing", breaks: "D2, R-126: lost CLOSE",
		bug: "CLOSE is not answered.",
		old: "		s.closeDue, s.closeReason = answer, CloseDone\n",
		new: "		s.closeDue, s.closeReason = false && answer, CloseDone\n",
	},
	{
		name: "closed-answer-not-understood", file: input, breaks: "D3, R-126: lost CLOSE",
		bug: "A dialer that asks after a lost CLOSE takes the answer of the tombstone for an error.",
		old: "	if s.finished() && (r.Reason.Lost() || r.Reason == ReasonClosed) {\n",
		new: "	if s.finished() && r.Reason.Lost() {\n",
	},

	// The driver.
	{
		name: "refused-and-not-closed", file: "reconnect/handshake.go", in: "reconnect", test: "TestHostileSessions", breaks: "D5, D6: a descriptor kept",
		bug: "A connection that is refused is forgotten, and not closed.",
		old: "slog.Any(\"reason\", err))\n\tcloseNow(nc)\n}\n\n// reject tells",
		new: "slog.Any(\"reason\", err))\n}\n\n// reject tells",
	},
}
