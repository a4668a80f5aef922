// Package docs holds what can be held of the documents: that the tests which they name exist. Documents that name tests as
// evidence go stale when a test is renamed; this fails then, and says where.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	declared = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example|Benchmark)\w*)\(`)
	named    = regexp.MustCompile("`((?:Test|Fuzz|Example|Benchmark)[A-Z]\\w*)(…?)`")
)

func TestNamedTestsExist(t *testing.T) {
	there := map[string]bool{}
	require.NoError(t, filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			there[string(m[1])] = true
		}
		return err
	}))
	require.Greater(t, len(there), 500)
	documents, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	documents = append(documents, "../../README.md")
	names := 0
	for _, path := range documents {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range named.FindAllStringSubmatch(string(b), -1) {
			names++
			if m[2] != "" { // a beginning
				assert.True(t, begins(there, m[1]), "%s names tests %s…, of which there is none", filepath.Base(path), m[1])
				continue
			}
			assert.True(t, there[m[1]], "%s names %s, which is nowhere", filepath.Base(path), m[1])
		}
	}
	require.Greater(t, names, 100)
}

func begins(there map[string]bool, with string) bool {
	for name := range there {
		if strings.HasPrefix(name, with) {
			return true
		}
	}
	return false
}
