// Package protobuf is a codec of package mux for Protocol Buffers. It is a module of its own, so that who does not use it
// does not depend on them.
//
//	mux.Handle(m, 1, "job", protobuf.Codec{}, func(ctx context.Context, c *mux.Conn, j *pb.Job) error { … })
package protobuf

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
)

// Codec is a mux.Codec of pointers to generated messages.
//
// What is received takes at most what the proto package makes of it: messages lie at most Depth deep in each other, and
// no length is believed beyond the payload. A repeated message of no bytes takes two of the payload and the size of its
// struct in memory, so that a payload may take a hundred times its length: set MaxPayload accordingly.
type Codec struct {
	// Depth is how deep messages may lie in each other. 0: 100.
	Depth int
}

const defaultDepth = 100

var message = reflect.TypeFor[proto.Message]()

// Check reports whether t is a pointer to a message.
func (Codec) Check(t reflect.Type) error {
	if t.Kind() != reflect.Pointer || !t.Implements(message) {
		return fmt.Errorf("protobuf: %s is not a pointer to a generated message", t)
	}
	return nil
}

// String returns "protobuf".
func (Codec) String() string { return "protobuf" }

// Append implements mux.Codec.
func (Codec) Append(dst []byte, v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return dst, fmt.Errorf("protobuf: %T is not a message", v)
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(dst, m)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Decode implements mux.Codec. v points to a pointer to a message, which it makes.
func (c Codec) Decode(src []byte, v any) error {
	r := reflect.ValueOf(v).Elem()
	if err := c.Check(r.Type()); err != nil {
		return err
	}
	depth := c.Depth
	if depth <= 0 {
		depth = defaultDepth
	}
	m := reflect.New(r.Type().Elem())
	if err := (proto.UnmarshalOptions{RecursionLimit: depth}).Unmarshal(src, m.Interface().(proto.Message)); err != nil {
		return err
	}
	r.Set(m)
	return nil
}
