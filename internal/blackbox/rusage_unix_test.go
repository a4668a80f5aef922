//go:build unix

package blackbox

import (
	"os"
	"runtime"
	"syscall"
)

// maxRSS is the highest resident memory of a process that has ended, in bytes.
func maxRSS(state *os.ProcessState) int {
	peak := int(state.SysUsage().(*syscall.Rusage).Maxrss)
	if runtime.GOOS == "darwin" {
		return peak // in bytes there, else in KiB
	}
	return peak << 10
}
