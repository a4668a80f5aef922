/*
 * A session of Towline as docs/protocol.md has it, small enough to be looked at whole: one dialer, one listener, every
 * order of events. [R-n] are the requirements of that page, D1 to D3 the claims of docs/delivery.md. README.md says
 * what is left out, what was proved, and how to read a counterexample.
 *
 * Figures that bound it; a run may set others with -D:
 */
#ifndef ND
#define ND 2			/* datagrams that the dialer sends, over all of its sessions */
#endif
#ifndef NL
#define NL 1			/* datagrams that the listener sends in each session */
#endif
#ifndef CUTS
#define CUTS 2			/* connections that break */
#endif
#ifndef LOSS
#define LOSS 0			/* times that the listener loses the session: by a restart, or because it expires */
#endif
#ifndef AGE
#define AGE 0			/* 1: the dialer's last datagram has an age limit, and may expire at any moment */
#endif
#define CONNS (1 + CUTS + 2*LOSS) /* dials at most: that is checked */
#define ROOM  3			/* frames on the way, in each direction of a connection; then its writer waits */
#ifndef MUTANT
#define MUTANT 0		/* a bug that has to be found: see README.md */
#endif

#define D 0			/* the dialer */
#define L 1			/* the listener */

/* Kinds of frames. A status is (s, r): sent and received. */
#define DATA	1		/* a: what is in it */
#define SKIP	2		/* s, r */
#define ACK	3		/* s, r */
#define FIN	4		/* s, r */
#define CLOSE	5		/* s, r; reason 0 */
#define HELLO	6		/* id, a: epoch, s: redelivered */
#define WELCOME	7		/* a: instance, s, r */
#define RESUME	8		/* id, a: epoch, s, r */
#define RESUMED	9		/* s, r */
#define REJECT	10		/* a: reason, r: received; s: 1 if it is known */

/* Reasons of REJECT [R-128]. */
#define UNKNOWN		1
#define EXPIRED		2
#define TAKENOVER	4
#define UNAUTHORISED	6
#define CLOSED		9
#define MISMATCH	10

/* States of the dialer, section 13. */
#define NEW		0
#define GREETING	1
#define DETACHED	2
#define RESUMING	3
#define LIVE		4
#define ENDED		5	/* in good order */
#define LOST		6	/* and no new session could take its place */

/* Each connection has a number of its own, in the order of dials, and is never used again. */
chan d2l[CONNS+1] = [ROOM] of { byte, byte, byte, byte, byte };	/* kind, id, a, s, r */
chan l2d[CONNS+1] = [ROOM] of { byte, byte, byte, byte, byte };
bool dead[CONNS+1];		/* what is written from now on gets lost, what is on the way may still arrive */
byte conns;			/* so many were dialled */

/* What both sides have: the positions, by number alone. */
typedef Side {
	byte n;			/* datagrams in the stream that this side sends */
	byte base;		/* acknowledged */
	byte unsent;		/* the cursor: next on this connection */
	byte sent;		/* the furthest that was sent in this session */
	byte arrived;		/* of the peer's stream; never goes back */
	byte here;		/* how far this connection's stream is, replays included */
	byte conn;		/* 0: none */
	bool finacked;
	bool finin;		/* the peer's stream has ended */
	bool ackdue;
	bool moved;		/* the cursor has moved, and no status has said so [R-123] */
	bool closesent
};
Side S[2];
#define FINISHED(i) (S[i].finacked && S[i].finin)

/* The dialer. */
byte d_state;
byte d_id = 1;			/* of its session: 1, 2 after a loss, … */
byte d_epoch;
byte d_redelivered;		/* what HELLO says [R-116] */
byte d_max;			/* the furthest that was sent in an earlier session too, counted from this one's beginning */
byte d_instance;

/* The listener. */
byte l_id;			/* of the session that it has; 0: none */
byte l_epoch;
bool l_confirmed;
byte l_redelivered;
byte l_instance = 1;
byte l_seen;			/* the newest connection that it took [R-119]: for the check of the fence */
byte t_id, t_reason, t_received;	/* the tombstone [R-127]; it knows how many datagrams had arrived */

/* The reference: what nobody in the protocol knows. */
byte origin[LOSS+2];		/* by id: of the dialer's datagrams, so many were before the session */
bool got[ND];			/* the dialer's datagrams that were delivered */
bool skipped[ND];		/* that were reported as expired */
byte cuts = CUTS, losses = LOSS;

/* Everything before p was delivered or reported [D1], [D3]: what is acknowledged is never lost. */
inline reached(p) {
	k = 0;
	do
	:: k < (p) && k < ND -> assert(got[k] || skipped[k]); k++
	:: else -> break
	od;
	k = 0
}

/* ---- taking frames */

/* An acknowledgement. [R-106]: never of what was not sent; here also: never of what has not arrived. */
inline acknowledged(i, r) {
	assert(r <= S[i].sent);
	if
	:: i == D -> reached(origin[d_id] + r)
	:: else -> assert(r <= S[D].arrived)
	fi;
	if
	:: r > S[i].base ->
		S[i].base = r;
		if
		:: S[i].unsent < r -> S[i].unsent = r; S[i].moved = (MUTANT != 7)
		:: else
		fi;
		if
		:: r == S[i].n + 1 -> S[i].finacked = true
		:: else
		fi
	:: else
	fi
}

/* A status. [R-105]: the counts must agree, but for a replay that goes on further up [R-123]. */
inline heard(i, s, r) {
	if
	:: s == S[i].here
	:: else -> assert(S[i].here < s && s <= S[i].arrived); S[i].here = s
	fi;
	acknowledged(i, r)
}

/* Delivering. [D1]: in order, without a gap. [D3]: not twice without a mark. */
inline deliver(i, a) {
	if
	:: i == L ->
		assert(a == origin[l_id] + S[L].arrived);
		assert(!skipped[a]);
		assert(!got[a] || S[L].arrived < l_redelivered);
		got[a] = true
	:: else -> assert(a == d_instance * 8 + S[D].arrived)
	fi
}

/* A datagram, or a SKIP in its place. [R-120]: delivering and counting are one step. */
inline came(i, kind, a) {
	if
	:: S[i].here < S[i].arrived && MUTANT != 3 -> S[i].here++	/* a replay [R-123] */
	:: else ->
		assert(!S[i].finin);					/* [R-124] */
		if
		:: kind == DATA -> deliver(i, a)
		:: else
		fi;
		if
		:: kind == SKIP && MUTANT == 5
		:: else -> S[i].here++
		fi;
		S[i].arrived = S[i].here;
		S[i].ackdue = true
	fi
}

inline fincame(i) {
	if
	:: S[i].here < S[i].arrived ->
		assert(S[i].finin && S[i].here == S[i].arrived - 1);
		S[i].here++
	:: else ->
		assert(!S[i].finin);
		S[i].here++;
		S[i].arrived = S[i].here;
		S[i].finin = true
	fi;
	S[i].ackdue = true						/* at once [R-109] */
}

/* ---- sending */

/* put writes a frame. What is written to a dead connection is lost; but for answers, nobody tries: the cursor goes back with
   the next connection, and all that would be left of it is a mark on more than needs one. */
#define MAYPUT(ch, c) (!dead[c] && nfull(ch[c]))
#define put(ch, c, kind, id, a, s, r) \
	if \
	:: dead[c] \
	:: else -> ch[c]!kind, id, a, s, r \
	fi

inline advance(i) {
	S[i].unsent++;
	if
	:: S[i].sent < S[i].unsent -> S[i].sent = S[i].unsent
	:: else
	fi;
	if
	:: i == D && d_max < S[D].unsent -> d_max = S[D].unsent
	:: else
	fi
}

/* What side i does by itself on its connection. answered: it may send more than data, SKIP and FIN [R-111]. */
#define DATADUE(i)  (S[i].unsent < S[i].n && !S[i].moved)
#define FINDUE(i)   (S[i].unsent == S[i].n && !S[i].moved)
#define CLOSEDUE(i) (FINISHED(i) && !S[i].closesent)

/* ---- connections */

/* reset is what both sides do for a new connection: the cursor goes back to what is acknowledged. */
inline reset(i) {
	S[i].here = S[i].arrived;
	if
	:: MUTANT == 9 && S[i].unsent > S[i].n				/* FIN is not replayed */
	:: else -> S[i].unsent = S[i].base
	fi;
	S[i].ackdue = false; S[i].moved = false; S[i].closesent = false
}

/* drain forgets what is on the way. */
#define drain(ch, c) \
	do \
	:: nempty(ch[c]) -> ch[c]?_,_,_,_,_ \
	:: empty(ch[c]) -> break \
	od

/* ---- the dialer */

/* left is what the dialer does when its connection is gone. */
inline left() {
	dead[S[D].conn] = true;
	drain(l2d, S[D].conn);						/* nobody reads it any more */
	S[D].conn = 0;
	if
	:: d_state == GREETING ->
		d_state = NEW;
		/* What was sent behind a HELLO without an answer may have been delivered [R-116]. */
		if
		:: MUTANT != 8 && S[D].sent > S[D].n -> r = S[D].n - S[D].base
		:: MUTANT != 8 && S[D].sent <= S[D].n -> r = S[D].sent - S[D].base
		:: MUTANT == 8 -> r = 0
		fi;
		if
		:: d_redelivered < r -> d_redelivered = r
		:: else
		fi
	:: d_state == RESUMING || d_state == LIVE -> d_state = DETACHED
	:: else
	fi
}

/* renew goes on with a new session, if it can: with what is unconfirmed, and marks on what may have been delivered. */
inline renew() {
	reached(origin[d_id] + S[D].base);				/* [D3] the rest is in the list that the user gets */
	if
	:: S[D].finin || S[D].finacked -> d_state = LOST
	:: else ->
		if
		:: d_max > S[D].n -> d_max = S[D].n
		:: else
		fi;
		d_max = d_max - S[D].base;
		d_redelivered = (MUTANT == 4 -> 0 : d_max);
		origin[d_id+1] = origin[d_id] + S[D].base;
		d_id++;
		S[D].n = S[D].n - S[D].base;
		S[D].base = 0; S[D].unsent = 0; S[D].sent = 0; S[D].arrived = 0; S[D].here = 0;
		d_epoch = 0; d_instance = 0;
		d_state = NEW
	fi
}

inline good() {
	d_state = ENDED;
	reached(ND);							/* [D1], [D2] all of it */
	assert(S[D].arrived == NL + 1)
}

proctype Dialer() {
	byte kind, id, a, s, r, k;
	d_step { S[D].n = ND; d_state = NEW };
endd:	do
	:: atomic { S[D].conn == 0 && d_state <= DETACHED && !(MUTANT == 6 && FINISHED(D)) ->	/* dial: the epoch rises [R-119] */
		assert(conns < CONNS);
		conns++;
		S[D].conn = conns;
		d_epoch++;
		reset(D);
		if
		:: d_state == NEW ->
			d_state = GREETING;
			d2l[conns]!HELLO, d_id, d_epoch, d_redelivered, 0
		:: else ->						/* [R-118] */
			d_state = RESUMING;
			d2l[conns]!RESUME, d_id, d_epoch, S[D].base, S[D].arrived
		fi }
	:: atomic { S[D].conn != 0 && dead[S[D].conn] -> left() }	/* it learns that its connection is dead */

	/* What waits is sent, behind HELLO and RESUME too [R-111], [R-118]. */
	:: atomic { S[D].conn != 0 && DATADUE(D) && MAYPUT(d2l, S[D].conn) ->
		a = origin[d_id] + S[D].unsent;
		if							/* [R-131]: only what was never sent expires; once skipped, for ever */
		:: !skipped[a] -> put(d2l, S[D].conn, DATA, 0, a, 0, 0)
		:: skipped[a] || AGE && a == ND-1 && S[D].unsent >= d_max ->
			skipped[a] = true;
			put(d2l, S[D].conn, SKIP, 0, 0, S[D].unsent, S[D].arrived)
		fi;
		advance(D);
		a = 0 }
	:: atomic { S[D].conn != 0 && FINDUE(D) && MAYPUT(d2l, S[D].conn) ->
		put(d2l, S[D].conn, FIN, 0, 0, S[D].unsent, S[D].arrived);
		advance(D) }
	:: atomic { d_state == LIVE && (S[D].ackdue || S[D].moved) && MAYPUT(d2l, S[D].conn) ->
		S[D].ackdue = false; S[D].moved = false;
		put(d2l, S[D].conn, ACK, 0, 0, S[D].unsent, S[D].arrived) }
	:: atomic { d_state == LIVE && CLOSEDUE(D) && MAYPUT(d2l, S[D].conn) ->
		S[D].closesent = true;
		put(d2l, S[D].conn, CLOSE, 0, 0, S[D].unsent, S[D].arrived) }

	/* A frame comes. */
	:: atomic { S[D].conn != 0 && nempty(l2d[S[D].conn]) ->
		l2d[S[D].conn]?kind, id, a, s, r;
		if
		:: kind == WELCOME ->
			assert(d_state == GREETING);
			d_instance = a;
			assert(s == S[D].here);				/* [R-122] */
			d_state = LIVE;
			acknowledged(D, r);
			S[D].ackdue = true				/* which confirms the session [R-115] */
		:: kind == RESUMED ->
			assert(d_state == RESUMING);
			assert(s == S[D].here && r >= S[D].base);	/* [R-122] */
			d_state = LIVE;
			acknowledged(D, r);
			S[D].ackdue = true
		:: kind == REJECT ->
			assert(d_state == GREETING || d_state == RESUMING);
			if
			:: s == 1 -> acknowledged(D, r)			/* [R-127] */
			:: else
			fi;
			id = a; a = 0;
			left();
			if
			:: FINISHED(D) && (id == CLOSED || id == UNKNOWN || id == EXPIRED) -> good()
			:: !FINISHED(D) && (id == UNKNOWN || id == EXPIRED) -> renew()
			:: else -> assert(false)			/* nothing else is true of an honest dialer's newest connection */
			fi
		:: kind == DATA || kind == SKIP ->
			assert(d_state == LIVE);
			came(D, kind, a)
		:: kind == ACK -> heard(D, s, r)
		:: kind == FIN -> heard(D, s, r); fincame(D)
		:: kind == CLOSE ->					/* [R-126] */
			heard(D, s, r);
			assert(FINISHED(D));
			if
			:: !S[D].closesent && MAYPUT(d2l, S[D].conn) ->
				put(d2l, S[D].conn, CLOSE, 0, 0, S[D].unsent, S[D].arrived)
			:: S[D].closesent || dead[S[D].conn] || full(d2l[S[D].conn])	/* no room for a last word */
			fi;
			dead[S[D].conn] = true;				/* it closes the connection behind its last word */
			S[D].conn = 0;
			good()
		fi;
		kind = 0; id = 0; a = 0; s = 0; r = 0 }
	od
}

/* ---- the listener */

/* gone ends the listener's session, and leaves a tombstone. */
inline gone(why) {
	t_id = l_id; t_reason = why; t_received = (MUTANT == 10 -> 0 : S[L].arrived);
	forget()
}

inline forget() {
	l_id = 0; l_epoch = 0; l_confirmed = false; l_redelivered = 0;
	S[L].n = 0; S[L].base = 0; S[L].unsent = 0; S[L].sent = 0; S[L].arrived = 0; S[L].here = 0; S[L].conn = 0;
	S[L].finacked = false; S[L].finin = false; S[L].ackdue = false; S[L].moved = false;
	S[L].closesent = false
}

/* takeover: the newest epoch wins at once; the connection before is fenced and closed [R-119]. */
inline takeover(c, e) {
	assert(e > l_epoch);						/* it never goes down */
	l_epoch = e;
	if
	:: S[L].conn != 0 -> dead[S[L].conn] = true
	:: else
	fi;
	assert(c > l_seen);						/* never by a dial that was made before */
	l_seen = c;
	S[L].conn = c;
	reset(L)
}

/* refuse: REJECT is the last on a connection. */
inline refuse(c, why, received, known) {
	put(l2d, c, REJECT, 0, why, known, received);
	drain(d2l, c)
}

inline hello(c) {
	if
	:: l_id == 0 && t_id == id -> refuse(c, t_reason, t_received, 1)	/* [R-127] */
	:: l_id == 0 && t_id != id ->						/* a new session */
		l_id = id; S[L].n = NL; l_redelivered = s;
		takeover(c, a);
		put(l2d, c, WELCOME, 0, l_instance, 0, 0)
	:: l_id == id && l_confirmed -> refuse(c, MISMATCH, 0, 0)
	:: l_id == id && !l_confirmed && a <= l_epoch -> refuse(c, UNAUTHORISED, 0, 0)	/* [R-112] */
	:: l_id == id && !l_confirmed && a > l_epoch ->			/* WELCOME was lost [R-115] */
		if
		:: a - l_epoch > 1 && s > l_redelivered -> l_redelivered = s	/* [R-116] */
		:: else
		fi;
		takeover(c, a);
		S[L].here = 0;						/* everything comes again */
		put(l2d, c, WELCOME, 0, l_instance, S[L].unsent, S[L].arrived)
	:: l_id != 0 && l_id != id -> assert(false)
	fi
}

inline resume(c) {
	if
	:: l_id != id && t_id == id -> refuse(c, t_reason, t_received, 1)
	:: l_id != id && t_id != id -> refuse(c, UNKNOWN, 0, 0)
	:: l_id == id && (MUTANT == 2 -> a == l_epoch : a <= l_epoch) -> refuse(c, TAKENOVER, 0, 0)
	:: l_id == id && !(MUTANT == 2 -> a == l_epoch : a <= l_epoch) ->
		takeover(c, a);
		l_confirmed = true;					/* [R-115] */
		assert(s <= S[L].arrived && r >= S[L].base);		/* [R-122] */
		S[L].here = s;
		acknowledged(L, r);
		S[L].unsent = r;
		S[L].moved = false;
		put(l2d, c, RESUMED, 0, 0, r, S[L].arrived)
	fi
}

/* taken is a frame on connection c. [R-120]: on any but the newest it changes nothing. */
inline taken(c) {
	d2l[c]?kind, id, a, s, r;
	if
	:: kind == HELLO -> hello(c)
	:: kind == RESUME -> resume(c)
	:: kind != HELLO && kind != RESUME && (S[L].conn == c || MUTANT == 1 && l_id != 0) ->
		assert(c == l_seen);					/* the fence */
		if
		:: kind == DATA || kind == SKIP ->
			if
			:: kind == SKIP -> heard(L, s, r)
			:: else
			fi;
			came(L, kind, a)
		:: kind == ACK -> heard(L, s, r); l_confirmed = true
		:: kind == FIN -> heard(L, s, r); fincame(L)
		:: kind == CLOSE ->
			heard(L, s, r);
			assert(FINISHED(L));
			if
			:: !S[L].closesent && MAYPUT(l2d, c) -> put(l2d, c, CLOSE, 0, 0, S[L].unsent, S[L].arrived)
			:: S[L].closesent || dead[c] || full(l2d[c])
			fi;
			gone(CLOSED)
		fi
	:: else -> drain(d2l, c)					/* late bytes of a connection that was given up */
	fi;
	kind = 0; id = 0; a = 0; s = 0; r = 0
}

proctype Listener() {
	byte kind, id, a, s, r, k, c;
endl:	do
	/* A frame comes, on any connection. */
	:: atomic {
		if
		:: nempty(d2l[1]) -> c = 1
#if CONNS >= 2
		:: nempty(d2l[2]) -> c = 2
#endif
#if CONNS >= 3
		:: nempty(d2l[3]) -> c = 3
#endif
#if CONNS >= 4
		:: nempty(d2l[4]) -> c = 4
#endif
#if CONNS >= 5
		:: nempty(d2l[5]) -> c = 5
#endif
		fi;
		taken(c);
		c = 0 }
	:: atomic { S[L].conn != 0 && dead[S[L].conn] -> S[L].conn = 0; reset(L) }	/* it learns of a death */

	:: atomic { S[L].conn != 0 && DATADUE(L) && MAYPUT(l2d, S[L].conn) ->
		put(l2d, S[L].conn, DATA, 0, l_instance * 8 + S[L].unsent, 0, 0);
		advance(L) }
	:: atomic { S[L].conn != 0 && FINDUE(L) && MAYPUT(l2d, S[L].conn) ->
		put(l2d, S[L].conn, FIN, 0, 0, S[L].unsent, S[L].arrived);
		advance(L) }
	:: atomic { S[L].conn != 0 && (S[L].ackdue || S[L].moved) && MAYPUT(l2d, S[L].conn) ->
		S[L].ackdue = false; S[L].moved = false;
		put(l2d, S[L].conn, ACK, 0, 0, S[L].unsent, S[L].arrived) }
	:: atomic { S[L].conn != 0 && CLOSEDUE(L) && MAYPUT(l2d, S[L].conn) ->
		S[L].closesent = true;
		put(l2d, S[L].conn, CLOSE, 0, 0, S[L].unsent, S[L].arrived) }

	/* It expires. Nobody asks for the session of a dialer that has ended; of one that lives, it is a fault. */
	:: atomic { l_id != 0 && S[L].conn == 0 && d_state >= ENDED ->
		assert(FINISHED(L) || d_state == LOST);			/* only the dialer's last word is missing */
		gone(CLOSED) }
	:: atomic { l_id != 0 && S[L].conn == 0 && d_state < ENDED && losses > 0 ->
		losses--;
		if
		:: FINISHED(L) -> gone(CLOSED)
		:: else -> gone(EXPIRED)
		fi }
	od
}

/* The faults. */
proctype Faults() {
	byte c;
endf:	do
	:: atomic { cuts > 0 && conns > 0 && !dead[conns] -> cuts--; dead[conns] = true }
	:: atomic { losses > 0 && conns > 0 && d_state < ENDED ->	/* the listener's process is killed, another begins */
		losses--;
		c = 1;
		do							/* its connections die with it, and what was on the way */
		:: c <= conns -> dead[c] = true; drain(d2l, c); c++
		:: else -> break
		od;
		c = 0;
		forget();
		t_id = 0; t_reason = 0; t_received = 0;
		l_instance++ }
	od
}

/* [D2], what of it can be seen without looking for cycles: when nothing more can happen, it is over. */
init {
	atomic { run Dialer(); run Listener(); run Faults() };
endi:	timeout -> assert(d_state >= ENDED && l_id == 0)
}

/* [D2]: whatever happens, and whoever is slow, it comes to an end: all is delivered and both sides know it (good checks
   that), or the session is lost and the dialer knows it. The faults stop by themselves, for they are counted. */
ltl ends { <> (d_state >= ENDED && l_id == 0) }
