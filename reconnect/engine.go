package reconnect

import (
	"context"
	"net"

	"github.com/towline-mq/towline/datagram"
)

// engine is what carries the datagrams of a Conn, below what is the same for all: the two channels, and who closes
// first. All its methods are safe for any number of goroutines.
type engine interface {
	// What Writer's methods of the same names promise. Contexts that have ended are refused above.
	send(ctx context.Context, d datagram.Datagram, mode sendMode) error
	sendBatch(ctx context.Context, ds []datagram.Datagram) (n int, err error)
	flush(ctx context.Context) error

	// hold counts as accepted, for finish to tell, a datagram that the channel took and that send, told held, will get.
	hold()
	// refusing returns a channel that is closed when send accepts nothing more.
	refusing() <-chan struct{}

	// What Reader's methods of the same names promise, likewise.
	receive(ctx context.Context) (datagram.Datagram, error)
	receiveBatch(ctx context.Context, dst []datagram.Datagram) (n int, err error)
	each(ctx context.Context, f func(datagram.Datagram) error) error

	// canFinish reports whether sending can end while receiving goes on.
	canFinish() bool
	// finishing ends the accepting. The peer is told once it has been sent all.
	finishing()
	// finish is finishing that waits until all is sent and the peer told; if ctx or the connection ends before that, the
	// error is a *CloseError.
	finish(ctx context.Context) error

	// stop makes every receiver return ErrClosed.
	stop()
	// close ends the connection in good order, until ctx ends. stop and finish came before it.
	close(ctx context.Context)
	// giveUp is fail with ErrClosed, after a finish that failed: it lets an end that has come by itself be told until ctx
	// ends.
	giveUp(ctx context.Context)
	// closeNow is fail with ErrClosed that also cuts short a close.
	closeNow()
	// fail ends the connection at once, for the first reason given.
	fail(err error)

	// What Conn's methods of the same names promise.
	done() <-chan struct{}
	err() error
	stats() Stats
	netConn() net.Conn
}

// How send goes about it.
type sendMode int

const (
	noWait sendMode = 1 << iota // a full queue is ErrWouldBlock
	held                        // d was counted by hold
)
