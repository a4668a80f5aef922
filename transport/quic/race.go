package quic

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// stagger is how long an attempt has the field to itself (RFC 8305, section 5). UDP gives no refusals, so that an
// address family which leads nowhere would otherwise cost the whole handshake timeout.
const stagger = 250 * time.Millisecond

// interleave orders ips so that the families alternate, beginning with the family of the first.
func interleave(ips []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, ip := range ips {
		ip = ip.Unmap()
		if len(first) == 0 || first[0].Is4() == ip.Is4() {
			first = append(first, ip)
		} else {
			second = append(second, ip)
		}
	}
	ordered := make([]netip.Addr, 0, len(ips))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			ordered = append(ordered, first[i])
		}
		if i < len(second) {
			ordered = append(ordered, second[i])
		}
	}
	return ordered
}

// race tries the addresses, each a stagger after the one before it or once that failed, and returns the first success.
// Attempts that are still on their way then are cancelled, and discarded if they succeed all the same. If none
// succeeds, the error is the first that is not a timeout, since it says more. addrs is not empty.
func race[T any](
	ctx context.Context,
	addrs []netip.AddrPort,
	try func(context.Context, netip.AddrPort) (T, error),
	discard func(T),
) (T, error) {
	if len(addrs) == 1 {
		return try(ctx, addrs[0])
	}
	type result struct {
		value T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	next := time.NewTimer(0)
	defer next.Stop()

	var none T
	var firstErr error
	for running := 0; ; {
		start := next.C
		if len(addrs) == 0 {
			start = nil
		}
		select {
		case <-start:
			addr := addrs[0]
			addrs = addrs[1:]
			running++
			go func() {
				value, err := try(ctx, addr)
				results <- result{value, err}
			}()
			next.Reset(stagger)
		case r := <-results:
			running--
			if r.err == nil {
				go func() {
					for range running {
						if r := <-results; r.err == nil {
							discard(r.value)
						}
					}
				}()
				return r.value, nil
			}
			if firstErr == nil || isTimeout(firstErr) && !isTimeout(r.err) {
				firstErr = r.err
			}
			if running == 0 && len(addrs) == 0 {
				return none, firstErr
			}
			next.Reset(0)
		}
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error) //nolint:errorlint // a *net.OpError, which asks what it wraps
	return ok && t.Timeout()
}
