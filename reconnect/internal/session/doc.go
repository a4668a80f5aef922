// Package session is the session protocol of docs/protocol.md, part two, as a pure state machine: no I/O, no clock, no
// lock, no goroutine. Requirements are cited as [R-n].
//
// A [Session] is one side of one session, dialer's or listener's. What happens is told to it by method calls: a
// connection came or went, bytes arrived, the application sent or took something, time passed. What is to be done is
// asked of it: Pull gives the next bytes to write, Take the next datagrams for the application, Deadline when to call
// Tick, Err why it ended. Times are passed in as a duration since some start that never goes back; randomness as a
// reader. Two Sessions and two queues of bytes are thus a whole simulation.
//
// [Table] is what a listener knows about its sessions: limits, expiry, tombstones. [Budget] counts the memory that it
// has promised to peers.
//
// Nothing here may be used by two goroutines at once. The driver, package reconnect, holds a mutex around each call.
package session
