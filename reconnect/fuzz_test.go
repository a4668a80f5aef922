package reconnect_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/towline-mq/towline/reconnect"
	"github.com/towline-mq/towline/transport/mem"
)

// FuzzFirstBytes gives a real Listener bytes for the beginning of a connection, in two pieces. It guards D5 and D6 of
// docs/delivery.md: the listener neither panics nor hangs, goes on to serve a good client meanwhile, and in the end no
// goroutine and no connection is left. go test runs the seeds. For more:
//
//	go test -run '^$' -fuzz '^FuzzFirstBytes$' -fuzztime 5m ./reconnect
func FuzzFirstBytes(f *testing.F) {
	for _, s := range []string{
		"", "\x00", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"\x00\x00\x00\x06\x00\x01\x00\x01hi", "\x00\x00\x00\x06\x00\x02\x00\x01hi", "\x00\x00\x00\x03\x00\x01\x00\x00",
		"\xff\xff\xff\xff\x00\x01\x00\x00", "\x00\x00\x04\x00\x00\x02\x00\x01", "\x00\x00\x03\xfc\x00\x02\x00\x01",
	} {
		f.Add([]byte(s), uint16(3), byte(0))
	}
	hello := firstWords(f)
	for _, at := range []uint16{0, 1, 7, 8, 9, 50, uint16(len(hello))} {
		f.Add(hello, at, byte(at))
		f.Add(append(bytes.Clone(hello), "\x00\x00\x00\x06\x00\x01\x00\x01hi"...), at, byte(1))
		f.Add(append(bytes.Clone(hello), hello...), at, byte(2))
	}
	f.Fuzz(func(t *testing.T, raw []byte, at uint16, how byte) {
		synctest.Test(t, func(t *testing.T) {
			n := new(mem.Network)
			l := reconnect.NewListener(listenMem(t, n, "s"), &reconnect.ListenOptions{
				Plain: []reconnect.PlainPeers{reconnect.AllowPlain, reconnect.RefusePlain}[how%2], HandshakeTimeout: time.Second, MaxHandshakes: 8,
			})
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			bad, err := mem.Dialer{Network: n, Addr: "s"}.DialContext(ctx)
			require.NoError(t, err)
			require.NoError(t, bad.SetDeadline(time.Now().Add(10*time.Second)))
			split := min(int(at), len(raw))
			bad.Write(raw[:split])
			if how&4 != 0 {
				bad.Close()
			}
			// A good client comes meanwhile.
			good, err := reconnect.Dial(ctx, mem.Dialer{Network: n, Addr: "s"}, nil)
			require.NoError(t, err)
			bad.Write(raw[split:])
			require.NoError(t, good.Writer().Send(ctx, text(1, "hello")))
			for found := false; !found; {
				c, err := l.Accept(ctx)
				require.NoError(t, err)
				if found = c.IsSession() && c.RemoteAddr() == good.LocalAddr(); !found {
					defer c.CloseNow()
					continue
				}
				d, err := c.Reader().Receive(ctx)
				require.NoError(t, err)
				require.Equal(t, text(1, "hello"), d)
				require.NoError(t, good.Close(ctx))
				require.NoError(t, c.Close(ctx))
			}
			answer := make([]byte, 64<<10)
			total := 0
			for {
				k, err := bad.Read(answer)
				if total += k; err != nil {
					break
				}
			}
			require.Less(t, total, 4<<10, "a peer that has proved nothing gets no more than an answer")
			bad.Close()
			require.NoError(t, l.Close())
		})
	})
}

// firstWords is what a dialer says first.
func firstWords(tb testing.TB) []byte {
	n := new(mem.Network)
	ln := listenMem(tb, n, "s")
	defer ln.Close()
	c := reconnect.Open(mem.Dialer{Network: n, Addr: "s"}, nil)
	defer c.CloseNow()
	nc, err := ln.Accept()
	require.NoError(tb, err)
	defer nc.Close()
	b := make([]byte, 2000)
	k, err := nc.Read(b)
	require.NoError(tb, err, fmt.Sprint(k))
	return b[:k]
}
