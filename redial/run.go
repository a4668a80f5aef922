package redial

import (
	"context"
	"errors"
	"net"

	"github.com/towline-mq/towline/transport"
)

// Again is what a function that [Run] calls returns, bare or wrapped, to be called with another connection.
var Again = errors.New("redial: again") //nolint:revive,staticcheck // a verdict, and not a failure

// Run dials, calls f with the connection, and closes it when f returns. What f returns decides:
//
//   - nil: done. Run returns nil.
//   - [Again]: the connection was of use; dial again, in a new outage. That is at once, unless the connection lasted for less
//     than 100 ms: then there is a pause of up to the rest of these.
//   - an error marked by [Fatal]: Run returns it, and errors.Is and errors.As see what was marked.
//   - any other error is judged by Policy.IsFatal: returned if it is fatal, or else a failed attempt, unless the
//     connection lasted for Policy.StableAfter: dial again, within the policy's limits and waits. A connection that
//     was closed on this side ([net.ErrClosed]) can be followed by another. So f may return what Read and Write say.
//
// The ctx of f ends with Run's, and the connection is then closed, so that a Read ends. Run returns when f has; with
// an [*Error] if no connection could be made, or if ctx ended and f did not return nil: it then matches ctx's error and
// what f said. Policy may be nil.
func Run(ctx context.Context, d transport.Dialer, policy *Policy, f func(ctx context.Context, conn net.Conn) error) error {
	r := New([]transport.Dialer{d}, policy)
	defer r.Close() //nolint:errcheck // always nil
	for {
		link, err := r.Dial(ctx)
		if err != nil {
			return err
		}
		err = serve(ctx, link.Conn, f)
		again := errors.Is(err, Again)
		switch {
		case err == nil:
			return nil
		case isMarked(err):
			return err
		case ctx.Err() != nil:
			return &Error{Reason: endOf(ctx), Attempts: link.Attempts, Last: err, Causes: []error{err}}
		case again:
			link.Progress()
			link.breathe()
		case !errors.Is(err, net.ErrClosed) && r.set.Load().IsFatal(err):
			return err
		}
	}
}

// serve lets f have conn until it returns.
func serve(ctx context.Context, conn net.Conn, f func(context.Context, net.Conn) error) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	return f(ctx, conn)
}
