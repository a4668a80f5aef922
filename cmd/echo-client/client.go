package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/towline-mq/towline/cmd/internal/program"
	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
)

const (
	// graceTime is how long the client still listens, for duplicates, to a server that has sent everything back and
	// does not close; and for what is on its way after Ctrl-C.
	graceTime = time.Second
	// slowest is the rate, in bytes a second, at which a slow line may still carry what is on its way.
	slowest = 64 << 10
	// highestRTT is the longest round trip that the histogram tells from longer ones.
	highestRTT = time.Hour
)

// client is one connection, or one session after the other, and what goes over it. Two goroutines work on it: send and
// receive; a third one sends again what a lost session has not brought back.
type client struct {
	o       *options
	session *session // nil with --plain
	src     source
	out     *bufio.Writer // nil in load mode
	tracker *tracker
	start   time.Time

	ctx  context.Context // ends with run, or when it gives up
	over context.CancelFunc
	work sync.WaitGroup // what ends soon after ctx

	stopOnce sync.Once
	stop     chan struct{} // closed when no more is to be sent
	allSent  chan struct{} // closed by send when nothing is left to be sent, before it tells the server
	inputErr error         // why that is so, if not the end of the input; to be read when allSent is closed

	// sending is held from the moment when datagrams are admitted until conn has accepted them, and while others are sent
	// again before them.
	sending sync.Mutex

	mu        sync.Mutex
	conn      *reconnect.Conn
	renewed   chan struct{} // closed when there is another conn
	resending bool
	noMore    bool   // nothing new will be sent; resend has to tell the server, if it is at work
	past      totals // of the sessions before conn

	writing     atomic.Bool // receive is busy with the output
	redelivered atomic.Uint64
	cuts        atomic.Uint64

	// Owned by receive, and free to be read when it has ended.
	lastByte byte // written to out; newline at first
	rtt      *hdrhistogram.Histogram
}

func newClient(o *options, conn *reconnect.Conn, s *session, input io.Reader, stdout io.Writer) *client {
	c := &client{
		o: o, session: s, conn: conn, renewed: make(chan struct{}), start: time.Now(), stop: make(chan struct{}),
		allSent: make(chan struct{}), lastByte: '\n', rtt: hdrhistogram.New(1, int64(highestRTT), 3),
	}
	c.ctx, c.over = context.WithCancel(context.Background())
	var number func([]byte) (uint64, bool)
	var remake func(uint64) []byte
	if o.load {
		l := newLoader(o.size, o.count)
		if o.size >= 8 {
			number = l.number
		}
		remake = l.make
		c.src = l
	} else {
		c.src = newCutter(input, o.chunk, o.maxPayload())
		c.out = bufio.NewWriterSize(stdout, 64<<10)
	}
	c.tracker = newTracker(o.recipient, o.inflight, number, func(d time.Duration) {
		_ = c.rtt.RecordValue(int64(min(max(d, 1), highestRTT))) // always in range
	})
	c.tracker.keep, c.tracker.remake = s != nil && !o.load, remake
	return c
}

func (c *client) clock() time.Duration { return time.Since(c.start) }

// refusedError is a server that took the connection and then would not have this client.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// run sends and receives until all is over. The error says what went wrong on the way, as a person would want to read
// it; that something is missing is the tracker's to tell.
func (c *client) run(ctx context.Context) error {
	defer func() {
		c.over()
		c.work.Wait()
	}()
	if c.o.cut > 0 {
		c.work.Go(func() { c.cutEvery(c.o.cut) })
	}
	if c.o.duration > 0 {
		defer time.AfterFunc(c.o.duration, c.stopSending).Stop()
	}
	sent, received := make(chan struct{}), make(chan error, 1)
	go func() { c.send(); close(sent) }()
	ended := make(chan struct{}) // receive has
	go func() { received <- c.receive(); close(ended) }()

	var (
		failed    error // the first thing that went wrong on this side
		sending   = true
		interrupt = ctx.Done()
		wait      = c.o.wait
		tick      = time.NewTicker(50 * time.Millisecond)
		since     time.Time // when the last datagram had been sent
		stalled   time.Time // when the output was last seen to hold things up
	)
	defer tick.Stop()
	finish := func(err error) error {
		c.stopSending()
		c.over()
		_ = c.current().CloseNow() // there is nothing left to flush, or nobody to flush it to
		select {
		case <-ended:
		case <-time.After(graceTime): // it is stuck in writing the output
		}
		return err
	}
	for {
		select {
		case <-sent:
			sent = nil
			sending, since = false, time.Now()
			if failed == nil {
				failed = c.inputErr
			}
		case err := <-received:
			over := interrupt == nil
			select {
			case <-c.allSent:
				over = true
				if failed == nil {
					failed = c.inputErr
				}
			default:
			}
			_, awaited := c.tracker.counts()
			if failed == nil && (!over || awaited > 0 || err != io.EOF) {
				failed = c.lost(err)
			}
			if err == io.EOF && c.session != nil {
				c.partFromServer()
			}
			return finish(failed)
		case <-interrupt:
			interrupt = nil
			wait = graceTime
			select {
			case <-c.allSent:
				if failed == nil {
					failed = c.inputErr
				}
			default:
				switch {
				case failed != nil:
				case !c.o.load:
					failed = errors.New("interrupted before the end of the input")
				case c.o.count > 0:
					failed = fmt.Errorf("interrupted before all %d were sent", c.o.count)
				}
			}
			c.stopSending()
			if sending {
				// The goroutine may be reading from a terminal, which nothing ends.
				sending, since = false, time.Now()
				go c.closeSend()
			}
		case <-tick.C:
			if c.writing.Load() {
				stalled = time.Now() // whoever reads the output takes their time: nothing can come back meanwhile
			}
			counts, awaited := c.tracker.counts()
			n, bytes := c.tracker.onTheWay()
			patience := wait
			if interrupt != nil && c.current().State() == reconnect.Connected {
				patience += time.Duration(bytes) * time.Second / slowest
			}
			quiet := min(time.Since(c.start.Add(counts.moved)), time.Since(stalled))
			if sending {
				select {
				case <-c.allSent: // what is left of the sending is to tell the server so, which may not be there
					sending, since = false, time.Now()
				default:
				}
			}
			switch {
			case !sending && awaited == 0 && min(quiet, time.Since(since)) >= graceTime:
				return finish(failed)
			case (n > 0 || !sending && awaited > 0) && quiet >= patience:
				if failed == nil && interrupt != nil {
					failed = c.silence(patience, awaited)
				}
				return finish(failed)
			}
		}
	}
}

// partFromServer ends a session whose both ends have said all, so that the server knows it, and keeps nothing for a client
// that does not come back.
func (c *client) partFromServer() {
	ctx, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	_ = c.current().Close(ctx) // all that counts has come back
}

// silence explains that nothing came back for too long.
func (c *client) silence(patience time.Duration, awaited uint64) error {
	why := ""
	if c.session != nil {
		why = c.session.why()
	}
	if why != "" {
		why = " (" + why + ")"
	}
	return fmt.Errorf("nothing came back for %v%s; gave up on %s", patience.Round(time.Millisecond), why, datagrams(awaited))
}

// lost explains the end of the connection before everything had come back.
func (c *client) lost(err error) error {
	counts, awaited := c.tracker.counts()
	var alert tls.AlertError
	var output *outputError
	var lost *reconnect.SessionLostError
	switch {
	case errors.As(err, &output):
		return fmt.Errorf("cannot write the output: %s", program.Reason(output.error))
	case errors.As(err, &lost):
		return fmt.Errorf("%s has lost the session (%s): %s unconfirmed, %d not back",
			c.o.name(), lost.Reason, datagrams(uint64(len(lost.Unconfirmed))), awaited)
	case errors.Is(err, reconnect.ErrTakenOver):
		return fmt.Errorf("somebody else has taken the session over, with %s on the way", datagrams(awaited))
	case errors.Is(err, reconnect.ErrRefused):
		return fmt.Errorf("%s refused the session, with %s on the way: %s", c.o.name(), datagrams(awaited), refusal(err))
	case errors.Is(err, reconnect.ErrPeerClosed):
		return fmt.Errorf("%s ended the session with %s on the way", c.o.name(), datagrams(awaited))
	case errors.Is(err, reconnect.ErrProtocol):
		return fmt.Errorf("%s broke the protocol: %s", c.o.name(), program.OneLine(err.Error()))
	case errors.As(err, &alert) && counts.received == 0:
		return &refusedError{err}
	}
	hint := ""
	if awaited > 0 && max(c.o.chunk, c.o.size) > datagram.DefaultMaxPayload {
		hint = "; the server may take no payloads of this size, see echo-server --max-size"
	}
	if c.o.plain && counts.received == 0 {
		hint += "; it may serve only sessions: leave --plain out"
		hint += tlsHint(c.o.connect[0])
	}
	var frame *datagram.FrameError
	switch {
	case err == io.EOF:
		return fmt.Errorf("%s closed the connection with %s on the way%s", c.o.name(), datagrams(awaited), hint)
	case errors.As(err, &frame):
		return fmt.Errorf("%s broke the protocol: %s", c.o.name(), program.OneLine(err.Error()))
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s closed the connection inside a datagram, with %s on the way%s", c.o.name(), datagrams(awaited), hint)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return fmt.Errorf("%s cut the connection with %s on the way%s", c.o.name(), datagrams(awaited), hint)
	}
	return fmt.Errorf("the connection to %s broke with %s on the way: %s", c.o.name(), datagrams(awaited), reason(err))
}

func datagrams(n uint64) string { return count(n, "datagram") }

// count puts a number before what is counted, in the plural unless it is one.
func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (c *client) stopSending() {
	c.stopOnce.Do(func() { close(c.stop) })
	c.tracker.stop()
}

// send sends all that the source has, and ends the sending side. If the connection breaks meanwhile it says nothing:
// receive does.
func (c *client) send() {
	if c.sendAll() {
		close(c.allSent)
	}
	c.closeSend()
}

// closeSend tells the server that no more will come, and waits until all is written, or the connection has ended. A
// stream that cannot be closed in one direction stays open until everything is back. What is being sent again comes first.
func (c *client) closeSend() {
	c.mu.Lock()
	c.noMore = true
	conn, resending := c.conn, c.resending
	c.mu.Unlock()
	if !resending {
		_ = conn.CloseSend(context.Background())
	}
}

// sendAll sends until the source ends, or stop, or an error of the source, which it notes. It returns false if the
// connection broke for good.
func (c *client) sendAll() bool {
	pace := &pacer{rate: c.o.rate}
	batch := make([]datagram.Datagram, 0, batchCount)
	for {
		payloads, err := c.src.next()
		if err != nil {
			if err != io.EOF {
				c.inputErr = fmt.Errorf("cannot go on with the input: %w", err)
			}
			return true
		}
		for len(payloads) > 0 {
			due := pace.take(len(payloads), c.stop)
			if due == 0 || !c.tracker.await(len(payloads[0])) {
				return true
			}
			n, conn, err := c.sendSome(batch, payloads[:due], len(payloads) == due && c.src.bare())
			pace.giveBack(due - n)
			payloads = payloads[n:]
			switch {
			case err == nil:
			case errors.Is(err, reconnect.ErrSessionLost):
				if !c.awaitRenewal(conn) {
					return false
				}
			case errors.Is(err, datagram.ErrTooLarge):
				c.inputErr = fmt.Errorf("%s takes no payloads of %d bytes, see echo-server --max-size", c.o.name(), len(payloads[0]))
				return true
			default:
				return errors.Is(err, reconnect.ErrClosed)
			}
		}
	}
}

// sendSome sends what the tracker admits, and returns how many the connection accepted. Bare says that the last of them
// is a bare one.
func (c *client) sendSome(batch []datagram.Datagram, payloads [][]byte, bare bool) (int, *reconnect.Conn, error) {
	c.sending.Lock()
	defer c.sending.Unlock()
	conn := c.current()
	n := c.tracker.admit(payloads, bare, c.clock)
	accepted, err := conn.Writer().SendBatch(context.Background(), c.batch(batch, payloads[:n]))
	if err != nil {
		c.tracker.retract(n - accepted)
	}
	return accepted, conn, err
}

// batch puts payloads in datagrams, over those in ds.
func (c *client) batch(ds []datagram.Datagram, payloads [][]byte) []datagram.Datagram {
	ds = ds[:0]
	for _, p := range payloads {
		ds = append(ds, datagram.Datagram{Recipient: c.o.recipient, Payload: p})
	}
	return ds
}

// receive takes what comes back until the connection, or the last session, ends. The error says how: io.EOF if the server
// ended it.
func (c *client) receive() error {
	conn := c.current()
	batch := make([]datagram.Datagram, batchCount)
	for {
		n, err := conn.Reader().ReceiveBatch(context.Background(), batch)
		if errors.Is(err, reconnect.ErrSessionLost) {
			if err = c.renew(err); err == nil {
				conn = c.current()
				continue
			}
		}
		if err != nil {
			return err
		}
		bare := c.tracker.check(batch[:n], c.clock())
		if c.out != nil {
			c.writing.Store(true)
			err := c.write(batch[:n], bare)
			c.writing.Store(false)
			if err != nil {
				return &outputError{err}
			}
		}
		for i := range batch[:n] {
			datagram.Release(batch[i]) // judged and written
		}
		clear(batch[:n])
	}
}

type outputError struct{ error }

// write puts payloads to the output, flushed, so that whoever reads it sees each as soon as it is there.
func (c *client) write(ds []datagram.Datagram, bare int) error {
	for i := range ds {
		p := ds[i].Payload
		_, _ = c.out.Write(p) // Flush tells
		if c.o.chunk == 0 && i != bare {
			_ = c.out.WriteByte('\n')
			c.lastByte = '\n'
		} else if len(p) > 0 {
			c.lastByte = p[len(p)-1]
		}
	}
	return c.out.Flush()
}
