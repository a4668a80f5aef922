//go:build linux || darwin

package blackbox

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport"
	"github.com/towline-mq/towline/transport/tcp"
)

// descriptors raises the limit of open files to n if it can, and returns what it is then.
func descriptors(t testing.TB, n uint64) uint64 {
	t.Helper()
	var lim syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim))
	if lim.Cur < n {
		raised := syscall.Rlimit{Cur: max(lim.Cur, min(lim.Max, n)), Max: lim.Max}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(lim.Max, n)}) != nil {
			require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised))
		}
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim))
	}
	return lim.Cur
}

// memory is what heap and stacks take, once nothing is left to be collected.
func memory() int64 {
	var m runtime.MemStats
	for range 3 { // pools need two rounds
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// Thousands of idle sessions cost little, and when the listener's side closes all their connections at once, all come
// back soon, without a storm.
func TestSessionMany(t *testing.T) {
	want := 1000
	if os.Getenv("TOWLINE_BIG") != "" {
		want = 10_000
	}
	// Each session has a descriptor at both ends, and a second pair for a moment when it resumes.
	n := min(want, int(descriptors(t, uint64(2*want+2000))-1000)/2)
	if n < min(want, 2000) {
		t.Skipf("there are descriptors for %d sessions alone", n)
	}
	// Ports that have just been used are not free for a minute: each run gets an address of its own.
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		host = fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()%200, time.Now().UnixNano()/1000%250, 1+time.Now().UnixNano()/1000_000%250)
	}
	ln, err := net.Listen("tcp", host+":0")
	require.NoError(t, err)
	l := reconnect.NewListener(ln, nil)
	ctx := limited(t, 2*time.Minute)

	var (
		mu                sync.Mutex
		dials             atomic.Int64
		cut               atomic.Pointer[time.Time]
		resumed           = make([]time.Duration, 0, n)
		allResumed        = make(chan struct{})
		accepted, dialled []*reconnect.Conn
	)
	dialer := transport.DialerFunc(func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return tcp.Dialer{Addr: ln.Addr().String()}.DialContext(ctx)
	})
	o := &reconnect.DialOptions{SessionOptions: reconnect.SessionOptions{OnEvent: func(_ *reconnect.Conn, e reconnect.Event) {
		if e.Kind == reconnect.EventResumed && cut.Load() != nil {
			mu.Lock()
			defer mu.Unlock()
			if resumed = append(resumed, e.Time.Sub(*cut.Load())); len(resumed) == n {
				close(allResumed)
			}
		}
	}}}
	defer func() {
		_ = l.Close()
		for _, c := range append(accepted, dialled...) {
			c.CloseNow()
		}
		for _, c := range dialled {
			<-c.Done()
		}
	}()

	before, goroutines := memory(), runtime.NumGoroutine()
	begin := time.Now()
	accepting := make(chan error, 1)
	go func() {
		for range n {
			c, err := l.Accept(ctx)
			if err != nil {
				accepting <- err
				return
			}
			accepted = append(accepted, c)
		}
		accepting <- nil
	}()
	tokens := make(chan struct{}, 100)
	for range n {
		tokens <- struct{}{}
		go func() {
			defer func() { <-tokens }()
			c, err := reconnect.Dial(ctx, dialer, o)
			if !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, c)
		}()
	}
	require.NoError(t, <-accepting)
	for range cap(tokens) {
		tokens <- struct{}{}
	}
	require.Len(t, dialled, n)
	t.Logf("%d sessions began in %v, with %d dials", n, time.Since(begin), dials.Load())
	require.EqualValues(t, n, dials.Load())

	// A message each way, so that all are in use; then all are idle.
	for i := range n {
		require.NoError(t, dialled[i].Writer().Send(ctx, datagram.Datagram{Payload: []byte("to")}))
		require.NoError(t, accepted[i].Writer().Send(ctx, datagram.Datagram{Payload: []byte("fro")}))
	}
	for i := range n {
		for _, c := range []*reconnect.Conn{dialled[i], accepted[i]} {
			_, err := c.Reader().Receive(ctx)
			require.NoError(t, err)
			require.NoError(t, c.Writer().Flush(ctx))
		}
	}
	perSession := func(what string) {
		var each int
		require.Eventually(t, func() bool { // goroutines that write are about to end
			each = runtime.NumGoroutine() - goroutines
			return each <= 2*n+n/20+20
		}, patience, 10*time.Millisecond, "goroutines")
		used := memory() - before
		t.Logf("%s: %d bytes of heap and stacks and %.2f goroutines for an idle session, both ends together",
			what, used/int64(n), float64(each)/float64(n))
		if !race {
			assert.Less(t, used/int64(n), int64(64<<10))
		}
	}
	perSession("at first")

	now := time.Now()
	cut.Store(&now)
	for _, c := range accepted {
		c.NetConn().Close()
	}
	closing := time.Since(now)
	select {
	case <-allResumed:
	case <-ctx.Done():
		require.FailNow(t, "not all sessions have resumed", "%d of %d", len(resumed), n)
	}
	total := time.Since(now)
	p50, p99, highest := quantiles(resumed)
	redials := dials.Load() - int64(n)
	t.Logf("all connections closed within %v; resumed after p50 %v, p99 %v, max %v; total %v; %d dials for %d sessions",
		closing, p50, p99, highest, total, redials, n)
	assert.LessOrEqual(t, redials, int64(n)*3/2, "a storm")
	for i, c := range dialled {
		require.EqualValues(t, 1, c.Stats().Resumes, i)
	}
	for i := range n {
		require.NoError(t, cmp.Or(dialled[i].Err(), accepted[i].Err()))
		require.NoError(t, dialled[i].Writer().Send(ctx, datagram.Datagram{Payload: []byte("again")}))
	}
	for _, c := range accepted {
		d, err := c.Reader().Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, "again", string(d.Payload))
	}
	for _, c := range dialled {
		require.NoError(t, c.Writer().Flush(ctx))
	}
	perSession("after all")
}
