//go:build unix && !(linux || darwin || openbsd)

package trywrite

import "errors"

const vectored = false

// writev is never called where there is none.
func writev(int, [][]byte) (int, error) { return 0, errors.ErrUnsupported }
