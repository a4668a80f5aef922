package mux

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// Msgpack is the Codec of MessagePack, by vmihailenco/msgpack: field names and the tag `msgpack:"name"` are its own.
// Numbers take the fewest bytes that hold them.
//
// What is received is scanned before it is decoded: one value, whole, nothing behind it, within the Limits. A type with
// decoding methods of its own, and registered extensions, are on their own within that.
type Msgpack struct{ Limits }

// Append implements Codec.
func (Msgpack) Append(dst []byte, v any) ([]byte, error) {
	e := encoders.Get().(*encoder)
	defer encoders.Put(e)
	e.enc.Reset(e)
	e.enc.UseCompactInts(true)
	e.out = dst
	err := e.enc.Encode(v)
	out := e.out
	e.out = nil
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Decode implements Codec. What breaks a limit matches ErrLimit; what is not one whole value, io.ErrUnexpectedEOF or
// another error.
func (m Msgpack) Decode(src []byte, v any) error {
	d := decoders.Get().(*decoder)
	exts, err := m.scanMsgpack(src, weightOf(reflect.TypeOf(v).Elem()), d.exts[:0])
	if err != nil {
		d.put()
		return err
	}
	d.src, d.at, d.exts, d.next = src, 0, exts, 0
	if err := d.dec.Decode(v); err != nil {
		return err // d.dec may have kept something of src: it is not used again
	}
	whole := d.at == len(src)
	d.put()
	if !whole {
		return errTrailing // a value was taken for less than it is
	}
	return nil
}

// Check reports whether MessagePack can carry t.
//
// The tag's option intern is refused: what it keeps from one value for the next would not be there. So is an embedded
// pointer to a struct, unless its tag says noinline: the library would start a goroutine that never ends for its type.
func (Msgpack) Check(t reflect.Type) error { return checkType("msgpack", t, ownsMsgpack) }

// String returns "msgpack".
func (Msgpack) String() string { return "msgpack" }

var msgpackOwn = []reflect.Type{
	reflect.TypeFor[msgpack.CustomDecoder](), reflect.TypeFor[msgpack.Unmarshaler](),
	reflect.TypeFor[encoding.BinaryUnmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
}

func ownsMsgpack(t reflect.Type) bool { return implements(t, msgpackOwn) }

var jsonOwn = []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}

func ownsJSON(t reflect.Type) bool { return implements(t, jsonOwn) }

func implements(t reflect.Type, any []reflect.Type) bool {
	for _, i := range any {
		if reflect.PointerTo(t).Implements(i) {
			return true
		}
	}
	return false
}

// encoder appends to out.
type encoder struct {
	enc *msgpack.Encoder
	out []byte
}

var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.enc = msgpack.NewEncoder(e)
	return e
}}

func (e *encoder) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), nil
}

func (e *encoder) WriteByte(b byte) error {
	e.out = append(e.out, b)
	return nil
}

// decoder reads src, and holds the library to what the scan saw: where an extension's body begins it may be read as a
// whole, and not be taken for a value. (Where the library wants a map and finds an extension, it skips the head of that
// alone, and believes whatever map its body says, unscanned.)
type decoder struct {
	dec  *msgpack.Decoder
	src  []byte
	at   int
	exts []int // where extensions' bodies begin, in order
	next int   // the first of exts that is not behind at
}

var decoders = sync.Pool{New: func() any {
	d := new(decoder)
	d.dec = msgpack.NewDecoder(d)
	return d
}}

// maxKeptExts bounds what a pooled decoder keeps.
const maxKeptExts = 64

func (d *decoder) put() {
	d.dec.Reset(d)
	d.src, d.at, d.next = nil, 0, 0
	if cap(d.exts) > maxKeptExts {
		d.exts = nil
	}
	decoders.Put(d)
}

var (
	errExtension = errors.New("msgpack: an extension where another value belongs")
	errTrailing  = errors.New("msgpack: bytes behind the value")
	errUnread    = errors.New("msgpack: nothing to take back")
)

func (d *decoder) Read(p []byte) (int, error) {
	if d.at == len(d.src) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, d.src[d.at:])
	d.at += n
	return n, nil
}

func (d *decoder) ReadByte() (byte, error) {
	if d.at == len(d.src) {
		return 0, io.EOF
	}
	for d.next < len(d.exts) && d.exts[d.next] < d.at {
		d.next++
	}
	if d.next < len(d.exts) && d.exts[d.next] == d.at {
		return 0, errExtension
	}
	d.at++
	return d.src[d.at-1], nil
}

func (d *decoder) UnreadByte() error {
	if d.at == 0 {
		return errUnread
	}
	d.at--
	return nil
}

// scanMsgpack sees that src is one whole value within l, and appends to exts where the bodies of its extensions begin.
// It takes no memory but for that, and its time is that of reading the heads of the values.
func (l Limits) scanMsgpack(src []byte, w weight, exts []int) ([]int, error) {
	c := l.count(w)
	var kept [defaultDepth]int
	open := kept[:0] // values that are still to come, of each array and map around
	left, at := 1, 0
	if err := c.add(1, w.whole); err != nil {
		return exts, err
	}
	for {
		for left == 0 {
			if len(open) == 0 {
				if at != len(src) {
					return exts, errTrailing
				}
				return exts, nil
			}
			left = open[len(open)-1]
			open = open[:len(open)-1]
		}
		left--
		if at == len(src) {
			return exts, io.ErrUnexpectedEOF
		}
		h := head(src[at:])
		if h.size == 0 {
			return exts, fmt.Errorf("msgpack: unknown code %#02x", src[at])
		}
		if h.size > len(src)-at {
			return exts, io.ErrUnexpectedEOF
		}
		at += h.size
		if h.ext {
			if h.body == 0 {
				return exts, errExtension // the library would go on with the next value
			}
			exts = append(exts, at)
		}
		// Each value has a byte at least, so that a claim costs what it claims.
		if h.body > uint64(len(src)-at) || h.values > uint64(len(src)-at) {
			return exts, io.ErrUnexpectedEOF
		}
		at += int(h.body)
		if h.values > 0 {
			each := w.inArray
			if h.pairs {
				each = w.inMap
			}
			if err := c.add(int(h.values), each); err != nil {
				return exts, err
			}
			open = append(open, left)
			left = int(h.values)
		}
		if h.nests {
			if len(open) > c.depth || h.values == 0 && len(open) >= c.depth {
				return exts, c.tooDeep()
			}
		}
	}
}
