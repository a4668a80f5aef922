package datagram_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/towline-mq/towline/datagram"
)

func Example() {
	var stream bytes.Buffer // any io.Writer and io.Reader: a net.Conn, a file, a pipe

	w := datagram.NewWriter(&stream, nil)
	_ = w.Write(datagram.Datagram{Recipient: 7, Payload: []byte("hello")})
	_ = w.Flush()

	r := datagram.NewReader(&stream, nil)
	d, err := r.Read()
	fmt.Println(d.Recipient, string(d.Payload), err)
	// Output: 7 hello <nil>
}

func ExampleAppend() {
	frame, err := datagram.Append(nil, datagram.Datagram{Recipient: 65535, Payload: []byte("Hello world!")})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%x %x %x %q\n", frame[:4], frame[4:6], frame[6:8], frame[8:])
	// Output: 00000010 0001 ffff "Hello world!"
}

func ExampleParse() {
	src := []byte("\x00\x00\x00\x07\x00\x01\x00\x01one" + "\x00\x00\x00\x07\x00\x01\x00\x02two" + "\x00\x00\x00\x09\x00\x01")
	for {
		d, rest, err := datagram.Parse(src)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			fmt.Println(len(rest), "bytes of a frame that is not all there yet")
			return
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %s\n", d.Recipient, d.Payload)
		src = rest
	}
	// Output:
	// 1 one
	// 2 two
	// 6 bytes of a frame that is not all there yet
}

func ExampleHeader() {
	h := datagram.Header{Size: 4 + 5, Version: datagram.Version, Recipient: 7}
	b := h.Append(nil)
	fmt.Printf("% x\n", b)
	fmt.Printf("%+v\n", datagram.ParseHeader(b))
	// Output:
	// 00 00 00 09 00 01 00 07
	// {Size:9 Version:1 Recipient:7}
}

func ExampleReader() {
	stream := strings.NewReader("\x00\x00\x00\x07\x00\x01\x00\x01one\x00\x00\x00\x07\x00\x01\x00\x02two")
	r := datagram.NewReader(stream, nil)
	for {
		d, err := r.Read()
		if err == io.EOF { // the stream ended between two frames
			break
		}
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %s\n", d.Recipient, d.Payload)
	}
	// Output:
	// 1 one
	// 2 two
}

// Next never blocks, so that it can run under a lock, and Fill blocks outside of it. One Fill may bring many datagrams.
func ExampleReader_Fill() {
	stream := strings.NewReader("\x00\x00\x00\x07\x00\x01\x00\x01one\x00\x00\x00\x07\x00\x01\x00\x02two")
	r := datagram.NewReader(stream, nil)
	for {
		d, ok, err := r.Next()
		switch {
		case err != nil:
			panic(err)
		case ok:
			fmt.Println(d)
			continue
		}
		err = r.Fill()
		fmt.Println("fill:", err)
		if err != nil {
			return
		}
	}
	// Output:
	// fill: <nil>
	// recipient 1, 3 bytes
	// recipient 2, 3 bytes
	// fill: EOF
}

// A frame that breaks the rules is a *FrameError, which says what came.
func ExampleFrameError() {
	r := datagram.NewReader(strings.NewReader("HTTP/1.1 400 Bad Request\r\n"), nil)
	_, err := r.Read()
	fmt.Println(err)

	var e *datagram.FrameError
	if errors.As(err, &e) && errors.Is(err, datagram.ErrVersion) {
		fmt.Println("version", e.Value)
	}
	// Output:
	// datagram: received version 12081, expected 1 (header 485454502f312e31); the peer is an HTTP server: check the port
	// version 12081
}

func ExampleWriter() {
	var stream bytes.Buffer
	w := datagram.NewWriter(&stream, nil)
	for i := range 3 {
		if err := w.Write(datagram.Datagram{Recipient: uint16(i), Payload: []byte("hello")}); err != nil {
			panic(err)
		}
	}
	fmt.Println(stream.Len(), "bytes written,", w.Buffered(), "wait")
	if err := w.Flush(); err != nil {
		panic(err)
	}
	fmt.Println(stream.Len(), "bytes written,", w.Buffered(), "wait")
	// Output:
	// 0 bytes written, 39 wait
	// 39 bytes written, 0 wait
}

// Two Buffers taking turns: one is filled while the other is written.
func ExampleBuffer() {
	filling, writing := datagram.NewBuffer(nil), datagram.NewBuffer(nil)
	_ = filling.Append(datagram.Datagram{Recipient: 1, Payload: []byte("one")})
	_ = filling.Append(datagram.Datagram{Recipient: 2, Payload: []byte("two")})

	filling, writing = writing, filling // under a lock, and the rest outside of it
	var stream bytes.Buffer
	n, err := writing.WriteTo(&stream)
	fmt.Println(n, err, writing.Len(), filling.Len())
	// Output: 22 <nil> 0 0
}

func ExampleOptions() {
	w := datagram.NewWriter(io.Discard, &datagram.Options{MaxPayload: 100_000_000})
	fmt.Println(w.Write(datagram.Datagram{Payload: make([]byte, 20_000_000)}))

	w = datagram.NewWriter(io.Discard, &datagram.Options{MaxPayload: 3})
	err := w.Write(datagram.Datagram{Payload: []byte("four")})
	fmt.Println(errors.Is(err, datagram.ErrTooLarge), err)
	// Output:
	// <nil>
	// true datagram: not sent: payload of 4 bytes, the limit is 3
}

// Lines talks to nc and telnet.
func ExampleLines() {
	o := &datagram.Options{Framing: datagram.Lines{Recipient: 7}}

	r := datagram.NewReader(strings.NewReader("hello\nworld\n"), o)
	d, err := r.Read()
	fmt.Println(d.Recipient, string(d.Payload), err)

	w := datagram.NewWriter(os.Stdout, o)
	_ = w.Write(datagram.Datagram{Recipient: 7, Payload: []byte("a line")})
	_ = w.Flush()
	fmt.Println(w.Write(datagram.Datagram{Recipient: 7, Payload: []byte("two\nlines")}))
	// Output:
	// 7 hello <nil>
	// a line
	// datagram: not sent: bad framing; a newline at byte 3 of the payload would end the line
}

func ExampleDatagram_Clone() {
	r := datagram.NewReader(strings.NewReader("\x00\x00\x00\x09\x00\x01\x00\x07hello"), nil)
	d, _ := r.Read()
	keep := d.Clone() // five bytes; d's payload keeps a buffer of some KiB alive
	fmt.Println(keep)
	// Output: recipient 7, 5 bytes
}

// Netstrings is a Framing of "5:hello," (https://cr.yp.to/proto/netstrings.txt). It carries no recipient.
type Netstrings struct{}

func (Netstrings) Append(dst []byte, d datagram.Datagram) ([]byte, error) {
	dst = strconv.AppendInt(dst, int64(len(d.Payload)), 10)
	dst = append(dst, ':')
	dst = append(dst, d.Payload...)
	return append(dst, ','), nil
}

func (Netstrings) Next(src []byte, _ int) (d datagram.Datagram, n, need int, err error) {
	colon := bytes.IndexByte(src, ':')
	if colon < 0 && len(src) < 10 {
		return datagram.Datagram{}, 0, len(src) + 1, nil // ask for one byte more
	}
	size, err := strconv.ParseUint(string(src[:max(colon, 0)]), 10, 30)
	if err != nil {
		return datagram.Datagram{}, 0, 0, &datagram.FrameError{Err: datagram.ErrFraming, Detail: "a netstring begins with its length"}
	}
	end := colon + 1 + int(size)
	if len(src) <= end {
		return datagram.Datagram{}, 0, end + 1, nil // ask for the whole of it
	}
	if src[end] != ',' {
		return datagram.Datagram{}, 0, 0, &datagram.FrameError{Err: datagram.ErrFraming, Detail: "a netstring ends with a comma"}
	}
	return datagram.Datagram{Payload: src[colon+1 : end]}, end + 1, 0, nil
}

// A Framing of your own: netstrings.
func ExampleFraming() {
	o := &datagram.Options{Framing: Netstrings{}}

	w := datagram.NewWriter(os.Stdout, o)
	_ = w.Write(datagram.Datagram{Payload: []byte("hello")})
	_ = w.Write(datagram.Datagram{})
	_ = w.Flush()
	fmt.Println()

	r := datagram.NewReader(strings.NewReader("5:world,3:and"), o)
	for {
		d, err := r.Read()
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", d.Payload)
	}
	// Output:
	// 5:hello,0:,
	// world
	// unexpected EOF
}
