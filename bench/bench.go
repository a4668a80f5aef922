package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// key says what a figure is of.
type key struct {
	Kind      string `json:"kind"`      // what is measured, one of the kinds below
	Subject   string `json:"subject"`   // who: floor, plain, session, or a peer's name
	Transport string `json:"transport"` // tcp, tls, quic, unix
	Mode      string `json:"mode"`      // how, where there are several ways
	Size      int    `json:"size"`      // bytes of payload; 0 where that says nothing
}

// The kinds.
const (
	oneWay     = "one-way"
	roundTrip  = "round-trip"
	besideBulk = "round-trip-beside-bulk"
	recovery   = "recovery"
	takeover   = "takeover"
	wireBytes  = "wire"
	idleMemory = "memory"
	busyMany   = "many"
	replay     = "replay"
	death      = "dead-peer"
)

// The subjects that are not peers.
const (
	floor   = "floor"
	plain   = "plain"
	session = "session"
)

// The modes of one way.
const (
	single   = "single"      // one goroutine that sends, one that receives
	batch    = "batch of 64" // the same, 64 at a time
	sixteen  = "16 senders"  // goroutines that send on one connection; one receives
	lent     = "Each"        // as single, received by Reader.Each, whose payloads are lent for a call
	lentMany = "batch, Each" // as batch, likewise
	kept     = "kept"        // the floor, where each message gets memory of its own
	released = "released"    // as single, and the receiver gives each payload's memory back (datagram.Release)
)

// String is what -only is matched with, such as "one-way/session/tcp/16 senders/64 B".
func (k key) String() string {
	parts := []string{k.Kind, k.Subject, k.Transport}
	if k.Mode != "" {
		parts = append(parts, k.Mode)
	}
	if k.Size > 0 {
		parts = append(parts, sizeName(k.Size))
	}
	return strings.Join(parts, "/")
}

func sizeName(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// figures are what one round of one bench brought, by name.
type figures map[string]float64

// The names of figures.
const (
	rate      = "messages/s"
	cpu       = "cpu ns/message"
	allocs    = "allocs/message"
	allocated = "B allocated/message"
	overhead  = "overhead %"
)

// bench is one thing to be measured. run makes what it needs, measures for about as long as asked, and leaves nothing
// behind. It is called once a round, never beside another.
type bench struct {
	key
	run func(ctx context.Context, long time.Duration) (figures, error)
}
