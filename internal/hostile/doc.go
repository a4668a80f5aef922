// Package hostile tests what docs/security.md says of identities: who may be taken for whom, over TLS and QUIC, through
// package reconnect and through the programs, and what a user is told. It guards claim D6 of docs/delivery.md together
// with the tests in reconnect/session_hostile_*_test.go, which attack the protocol itself, and it holds the table of limits
// in docs/security.md against the code.
//
// A failure names the case, the transport, and what was said instead of what should be.
package hostile
