package towlinetest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/towline-mq/towline/towlinetest"
)

// TestServer runs the suite against the library, over each transport.
func TestServer(t *testing.T) {
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			ln, d := w.make(t)
			startEcho(t, ln, nil)
			r := towlinetest.Server(t, d, nil)
			t.Logf("%s: %v", w.name, r)
			assert.GreaterOrEqual(t, r.Passed, 300)
		})
	}
}
