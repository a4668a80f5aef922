package session

import "time"

// D2: when the faults have stopped, all that was accepted is delivered within the sum of noticing that the connection is
// dead, one wait, the dial and its answer, a few round trips, and the time that the bytes take; provided that the peer
// receives. Here the sum is made of what the plan says, and each delivery after the faults is measured against it.

// claimD2 notes, when the faults stop, from when on the claim holds, and how long it may take to notice.
func (m *sim) claimD2() {
	for _, d := range append(m.dialers[:len(m.dialers):len(m.dialers)], m.copies...) {
		m.calm = max(m.calm, d.frozen)
	}
	m.calm = max(m.calm, m.server.frozen)
	for _, e := range m.server.ends {
		m.calm = max(m.calm, e.frozen)
	}
	stood := false // a process that stood still grants one interval more
	for _, f := range [...]fault{faultPause, faultPauseBoth, faultClock} {
		stood = stood || m.plan.weights[f] > 0
	}
	for _, d := range m.dialers {
		d.since = max(m.calm, d.hangs, d.notUntil)
		for _, c := range m.live() {
			if c.d != d || !c.lanes[0].hole && !c.lanes[1].hole {
				continue
			}
			d.notice = 2 * pingAfter
			if stood {
				d.notice *= 2
			}
		}
		d.notice += m.plan.writeDelay // of a write on the old connection, which ends late
	}
}

// roundTrip is the longest when there are no faults, the reset of a connection included.
const roundTrip = 2 * (100 + 50) * time.Millisecond

// inTime checks that a datagram comes as soon as D2 says.
func (m *sim) inTime(a *app, msg *message) {
	d, p := a.e.d, &m.plan
	if d.tainted || d.aborted {
		return
	}
	from := max(d.since, m.calm, msg.at, a.pausedUntil)
	// Each window takes a round trip, and the application its time.
	windows := time.Duration(msg.ahead/min(p.minWindow, InitialCredit) + 2)
	limit := d.notice + max(p.maxWait, 50*time.Millisecond) + 4*roundTrip + p.ackDelay + windows*(roundTrip+2*p.takePace)
	took := m.now - from
	if took > limit {
		m.failf("%s: D2: a datagram took %v, when all worked from %v on, and it was accepted at %v with %d bytes before it; the limit is %v",
			a.e.name, took, from, msg.at, msg.ahead, limit)
	}
	m.slowest = max(m.slowest, took)
}
