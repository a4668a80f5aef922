package redial

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// limit is how long the next attempt may take, when the outage has taken elapsed already. Not positive: as long as it
// likes.
func (r *Redialer) limit(elapsed time.Duration) time.Duration {
	limit := r.policy.AttemptTimeout
	if left := r.left(elapsed); left > 0 && (limit < 0 || left < limit) {
		limit = left
	}
	return limit
}

// left is how long the outage may still take, when it has taken elapsed already. 0: as long as it likes.
func (r *Redialer) left(elapsed time.Duration) time.Duration {
	if r.policy.MaxTime <= 0 {
		return 0
	}
	return max(r.policy.MaxTime-elapsed, 1)
}

// admit waits until the hook lets the next attempt begin, for left at most if that is positive. It returns why there is
// to be none: errRestart, as ended says, or what ends the outage.
func (r *Redialer) admit(ctx context.Context, left time.Duration) error {
	if r.policy.OnAttempt == nil {
		return nil
	}
	actx, cancel := bounded(ctx, left)
	defer cancel()
	r.arm(cancel)
	err := r.policy.OnAttempt(actx)
	r.disarm()
	switch why := r.ended(ctx); {
	case why != nil:
		return why
	case r.restarted():
		return errRestart
	case actx.Err() != nil:
		return errTime
	case err == nil:
		return nil
	}
	return Decision{Err: err}.stopped()
}

// attempt dials endpoint i once.
func (r *Redialer) attempt(ctx context.Context, i int, limit time.Duration) (net.Conn, error) {
	r.total++
	actx, cancel := bounded(ctx, limit)
	defer cancel()
	if !r.arm(cancel) {
		return nil, net.ErrClosed
	}
	defer r.disarm()
	conn, err := r.endpoints[i].DialContext(actx)
	if err == nil && conn == nil {
		return nil, Fatal(errors.New("the dialer returned neither a connection nor an error"))
	}
	if err == nil {
		if err = r.prepare(actx, conn, i); err == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
	if ctx.Err() == nil && actx.Err() == context.DeadlineExceeded && !isMarked(err) &&
		(errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded)) {
		return nil, &slowError{limit, err}
	}
	return nil, err
}

// prepare lets the hooks have a new connection, of which they cannot wait for anything longer than ctx lasts.
func (r *Redialer) prepare(ctx context.Context, conn net.Conn, i int) error {
	if r.policy.OnConnected == nil && r.setUp == nil {
		return nil
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	var err error
	if r.policy.OnConnected != nil {
		err = r.policy.OnConnected(ctx, Connection{conn, !r.made, i, r.outage.attempts, r.total})
	}
	if err == nil && r.setUp != nil {
		err = r.setUp(ctx, conn)
	}
	if !stop() {
		<-stopped
		if err == nil {
			err = ctx.Err()
		}
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	return err
}

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}
