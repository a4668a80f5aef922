// Package tcp dials and listens on TCP, set up for a message transport: small writes leave at once (TCP_NODELAY),
// silent peers are probed (keepalive), and, where asked for, bytes that a peer does not take within a time end the
// connection (TCP_USER_TIMEOUT, on Linux).
//
//	ln, err := tcp.Listen(ctx, "127.0.0.1:7000", nil)
//	conn, err := tcp.Dialer{Addr: "127.0.0.1:7000"}.DialContext(ctx)
//
// Connections are plain *[net.TCPConn], on both sides and with nothing around them, so that vectored writes, splice and
// SyscallConn work as ever. Options are set inside the dial, before the first packet, and hold for every redial. Errors
// are the *[net.OpError] of package net with their causes; errors.Is(err, syscall.ECONNREFUSED) and its like work.
//
// What this package does not name, it takes from the caller: a [net.Dialer] and a [net.ListenConfig] of your own are
// copied and used, with their Control functions run. SO_REUSEPORT, marks, interfaces and Multipath TCP therefore need
// nothing from here; an example shows how to let several processes share one port.
//
// Any [net.Listener] can be wrapped around ours, and ours can lie under others. A listener of the PROXY protocol goes
// between TCP and TLS:
//
//	ln, err := tcp.Listen(ctx, ":7000", nil)
//	proxied := &proxyproto.Listener{Listener: ln}  // github.com/pires/go-proxyproto
//	secure, err := tls.NewListener(proxied, cfg)   // towline's transport/tls
package tcp
