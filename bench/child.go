package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// childRequest is what a child is to do, one line of JSON each; childReply is what it says when that is done.
type childRequest struct {
	Do       string    `json:"do"`
	Sessions int       `json:"sessions,omitempty"`
	From     string    `json:"from,omitempty"`
	Since    time.Time `json:"since,omitzero"`
}

type childReply struct {
	Error      string        `json:"error,omitempty"`
	Addr       string        `json:"addr,omitempty"`
	RSS        int64         `json:"rss,omitempty"`
	Heap       int64         `json:"heap,omitempty"`
	Goroutines int           `json:"goroutines,omitempty"`
	CPU        time.Duration `json:"cpu,omitempty"`
	Took       []float64     `json:"took,omitempty"` // seconds
}

// child is this program again, in a process of its own, which does what it is asked until its input ends.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder

	sessions int
	from     string
}

// startChild starts one. It is killed when ctx ends.
func startChild(ctx context.Context, role, addr string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, role, addr)
	cmd.Env = append(os.Environ(), childRole+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, in: in, out: json.NewDecoder(out)}, nil
}

// childRole is the environment's name for what a child is; unset in a program that somebody started.
const childRole = "TOWLINE_BENCH_ROLE"

// ask tells the child what to do, and waits until it is done.
func (c *child) ask(q childRequest) (childReply, error) {
	var r childReply
	err := json.NewEncoder(c.in).Encode(q)
	if err == nil {
		err = c.out.Decode(&r)
	}
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", c.cmd.Args[1], q.Do, err)
	}
	return r, err
}

// end ends the child and waits for it.
func (c *child) end() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

// role is what a child does beside looking at itself.
type role interface {
	do(q childRequest) (childReply, error)
}

// runChild is the whole of a child: it does what it reads until that ends. What it still holds then goes with the
// process.
func runChild(r role, in io.Reader, out io.Writer) error {
	enc := json.NewEncoder(out)
	for dec := json.NewDecoder(bufio.NewReader(in)); ; {
		var q childRequest
		if err := dec.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var reply childReply
		var err error
		switch q.Do {
		case "look":
			reply = lookAtSelf()
		case "used":
			reply.CPU = cpuTime()
		default:
			reply, err = r.do(q)
		}
		if err != nil {
			reply.Error = err.Error()
		}
		if err := enc.Encode(reply); err != nil {
			return err
		}
	}
}

// lookAtSelf collects the garbage, gives its memory back to the system, and says what is left.
func lookAtSelf() childReply {
	heap := int64(memory())
	debug.FreeOSMemory()
	return childReply{Heap: heap, RSS: residentBytes(), Goroutines: runtime.NumGoroutine()}
}

// residentBytes returns what the system has given this process of memory; 0 where it does not say.
func residentBytes() int64 {
	kib, ok := strings.CutSuffix(field("/proc/self/status", "VmRSS"), " kB")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
