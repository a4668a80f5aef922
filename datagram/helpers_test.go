package datagram_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/towline-mq/towline/datagram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errPassing is an error after which a stream goes on.
var errPassing = os.ErrDeadlineExceeded

// chunked gives data in reads of at most the given sizes, taken in turn; 0 is a passing error. Without sizes a read
// takes all it can. It remembers the longest slice it was asked to fill.
type chunked struct {
	data    []byte
	sizes   []int
	i       int
	end     error // after data; nil: io.EOF
	longest int
	reads   int
}

func (c *chunked) Read(p []byte) (int, error) {
	c.reads++
	c.longest = max(c.longest, len(p))
	if len(c.data) == 0 {
		if c.end != nil {
			return 0, c.end
		}
		return 0, io.EOF
	}
	n := len(p)
	if len(c.sizes) > 0 {
		n = min(n, c.sizes[c.i%len(c.sizes)])
		c.i++
		if n == 0 {
			return 0, errPassing
		}
	}
	n = copy(p[:n], c.data)
	c.data = c.data[n:]
	return n, nil
}

// readAll reads to the first error that does not pass, and checks that it is final.
func readAll(t require.TestingT, r *datagram.Reader) ([]datagram.Datagram, error) {
	var got []datagram.Datagram
	for {
		d, err := r.Read()
		switch {
		case err == nil:
			got = append(got, d)
		case errors.Is(err, errPassing), errors.Is(err, iotest.ErrTimeout):
		default:
			for range 2 {
				_, again := r.Read()
				require.Equal(t, err, again, "a final error is returned again")
			}
			_, ok, again := r.Next()
			require.False(t, ok)
			require.Equal(t, err, again)
			require.Equal(t, err, r.Fill())
			return got, err
		}
	}
}

// readRuns is readAll by Frames. It takes the runs apart, and checks what holds of each.
func readRuns(t require.TestingT, r *datagram.Reader) ([]datagram.Datagram, error) {
	var got []datagram.Datagram
	for {
		run, err := r.Frames()
		if err == nil && run.N > 0 {
			requireRun(t, run)
			for d, ok := run.Next(); ok; d, ok = run.Next() {
				got = append(got, d)
			}
			continue
		}
		require.Zero(t, run)
		if err == nil {
			err = r.Fill()
		}
		switch {
		case err == nil, errors.Is(err, errPassing), errors.Is(err, iotest.ErrTimeout):
		default:
			for range 2 {
				run, again := r.Frames()
				require.Zero(t, run)
				require.Equal(t, err, again, "a final error is returned again")
			}
			_, again := r.Read()
			require.Equal(t, err, again)
			require.Equal(t, err, r.Fill())
			return got, err
		}
	}
}

// requireRun checks a run that Frames returned, header by header.
func requireRun(t require.TestingT, run datagram.Run) {
	raw, n := run.Raw, 0
	for ; len(raw) > 0; n++ {
		require.GreaterOrEqual(t, len(raw), datagram.HeaderSize)
		h := datagram.ParseHeader(raw)
		require.Equal(t, run.Version, h.Version)
		require.GreaterOrEqual(t, h.Size, uint32(4))
		frame := int(h.Size) + 4
		require.LessOrEqual(t, frame, len(raw), "the frames are whole")
		if frame >= datagram.LargeFrame || h.Version == datagram.ControlVersion {
			require.Equal(t, 1, run.N)
		}
		raw = raw[frame:]
	}
	require.Equal(t, n, run.N)
	if len(run.Raw) < datagram.LargeFrame || run.N > 1 {
		require.Equal(t, len(run.Raw), cap(run.Raw), "an append must not reach what follows")
		require.LessOrEqual(t, len(run.Raw), datagram.MaxSlab)
	}
}

// ways are the ways to take all datagrams of a stream of such.
var ways = map[string]func(require.TestingT, *datagram.Reader) ([]datagram.Datagram, error){
	"Read": readAll, "Frames": readRuns,
}

func encode(t require.TestingT, ds ...datagram.Datagram) []byte {
	var out []byte
	for _, d := range ds {
		var err error
		out, err = datagram.Append(out, d)
		require.NoError(t, err)
	}
	return out
}

// requireSame compares datagrams by content: an empty payload may be nil.
func requireSame(t require.TestingT, want, got []datagram.Datagram) {
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].Recipient, got[i].Recipient, "datagram %d", i)
		require.Equal(t, string(want[i].Payload), string(got[i].Payload), "datagram %d", i)
	}
}

// noise is what pattern is cut from. Its length is a prime, so that no power of two lands on the same bytes.
var noise = func() []byte {
	p := make([]byte, 1_000_003)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}()

// pattern returns n bytes that differ from those of another seed.
func pattern(seed, n int) []byte {
	p := make([]byte, 0, n)
	at := seed * 7919 % len(noise)
	for len(p) < n {
		m := min(n-len(p), len(noise)-at)
		p = append(p, noise[at:at+m]...)
		at = 0
	}
	return p
}

// pair returns the two ends of a loopback connection of the network "tcp" or "unix".
func pair(t testing.TB, network string) (c, s net.Conn) {
	addr := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "towline") //nolint:usetesting // the names of tests are too long for socket paths
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		addr = dir + "/s"
	}
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer ln.Close()
	c, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	s, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(); s.Close() })
	return c, s
}
