package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/towline-mq/towline/mux"
	"github.com/towline-mq/towline/reconnect"
	towtls "github.com/towline-mq/towline/transport/tls"
)

// queue keeps the jobs that wait, those that are at work, and the workers that want some.
type queue struct {
	server *mux.Server
	ctx    context.Context // while it is dealt

	mu      sync.Mutex
	next    uint64
	waiting []*task
	at      map[uint64]*task // by the number that its worker knows
	want    []*mux.Conn      // once for each job that it takes
}

// task is a job, for whom it is, and who has it.
type task struct {
	job    Job
	from   uint64
	worker *mux.Conn
}

// serve runs the queue until ctx ends, and then for 10 s at most until all is said.
func serve(ctx context.Context, addr, cert, key string, out io.Writer) error {
	identity, err := (&towtls.Files{Cert: cert, Key: key}).Server()
	if err != nil {
		return err
	}
	ln, err := towtls.Listen(ctx, addr, &towtls.Config{TLS: identity})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, ln.Addr())
	// Numbers begin anywhere, so that a result which a worker owes the queue before this one is not taken for another.
	q := &queue{ctx: ctx, at: map[uint64]*task{}, next: rand.Uint64()}
	q.server = mux.NewServer(protocol(&mux.Options{Closed: q.closed}, q.job, q.result, q.wanted))
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- q.server.Shutdown(limit)
	})
	if err := q.server.Serve(reconnect.NewListener(ln, nil)); !errors.Is(err, mux.ErrServerClosed) || stop() {
		return err
	}
	return <-stopped
}

func (q *queue) job(_ context.Context, c *mux.Conn, j Job) error {
	q.mu.Lock()
	q.waiting = append(q.waiting, &task{job: j, from: c.ID()})
	q.mu.Unlock()
	q.deal()
	return nil
}

func (q *queue) wanted(_ context.Context, c *mux.Conn, w Want) error {
	q.mu.Lock()
	for range min(w.N, 100) {
		q.want = append(q.want, c)
	}
	q.mu.Unlock()
	q.deal()
	return nil
}

func (q *queue) result(ctx context.Context, c *mux.Conn, r Result) error {
	q.mu.Lock()
	t := q.at[r.ID]
	if t == nil {
		q.mu.Unlock()
		return nil // of a queue before this one, or of a worker that was taken for lost
	}
	if t.worker != c {
		q.mu.Unlock()
		return fmt.Errorf("a result that is not this worker's: %d", r.ID)
	}
	delete(q.at, r.ID)
	q.mu.Unlock()
	if to, ok := q.server.Conn(t.from); ok {
		_ = mux.Send(ctx, to, Result{t.job.ID, r.Text}) // fails if nobody waits for it any more
	}
	return nil
}

// deal gives jobs to those that want some.
func (q *queue) deal() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 || len(q.want) == 0 {
			q.mu.Unlock()
			return
		}
		t, worker := q.waiting[0], q.want[0]
		q.waiting, q.want = q.waiting[1:], q.want[1:]
		q.next++
		id := q.next
		t.worker, q.at[id] = worker, t
		q.mu.Unlock()
		_ = mux.Send(q.ctx, worker, Job{id, t.job.Text}) // fails if the worker is gone, of which closed is told
	}
}

// closed takes back what a worker that is gone for good had at work or wanted.
func (q *queue) closed(c *mux.Conn, _ error) {
	q.mu.Lock()
	want := q.want[:0]
	for _, w := range q.want {
		if w != c {
			want = append(want, w)
		}
	}
	q.want = want
	for id, t := range q.at {
		if t.worker == c {
			delete(q.at, id)
			q.waiting = append(q.waiting, t)
		}
	}
	q.mu.Unlock()
	q.deal()
}
