package endpoint

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Error says what is wrong with a URL.
type Error struct {
	URL     string // as it was given
	Problem string // what is wrong with it, as "the port is missing"
	Example string // a URL that would do
}

// Error names the URL and the problem and shows a good URL, in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("bad address %q: %s; a good one is %s", e.URL, e.Problem, e.Example)
}

// shown is ip for an example, which has to be a good one: an example of a bad one would have a bad one, for ever.
func shown(ip netip.Addr) string {
	if ip.Zone() != "" && !goodHost(ip.Zone()) {
		ip = ip.WithZone("")
	}
	return ip.String()
}

// newError shows the example, which is a guess from s, only if it is good.
func newError(s, problem, example string) *Error {
	if _, err := Parse(example); err != nil {
		example = defaultExample
	}
	return &Error{s, problem, example}
}

// Parse reads a URL. The scheme may be in any case; the rest is kept as it is. It resolves no names and touches
// nothing. Errors are of type *Error.
func Parse(s string) (URL, error) {
	scheme, rest, ok := cutScheme(s)
	if !ok {
		return URL{}, noScheme(s)
	}
	switch scheme {
	case TCP, TLS, QUIC:
		return parseHostPort(s, scheme, rest)
	case Unix:
		return parseUnix(s, rest)
	case Mem:
		return parseMem(s, rest)
	}
	return URL{}, &Error{s, fmt.Sprintf("there is no scheme %q, only tcp, tls, quic, unix and mem", scheme), defaultExample}
}

const defaultExample = "tcp://127.0.0.1:7000"

// cutScheme splits s at its colon. It takes what stands before for a scheme if it looks like one and either // follows
// or it is one of ours, so that "localhost:7000" has none.
func cutScheme(s string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(s, ":")
	scheme = strings.ToLower(scheme)
	if !ok || scheme == "" || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789+-.") != "" {
		return "", s, false
	}
	switch scheme {
	case TCP, TLS, QUIC, Unix, Mem:
		return scheme, rest, true
	}
	return scheme, rest, strings.HasPrefix(rest, "//")
}

// noScheme guesses what was meant, for the example.
func noScheme(s string) error {
	if s == "" {
		return &Error{s, "it is empty", defaultExample}
	}
	example := defaultExample
	if strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@") {
		example = URL{Unix, s}.String()
	} else if u, err := parseHostPort("", TCP, "//"+s); err == nil {
		example = u.String()
	}
	return newError(s, "the scheme is missing", example)
}

func parseHostPort(s, scheme, rest string) (URL, error) {
	bad := func(problem, example string) (URL, error) {
		return URL{}, newError(s, problem, scheme+"://"+example)
	}
	const example = "127.0.0.1:7000"
	hostPort, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return bad("// is missing after "+scheme+":", example)
	}
	if hostPort == "" {
		return bad("host and port are missing", example)
	}
	if i := strings.IndexAny(hostPort, "/?#"); i >= 0 {
		part := map[byte]string{'/': "a path", '?': "a query", '#': "a fragment"}[hostPort[i]]
		good := example
		if _, err := parseHostPort("", scheme, "//"+hostPort[:i]); err == nil {
			good = hostPort[:i]
		}
		return bad(part+" has no meaning here", good)
	}
	if i := strings.LastIndexByte(hostPort, '@'); i >= 0 {
		good := example
		if _, err := parseHostPort("", scheme, "//"+hostPort[i+1:]); err == nil {
			good = hostPort[i+1:]
		}
		return bad("user information has no meaning here", good)
	}

	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		address, addressErr := netip.ParseAddr(strings.Trim(hostPort, "[]"))
		if i := strings.LastIndexByte(hostPort, ':'); i >= 0 {
			// Of ::1:7000 both may be true; four digits and more are a port rather than a part of an address.
			port := hostPort[i+1:]
			if ip, err := netip.ParseAddr(hostPort[:i]); err == nil && goodPort(port) && (addressErr != nil || len(port) > 3) {
				return bad("an IPv6 address stands in brackets", net.JoinHostPort(shown(ip), port))
			}
			if addressErr != nil {
				return bad("host and port cannot be told apart", example)
			}
		}
		if addressErr == nil {
			return bad("the port is missing", net.JoinHostPort(shown(address), "7000"))
		}
		if goodHost(hostPort) {
			return bad("the port is missing", hostPort+":7000")
		}
		return bad("the port is missing", example)
	}
	if strings.HasPrefix(hostPort, "[") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() || !goodHost(ip.Zone()) {
			return bad("only an IPv6 address stands in brackets", "[::1]:7000")
		}
	} else if !goodHost(host) {
		if host == "*" {
			return bad("all addresses are written as an empty host", ":7000")
		}
		return bad(fmt.Sprintf("%q is not a host", host), example)
	}
	if !goodPort(port) {
		problem := fmt.Sprintf("the port is %q and not a number from 0 to 65535", port)
		if port == "" {
			problem = "the port is missing"
		}
		return bad(problem, net.JoinHostPort(host, "7000"))
	}
	return URL{scheme, hostPort}, nil
}

// goodHost leaves it to the resolver whether a name exists, and refuses only what no name contains.
func goodHost(host string) bool {
	return !strings.ContainsFunc(host, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '\uFFFD' || strings.ContainsRune(`"#%&'()*+,/:;<=>?@[\]^{|}`+"`", r)
	})
}

func goodPort(port string) bool {
	_, err := strconv.ParseUint(port, 10, 16)
	return err == nil && (port == "0" || port[0] != '0')
}

func parseUnix(s, rest string) (URL, error) {
	bad := func(problem, example string) (URL, error) { return URL{}, newError(s, problem, example) }
	const example = "unix:///run/echo.sock"
	path, slashes := strings.CutPrefix(rest, "//")
	switch {
	case path == "":
		return bad("the path is missing", example)
	case path == "@":
		return bad("the name after @ is missing", "unix:@echo")
	case strings.Contains(path, "\x00"):
		return bad("a path contains no zero byte", example)
	case slashes && path[0] != '/' && path[0] != '@':
		return bad("what follows // begins with / or @", "unix:///"+path)
	}
	// More slashes than one at the front are one, for String to be unambiguous.
	if trimmed := strings.TrimLeft(path, "/"); len(trimmed)+1 < len(path) {
		path = "/" + trimmed
	}
	return URL{Unix, path}, nil
}

func parseMem(s, rest string) (URL, error) {
	name, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return URL{}, &Error{s, "// is missing after mem:", "mem://echo"}
	}
	if name == "" {
		return URL{}, &Error{s, "the name is missing", "mem://echo"}
	}
	return URL{Mem, name}, nil
}
