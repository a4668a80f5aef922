package towlinetest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/towline-mq/towline/towlinetest"
)

// TestTransport: what the kit asks of a transport holds of all of Towline's.
func TestTransport(t *testing.T) {
	t.Parallel()
	for _, w := range worlds() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			r := towlinetest.Transport(t, w.make)
			t.Logf("%s: %v", w.name, r)
			assert.NotZero(t, r.Passed)
		})
	}
}
