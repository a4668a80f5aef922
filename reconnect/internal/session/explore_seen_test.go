package session

import (
	"fmt"
	"strings"
)

// exSituation is something that must have happened in some state: if it never does, the scopes do not test it.
type exSituation int

const (
	exLateFrame         exSituation = iota // of the connection before, while the dialer is on another
	exLateData                             // the same, of a datagram
	exDialledAnew                          // while the listener still has the connection before
	exDialledTwice                         // while it has two
	exTakenOver                            // a session that has a connection
	exTakenOverLate                        // with frames of the old one under way
	exTakenOverWriting                     // in the middle of a write
	exComingTooLate                        // a takeover that was overtaken by the next
	exStaleHello                           // refused
	exStaleResume                          // refused
	exHelloRepeated                        // to a session whose WELCOME was lost
	exHelloAfterWrite                      // the same, after datagrams had arrived
	exConfirmedLate                        // by the first ACK
	exResumeConfirmed                      // by a RESUME, for the ACK was lost
	exAskedAlone                           // a dial after a RESUME without an answer
	exSaidAgain                            // datagrams were replayed
	exDroppedAgain                         // and dropped, for they had arrived
	exPassedArrived                        // a run of which some had arrived
	exCursorMovedOn                        // the peer had more than was known, in the middle of a replay
	exWriteAcked                           // what is being written was acknowledged
	exTombstoneAnswered                    // a dial to a session that is no more
	exClosedByReject                       // CLOSE was lost, and the dialer asked
	exExpiredQuietly                       // the listener's session was done, and only the last word was missing
	exExpiredStopped                       // it was, and the dialer had not taken everything
	exExpiredAloud                         // it was not
	exRenewedSession                       // a new one in place of a lost one
	exRenewedNot                           // a lost one, of which a stream had ended
	exWelcomeAfterLoss                     // the listener has it
	exRedeliveredMarked                    // a datagram was delivered twice, and marked
	exSituations
)

var exSituationNames = [...]string{
	"late frame", "late datagram", "dialled anew", "dialled twice", "taken over", "taken over, frames under way",
	"taken over in a write", "overtaken takeover", "stale HELLO refused", "stale RESUME refused", "HELLO repeated",
	"HELLO repeated after data", "confirmed by ACK", "confirmed by RESUME", "RESUME alone", "replayed", "replay dropped",
	"replay passed arrived", "cursor moved", "acknowledged in a write", "tombstone answered", "closed by REJECT",
	"expired, done", "expired, stopped", "expired, lost", "renewed", "not renewed", "WELCOME after a loss", "redelivered, marked",
}

// exSeen counts what has happened.
type exSeen struct {
	situations [exSituations]int
	quiet      bool
	lost       [2][KindStop + 1]int // frames by whom they did not reach, and their kind; 0 is data
}

func (s *exSeen) hit(what exSituation) { s.hitIf(what, true) }

func (s *exSeen) hitIf(what exSituation, is bool) {
	if is && s != nil {
		s.situations[what]++
	}
}

// lose notes that a connection was cut before a frame, or a frame written that nobody reads.
func (s *exSeen) lose(side Role, kind Kind) {
	if s != nil {
		s.lost[side][kind]++
	}
}

// String lists all with how often they were.
func (s *exSeen) String() string {
	var b strings.Builder
	for i, n := range s.situations {
		fmt.Fprintf(&b, "%s: %d\n", exSituationNames[i], n)
	}
	for side := range s.lost {
		fmt.Fprintf(&b, "cut before, to %v:", Role(side))
		for k, n := range s.lost[side] {
			name := "data"
			if k != 0 {
				name = Kind(k).String()
			}
			if n > 0 {
				fmt.Fprintf(&b, " %s %d", name, n)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
