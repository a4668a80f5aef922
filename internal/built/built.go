// Package built builds the programs for the tests that run them.
package built

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs builds the packages, given as for the command go, into dir. It looks at all Go files below root, the module's
// directory: what go build reads the cache of test results knows nothing of, and would hold a test for passed that ran
// other programs.
func Programs(root, dir string, args ...string) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if ext := filepath.Ext(path); ext == ".go" || ext == ".mod" || ext == ".sum" {
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		return err
	}
	build := exec.Command("go", append([]string{"build", "-o", dir + string(filepath.Separator)}, args...)...)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
