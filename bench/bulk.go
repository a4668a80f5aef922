package main

import (
	"bufio"
	"context"
	"io"
	"sync"

	"github.com/towline-mq/towline/datagram"
)

// bulkSize is the payload of a bulk transfer's messages, and bulkRecipient their tag.
const (
	bulkSize      = 64 << 10
	bulkRecipient = 8
)

// beside is echo beside a bulk transfer in the direction of the questions, as fast as it goes, on the same connection.
func (e *ends) beside(size int) *echo {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for d, err := range e.accepted.Reader().All(ctx) {
			if err != nil {
				return
			}
			if d.Recipient != bulkRecipient && e.accepted.Writer().Send(ctx, d) != nil {
				return
			}
		}
	}()
	w, r := e.dialled.Writer(), e.dialled.Reader()
	var wg sync.WaitGroup
	wg.Go(func() {
		d := datagram.Datagram{Recipient: bulkRecipient, Payload: payload(bulkSize)}
		for w.Send(ctx, d) == nil { // until cancel
		}
	})
	d := datagram.Datagram{Recipient: 7, Payload: payload(size)}
	return &echo{
		ask: func(ctx context.Context) error {
			if err := w.Send(ctx, d); err != nil {
				return err
			}
			_, err := r.Receive(ctx)
			return err
		},
		close: func() {
			cancel()
			wg.Wait()
			e.close()
		},
	}
}

// floorBeside is the same for the floor: whoever writes has the connection for one message.
func (s *secrets) floorBeside(ctx context.Context, transport string, size int) (*echo, error) {
	c, a, err := s.rawPair(ctx, transport)
	if err != nil {
		return nil, err
	}
	go func() {
		r := bufio.NewReaderSize(a, 64<<10)
		buf := make([]byte, headerSize+bulkSize)
		for {
			if _, err := io.ReadFull(r, buf[:headerSize]); err != nil {
				return
			}
			n := sizeIn(buf)
			if _, err := io.ReadFull(r, buf[headerSize:headerSize+n]); err != nil {
				return
			}
			if n != bulkSize {
				if _, err := a.Write(buf[:headerSize+n]); err != nil {
					return
				}
			}
		}
	}()
	var mu sync.Mutex
	var wg sync.WaitGroup
	frame := func(size int) []byte {
		f := append(make([]byte, headerSize), payload(size)...)
		putHeader((*[headerSize]byte)(f), size)
		return f
	}
	write := func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := c.Write(p)
		return err
	}
	wg.Go(func() {
		for bulk := frame(bulkSize); write(bulk) == nil; { // until close
		}
	})
	out, in := frame(size), make([]byte, headerSize+size)
	return &echo{
		ask: func(context.Context) error {
			if err := write(out); err != nil {
				return err
			}
			_, err := io.ReadFull(c, in)
			return err
		},
		close: func() {
			_ = c.Close()
			_ = a.Close()
			wg.Wait()
		},
	}, nil
}
