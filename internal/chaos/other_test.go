//go:build !linux

package chaos

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("TOWLINE_CHAOS") != "" || os.Getenv("TOWLINE_SOAK") != "" {
		fmt.Println("chaos: skipped: it needs Linux")
	}
	os.Exit(m.Run())
}
