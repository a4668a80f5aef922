// Package endpoint writes the addresses of all Towline transports as URLs, and turns a URL into the dialer or the
// listener that it names. It is for programs that read an address from a flag or a file; one that knows its transport
// needs only that package.
//
//	tcp://127.0.0.1:7000      package tcp; tcp://[::1]:7000 over IPv6, tcp://:7000 all addresses of the machine
//	tls://echo.example:7000   package tls: TLS 1.3 on TCP
//	quic://echo.example:7000  package quic
//	unix:///run/echo.sock     package unix: a socket file; unix:echo.sock is a relative path
//	unix:@echo                package unix: an abstract name (Linux); unix://@echo means the same
//	mem://echo                package mem: a name in a network within this process
//
// A host is a name or an IP address, IPv6 in brackets, with a zone as in [fe80::1%eth0]; a port is a number, and 0 lets
// a listener choose a free one. Paths and names are taken as they stand, with no escapes: what net.Addr.String prints
// after the scheme is what can be parsed again. User information, paths behind a port, queries and fragments are
// errors, not ignored.
//
// An error of [Parse] says what is wrong with a URL and shows one that would do.
package endpoint
