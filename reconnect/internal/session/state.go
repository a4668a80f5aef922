package session

import (
	"fmt"
	"strings"
)

// Role is which side of a session this is.
type Role uint8

// The roles never change within a session.
const (
	Dialer Role = iota
	Listener
)

// String returns "dialer" or "listener".
func (r Role) String() string { return [...]string{"dialer", "listener"}[r] }

// State is how far a session is.
type State uint8

// The states of docs/protocol.md, section 13.
const (
	New      State = iota // not confirmed, no connection
	Greeting              // not confirmed, HELLO sent (dialer) or answered (listener)
	Detached              // confirmed, no connection
	Resuming              // RESUME sent, not answered (dialer)
	Live                  // confirmed, both sides may send everything
	Ended                 // for good
	numStates
)

// String returns the state's name in lower case.
func (s State) String() string {
	return [...]string{"new", "greeting", "detached", "resuming", "live", "ended"}[s]
}

// attached reports whether there is a connection.
func (s State) attached() bool { return s == Greeting || s == Resuming || s == Live }

// kindData stands for a data frame among the kinds of control frames.
const kindData Kind = 0

// set is a set of kinds of frames.
type set uint32

func setOf(ks ...Kind) (s set) {
	for _, k := range ks {
		s |= 1 << k
	}
	return s
}

func (s set) has(k Kind) bool { return k < 32 && s&(1<<k) != 0 }

// accepted is the state table: the frames that may come in, by role and state. All others are protocol errors, while
// there is a connection; without one nothing comes in. HELLO and RESUME come first on a connection only, before it has
// a session, so that they are in no cell.
var accepted = [2][numStates]set{
	Dialer: {
		Greeting: setOf(KindWelcome, KindReject),
		Resuming: setOf(KindResumed, KindReject),
		Live:     setOf(kindData, KindAck, KindPing, KindPong, KindFin, KindGoaway, KindClose, KindSkip, KindStop),
	},
	Listener: {
		Greeting: setOf(kindData, KindAck, KindPing, KindPong, KindFin, KindClose, KindSkip, KindStop),
		Live:     setOf(kindData, KindAck, KindPing, KindPong, KindFin, KindClose, KindSkip, KindStop),
	},
}

// leads says where a frame leads that changes the state.
var leads = [2][numStates]map[Kind]string{
	Dialer: {
		Greeting: {KindWelcome: "live", KindReject: "new, or ended"},
		Resuming: {KindResumed: "live", KindReject: "detached, or ended"},
		Live:     {KindClose: "ended"},
	},
	Listener: {
		Greeting: {KindAck: "live", KindClose: "ended"},
		Live:     {KindClose: "ended"},
	},
}

// other says where what is no frame leads.
var other = [2][numStates]struct{ attach, detach string }{
	Dialer: {
		New:      {attach: "greeting, sends HELLO"},
		Greeting: {detach: "new"},
		Detached: {attach: "resuming, sends RESUME"},
		Resuming: {detach: "detached"},
		Live:     {detach: "detached"},
	},
	Listener: {
		New:      {attach: "HELLO: greeting, sends WELCOME; RESUME: live, sends RESUMED"},
		Greeting: {attach: "as if this one had gone before", detach: "new"},
		Detached: {attach: "RESUME: live, sends RESUMED"},
		Live:     {attach: "as if this one had gone before", detach: "detached"},
	},
}

// StateTable is the state table as a table of Markdown, for docs/protocol.md, section 13.
func StateTable() string {
	var b strings.Builder
	for _, role := range []Role{Dialer, Listener} {
		fmt.Fprintf(&b, "\n**%s**\n\n| state | a connection comes | it goes | frames that are taken, and where they lead |\n|---|---|---|---|\n",
			strings.ToUpper(role.String()[:1])+role.String()[1:])
		for s := New; s < numStates; s++ {
			o := other[role][s]
			if s == Resuming && role == Listener {
				continue
			}
			var frames []string
			for k := kindData; k <= KindStop; k++ {
				if !accepted[role][s].has(k) {
					continue
				}
				name := "data"
				if k != kindData {
					name = k.String()
				}
				if to := leads[role][s][k]; to != "" {
					name += " → " + to
				}
				frames = append(frames, name)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s, dash(o.attach), dash(o.detach), dash(strings.Join(frames, ", ")))
		}
	}
	b.WriteString("\nEvery other frame is a protocol error. A protocol error, but for a dialer that is greeting or resuming (section 7), the\n" +
		"end that an application asks for, and expiry at the listener lead from every state to ended. HELLO and RESUME come first on a connection, before it has a session.\n\n")
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
