package mem_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/transport/mem"
)

// fetch is the program under test: it asks a server for a line, and asks again on a new connection when the one it has
// breaks before the whole line came.
func fetch(ctx context.Context, d mem.Dialer) (line string, tries int, err error) {
	for ctx.Err() == nil {
		tries++
		conn, err := d.DialContext(ctx)
		if err != nil {
			continue
		}
		line, err = bufio.NewReader(conn).ReadString('\n')
		_ = conn.Close()
		if err == nil {
			return line, tries, nil
		}
		fmt.Printf("got %q, then a reset: %t\n", line, errors.Is(err, syscall.ECONNRESET))
	}
	return "", tries, ctx.Err()
}

// A client survives a connection that breaks in the middle of a message.
func Example() {
	ctx := context.Background()
	var network mem.Network
	l, err := mem.Listen(ctx, "greeter", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "hello, world\n")
			_ = conn.Close()
		}
	}()

	// The first connection breaks when its client has been sent 5 bytes.
	network.Faults().OnConn(func(k int, c *mem.Faults) {
		if k == 1 {
			c.CutAfter(mem.Down, 5, nil)
		}
	})

	line, tries, err := fetch(ctx, mem.Dialer{Network: &network, Addr: "greeter"})
	fmt.Printf("%q after %d tries, %v\n", line, tries, err)
	// Output:
	// got "hello", then a reset: true
	// "hello, world\n" after 2 tries, <nil>
}

func ExampleListen() {
	ctx := context.Background()
	var network mem.Network
	l, err := mem.Listen(ctx, "echo:0", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	fmt.Println(l.Addr())

	_, err = mem.Listen(ctx, "echo:1", &mem.Config{Network: &network})
	fmt.Println(err, errors.Is(err, syscall.EADDRINUSE))
	// Output:
	// echo:1
	// listen mem echo:1: address already in use true
}

func ExampleDialer() {
	ctx := context.Background()
	var network mem.Network
	dialer := mem.Dialer{Network: &network, Addr: "echo"}

	_, err := dialer.DialContext(ctx)
	fmt.Println(err, errors.Is(err, syscall.ECONNREFUSED))

	l, err := mem.Listen(ctx, "echo", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	conn, err := dialer.DialContext(ctx) // it waits in the backlog: nobody need accept it
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	fmt.Println(conn.LocalAddr(), "to", conn.RemoteAddr())
	// Output:
	// dial mem echo: connection refused true
	// echo#1 to echo
}

func ExamplePipe() {
	a, b := mem.Pipe(nil)
	_, _ = io.WriteString(a, "buffered: nobody reads yet")
	_ = a.CloseWrite()

	all, err := io.ReadAll(b)
	fmt.Printf("%s, %v\n", all, err)
	_, _ = io.WriteString(b, "and the other way still works")
	_ = b.Close()
	all, err = io.ReadAll(a)
	fmt.Printf("%s, %v\n", all, err)
	_ = a.Close()
	// Output:
	// buffered: nobody reads yet, <nil>
	// and the other way still works, <nil>
}

func ExampleConn_TryWrite() {
	a, b := mem.Pipe(&mem.Config{Buffer: 4})
	n, err := a.TryWrite([]byte("abcdef"))
	fmt.Println(n, err)
	n, err = a.TryWrite([]byte("ef"))
	fmt.Println(n, err)
	_, _ = a.Close(), b.Close()
	// Output:
	// 4 <nil>
	// 0 <nil>
}

// A black hole is neither an end nor an error: only a deadline gets out of it.
func ExampleFaults_Freeze() {
	a, b := mem.Pipe(nil)
	a.Faults().Freeze(mem.Up)
	_, err := io.WriteString(a, "hello")
	fmt.Println("written:", err)

	buf := make([]byte, 10)
	_ = b.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err = b.Read(buf)
	fmt.Println("frozen:", errors.Is(err, os.ErrDeadlineExceeded))

	_ = b.SetReadDeadline(time.Time{})
	a.Faults().Thaw(mem.Up)
	n, err := b.Read(buf)
	fmt.Printf("thawed: %s, %v\n", buf[:n], err)
	_, _ = a.Close(), b.Close()
	// Output:
	// written: <nil>
	// frozen: true
	// thawed: hello, <nil>
}

// A short write is not the end of the connection: a program that goes on after it has damaged its stream.
func ExampleFaults_FailWrite() {
	a, b := mem.Pipe(nil)
	a.Faults().FailWrite(mem.Up, 2, 3, os.ErrDeadlineExceeded)
	for _, s := range []string{"first ", "second ", "third"} {
		n, err := io.WriteString(a, s)
		fmt.Println(n, err)
	}
	_ = a.Close()
	all, _ := io.ReadAll(b)
	fmt.Printf("%s\n", all)
	_ = b.Close()
	// Output:
	// 6 <nil>
	// 3 write mem pipe:a->pipe:b: i/o timeout
	// 5 <nil>
	// first secthird
}

// A control for one connection of a program that dials by itself, and counts instead of sleeps.
func ExampleFaults_WaitConn() {
	ctx := context.Background()
	var network mem.Network
	l, err := mem.Listen(ctx, "db", &mem.Config{Network: &network})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()

	done := make(chan error, 1)
	go func() { // the program
		conn, err := mem.Dialer{Network: &network, Addr: "db"}.DialContext(ctx)
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		done <- err
	}()

	first, err := network.Faults().WaitConn(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	first.Cut(syscall.EHOSTUNREACH)
	fmt.Println(<-done)
	fmt.Println("cuts:", network.Faults().Stats().Cuts)
	// Output:
	// read mem db#1->db: no route to host
	// cuts: 1
}

// The same faults in front of a connection of another kind.
func ExampleFaults_Wrap() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = l.Close() }()
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}

	var faults mem.Faults
	faults.Corrupt(mem.Up, 1)
	conn := faults.Wrap(c)
	_, _ = io.WriteString(conn, "echo")
	_ = conn.CloseWrite()
	all, err := io.ReadAll(conn)
	fmt.Printf("%q %v\n", all, err)
	_ = conn.Close()
	// Output:
	// "e\x9cho" <nil>
}

// TestKeepaliveInFakeTime shows a test of a timeout of minutes that takes no time: a bubble of testing/synctest, a
// frozen line, and a reader that gives up on a silent peer. It counts as an example; those cannot have a *testing.T.
func TestKeepaliveInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := mem.Pipe(nil)
		peer := make(chan struct{})
		go func() { // the peer says something each minute
			defer close(peer)
			for {
				<-time.After(time.Minute)
				if _, err := io.WriteString(server, "ping"); err != nil {
					return
				}
			}
		}()
		listen := func() error { // the program: two minutes of silence are death
			buf := make([]byte, 16)
			for {
				_ = client.SetReadDeadline(time.Now().Add(2 * time.Minute))
				if _, err := client.Read(buf); err != nil {
					return err
				}
			}
		}

		start := time.Now()
		time.AfterFunc(time.Hour+time.Second, func() { client.Faults().Freeze(mem.Both) })
		require.ErrorIs(t, listen(), os.ErrDeadlineExceeded)
		require.Equal(t, time.Hour+2*time.Minute, time.Since(start))
		_, _ = client.Close(), server.Close()
		<-peer
	})
}
