// Package towlinetest helps to test programs that use Towline, transports that are made for it, and other
// implementations of its protocol.
//
//   - [Pair] connects a session in memory, over a network that a test can break.
//   - [Transport] checks a transport of your own: anything that dials and accepts net.Conns.
//   - [Server] and [Client] check an echo server and a client that talks to one, written in any language, byte for byte
//     against docs/protocol.md.
//
// Server and Client guard claim D7 of docs/delivery.md, that the wire is what the protocol says, and with it D1 and D6 as
// a peer sees them. They are a second reading of the text: they share no code with package reconnect. A failure names the
// requirement, as, what was expected and what came, the last frames in hex, and the command that runs that case
// alone. See docs/conformance.md.
package towlinetest
