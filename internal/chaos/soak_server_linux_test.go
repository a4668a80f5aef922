package chaos

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/towline-mq/towline/datagram"
	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/endpoint"
	ttls "github.com/towline-mq/towline/transport/tls"
)

// What both sides of a soak set. Deaths are noticed sooner than by default, so that there are more of them, and a session
// that its dialer has left goes soon.
const (
	soakPing   = time.Second
	soakExpiry = 30 * time.Second
)

// sample is what a process holds, once nothing is left to be collected.
type sample struct {
	Heap       int64 // bytes
	RSS        int64 // bytes
	Goroutines int
	Files      int   // descriptors
	Sessions   int64 // that a server serves
}

func takeSample() sample {
	for range 3 { // pools need two rounds
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := sample{Heap: int64(m.HeapAlloc), Goroutines: runtime.NumGoroutine()}
	files, _ := os.ReadDir("/proc/self/fd") // 0 would be noticed
	s.Files = len(files) - 1                // its own
	var pages, resident int64
	statm, _ := os.ReadFile("/proc/self/statm")
	_, _ = fmt.Sscan(string(statm), &pages, &resident)
	s.RSS = resident * int64(os.Getpagesize())
	return s
}

// soakServerMain is an echo server that says what it holds. Its argument is the transport. It prints its URL, and, in
// JSON, a sample for each line that it reads. It ends with its input, or when the process that started it does.
func soakServerMain(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: TRANSPORT")
	}
	cert, err := ttls.SelfSigned()
	if err != nil {
		return err
	}
	ln, err := endpoint.Listen(context.Background(), args[0]+"://127.0.0.1:0",
		&endpoint.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		return err
	}
	l := reconnect.NewListener(ln, &reconnect.ListenOptions{
		SessionOptions: reconnect.SessionOptions{PingAfter: soakPing}, Expiry: soakExpiry,
	})
	var (
		work     sync.WaitGroup
		sessions atomic.Int64
	)
	work.Go(func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			sessions.Add(1)
			work.Go(func() {
				defer sessions.Add(-1)
				echo(c)
			})
		}
	})
	fmt.Println(args[0] + "://" + ln.Addr().String())
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		s := takeSample()
		s.Sessions = sessions.Load()
		if err := out.Encode(s); err != nil {
			return err
		}
	}
	if err := l.Close(); err != nil {
		return err
	}
	work.Wait()
	return nil
}

// echo sends back all that comes.
func echo(c *reconnect.Conn) {
	ctx := context.Background()
	batch := make([]datagram.Datagram, 64)
	for {
		n, err := c.Reader().ReceiveBatch(ctx, batch)
		if err != nil {
			break
		}
		if _, err := c.Writer().SendBatch(ctx, batch[:n]); err != nil {
			break
		}
		clear(batch[:n])
	}
	ctx, cancel := context.WithTimeout(ctx, soakExpiry)
	defer cancel()
	_ = c.Close(ctx) // the dialer tells what is missing
}

// soakServer is such a process.
type soakServer struct {
	*process
	url string
	in  interface{ Close() error }

	ask func() error
	out *bufio.Reader
}

func startSoakServer(transport string) (*soakServer, error) {
	cmd := self("soak-server", transport)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	s := &soakServer{in: in, out: bufio.NewReader(r)}
	s.ask = func() error { _, err := in.Write([]byte("sample\n")); return err }
	s.process, err = started(cmd)
	_ = w.Close()
	if err != nil {
		return nil, err
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, s.stderr)
	}
	s.url = strings.TrimSpace(line)
	return s, nil
}

func (s *soakServer) sample() (got sample, err error) {
	if err := s.ask(); err != nil {
		return got, err
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		return got, fmt.Errorf("the server has ended: %w: %s", err, s.stderr)
	}
	return got, json.Unmarshal(line, &got)
}
