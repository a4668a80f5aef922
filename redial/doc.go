// Package redial gets a connection, and gets it again each time it broke. It has three forms, for three kinds of program:
//
//   - [Dial] and [Dialer] make a [Conn], a net.Conn to any server, for programs that read and write and would rather not
//     know. What was under way when a connection broke may be lost or come twice: see Conn.
//   - [Run] calls a function with each new connection, for protocols that begin anew on each.
//   - A [Redialer] makes connections when it is asked, in order of preference, and remembers how well that went.
//
// The first two, and the sessions of package reconnect, are made of the third:
//
//	r := redial.New([]transport.Dialer{
//		quic.Dialer{Addr: "app.example:7443"},
//		tls.Dialer{Addr: "app.example:7443"}, // where UDP is blocked
//	}, nil)
//	link, err := r.Dial(ctx)
//
// All of them follow a [Policy]. An outage begins with the first Dial and ends when a connection has proved its worth: by
// [Link.Progress], which for a Conn is a byte that was read, or by lasting for [Policy].StableAfter. Within one:
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
// Hooks of the Policy and the Dialer log in on new connections and decide what comes after a failure ([Decision]). A peer can
// ask for a pause before the next dial ([Link.Delay]).
//
// The package logs nothing, keeps no globals, and takes its time from package time, so that all of it runs in
// testing/synctest. A Conn has a goroutine only while it redials; a Redialer has none.
package redial
