package blackbox

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// frame is written by hand here: this is the foreign side.
func frame(recipient uint16, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(payload)))
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, recipient)
	return append(b, payload...)
}

// exchange does what "nc -N" does: it sends all of stream, ends its sending, and returns what comes back until the end.
func exchange(t testing.TB, addr string, stream []byte) []byte {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	_, err := c.Write(stream)
	require.NoError(t, err)
	_ = c.CloseWrite() // the server may have closed already
	back, err := io.ReadAll(c)
	require.NoError(t, err, "the server closes in good order, and resets nobody")
	return back
}

func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c.(*net.TCPConn)
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile("../../testdata/datagram.json")
	require.NoError(t, err)
	var vectors []struct {
		Name, Stream string
		MaxPayload   int64 `json:"max_payload"`
		Frames       []struct {
			Recipient uint16
			Payload   string
		}
		Error string
	}
	require.NoError(t, json.Unmarshal(raw, &vectors))
	require.NotEmpty(t, vectors)

	servers := map[int64]*server{}
	bad := map[int64]int{}
	for _, v := range vectors {
		if v.MaxPayload > 1<<31-9 {
			continue // more than --max-size takes
		}
		s := servers[v.MaxPayload]
		if s == nil {
			var flags []string
			if v.MaxPayload > 0 {
				flags = []string{"--max-size", strconv.FormatInt(v.MaxPayload, 10)}
			}
			s = startServer(t, []string{"tcp://127.0.0.1:0"}, flags...)
			servers[v.MaxPayload] = s
		}
		stream, err := hex.DecodeString(v.Stream)
		require.NoError(t, err, v.Name)
		var want []byte
		for _, f := range v.Frames {
			payload, err := hex.DecodeString(f.Payload)
			require.NoError(t, err, v.Name)
			want = append(want, frame(f.Recipient, payload)...)
		}
		got := exchange(t, s.addr(0), stream)
		assert.Equal(t, hex.EncodeToString(want), hex.EncodeToString(got), v.Name)
		if v.Error != "" {
			bad[v.MaxPayload]++
		}
	}
	for limit, s := range servers {
		if bad[limit] > 0 {
			s.err.wait(t, "level=WARN", min(bad[limit], 100)) // it broke the protocol, or began with what begins no session
		}
		s.stop()
		assert.Equal(t, min(bad[limit], 100), strings.Count(s.err.text(), "level=WARN"), "one line for each, up to the limit")
	}
}

func TestBadStreams(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0", "tcp://127.0.0.1:0"}, "--max-size", "1000")
	good := frame(7, []byte("good"))
	seen := 0
	for name, tc := range map[string]struct {
		stream string // hex, behind a good frame
		logged string
	}{
		"size 0":          {"00000000 0001 0007", "size"},
		"size 1":          {"00000001 0001 0007", "size"},
		"size 2":          {"00000002 0001 0007", "size"},
		"size 3":          {"00000003 0001 0007", "size"},
		"above the limit": {"000003ed 0001 0007", "1000"},
		"2^32-1":          {"ffffffff 0001 0007", "1000"},
		"version 0":       {"00000004 0000 0007", "version"},
		"version 9":       {"00000004 0009 0007", "version"},
	} {
		t.Run(name, func(t *testing.T) {
			bad, err := hex.DecodeString(strings.ReplaceAll(tc.stream, " ", ""))
			require.NoError(t, err)
			seen++
			assert.Equal(t, good, exchange(t, s.addr(0), append(append([]byte(nil), good...), bad...)), "what was good is echoed")
			assert.Contains(t, s.err.wait(t, "the peer broke the protocol", seen), tc.logged)
			seen++
			assert.Empty(t, exchange(t, s.addr(0), bad))
			s.err.wait(t, "the peer broke the protocol", seen)
		})
	}
	stream := append(frame(1, []byte("one")), frame(2, []byte("two"))...)
	for cut := range stream {
		whole := stream[:cut/11*11]
		assert.Equal(t, string(whole), string(exchange(t, s.addr(1), stream[:cut])), "cut at %d", cut)
		if cut%11 != 0 {
			seen++
			assert.Contains(t, s.err.wait(t, "the peer broke the protocol", seen), "the stream ended inside a datagram")
		}
	}
	client(t, strings.NewReader("still there?\n"), s.to(0)...).require(t, 0, "each once")
	s.stop()
}

// rss returns the resident memory of a process, now and at its highest, in bytes.
func rss(t testing.TB, pid int) (now, highest int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		for name, dst := range map[string]*int{"VmRSS:": &now, "VmHWM:": &highest} {
			if rest, ok := strings.CutPrefix(line, name); ok {
				kb, err := strconv.Atoi(strings.Fields(rest)[0])
				require.NoError(t, err)
				*dst = kb << 10
			}
		}
	}
	return now, highest
}

// Peers that announce much and send little, one after the other and at once, cost next to nothing.
func TestBadStreamsTakeNoMemory(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0"}, "--max-size", "100000000")
	announced := []byte{0x05, 0xf5, 0xe1, 0x04, 0, 1, 0, 7, 'x'} // 100,000,000 bytes, of which one comes
	flood := func() {
		var conns []*net.TCPConn
		for range 100 {
			c := dial(t, s.addr(0))
			_, err := c.Write(announced)
			require.NoError(t, err)
			conns = append(conns, c)
		}
		for _, c := range conns {
			require.NoError(t, c.CloseWrite())
			_, err := io.ReadAll(c)
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
	}
	flood()
	before, _ := rss(t, s.cmd.Process.Pid)
	for range 5 {
		flood()
	}
	after, highest := rss(t, s.cmd.Process.Pid)
	allowed := 32 << 20
	if race {
		allowed *= 8
	}
	assert.Less(t, after-before, allowed, "from %d to %d", before, after)
	assert.Less(t, highest-before, allowed)
	// 600 of these, and a log that stays short.
	assert.LessOrEqual(t, strings.Count(s.err.text(), "\n"), 250)
	s.stop()
}

// A peer that sends for ever and never reads is not read from either, and stalls nobody.
func TestSlowReader(t *testing.T) {
	s := startServer(t, []string{"tcp://127.0.0.1:0"}, "--drain", "200ms")
	before, _ := rss(t, s.cmd.Process.Pid)
	for range 3 {
		f := frame(1, make([]byte, 60_000))
		c := dial(t, s.addr(0))
		defer c.Close()
		stuck := 0
		for stuck < 3 {
			require.NoError(t, c.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
			if n, err := c.Write(f); err != nil {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				if n == 0 {
					stuck++
				} else {
					f = append(f[n:], f[:n]...) // goes on where it stopped
				}
			}
		}
	}
	client(t, bytes.NewReader(numbers(20_000)), s.to(0)...).require(t, 0, "each once")
	after, _ := rss(t, s.cmd.Process.Pid)
	if !race {
		assert.Less(t, after-before, 32<<20, "from %d to %d", before, after)
	}
	s.stop() // and they do not hold up the end for longer than --drain
	assert.Contains(t, s.err.text(), "connections cut")
}

// A server that ran out of file descriptors neither ends nor spins.
func TestOutOfDescriptors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs ulimit")
	}
	s := start(t, 1, shell(t, `ulimit -n 40 && exec echo-server --listen tcp://127.0.0.1:0`))
	var conns []*net.TCPConn
	for range 60 {
		conns = append(conns, dial(t, s.addr(0))) // in the kernel's queue, if not accepted
	}
	_, err := conns[0].Write(frame(1, []byte("first")))
	require.NoError(t, err)
	back := make([]byte, len(frame(1, []byte("first"))))
	_, err = io.ReadFull(conns[0], back)
	require.NoError(t, err)
	last := conns[len(conns)-1]
	_, err = last.Write(frame(1, []byte("last!")))
	require.NoError(t, err)
	for _, c := range conns[:len(conns)-1] {
		require.NoError(t, c.Close())
	}
	_, err = io.ReadFull(last, back)
	require.NoError(t, err, "it is served when there is room")
	require.NoError(t, last.Close())
	s.stop()
	assert.Less(t, s.cmd.ProcessState.SystemTime()+s.cmd.ProcessState.UserTime(), 5*time.Second)
}

func TestStaleSocketFile(t *testing.T) {
	url := "unix://" + filepath.Join(t.TempDir(), "s")
	s := startServer(t, []string{url})
	require.NoError(t, s.cmd.Process.Kill())
	s.exit()
	s = startServer(t, []string{url})
	client(t, strings.NewReader("x"), s.to(0)...).require(t, 0, "each once")
	s.stop()
	_, err := os.Stat(strings.TrimPrefix(url, "unix://"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}
