package mux

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// Codec turns values of one type into payloads and back. One Codec serves many types, goroutines and connections at once.
//
// If it has a method Check(reflect.Type) error as well, that is asked about each type when the Mux starts; if it has a
// method String() string, the table of tags shows what that returns, else its type.
type Codec interface {
	// Append appends the encoding of v to dst and returns the longer slice. It must not keep v or dst.
	Append(dst []byte, v any) ([]byte, error)

	// Decode puts what src says into the value that v points to, which is zero. src may be a hostile peer's: Decode
	// must bound the memory, time and stack that it takes for it. It may keep src: the payload is nobody else's.
	Decode(src []byte, v any) error
}

// checker is a Codec that can tell which types it takes.
type checker interface {
	Check(reflect.Type) error
}

// Raw is the Codec of []byte, and of types that are such: the payload is the value. Received values are slices of the
// buffer that they arrived in, as those of reconnect.Reader are: a small one that is kept for long should be copied.
type Raw struct{}

// Append implements Codec.
func (Raw) Append(dst []byte, v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return append(dst, b...), nil
	}
	r := reflect.ValueOf(v)
	if err := (Raw{}).Check(r.Type()); err != nil {
		return dst, err
	}
	return append(dst, r.Bytes()...), nil
}

// Decode implements Codec. It copies nothing.
func (Raw) Decode(src []byte, v any) error {
	if b, ok := v.(*[]byte); ok {
		*b = src
		return nil
	}
	r := reflect.ValueOf(v).Elem()
	if err := (Raw{}).Check(r.Type()); err != nil {
		return err
	}
	r.SetBytes(src)
	return nil
}

// Check reports whether t is a slice of bytes.
func (Raw) Check(t reflect.Type) error {
	if t.Kind() != reflect.Slice || t.Elem().Kind() != reflect.Uint8 {
		return fmt.Errorf("raw: %s is not a slice of bytes", t)
	}
	return nil
}

// String returns "raw".
func (Raw) String() string { return "raw" }

// Text is the Codec of string, and of types that are such. What is received must be UTF-8.
type Text struct{}

var errNotUTF8 = errors.New("text: not UTF-8")

// Append implements Codec.
func (Text) Append(dst []byte, v any) ([]byte, error) {
	if s, ok := v.(string); ok {
		return append(dst, s...), nil
	}
	r := reflect.ValueOf(v)
	if err := (Text{}).Check(r.Type()); err != nil {
		return dst, err
	}
	return append(dst, r.String()...), nil
}

// Decode implements Codec.
func (Text) Decode(src []byte, v any) error {
	if !utf8.Valid(src) {
		return errNotUTF8
	}
	if s, ok := v.(*string); ok {
		*s = string(src)
		return nil
	}
	r := reflect.ValueOf(v).Elem()
	if err := (Text{}).Check(r.Type()); err != nil {
		return err
	}
	r.SetString(string(src))
	return nil
}

// Check reports whether t is a string.
func (Text) Check(t reflect.Type) error {
	if t.Kind() != reflect.String {
		return fmt.Errorf("text: %s is not a string", t)
	}
	return nil
}

// String returns "text".
func (Text) String() string { return "text" }

// JSON is the Codec of encoding/json. What is received is scanned first: nothing is decoded that breaks the Limits.
type JSON struct{ Limits }

// Append implements Codec.
func (JSON) Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	return append(dst, b...), nil
}

// Decode implements Codec. What breaks a limit matches ErrLimit.
func (j JSON) Decode(src []byte, v any) error {
	if err := j.scanJSON(src, weightOf(reflect.TypeOf(v).Elem())); err != nil {
		return err
	}
	return json.Unmarshal(src, v)
}

// Check reports whether encoding/json can take t.
func (JSON) Check(t reflect.Type) error { return checkType("json", t, ownsJSON) }

// String returns "json".
func (JSON) String() string { return "json" }

// scanJSON bounds what src can make json.Unmarshal do. It does not tell whether src is JSON.
func (l Limits) scanJSON(src []byte, w weight) error {
	c := l.count(w)
	if err := c.add(1, w.whole); err != nil {
		return err
	}
	// One value of an array comes behind its bracket, and one behind each comma; of an object, two.
	var objects [(maxDepth + 63) / 64]uint64 // a bit for each that is open
	depth, quoted := 0, false
	for i := 0; i < len(src); i++ {
		switch b := src[i]; {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[' || b == ',':
			if b != ',' {
				if depth == c.depth {
					return c.tooDeep()
				}
				bit := uint64(1) << (depth % 64)
				objects[depth/64] &^= bit
				if b == '{' {
					objects[depth/64] |= bit
				}
				depth++
			}
			n, each := 1, w.inArray
			if at := depth - 1; at >= 0 && objects[at/64]>>(at%64)&1 > 0 {
				n, each = 2, w.inMap
			}
			if err := c.add(n, each); err != nil {
				return err
			}
		case b == '}' || b == ']':
			depth = max(depth-1, 0)
		}
	}
	return nil
}
