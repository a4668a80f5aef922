package hostile

import (
	"fmt"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

// The limits in docs/security.md are those of the code.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile("../../docs/security.md")
	require.NoError(t, err)
	doc := string(b)
	row := func(name, value string) {
		assert.Regexp(t, `(?m)^\| .*`+regexp.QuoteMeta(name)+"`?.* \\| "+regexp.QuoteMeta(value)+`[ ,;|]`, doc, "the row of %s", name)
	}
	row("first frame of a peer", size(datagram.MaxControl))
	row("ListenOptions.HandshakeTimeout", span(reconnect.DefaultHandshakeTimeout))
	row("ListenOptions.MaxHandshakes", number(reconnect.DefaultMaxHandshakes))
	row("ListenOptions.MaxSessions", number(reconnect.DefaultMaxSessions))
	row("ListenOptions.Expiry", span(reconnect.DefaultExpiry))
	row("ListenOptions.Memory", size(reconnect.DefaultMemory))
	row("SessionOptions.MaxPayload", size(datagram.DefaultMaxPayload))
	row("SessionOptions.MaxWindow", size(reconnect.DefaultMaxWindow))
	row("SessionOptions.SendBuffer", size(reconnect.DefaultSessionBuffer))
	row("SessionOptions.PingAfter", span(reconnect.DefaultPingAfter))
	row("PlainOptions.SendBuffer", size(reconnect.DefaultPlainBuffer))
}

func size(n int) string {
	for _, unit := range []string{"bytes", "KiB", "MiB"} {
		if n < 1<<10 {
			return fmt.Sprint(n, " ", unit)
		}
		n >>= 10
	}
	return fmt.Sprint(n, " GiB")
}

func span(d time.Duration) string {
	if d >= time.Minute {
		return fmt.Sprint(int(d.Minutes()), " min")
	}
	return fmt.Sprint(int(d.Seconds()), " s")
}

func number(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
