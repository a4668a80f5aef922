package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/internal/seeds"
)

const (
	rate     = 2000 // lines a second
	leastRun = 500  // messages a second before the first fault: else a run does not count
	// latest is the time within which everything must go on after a fault, as D2 sums it up: to notice (5 s, and one
	// interval more on a machine that stood still), one wait (5 s), a dial that hangs (10 s) and its answer (5 s).
	latest = 30 * time.Second
	// warm is how long the flow is measured before the first fault.
	warm = 1500 * time.Millisecond
)

// errSlow is a run that does not count.
var errSlow = errors.New("it does not count")

// run is one scenario on one transport with one seed.
type run struct {
	scenario
	transport string
	seed      uint64
	length    time.Duration
	dir       string

	w              *world
	rng            *rand.Rand
	server, client *process
	helper         *process // nil unless the scenario needs one
	check          *checker
	feed           *feeder
	input          io.WriteCloser

	// What came of it.
	flow   float64 // messages a second before the first fault
	faults int
	figures
}

func (r *run) String() string { return fmt.Sprintf("%s over %s, seed %d", r.name, r.transport, r.seed) }

// repeat is the command that repeats the run.
func (r *run) repeat() string {
	return fmt.Sprintf("make chaos SEED=%d SECONDS=%d TRANSPORT=%s SCENARIO=%s", r.seed, int(r.length.Seconds()), r.transport, r.name)
}

// serve starts the server and waits until it listens.
func (r *run) serve() error {
	listening := &waiter{text: "listening ", found: make(chan struct{})}
	args := r.w.in(r.w.s, filepath.Join(r.dir, "echo-server"), "--listen", r.transport+"://"+serverAddr, "--verbose")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout = listening
	var err error
	if r.server, err = started(cmd); err != nil {
		return err
	}
	return listening.wait(r.server, 10*time.Second)
}

// connect starts the client and the flow of lines.
func (r *run) connect() error {
	url := r.transport + "://" + serverAddr
	args := []string{filepath.Join(r.dir, "echo-client"), "--connect", url, "--json", "--verbose", "--wait", "60s"}
	if r.transport != "tcp" {
		args = append(args, "--insecure")
	}
	cmd := exec.Command("ip")
	if r.sessions > 0 {
		cmd = self("sessions")
		args = []string{cmd.Path, url, fmt.Sprint(r.sessions)}
	}
	cmd.Path, cmd.Args = ipPath(), r.w.in(r.w.c, args...)
	r.check = newChecker(max(r.sessions, 1))
	cmd.Stdout = r.check
	var err error
	if r.input, err = cmd.StdinPipe(); err != nil {
		return err
	}
	r.client, err = started(cmd)
	return err
}

// do makes the world, the run and the world's end.
func (r *run) do(name string) (err error) {
	begin := time.Now()
	h := fnv.New64a()
	_, _ = io.WriteString(h, r.name+r.transport)
	r.rng = rand.New(rand.NewPCG(r.seed, h.Sum64()))
	if r.w, err = newWorld(name, r.natted); err != nil {
		return errors.Join(err, r.w.remove())
	}
	defer func() {
		for _, p := range []*process{r.client, r.server, r.helper} {
			if p == nil {
				continue
			}
			p.kill()
			err = errors.Join(err, p.stderr.crash())
		}
		if r.feed != nil {
			r.stopFeeding()
			<-r.feed.done
		}
		if err != nil && !errors.Is(err, errSlow) {
			for _, p := range []*process{r.client, r.server} {
				if p != nil {
					err = fmt.Errorf("%w\n--- the last words of %s:\n%s", err, filepath.Base(p.cmd.Args[4]), p.stderr)
				}
			}
		}
		err = errors.Join(err, r.w.remove())
	}()
	if err := r.serve(); err != nil {
		return err
	}
	if err := r.connect(); err != nil {
		return err
	}
	r.feed = feed(r.input, rate)
	if err := r.check.await(latest, r.client.ended, "the first message of each session", r.check.begun); err != nil {
		return err
	}
	if r.begin != nil {
		if err := r.begin(r); err != nil {
			return err
		}
	}
	before, since := r.check.count(), time.Now()
	if err := r.pause(warm); err != nil {
		return err
	}
	r.flow = float64(r.check.count()-before) / time.Since(since).Seconds()
	if r.flow < leastRun {
		return fmt.Errorf("%w: %.0f messages/s before the first fault", errSlow, r.flow)
	}
	for deadline := begin.Add(r.length); ; {
		if err := r.fault(r); err != nil {
			return fmt.Errorf("fault %d: %w", r.faults, err)
		}
		// The next one must not be counted in with this one.
		if err := r.check.await(latest, r.client.ended, "no recovery", r.check.recovered); err != nil {
			return fmt.Errorf("fault %d: %w", r.faults, err)
		}
		gap := r.gap
		if gap == [2]time.Duration{} {
			gap = [2]time.Duration{500 * time.Millisecond, 1500 * time.Millisecond}
		}
		if err := r.pause(r.between(gap[0], gap[1])); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			break
		}
	}
	r.stopFeeding()
	return r.judge()
}

func (r *run) stopFeeding() {
	select {
	case <-r.feed.stop:
	default:
		close(r.feed.stop)
	}
}

// judge waits until the programs have ended in good order, and sees that nothing is missing.
func (r *run) judge() error {
	ended := r.client.end(2 * latest)
	c := r.check
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := json.Unmarshal(c.last, &r.figures); err != nil {
		return errors.Join(ended, fmt.Errorf("the client's figures %q: %w", c.last, err))
	}
	said := r.figures
	r.Sent, r.Received, r.Duplicated, r.OutOfOrder = r.feed.fed.Load(), c.back, c.duplicated, c.outOfOrder
	r.Lost = r.Sent - c.back
	switch {
	case r.Lost+r.Duplicated+r.OutOfOrder > 0 || len(c.strange) > 0 || len(c.part) > 0:
		return errors.Join(ended, fmt.Errorf("%d of %d lost, %d duplicated, %d out of order, %d strange %v",
			r.Lost, r.Sent, r.Duplicated, r.OutOfOrder, len(c.strange), c.strange))
	case ended != nil:
		return ended
	case r.sessions == 0 && (said.Sent != r.Sent || said.Received != r.Received || said.Lost+said.Duplicated+said.OutOfOrder > 0):
		return fmt.Errorf("everything is back, and the client says %+v", said)
	case !r.loses && r.Redelivered > 0:
		return fmt.Errorf("%d messages were redelivered: a session was lost", r.Redelivered)
	case r.loses && r.Redelivered == 0:
		return errors.New("nothing was redelivered")
	case r.faults == 0:
		return errors.New("there was no fault")
	case r.keeps && r.Reconnects > 0:
		return fmt.Errorf("the client has connected again %d times, though something passed all the time", r.Reconnects)
	case r.redials && r.transport != "quic" && r.Reconnects == 0:
		return errors.New("the client has never connected again: the faults have not hit")
	}
	within := r.within
	if within == 0 {
		within = latest
	}
	if longest := time.Duration(c.recovery.Max()) * time.Microsecond; longest > within {
		return fmt.Errorf("recovery took %v, and may take %v", longest, within)
	}
	if err := r.server.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return r.server.end(10 * time.Second)
}

// pause waits. It is an error if a program ends meanwhile.
func (r *run) pause(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.client.ended:
		return errors.New("the client has ended")
	}
}

func (r *run) between(least, most time.Duration) time.Duration {
	return least + time.Duration(r.rng.Int64N(int64(most-least)+1))
}

// during is a fault behind which nothing passes: recovery ends with the first message.
func (r *run) during(least, most time.Duration, begin, end func() error) error {
	return r.hold(r.between(least, most), begin, end, func() uint64 { return 0 })
}

// through is a fault behind which something passes: recovery ends with the first message that was sent after it.
func (r *run) through(least, most time.Duration, begin, end func() error) error {
	return r.hold(r.between(least, most), begin, end, r.feed.fed.Load)
}

func (r *run) hold(d time.Duration, begin, end func() error, from func() uint64) error {
	r.faults++
	if err := begin(); err != nil {
		return err
	}
	if err := r.pause(d); err != nil {
		return err
	}
	if err := end(); err != nil {
		return err
	}
	r.check.expect(from())
	return nil
}

// instantly is a fault that is over at once: recovery ends with the first message that was sent after it.
func (r *run) instantly(do func() error) error {
	r.faults++
	from := r.feed.fed.Load()
	err := do()
	r.check.expect(from)
	return err
}

// killed kills the connections of one end, if there is any at this moment.
func (r *run) killed(ns string) error {
	return r.instantly(func() error {
		n, err := r.w.kill(ns, r.transport)
		if n == 0 {
			r.faults--
		}
		return err
	})
}

const heading = `| scenario | transport | seed | messages/s before | messages | faults | reconnects | redelivered | recovery p50 | p99 | max | lost | duplicated | out of order |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|`

func (r *run) row() string {
	return fmt.Sprintf("| %s | %s | %d | %.0f | %d | %d | %d | %d | %s | %d | %d | %d |", r.name, r.transport, r.seed, r.flow,
		r.Sent, r.faults, r.Reconnects, r.Redelivered, recovery(r.check.recovery, " | "), r.Lost, r.Duplicated, r.OutOfOrder)
}

// recovery is the median, the 99th percentile and the longest.
func recovery(h *hdrhistogram.Histogram, between string) string {
	var words []string
	for _, us := range []int64{h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.Max()} {
		words = append(words, fmt.Sprintf("%.3g s", float64(us)/1e6))
	}
	return strings.Join(words, between)
}

// TestChaos runs scenarios, and prints a row of a table for each, and one line of totals.
func TestChaos(t *testing.T) {
	tag, dir := os.Getenv(tagVar), os.Getenv(dirVar)
	if tag == "" {
		t.Skip("it runs with TOWLINE_CHAOS=1, as make chaos does")
	}
	seconds, err := strconv.Atoi(env("SECONDS", "30"))
	require.NoError(t, err)
	parallel, err := strconv.Atoi(env("PARALLEL", "3"))
	require.NoError(t, err)
	var names []string
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	// Each is a name, or name@transport.
	wanted := strings.Split(env("SCENARIO", strings.Join(names, ",")), ",")
	transports := strings.Split(env("TRANSPORT", "tcp,tls,quic"), ",")
	from, count := seeds.Range(t, 1)

	var runs []*run
	for _, name := range wanted {
		name, only, _ := strings.Cut(name, "@")
		i := slices.Index(names, name)
		require.GreaterOrEqual(t, i, 0, "SCENARIO=%s: there are %s", name, strings.Join(names, ", "))
		on := transports
		if only != "" {
			on = []string{only}
		}
		for _, transport := range on {
			require.Contains(t, []string{"tcp", "tls", "quic"}, transport, "TRANSPORT")
			for seed := from; seed < from+count; seed++ {
				runs = append(runs, &run{scenario: scenarios[i], transport: transport, seed: seed,
					length: time.Duration(seconds) * time.Second, dir: dir})
			}
		}
	}

	fmt.Println(heading)
	var (
		mu     sync.Mutex
		total  figures
		faults int
		failed int
		all    = hdrhistogram.New(1, time.Hour.Microseconds(), 3)
		work   sync.WaitGroup
		room   = make(chan struct{}, parallel)
		begin  = time.Now()
	)
	for i, r := range runs {
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			err := r.do(fmt.Sprintf("%s-%d", tag, i))
			if errors.Is(err, errSlow) { // the machine may have been busy
				r = &run{scenario: r.scenario, transport: r.transport, seed: r.seed, length: r.length, dir: dir}
				err = r.do(fmt.Sprintf("%s-%d-again", tag, i))
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
				t.Errorf("%s: %v\nto repeat it: %s", r, err, r.repeat())
			}
			if r.check == nil {
				return
			}
			fmt.Println(r.row())
			faults += r.faults
			total.Sent += r.Sent
			total.Lost += r.Lost
			total.Duplicated += r.Duplicated
			total.OutOfOrder += r.OutOfOrder
			total.Redelivered += r.Redelivered
			total.Reconnects += r.Reconnects
			all.Merge(r.check.recovery)
		})
	}
	work.Wait()
	fmt.Printf("chaos: %d runs, %d failed, in %v: %d messages, %d faults, %d reconnects, %d redelivered; recovery p50, p99, max: %s; "+
		"%d lost, %d duplicated, %d out of order\n", len(runs), failed, time.Since(begin).Round(time.Second), total.Sent, faults,
		total.Reconnects, total.Redelivered, recovery(all, ", "), total.Lost, total.Duplicated, total.OutOfOrder)
}
