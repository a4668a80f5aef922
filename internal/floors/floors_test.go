// Package floors holds the order of the house: a package imports only what stands below it.
package floors

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/towline-mq/towline/"

// mayImport says for each package which packages of this module it may import. A package that is not listed fails the
// test: its place in the house has to be decided first.
var mayImport = map[string][]string{
	"datagram":                   {},
	"transport":                  {},
	"internal/trywrite":          {},
	"internal/accept":            {},
	"transport/tcp":              {"transport", "internal/accept"},
	"transport/unix":             {"transport", "internal/accept"},
	"transport/mem":              {"transport"},
	"transport/quic":             {"transport"},
	"transport/tls":              {"transport", "internal/accept", "transport/tcp", "internal/trywrite"},
	"transport/endpoint":         {"transport", "transport/tcp", "transport/tls", "transport/quic", "transport/unix", "transport/mem"},
	"redial":                     {"transport"},
	"reconnect/internal/session": {"datagram"},
	"reconnect":                  {"datagram", "transport", "redial", "internal/accept", "internal/trywrite", "reconnect/internal/session"},
	"mux":                        {"datagram", "transport", "reconnect"},
	"towlinetest":                {"datagram", "transport", "transport/mem", "reconnect"},
	"examples/jobqueue":          {"mux", "reconnect", "transport/tls"},
	"cmd/internal/program":       {"transport/tls"},
	"cmd/echo-server":            {"cmd/internal/program", "datagram", "reconnect", "transport", "transport/endpoint", "transport/tls"},
	"cmd/echo-client":            {"cmd/internal/program", "datagram", "reconnect", "redial", "transport", "transport/endpoint", "transport/mem", "transport/tcp", "transport/tls"},
}

// outside says who may import the modules that users should not pay for by accident.
var outside = map[string][]string{
	"github.com/quic-go/quic-go":              {"transport/quic"},
	"github.com/schollz/progressbar/v3":       {"cmd/echo-client"},
	"github.com/HdrHistogram/hdrhistogram-go": {"cmd/echo-client"},
	"github.com/vmihailenco/msgpack/v5":       {"mux"},
}

// quiet are packages of the standard library that a library package has no business with.
var quiet = []string{"log", "os/signal", "flag"}

type pkg struct {
	ImportPath string
	Name       string
	Imports    []string
}

func packages(t *testing.T) []pkg {
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Imports", module+"...").Output()
	require.NoError(t, err)
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

func TestFloors(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if _, listed := mayImport[name]; !listed && strings.HasPrefix(name, "internal/") {
			continue // tests alone
		}
		seen++
		allowed, known := mayImport[name]
		require.True(t, known, "%s is not in the plan of the house (mayImport)", name)
		for _, i := range p.Imports {
			if below, ours := strings.CutPrefix(i, module); ours {
				assert.Contains(t, allowed, below, "%s must not import %s", name, below)
			}
			for mod, who := range outside {
				if i == mod || strings.HasPrefix(i, mod+"/") {
					assert.Contains(t, who, name, "%s must not import %s", name, i)
				}
			}
			if !strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "examples/") {
				assert.NotContains(t, quiet, i, "%s is a library", name)
			}
		}
	}
	assert.Equal(t, len(mayImport), seen, "a package in the plan is missing from the tree")
}
