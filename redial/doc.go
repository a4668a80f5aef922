// Package redial gets a connection, and gets it again each time it broke.
//
// A [Redialer] holds the ways to reach one peer, in order of preference, and a [Policy]. Its Dial tries them until one
// connects:
//
//	r := redial.New([]transport.Dialer{
//		quic.Dialer{Addr: "app.example:7443"},
//		tls.Dialer{Addr: "app.example:7443"}, // where UDP is blocked
//	}, nil)
//	defer r.Close()
//	for {
//		link, err := r.Dial(ctx)
//		if err != nil {
//			return err // ctx ended, the policy's limits were reached, or trying again is of no use
//		}
//		if serve(link.Conn) {
//			link.Progress() // it brought something: the next outage is a new one
//		}
//	}
//
// An outage begins with the first Dial and ends when a connection has proved its worth: by [Link.Progress], or by
// lasting for [Policy].StableAfter. What holds within one:
//
//   - The first attempt is made at once. The endpoints are tried one after the other, in order of preference, with no
//     wait between them: that is a round. Between two rounds is a wait, by default of full jitter ([Jitter]).
//   - A connection that ended without having been of use counts as a failed attempt: the next Dial goes on with the next
//     endpoint of the round, or waits for the next round, whose wait counts from when that connection was made. So a
//     peer that accepts and hangs up is not dialled faster than one that refuses.
//   - Each attempt has a time limit of its own and resolves names anew.
//   - An error that can pass is tried again; one that cannot, such as a wrong certificate, rules its endpoint out until
//     the outage ends. [IsFatal] tells them apart.
//   - Limits of attempts and of time count from the beginning of the outage. The time between a connection and the
//     next Dial is not counted.
//
// A peer can ask for a pause before the next dial ([Link.Delay]). A connection to a fallback says when it is time to
// try what is preferred ([Link].ReturnAfter, [Redialer.DialPreferred]).
//
// The package logs nothing, keeps no globals, starts no goroutine, and takes its time from package time, so that all of
// it runs in testing/synctest.
package redial
