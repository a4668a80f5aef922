package towlinetest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/towlinetest"
)

// TestServer runs the suite against the library, over each transport.
func TestServer(t *testing.T) {
	t.Parallel()
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			ln, d := w.make(t)
			lo, so := new(reconnect.ListenOptions), &towlinetest.ServerOptions{Timeout: caseTime}
			if w.name != "mem" { // once with what is usual; the others in a hurry
				so.MaxPayload = 1 << 20
				lo.MaxPayload, lo.SendBuffer, lo.MaxWindow = so.MaxPayload, 1<<18, 1<<18
			}
			startEcho(t, ln, lo)
			r := towlinetest.Server(t, d, so)
			t.Logf("%s: %v", w.name, r)
			assert.GreaterOrEqual(t, r.Passed, 410)
			assert.Zero(t, r.Skipped)
		})
	}
}
