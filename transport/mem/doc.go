// Package mem carries byte streams inside one process, and breaks them on demand.
//
// It has two uses. As a transport it is a [Dialer] and a [Listen] like those of TCP: names instead of addresses, a
// backlog, buffered connections with half-close, deadlines and TCP's rules for closing. As a test tool it is the
// control called [Faults], with which a test cuts, freezes, slows, splits, corrupts or refuses exactly what it names,
// and so finds out what the program does when the network misbehaves:
//
//	var network mem.Network
//	l, err := mem.Listen(ctx, "echo", &mem.Config{Network: &network})
//	conn, err := mem.Dialer{Network: &network, Addr: "echo"}.DialContext(ctx)
//
//	faults := network.Faults()                        // every connection of this network, live and later
//	faults.CutAfter(mem.Up, 11, nil)                  // a reset after exactly 11 bytes towards the listener
//	faults.SetShape(mem.Down, mem.Shape{MaxRead: 1})  // the dialer reads byte by byte
//	first, err := faults.WaitConn(ctx, 1)             // one connection alone
//	first.Freeze(mem.Both)                            // a black hole: no bytes, no error
//
// The same control stands in front of any other connection: [Faults.Wrap] puts a link of this package between a
// program and, say, its TCP connection. [Pipe] makes a connected pair with no name at all.
//
// What holds:
//
//   - Bytes arrive in order, once, unaltered (but for [Faults.Corrupt]), as a prefix of what was written. A stream
//     cannot lose bytes from its middle: what a frozen line holds back is delivered after [Faults.Thaw] or lost, with
//     everything behind it, in a cut.
//   - Nothing is shared between two values of [Network]; there are no globals, so tests cannot disturb each other.
//   - Nothing happens by chance. Faults strike at counted bytes, writes, connections and dials, and jitter comes from
//     a seed.
//   - All waits are of the kind that testing/synctest counts as durably blocked and all times come from package time:
//     in a bubble, delays and deadlines cost no real time. Make networks, listeners and connections inside the bubble.
//   - Errors are those of package net: io.EOF as it is, and else a *[net.OpError] that matches [net.ErrClosed],
//     os.ErrDeadlineExceeded, syscall.ECONNRESET, EPIPE, ECONNREFUSED or EADDRINUSE.
package mem
