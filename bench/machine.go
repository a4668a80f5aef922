package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// machine describes where and how a run was made, for who wants to compare.
type machine struct {
	CPU      string        `json:"cpu"`
	Cores    int           `json:"cores"`
	Memory   string        `json:"memory"`
	System   string        `json:"system"`
	Go       string        `json:"go"`
	Date     string        `json:"date"`
	Flags    string        `json:"flags"`
	Rounds   int           `json:"rounds"`
	Long     time.Duration `json:"round_ns"`
	Duration time.Duration `json:"duration_ns"`
}

func thisMachine(o options) machine {
	m := machine{
		CPU:    field("/proc/cpuinfo", "model name"),
		Cores:  runtime.GOMAXPROCS(0),
		Memory: field("/proc/meminfo", "MemTotal"),
		System: runtime.GOOS + "/" + runtime.GOARCH,
		Go:     strings.TrimPrefix(runtime.Version(), "go"),
		Date:   time.Now().UTC().Format(time.DateOnly),
		Rounds: o.rounds, Long: o.long,
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += ", Linux " + strings.TrimSpace(string(release))
	}
	if o.quick {
		m.Flags += " -quick"
	}
	if o.only != "" {
		m.Flags += " -only " + o.only
	}
	return m
}

// field returns the first value of a name in a file of lines such as "name : value"; "unknown" if there is none.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if k, v, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// moduleVersion returns the version of a module that this program was built with.
func moduleVersion(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return m.Version
			}
		}
	}
	return "unknown"
}

// table says it in Markdown, with how far the floor's rounds lie apart, by which to judge how quiet the machine was.
func (m machine) table(s set) string {
	t := newTable("", "")
	t.row("machine", fmt.Sprintf("%s, %d cores, %s of memory", m.CPU, m.Cores, m.Memory))
	t.row("system", m.System)
	t.row("Go", m.Go)
	t.row("quic-go", moduleVersion("github.com/quic-go/quic-go"))
	t.row("date", m.Date)
	t.row("command", "go -C bench run ."+m.Flags)
	t.row("rounds", fmt.Sprintf("%d, of %v each; %v in all", m.Rounds, m.Long, m.Duration.Round(time.Second)))
	for _, size := range sizes {
		if v := s.spread(key{oneWay, floor, "tcp", "", size}, rate); there(v) {
			t.row("the floor's best round beside its worst, "+sizeName(size), digits(v)+" ×")
		}
	}
	return strings.ReplaceAll(t.String(), "---:", "---")
}
